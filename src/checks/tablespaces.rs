//! Where the links of tablespaces lead, and are to lead.

use super::{finding, with_lines};
use crate::cluster::{FileKind, Inventory};
use crate::manifest::{Check, CheckStatus, Root};
use crate::types::plain;

/// What the check looks at.
#[derive(Clone, Copy, Debug)]
pub struct Tablespaces<'a> {
    /// The target's links.
    pub roots: &'a [Root],
    /// What the source has.
    pub source: &'a Inventory,
    /// How many links are new.
    pub new: usize,
    /// Why links cannot be followed or made, a sentence each.
    pub problems: &'a [String],
}

/// `tablespaces`: whether all links lead where data can be written. A new one's location must be there, ours, empty, and
/// outside of everything else. A link that both sides have stays the target's: where it leads elsewhere is said.
#[must_use]
pub fn tablespaces(facts: &Tablespaces<'_>) -> Check {
    if let Some((first, rest)) = facts.problems.split_first() {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        let detail = format!("{}{more}", plain(first));
        let remedy = "give each new tablespace an empty directory of its own, owned by this user, outside of the data \
                      directory; mount or restore what belongs to the others; then plan again";
        let check = finding("tablespaces", CheckStatus::Fail, detail, Some(remedy));
        return with_lines(check, facts.problems.to_vec(), Vec::new());
    }
    let moved: Vec<String> = facts.roots.iter().filter_map(|root| moved(root, facts.source)).collect();
    let elsewhere = match moved.len() {
        0 => String::new(),
        count => format!(", {count} of them elsewhere than on the source"),
    };
    let count = facts.roots.iter().filter(|root| root.path.below(b"pg_tblspc").is_some()).count();
    let detail = format!("links of tablespaces: the target has {count}{elsewhere}; {} new", facts.new);
    with_lines(finding("tablespaces", CheckStatus::Pass, detail, None), moved, Vec::new())
}

/// How a link of the target differs from the source's; none where it does not, or only one of them has it.
fn moved(root: &Root, source: &Inventory) -> Option<String> {
    match source.get(&root.path)?.kind {
        FileKind::Symlink { text } if text != root.link.as_bytes() => {
            let theirs = crate::types::LinkText::new(&text);
            Some(format!("{} leads to {}, on the source to {theirs}: it stays", root.path, root.link))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::checks::samples::{inventory, path};
    use crate::types::LinkText;

    #[test]
    fn links_of_both_sides() {
        let root = |name: &str, text: &str| Root { link: LinkText::new(text.as_bytes()), path: path(name) };
        let roots =
            [root("pg_tblspc/1", "/a"), root("pg_tblspc/2", "/b"), root("pg_tblspc/3", "/c"), root("pg_wal", "/w")];
        let source = inventory(&["pg_tblspc/1 -> /a", "pg_tblspc/2 -> /\u{1b}b2", "pg_wal/"]);
        let facts = Tablespaces { roots: &roots, source: &source, new: 1, problems: &[] };
        let found = tablespaces(&facts);
        assert_eq!(found.status, CheckStatus::Pass);
        assert_eq!(
            found.detail,
            "links of tablespaces: the target has 3, 1 of them elsewhere than on the source; 1 new"
        );
        assert_eq!(found.evidence, ["pg_tblspc/2 leads to /b, on the source to /%1Bb2: it stays"]);
        let problems = ["one".to_owned(), "two".to_owned()];
        let found = tablespaces(&Tablespaces { problems: &problems, ..facts });
        assert_eq!((found.status, found.detail.as_str()), (CheckStatus::Fail, "one, and 1 more"));
        assert_eq!((found.evidence, found.remedy.is_some()), (problems.to_vec(), true));
    }
}
