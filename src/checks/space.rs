//! Room on the file systems.

use super::{finding, with_lines};
use crate::manifest::{Check, CheckStatus};

/// What a plan needs on one file system, and what is free there. In bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on it, for people.
    pub shown: String,
    /// What this user may still write there.
    pub free: u64,
    /// What is needed where nothing is kept for an undo.
    pub without_undo: u64,
    /// What is needed where all is.
    pub with_undo: u64,
}

/// `space`: whether each file system has room for what the plan writes there. Only where it has not is what is free
/// said: that differs from plan to plan.
#[must_use]
pub fn space(rooms: &[Room]) -> Check {
    let short = |needed: fn(&Room) -> u64| rooms.iter().filter(move |room| needed(room) > room.free);
    let lines = |needed: fn(&Room) -> u64, what: &str| -> Vec<String> {
        let line = |room: &Room| format!("{}: {} bytes are free, {what} needs {}", room.shown, room.free, needed(room));
        short(needed).map(line).collect()
    };
    let (growth, undo) = (
        lines(|room| room.without_undo, "the plan"),
        lines(|room| room.with_undo, "the plan with what is kept for an undo"),
    );
    let (status, detail, remedy, evidence) = if !growth.is_empty() {
        let remedy = "make room on these file systems, then plan again";
        (CheckStatus::Fail, "there is no room for the plan", Some(remedy), growth)
    } else if !undo.is_empty() {
        let remedy = "make room, or apply with --no-undo: the target can then not be put back as it was";
        (CheckStatus::Warn, "there is no room for what is kept for an undo", Some(remedy), undo)
    } else {
        let needed = |room: &Room| {
            format!("{}: {} bytes, {} with what is kept for an undo", room.shown, room.without_undo, room.with_undo)
        };
        (
            CheckStatus::Pass,
            "each file system has room for the plan and for an undo",
            None,
            rooms.iter().map(needed).collect(),
        )
    };
    with_lines(finding("space", status, detail.to_owned(), remedy), evidence, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_a_must_and_an_undo_is_none() {
        let room = |free| Room { shown: "/data".to_owned(), free, without_undo: 100, with_undo: 200 };
        let cases = [
            (vec![], CheckStatus::Pass, ""),
            (vec![room(200)], CheckStatus::Pass, "/data: 100 bytes, 200 with what is kept for an undo"),
            (
                vec![room(500), room(199)],
                CheckStatus::Warn,
                "/data: 199 bytes are free, the plan with what is kept for an undo needs 200",
            ),
            (
                vec![room(100)],
                CheckStatus::Warn,
                "/data: 100 bytes are free, the plan with what is kept for an undo needs 200",
            ),
            (vec![room(150), room(99)], CheckStatus::Fail, "/data: 99 bytes are free, the plan needs 100"),
        ];
        for (rooms, status, evidence) in cases {
            let found = space(&rooms);
            assert_eq!((found.status, found.evidence.first().map_or("", String::as_str)), (status, evidence));
            assert_eq!(found.remedy.is_some(), status != CheckStatus::Pass);
        }
    }
}
