//! WAL of the target that goes although no archive has it.

use std::collections::BTreeMap;

use super::{finding, with_lines};
use crate::cluster::Inventory;
use crate::manifest::{Action, ActionKind, Check, CheckStatus, shell_word};
use crate::types::{ClusterPath, LinkText};

/// `unarchived_wal`: files of the target's `pg_wal` that are marked for the archiver (`.ready`) and removed or
/// replaced, or lose that mark; and segments cut short by a promotion (`.partial`) that are not known to be archived.
///
/// A mark of the source does not count: a standby has marked as archived what it had never to archive. No mark counts where
/// nothing is archived (`archives`): Patroni recovers such a target in a way that marks its WAL all the same.
#[must_use]
pub fn unarchived_wal(actions: &[Action], target: &Inventory, directory: &LinkText, archives: bool) -> Check {
    if !archives {
        let detail = "the target's archive_mode is off".to_owned();
        return finding("unarchived_wal", CheckStatus::Pass, detail, None);
    }
    let mut fates: BTreeMap<&[u8], (&Action, &str)> = BTreeMap::new();
    for action in actions.iter().filter(|action| action.before.is_some()) {
        let Some(name) = action.path.below(b"pg_wal") else { continue };
        if let Some(name) = name.strip_prefix(b"archive_status/").and_then(|status| status.strip_suffix(b".ready")) {
            if has(target, b"", name) {
                fates.entry(name).or_insert((action, "stays, but will not be marked for the archiver any more"));
            }
        } else if has(target, b".ready", name) || (name.ends_with(b".partial") && !has(target, b".done", name)) {
            let fate = if action.kind == ActionKind::Remove { "is removed" } else { "is replaced by the source's" };
            fates.insert(name, (action, fate));
        }
    }
    if fates.is_empty() {
        let detail = "no WAL goes that the target has not archived".to_owned();
        return finding("unarchived_wal", CheckStatus::Pass, detail, None);
    }
    let shown = |name: &[u8]| LinkText::new(name).to_string();
    let evidence = fates.iter().map(|(name, (_, fate))| format!("{} {fate}", shown(name))).collect();
    let detail = format!(
        "WAL of the target that no archive is known to have: {} {}",
        fates.len(),
        if fates.len() == 1 { "file" } else { "files" }
    );
    let remedy = "run the target's archive_command (ARCHIVE_COMMAND below) for each, from the data directory, with pg_wal/$f for %p \
                  and $f for %f; rename its .ready in pg_wal/archive_status to .done; then plan again. What is removed or \
                  replaced is kept in .pg_unfork/undo until pg_unfork clean, but not with --no-undo";
    let data = shell_word(directory.as_bytes());
    let names: Vec<String> = fates.keys().map(|name| shell_word(shown(name).as_bytes())).collect();
    let archive = names.chunks(FILES).map(|names| {
        let status = "pg_wal/archive_status/$f";
        format!(
            "cd {data} && for f in {}; do ARCHIVE_COMMAND && mv \"{status}.ready\" \"{status}.done\"; done",
            names.join(" ")
        )
    });
    let commands = std::iter::once(format!("postgres -D {data} -C archive_command")).chain(archive).collect();
    with_lines(finding("unarchived_wal", CheckStatus::Warn, detail, Some(remedy)), evidence, commands)
}

/// How many files a command names.
const FILES: usize = 100;

/// Whether the target has a file in `pg_wal`, or with a suffix in `pg_wal/archive_status`.
fn has(target: &Inventory, suffix: &[u8], name: &[u8]) -> bool {
    let directory: &[u8] = if suffix.is_empty() { b"pg_wal/" } else { b"pg_wal/archive_status/" };
    let path = ClusterPath::new(&[directory, name, suffix].concat());
    path.is_ok_and(|path| target.get(&path).is_some_and(|entry| entry.size().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::samples::{action, inventory};

    const ONE: &str = "000000010000000000000001";

    fn checked(files: &[&str], actions: &[(&str, ActionKind)]) -> Check {
        let actions: Vec<Action> = actions.iter().map(|(path, kind)| action(path, *kind)).collect();
        unarchived_wal(&actions, &inventory(files), &LinkText::new(b"/it's"), true)
    }

    #[test]
    fn marks_mean_nothing_where_nothing_is_archived() {
        let segment = format!("pg_wal/{ONE}");
        let (actions, files) = (
            [action(&segment, ActionKind::Remove)],
            inventory(&[&segment, &format!("pg_wal/archive_status/{ONE}.ready")]),
        );
        let found = |archives| unarchived_wal(&actions, &files, &LinkText::new(b"/"), archives).status;
        assert_eq!((found(false), found(true)), (CheckStatus::Pass, CheckStatus::Warn));
    }

    #[test]
    fn what_goes_unarchived() {
        use ActionKind::{CopyFile, Remove};
        let segment = format!("pg_wal/{ONE}");
        let (ready, done) = (format!("pg_wal/archive_status/{ONE}.ready"), format!("pg_wal/archive_status/{ONE}.done"));
        let partial = format!("{segment}.partial");
        let partial_done = format!("pg_wal/archive_status/{ONE}.partial.done");
        let history = "pg_wal/00000002.history";
        let history_ready = "pg_wal/archive_status/00000002.history.ready";
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, ActionKind)], Vec<String>);
        let cases: [Case<'_>; 10] = [
            (&[&segment, &ready], &[], vec![]),
            (&[&segment, &ready], &[(&segment, Remove), (&ready, Remove)], vec![format!("{ONE} is removed")]),
            (&[&segment, &ready], &[(&ready, Remove), (&segment, Remove)], vec![format!("{ONE} is removed")]),
            (&[&segment, &ready], &[(&segment, CopyFile)], vec![format!("{ONE} is replaced by the source's")]),
            (
                &[&segment, &ready],
                &[(&ready, Remove)],
                vec![format!("{ONE} stays, but will not be marked for the archiver any more")],
            ),
            (&[&segment, &done], &[(&segment, Remove), (&done, Remove)], vec![]),
            (&[&ready], &[(&ready, Remove)], vec![]),
            (&[&partial], &[(&partial, Remove)], vec![format!("{ONE}.partial is removed")]),
            (&[&partial, &partial_done], &[(&partial, Remove)], vec![]),
            (&[history, history_ready], &[(history, Remove)], vec!["00000002.history is removed".to_owned()]),
        ];
        for (files, actions, evidence) in cases {
            let found = checked(files, actions);
            assert_eq!(found.evidence, evidence, "{files:?} {actions:?}");
            assert_eq!(found.status == CheckStatus::Warn, !evidence.is_empty());
        }
        let found = checked(&[&segment, &ready], &[(&segment, Remove)]);
        assert_eq!(found.commands.first().map(String::as_str), Some("postgres -D \"/it's\" -C archive_command"));
        assert!(found.commands.last().is_some_and(|command| command.contains(&format!("for f in {ONE}; do"))));
    }
}
