//! The command that makes a plan anew.

use super::model::{Manifest, ObtainedFrom, PathRuleKind};
use crate::cluster::SourceKind;
use crate::format::Major;
use crate::types::LinkText;

/// The command line that made this plan, as far as the document tells, for a shell; `plan.json` is where it writes to.
#[must_use]
pub fn plan_command(manifest: &Manifest) -> String {
    let mut words: Vec<Vec<u8>> = vec![b"pg_unfork".to_vec(), b"plan".to_vec(), b"-D".to_vec()];
    words.push(manifest.target.directory.as_bytes().to_vec());
    let source: &[u8] = match manifest.source.kind {
        SourceKind::StoppedDirectory => b"--source-pgdata",
        SourceKind::LiveServer => b"--source-server",
    };
    words.extend([source.to_vec(), address(manifest)]);
    if manifest.recovery.is_some() {
        words.push(b"-R".to_vec());
    }
    let obtained = manifest.wal.iter().flat_map(|wal| &wal.obtained);
    if obtained.into_iter().any(|segment| segment.from == ObtainedFrom::RestoreCommand) {
        words.push(b"-c".to_vec());
    }
    for rule in &manifest.rules {
        let option: &[u8] = match rule.kind {
            PathRuleKind::ConfigPolicy => b"--config-policy",
            PathRuleKind::Exclude => b"--exclude",
            PathRuleKind::Keep => b"--keep",
            PathRuleKind::TablespaceMapping => b"--tablespace-mapping",
            PathRuleKind::LogDirectory => continue,
        };
        words.extend([option.to_vec(), rule.rule.clone().into_bytes()]);
    }
    let major = Major::ALL.into_iter().find(|major| major.number() == manifest.target.major);
    if major.is_some_and(|major| !major.facts().released) {
        words.push(b"--allow-unreleased".to_vec());
    }
    words.extend([b"-o".to_vec(), b"plan.json".to_vec()]);
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

/// The directory's bytes, or the connection settings.
fn address(manifest: &Manifest) -> Vec<u8> {
    let text = manifest.source.address.clone();
    match (manifest.source.kind, LinkText::try_from(text.clone())) {
        (SourceKind::StoppedDirectory, Ok(path)) => path.as_bytes().to_vec(),
        _ => text.into_bytes(),
    }
}

/// A word as a shell takes it. Bytes that are not UTF-8 are shown as such, and do not come back.
#[must_use]
pub fn shell_word(bytes: &[u8]) -> String {
    let quoted = shlex::bytes::try_quote(bytes);
    quoted.map_or_else(|_| "?".to_owned(), |word| String::from_utf8_lossy(&word).into_owned())
}
