//! What of the target is neither file nor directory.

use std::collections::HashMap;

use super::{finding, with_lines};
use crate::cluster::Inventory;
use crate::cluster::rules::{holds_data, is_tablespace_link};
use crate::manifest::{Action, ActionKind, Check, CheckStatus};
use crate::types::{ClusterPath, LinkText};

/// `special_files`: sockets, named pipes and devices in the target, which a plan does not see, and symlinks other than
/// those of `pg_wal` and tablespaces, which it does not follow: what becomes of each. Fails where one is in the way of a
/// directory or a link.
#[must_use]
pub fn special_files(target: &Inventory, actions: &[Action]) -> Check {
    let links: Vec<(ClusterPath, Vec<u8>)> = target.links().filter(|(path, _)| !is_tablespace_link(path)).collect();
    let special = target.special();
    if links.is_empty() && special.is_empty() {
        let detail = "the target has only files, directories and links that are followed".to_owned();
        return finding("special_files", CheckStatus::Pass, detail, None);
    }
    let actions: HashMap<&[u8], &Action> = actions.iter().map(|action| (action.path.as_bytes(), action)).collect();
    let mut evidence: Vec<String> =
        special.iter().map(|(path, kind)| format!("{path}: {}, {}", kind.words(), fate(path, &actions))).collect();
    let in_the_way = special.iter().any(|(path, _)| is_in_the_way(path, &actions));
    let mut doubtful = !special.is_empty();
    for (path, text) in links {
        let is_removed = actions.contains_key(path.as_bytes());
        let hides = holds_data(&path);
        doubtful = doubtful || is_removed || hides;
        let fate = match (is_removed, hides) {
            (true, _) => "is removed; what it leads to stays",
            (false, true) => "is not followed: data behind it is not rewound",
            (false, false) => "is not followed, and stays as it is",
        };
        evidence.push(format!("{path} -> {}: {fate}", LinkText::new(&text)));
    }
    let detail = format!("sockets, named pipes, devices and symlinks in the target: {}", evidence.len());
    let remedy = "take out of the data directory what PostgreSQL has not put there; replace by a mount a symlink behind which \
                  data is";
    let status = match (in_the_way, doubtful) {
        (true, _) => CheckStatus::Fail,
        (false, true) => CheckStatus::Warn,
        (false, false) => CheckStatus::Pass,
    };
    let remedy = (status != CheckStatus::Pass).then_some(remedy);
    with_lines(finding("special_files", status, detail, remedy), evidence, Vec::new())
}

/// Whether an apply would fail to make a directory or a link where something is that no plan sees.
fn is_in_the_way(path: &ClusterPath, actions: &HashMap<&[u8], &Action>) -> bool {
    let makes = |action: &&Action| matches!(action.kind, ActionKind::CreateDirectory | ActionKind::CreateSymlink);
    actions.get(path.as_bytes()).is_some_and(makes)
}

/// What becomes of a path that no plan sees.
fn fate(path: &ClusterPath, actions: &HashMap<&[u8], &Action>) -> &'static str {
    let goes = |directory: &[u8]| actions.get(directory).is_some_and(|action| action.kind == ActionKind::Remove);
    if is_in_the_way(path, actions) {
        "is in the way of what the source has there"
    } else if actions.contains_key(path.as_bytes()) {
        "is replaced by what the source has there"
    } else if path.directories().any(goes) {
        "stays, and keeps its directory from being removed"
    } else {
        "stays as it is"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::samples::{action, inventory, path};
    use crate::cluster::{Listing, SpecialFile};

    #[test]
    fn what_becomes_of_each() {
        use ActionKind::{CopyFile, Remove};
        let none = special_files(&inventory(&["a", "pg_tblspc/1 -> /ts"]), &[]);
        assert_eq!((none.status, none.evidence.len()), (CheckStatus::Pass, 0));
        let cases = [
            ("log -> /log", None, CheckStatus::Pass, "log -> /log: is not followed, and stays as it is"),
            (
                "log -> /log",
                Some(("log", Remove)),
                CheckStatus::Warn,
                "log -> /log: is removed; what it leads to stays",
            ),
            ("pg_xact -> /x", None, CheckStatus::Warn, "pg_xact -> /x: is not followed: data behind it is not rewound"),
        ];
        for (entry, changed, status, evidence) in cases {
            let changed = changed.map(|(path, kind)| action(path, kind));
            let found = special_files(&inventory(&[entry]), changed.as_slice());
            assert_eq!((found.status, found.evidence), (status, vec![evidence.to_owned()]));
            assert_eq!(found.remedy.is_some(), status == CheckStatus::Warn);
        }
        let mut listing = Listing::new();
        listing.note(path("x/s"), SpecialFile::Socket);
        listing.note(path("d"), SpecialFile::Device);
        listing.note(path("p\u{7}"), SpecialFile::Fifo);
        let found = special_files(&listing.finish(), &[action("d", CopyFile), action("x", Remove)]);
        assert_eq!(found.status, CheckStatus::Warn);
        let evidence = [
            "d: device, is replaced by what the source has there",
            "p%07: named pipe, stays as it is",
            "x/s: socket, stays, and keeps its directory from being removed",
        ];
        assert_eq!(found.evidence, evidence);
        let mut listing = Listing::new();
        listing.note(path("s"), SpecialFile::Socket);
        let found = special_files(&listing.finish(), &[action("s", ActionKind::CreateDirectory)]);
        assert_eq!(found.status, CheckStatus::Fail);
        assert_eq!(found.evidence, ["s: socket, is in the way of what the source has there"]);
    }
}
