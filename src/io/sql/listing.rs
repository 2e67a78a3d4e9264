//! What is in a running server's data directory.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::Type;

use super::client::{Client, Trouble};
use super::trouble::{column, query_failed};
use crate::cluster::{FileEntry, FileKind, Inventory, Listing};
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};
use crate::types::ClusterPath;

/// Everything below the data directory. `pg_stat_file` follows links; what vanished has no size.
const LIST: &str = "
    WITH RECURSIVE entry (path, size, isdir) AS (
        SELECT name, stat.size, stat.isdir
          FROM pg_ls_dir('.', true, false) AS name,
               LATERAL pg_stat_file(name, true) AS stat
        UNION ALL
        SELECT parent.path || '/' || name, stat.size, stat.isdir
          FROM entry AS parent,
               LATERAL pg_ls_dir(parent.path, true, false) AS name,
               LATERAL pg_stat_file(parent.path || '/' || name, true) AS stat
         WHERE parent.isdir
    )
    SELECT textsend(path), isdir, size FROM entry WHERE size IS NOT NULL";

/// Where the tablespaces with these OIDs are. Fails where one is dropped meanwhile.
const LOCATIONS: &str = "
    SELECT oid, textsend(pg_tablespace_location(oid))
      FROM unnest($1::oid[]) AS oid";

/// How often a listing is begun anew when a tablespace is dropped under it.
const ATTEMPTS: u32 = 5;
/// How long to wait before that.
const PAUSE: Duration = Duration::from_millis(200);

/// How far listings came that may have been cut: one that is cut where another was has not gone on.
#[derive(Debug)]
pub(super) struct Furthest {
    entries: usize,
    /// When that was.
    pub(super) at: Instant,
}

impl Furthest {
    /// No entry.
    pub(super) fn nothing() -> Self {
        Self { entries: 0, at: Instant::now() }
    }

    /// A listing has so many entries.
    fn come_to(&mut self, entries: usize) {
        if entries > self.entries {
            *self = Self { entries, at: Instant::now() };
        }
    }
}

/// Lists the data directory.
pub(super) fn list(client: &mut Client, progress: &dyn Progress, furthest: &mut Furthest) -> Result<Inventory> {
    progress.begin(Stage::List, None);
    let mut attempt = 1;
    let listed = loop {
        match list_once(client, progress, furthest) {
            Err(Failed::Vanished(_)) if attempt < ATTEMPTS => {
                attempt += 1;
                thread::sleep(PAUSE);
            }
            other => break other,
        }
    };
    progress.end();
    listed.map_err(|failed| match failed {
        Failed::Vanished(error) | Failed::Other(error) => error,
    })
}

/// Why a listing failed.
enum Failed {
    /// Something was there first and then was not.
    Vanished(Error),
    /// Anything else.
    Other(Error),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        let vanished = matches!(&trouble, Trouble::Engine(error) if error.code() == Some(&SqlState::UNDEFINED_FILE));
        let error = query_failed("cannot list the files of", trouble);
        if vanished { Self::Vanished(error) } else { Self::Other(error) }
    }
}

fn list_once(
    client: &mut Client,
    progress: &dyn Progress,
    furthest: &mut Furthest,
) -> std::result::Result<Inventory, Failed> {
    let mut listing = Listing::new();
    let mut by_oid = BTreeMap::new();
    let mut rows = client.query_raw(LIST)?;
    while let Some(row) = rows.next()? {
        let listed = listed(column(&row, 0)?, column(&row, 1)?, column(&row, 2)?).map_err(Failed::Other)?;
        let Some((path, entry)) = listed else { continue };
        // A directory that is written to while it is read may show a name twice.
        listing.add(&path, &entry);
        furthest.come_to(listing.len());
        progress.advance(1);
        if entry.kind == FileKind::Directory
            && let Some(oid) = tablespace(&path)
        {
            by_oid.insert(oid, path);
        }
    }
    drop(rows);
    link_tablespaces(client, &by_oid, &mut listing)?;
    Ok(listing.finish())
}

/// One line of the listing; none for what is no file. Names from outside are not trusted.
fn listed(path: &[u8], is_directory: bool, size: i64) -> Result<Option<(ClusterPath, FileEntry)>> {
    let name = || String::from_utf8_lossy(path).chars().take(200).collect::<String>();
    let checked = ClusterPath::new(path).map_err(|error| impossible(&name(), error))?;
    let kind = match u64::try_from(size) {
        _ if is_directory => FileKind::Directory,
        Ok(0) if is_server_socket(checked.file_name()) => return Ok(None),
        Ok(size) => FileKind::File { size, modified: None },
        Err(_) => return Err(impossible(&name(), format!("it has {size} bytes"))),
    };
    Ok(Some((checked, FileEntry { kind, mode: None })))
}

