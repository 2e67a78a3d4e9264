//! Manifests: nobody can forge a digest by chance, so what has a manifest's shape is given its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_unfork::manifest::{Manifest, digest_of, parse, to_json, validate};
use pg_unfork::report::{Layout, MARKDOWN_LIMIT, html, markdown, summary};

fuzz_target!(|data: &[u8]| {
    let digest = digest_of(data);
    if let Ok(read) = parse(&data.to_vec()) {
        assert_eq!(Some(&read.digest), digest.as_ref().ok());
    }
    let Ok(mut manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    // Numbers that JSON readers cannot count are not written.
    let Ok(document) = to_json(&mut manifest) else { return };
    assert_eq!(digest_of(&*document).ok().as_ref(), Some(&manifest.digest));
    if manifest.format_version.split('.').next() == Some("1") {
        let read = parse(&document).expect("what was written is read");
        assert_eq!(read, manifest);
        assert_eq!(validate(&read), validate(&manifest));
    }
    let mut again = manifest.clone();
    assert_eq!(to_json(&mut again).expect("written before"), document);
    let _ = summary(&manifest, Some("plan.json"), Layout { colour: true, width: Some(60) });
    assert!(markdown(&manifest, None).len() <= MARKDOWN_LIMIT);
    let _ = html(&manifest, None);
});
