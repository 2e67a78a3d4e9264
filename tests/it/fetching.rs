//! What a sink sees of a live source: the same bytes in the same order, on one connection or many, whatever happens.

use std::cell::RefCell;
use std::fs;
use std::time::Duration;

use pg_unfork::cluster::{Request, Sink, Source};
use pg_unfork::error::{Error, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{Load, Patience, SqlSource};
use pg_unfork::types::ClusterPath;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::cluster::{Cluster, InitOptions};
use crate::support::relay::{Fault, Relay};
use crate::support::servers::Major;

/// Files to read from, and their sizes. The second is read through a name that is no text.
const FILES: [(&[u8], usize); 4] = [(b"one", 9 << 20), (b"t\xffwo", 700_000), (b"three", 8192), (b"empty", 0)];

/// Notes what is delivered.
#[derive(Default, Debug, PartialEq, Eq)]
struct Notes {
    /// By request: whether its file was gone, and the bytes.
    delivered: Vec<(usize, bool, Vec<u8>)>,
    /// Where the last bytes ended.
    end: u64,
}

impl Sink for Notes {
    fn bytes(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<()> {
        match self.delivered.last_mut() {
            Some((last, false, bytes)) if *last == index => {
                assert_eq!(offset, self.end);
                bytes.extend(data);
            }
            last => {
                assert!(last.is_none_or(|(last, _, _)| *last < index));
                self.delivered.push((index, false, data.to_vec()));
            }
        }
        self.end = offset + data.len() as u64;
        Ok(())
    }

    fn file(&mut self, _: usize, _: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        Err(Error::failure("a server has no files to hand out"))
    }

    fn gone(&mut self, index: usize) -> Result<()> {
        self.delivered.push((index, true, Vec::new()));
        Ok(())
    }
}

fn bytes_of(file: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * (file + 7) / 3 + at / 8192) as u8).collect()
}

fn path_of(cluster: &Cluster, name: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    cluster.path(std::ffi::OsStr::from_bytes(name))
}

fn request(file: usize, offset: u64, length: Option<u64>) -> Request {
    let name = FILES.get(file).map_or(&b"none"[..], |(name, _)| name);
    Request { path: ClusterPath::new(name).unwrap(), offset, length, expected: 0 }
}

/// What must be delivered.
fn expected(requests: &[(usize, u64, Option<u64>)]) -> Vec<(usize, bool, Vec<u8>)> {
    let answer = |(index, (file, offset, length)): (usize, &(usize, u64, Option<u64>))| {
        let Some((_, size)) = FILES.get(*file) else { return (index, true, Vec::new()) };
        let bytes = bytes_of(*file, *size);
        let from = (*offset as usize).min(*size);
        let to = length.map_or(*size, |length| (from + length as usize).min(*size));
        (index, false, bytes[from..to].to_vec())
    };
    requests.iter().enumerate().map(answer).collect()
}

fn connect(conninfo: &str, jobs: usize, rate: Option<&str>) -> SqlSource {
    let conninfo = ConnInfo::resolve(conninfo, &Environment::of_process()).unwrap();
    let patience = Patience { timeout: Duration::from_secs(60), interrupt: Interrupt::new() };
    SqlSource::connect(conninfo, patience, Load::new(Some(jobs), rate.map(|rate| rate.parse().unwrap()))).unwrap()
}

/// Notes what is delivered, and has room for so much of it.
struct Limited {
    notes: Notes,
    most: u64,
}

impl Sink for Limited {
    fn bytes(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<()> {
        if offset > self.most { Err(Error::failure("it does not end")) } else { self.notes.bytes(index, offset, data) }
    }

    fn file(&mut self, index: usize, file: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        self.notes.file(index, file)
    }

    fn gone(&mut self, index: usize) -> Result<()> {
        self.notes.gone(index)
    }
}

/// Makes the file `one` grow: whenever it is read, there is as much as was asked for.
const GROW: &str = "
    ALTER FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) RENAME TO read_really;
    CREATE FUNCTION pg_catalog.pg_read_binary_file(path text, start bigint, length bigint, missing_ok boolean)
    RETURNS bytea LANGUAGE sql AS $$
        SELECT CASE path WHEN 'one' THEN decode(repeat('2e', length::int), 'hex')
                         ELSE pg_catalog.read_really(path, start, length, missing_ok) END
    $$";

/// A log grows faster than it is read, if it tells of each query: it is read to some end all the same.
#[test]
fn a_file_that_grows_all_the_time() {
    let cluster = Cluster::initdb(Major(16), &InitOptions::default());
    fs::write(path_of(&cluster, b"one"), [b'.'; 8192]).unwrap();
    fs::write(path_of(&cluster, b"three"), bytes_of(2, 8192)).unwrap();
    cluster.append_config("allow_system_table_mods = on\n");
    cluster.start();
    let user = cluster.sql("postgres", "SELECT current_user");
    let _ = cluster.sql("postgres", GROW);
    let mut source = connect(&cluster.conninfo("postgres", &user), 1, None);
    let mut sink = Limited { notes: Notes::default(), most: 1 << 20 };
    source.fetch(&[request(0, 0, None), request(2, 0, None)], &mut sink).unwrap();
    let [(0, false, grown), (1, false, other)] = &sink.notes.delivered[..] else { panic!("two files are there") };
    assert!(grown.len() > 8192 && grown.iter().all(|&byte| byte == b'.'));
    assert!(*other == bytes_of(2, 8192));
}

#[test]
fn all_is_delivered_in_order_on_any_number_of_connections() {
    let cluster = Cluster::initdb(Major(18), &InitOptions::default());
    for (file, (name, size)) in FILES.into_iter().enumerate() {
        fs::write(path_of(&cluster, name), bytes_of(file, size)).unwrap();
    }
    cluster.start();
    let relay = Relay::new(&[(&cluster, Fault::CutAfter(2_500_000))]);
    let user = cluster.sql("postgres", "SELECT current_user");
    let direct = cluster.conninfo("postgres", &user);
    let sources = RefCell::new([
        connect(&direct, 1, None),
        connect(&direct, 4, None),
        connect(&direct, 3, Some("256M")),
        connect(&relay.conninfo(&user), 1, None),
        connect(&relay.conninfo(&user), 4, None),
    ]);
    let length = prop_oneof![
        4 => (0..4_u64).prop_map(|blocks| Some(blocks * 8192)),
        2 => (0..1_500_000_u64).prop_map(Some),
        1 => Just(None),
    ];
    let one = (prop_oneof![8 => Just(0_usize), 1 => 1..5_usize], 0..1200_u64, length);
    let sorted = prop::collection::vec(one, 0..40).prop_map(|mut requests| {
        requests.sort_by_key(|(file, block, _)| (*file, *block));
        requests.into_iter().map(|(file, block, length)| (file, block * 8192, length)).collect::<Vec<_>>()
    });
    let config = Config { cases: 8, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&sorted, |asked| {
        let requests: Vec<_> = asked.iter().map(|(file, offset, length)| request(*file, *offset, *length)).collect();
        let expected = expected(&asked);
        for source in sources.borrow_mut().iter_mut() {
            let mut notes = Notes::default();
            source.fetch(&requests, &mut notes).unwrap();
            prop_assert!(notes.delivered == expected, "{requests:?}");
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(relay.connections() > 2, "{}", relay.connections());
}