fn impossible(name: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::precondition(format!("the source server lists {name:?}, which cannot be in a data directory"))
        .because(why)
        .hint("check what the source's address leads to")
}

/// Whether a name is that of a server's socket, which `pg_stat_file` shows as an empty file.
fn is_server_socket(name: &[u8]) -> bool {
    name.strip_prefix(b".s.PGSQL.").is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit))
}

/// Makes symlinks of the directories in `pg_tblspc` that stand for a tablespace elsewhere. They are
/// asked for by what was listed, not by the catalog, which may know more or less by now.
fn link_tablespaces(
    client: &mut Client,
    by_oid: &BTreeMap<u32, ClusterPath>,
    listing: &mut Listing,
) -> std::result::Result<(), Failed> {
    let oids: Vec<u32> = by_oid.keys().copied().collect();
    if oids.is_empty() {
        return Ok(());
    }
    for row in client.query(LOCATIONS, &[(&oids, Type::OID_ARRAY)])? {
        let text: &[u8] = column(&row, 1)?;
        // A tablespace that is a directory itself has its own path as its location.
        if let Some(path) = by_oid.get(&column(&row, 0)?)
            && text != path.as_bytes()
            && !text.is_empty()
        {
            let kind = FileKind::Symlink { text: text.to_vec() };
            listing.add(path, &FileEntry { kind, mode: None });
        }
    }
    Ok(())
}

/// The OID of the tablespace whose link has this path.
fn tablespace(path: &ClusterPath) -> Option<u32> {
    let name = std::str::from_utf8(path.below(b"pg_tblspc")?).ok()?;
    let oid = name.parse().ok().filter(|&oid: &u32| oid > 0)?;
    (oid.to_string() == name).then_some(oid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_listing_goes_on_only_beyond_those_before() {
        let mut furthest = Furthest::nothing();
        furthest.come_to(5);
        let at = furthest.at;
        for entries in 1..=5 {
            furthest.come_to(entries);
            assert_eq!((furthest.entries, furthest.at), (5, at));
        }
        furthest.come_to(6);
        assert!(furthest.entries == 6 && furthest.at >= at);
    }

    #[test]
    fn tablespaces_are_recognised_by_their_exact_path() {
        let oid = |path: &str| tablespace(&ClusterPath::new(path.as_bytes()).unwrap());
        assert_eq!(oid("pg_tblspc/16400"), Some(16400));
        for other in [
            "pg_tblspc",
            "pg_tblspc/0",
            "pg_tblspc/+1",
            "pg_tblspc/01",
            "pg_tblspc/1/1",
            "pg_tblspc/4294967296",
            "base/1",
        ] {
            assert_eq!(oid(other), None, "{other}");
        }
    }

    #[test]
    fn names_and_sizes_are_not_trusted() {
        let (path, entry) = listed(b"base/5/1", false, 8192).unwrap().unwrap();
        assert_eq!((path.to_string().as_str(), entry.size()), ("base/5/1", Some(8192)));
        assert_eq!(listed(b"base", true, 4096).unwrap().unwrap().1.kind, FileKind::Directory);
        assert_eq!(listed(b".s.PGSQL.5432", false, 0).unwrap(), None);
        let long = [b'x'; 256];
        let hostile: [&[u8]; 9] =
            [b"../etc/passwd", b"base/../../x", b"/etc/passwd", b"", b".", b"a//b", b"a/", b"a\0b", &long];
        for name in hostile {
            for is_directory in [true, false] {
                let error = listed(name, is_directory, 1).unwrap_err();
                assert_eq!((error.kind(), error.hints().len()), (ErrorKind::Precondition, 1), "{name:?}");
            }
        }
        assert!(listed(b"base/5/1", false, -1).is_err());
    }

    #[test]
    fn sockets_are_told_by_their_names() {
        assert!(is_server_socket(b".s.PGSQL.5432"));
        for other in [".s.PGSQL.5432.lock", ".s.PGSQL.", "s.PGSQL.5432", ".s.PGSQL.x"] {
            assert!(!is_server_socket(other.as_bytes()), "{other}");
        }
    }
}
