//! What the fuzz targets begin with: small pieces of what real servers and the program wrote.
//!
//! `PG_UNFORK_UPDATE_SEEDS=DIRECTORY cargo test --release --test it fuzz_seeds` makes them anew; they
//! belong in `fuzz/seeds`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pg_unfork::apply::bytes_journaled;
use pg_unfork::cluster::ReadAt;
use pg_unfork::error::Result;
use pg_unfork::format::wal::{Start, WalFormat, WalReader};
use pg_unfork::format::{ControlFile, parse_history};
use pg_unfork::listing;
use pg_unfork::manifest::{self, Manifest};
use pg_unfork::types::{Lsn, TimelineId};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::for_each_major;
use crate::support::offline::{Listing, signed};
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;

for_each_major!(seeds);

/// Bytes of a control file that say something.
const CONTROL_FILE_BEGINNING: usize = 320;
const PAGE: usize = 8192;

/// The stored seeds of a major are what they should be.
fn seeds(major: Major) {
    if let Some(directory) = std::env::var_os("PG_UNFORK_UPDATE_SEEDS") {
        write_seeds(major, Path::new(&directory));
    }
    let control = stored("control_history_label", "control", major);
    let [mode, index, control @ ..] = &control[..] else { panic!("a control file") };
    assert_eq!((*mode, usize::from(*index)), (1, major.index()));
    let mut control = control.to_vec();
    control.resize(PAGE, 0);
    let format = WalFormat::of(&ControlFile::parse(&control).unwrap());
    assert_eq!(format.facts.major.number(), u32::from(major.0));

    let history = stored("control_history_label", "history", major);
    assert_eq!(parse_history(&history[2..], TimelineId::new(2)).unwrap().entries().len(), 2);

    let wal = stored("wal", "page", major);
    assert_eq!((usize::from(wal[0]), wal[1], wal.len()), (major.index(), 0, 2 + PAGE));
    assert!(variety(format, &wal[2..]) > 5);

    let document = stored("manifest", "plan", major);
    let plan = manifest::parse(&document).unwrap();
    assert!(manifest::validate(&plan).is_empty() && plan.actions.len() > 5);

    let listing = listing::parse(&stored("listing", "source", major)).unwrap();
    assert!(listing.entries.inventory.iter().any(|(path, _)| listing.entries.digests(&path).is_some()));
}

fn stored(target: &str, name: &str, major: Major) -> Vec<u8> {
    let seeds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let path = seeds.join(target).join(format!("{name}_{major}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write_seeds(major: Major, directory: &Path) {
    let pair = Pair::shared(major);
    let write = |target: &str, name: &str, content: &[u8]| {
        let directory = directory.join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name}_{major}")), content).unwrap();
    };
    let index = major.index() as u8;
    let control = fs::read(pair.target.path("global/pg_control")).unwrap();
    write("control_history_label", "control", &[&[1, index][..], &control[..CONTROL_FILE_BEGINNING]].concat());
    let history = fs::read(pair.source.path("pg_wal/00000002.history")).unwrap();
    write("control_history_label", "history", &[&[2, 2][..], &history].concat());
    let label = [&[3, index][..], &[0x28, 0, 0, 3, 0, 0, 0, 0, 0x60, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 4]].concat();
    write("control_history_label", "label", &label);
    let page = most_varied_page(&pair.target, WalFormat::of(&ControlFile::parse(&control).unwrap()));
    write("wal", "page", &[&[index, 0][..], &page].concat());
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    write("manifest", "plan", &small(&plan.document()));
    write("listing", "source", &small_listing(Listing::of(Source::Directory(&pair.source)).json()));
}

/// How many operations there are on a page.
fn variety(format: WalFormat, page: &[u8]) -> usize {
    let mut kinds = BTreeSet::new();
    let address = page[8..16].try_into().map(u64::from_le_bytes).unwrap();
    let mut reader = WalReader::new(format, Start::FirstOf(Lsn::new(address)));
    let _ = reader.feed(page, |record| {
        kinds.insert((record.header.resource_manager, record.operation()));
        ControlFlow::<()>::Continue(())
    });
    kinds.len()
}

fn most_varied_page(cluster: &Cluster, format: WalFormat) -> Vec<u8> {
    let mut best = (0, Vec::new());
    for entry in fs::read_dir(cluster.path("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().len() != 24 {
            continue;
        }
        for page in fs::read(entry.path()).unwrap().chunks(PAGE) {
            let variety = variety(format, page);
            if variety > best.0 {
                best = (variety, page.to_vec());
            }
        }
    }
    best.1
}

/// A plan with two actions of each kind and phase, without the names of this machine's directories.
fn small(document: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(document).unwrap().replace(scratch::root().to_str().unwrap(), "/srv");
    let mut plan: Manifest = serde_json::from_str(&text).unwrap();
    let mut counts = BTreeMap::new();
    plan.actions.retain(|action| {
        let count = counts.entry(format!("{:?} {:?}", action.kind, action.phase)).or_insert(0);
        *count += 1;
        *count <= 2
    });
    plan.kept.truncate(3);
    manifest::to_json(&mut plan).unwrap()
}

/// A listing with what lies at the top of the data directory and a map of free space.
fn small_listing(mut document: Value) -> Vec<u8> {
    document["address"] = json!("/srv/source");
    let mut maps = 0;
    document["entries"].as_array_mut().unwrap().retain(|entry| {
        let path = entry["path"].as_str().unwrap();
        let is_map = path.starts_with("base/1/") && path.ends_with("_fsm");
        maps += usize::from(is_map);
        !path.contains('/') || path == "base/1" || (is_map && maps == 1)
    });
    listing::to_json(&mut listing::parse(&signed(&document)).unwrap()).unwrap()
}

/// A journal in memory.
struct Whole(Vec<u8>);

impl ReadAt for Whole {
    fn length(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let rest = &self.0[(offset as usize).min(self.0.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// The seed of a journal is one: of an apply that has copied two blocks. (After the byte that tells the target how to
/// take it.)
#[test]
fn journals() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/journal/frames");
    let seed = fs::read(path).unwrap();
    assert_eq!(bytes_journaled(&Whole(seed[1..].to_vec())).unwrap(), 2 * PAGE as u64);
}
