//! Listings of sources: bytes as they are. A digest is never right by chance, so what has a listing's shape is given its
//! own, and then asked what a plan would ask.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_unfork::cluster::{ClusterReader, Comparison, LocalFiles, ReadAt, Source};
use pg_unfork::error::Result;
use pg_unfork::listing::{ListedSource, ListingError, SourceListing, parse, to_json};
use pg_unfork::manifest::digest_of;
use pg_unfork::progress::Silent;
use pg_unfork::types::ClusterPath;

/// A target whose files are all the same.
struct Target;

impl LocalFiles for Target {
    fn read_file(&self, _: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>> {
        Ok(Some(Box::new(vec![0; 16384])))
    }
}

fn ask(listing: SourceListing) {
    let mut source = ListedSource::new(listing);
    assert_eq!(source.control_file().expect("at hand").len(), 8192);
    let _ = source.position();
    let inventory = source.list(&Silent).expect("at hand");
    let files: Vec<Comparison> = inventory
        .iter()
        .filter_map(|(path, entry)| Some((path, entry.size()?)))
        .flat_map(|(path, length)| {
            [None, Some(8192)].map(|block| Comparison { path: path.clone(), length: length.min(16384), block })
        })
        .collect();
    assert_eq!(source.compare(&files, &Target, &Silent).expect("compared").len(), files.len());
    for (path, _) in inventory.iter() {
        source.holds(&path, 0, b"").expect("known or not");
        source.read_small(&path).expect("known or not");
    }
}

fuzz_target!(|data: &[u8]| {
    let digest = digest_of(data);
    if let Ok(read) = parse(&data.to_vec()) {
        assert_eq!(Some(&read.digest), digest.as_ref().ok());
    }
    let Ok(mut listing) = serde_json::from_slice::<SourceListing>(data) else { return };
    // Numbers that JSON readers cannot count are not written.
    let Ok(document) = to_json(&mut listing) else { return };
    assert_eq!(digest_of(&*document).ok().as_ref(), Some(&listing.digest));
    match parse(&document) {
        Ok(read) => {
            assert_eq!(read, listing);
            ask(read);
        }
        Err(ListingError::Contradiction(_) | ListingError::Version { .. }) => {}
        Err(error) => panic!("what was written is not read: {error}"),
    }
});
