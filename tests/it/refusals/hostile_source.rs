//! A source that lies: names, types, sizes and positions that no honest one has, and answers that were not
//! asked for. Planning refuses; where only an apply can notice, it stops, and nothing outside of what the
//! manifest names is touched.

use pg_unfork::apply::{Actor, ApplyContext, ApplyOptions, BATCH_BYTES, Now, Outcome, apply};
use pg_unfork::cluster::{
    ClusterReader, Comparison, DirectoryId, FileEntry, FileKind, Inventory, Likeness, LocalFiles, Position, Request,
    SMALL_FILE_LIMIT, Sink, Source, SourceKind,
};
use pg_unfork::error::{Error, ErrorKind, Result};
use pg_unfork::format::{ControlFile, DbState, Major as Known};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, DirectoryStore, StoppedSource, SyncMethod};
use pg_unfork::listing::{self, ListedSource, list_source};
use pg_unfork::manifest::{Manifest, Verdict, parse, to_json};
use pg_unfork::plan::{PlanOptions, make_plan};
use pg_unfork::progress::{Progress, Silent};
use pg_unfork::types::{ClusterPath, Lsn};

use super::Untouched;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::tree::{self, Tree};

/// An answer to a request: offset and bytes.
type Answer = Box<dyn Fn(usize, &Request, &mut dyn Sink) -> Result<()>>;

/// A stopped directory that poses as a running server and lies.
struct Liar {
    inner: StoppedSource,
    position: Lsn,
    /// What is listed besides, or instead of, what is there.
    listing: Vec<(ClusterPath, FileEntry)>,
    answer: Option<Answer>,
    history: Option<Vec<u8>>,
}

impl Liar {
    fn of(pair: &Pair) -> Self {
        let mut inner = StoppedSource::new(DataDirectory::open(&pair.source.data()).unwrap());
        let control = ControlFile::parse(&inner.control_file().unwrap()).unwrap();
        let position = control.checkpoint_location();
        Self { inner, position, listing: Vec::new(), answer: None, history: None }
    }

    fn listing(mut self, listing: Vec<(ClusterPath, FileEntry)>) -> Self {
        self.listing = listing;
        self
    }
}

impl ClusterReader for Liar {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        let control = ControlFile::parse(&self.inner.control_file()?).unwrap();
        Ok(control.with_state(DbState::InProduction).as_bytes().to_vec())
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        match &self.history {
            Some(history) if path.to_string().ends_with(".history") => Ok(Some(history.clone())),
            _ => self.inner.read_small(path),
        }
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        Ok(self.inner.list(progress)?.with(self.listing.clone()))
    }

    fn running_server(&self) -> Result<Option<i32>> {
        Ok(None)
    }
}

impl Source for Liar {
    fn kind(&self) -> SourceKind {
        SourceKind::LiveServer
    }

    fn address(&self) -> String {
        "host=liar".to_owned()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        Vec::new()
    }

    fn primary_conninfo(&self, _: Known) -> Option<String> {
        None
    }

    fn position(&mut self) -> Result<Option<Position>> {
        Ok(Some(Position { lsn: self.position, in_recovery: false }))
    }

    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        Err(Error::failure(format!("who asks for {path}?")))
    }

    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
        self.inner.read_part(path, offset, length)
    }

    fn compare(&mut self, files: &[Comparison], _: &dyn LocalFiles, _: &dyn Progress) -> Result<Vec<Likeness>> {
        Ok(vec![Likeness::Different; files.len()])
    }

    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        match &self.answer {
            // What is only touched, to see whether it can be read, is answered honestly.
            Some(answer) if requests.iter().any(|request| request.length != Some(0)) => {
                requests.iter().enumerate().try_for_each(|(index, request)| answer(index, request, sink))
            }
            _ => self.inner.fetch(requests, sink),
        }
    }
}

fn path(name: &str) -> ClusterPath {
    ClusterPath::new(name.as_bytes()).unwrap()
}

fn file(size: u64) -> FileEntry {
    FileEntry { kind: FileKind::File { size, modified: None }, mode: None }
}

fn entry(kind: FileKind) -> FileEntry {
    FileEntry { kind, mode: None }
}

fn plan(pair: &Pair, source: &mut Liar) -> Result<Manifest> {
    let mut target = DataDirectory::open(&pair.target.data()).unwrap();
    let options = PlanOptions { allow_unreleased: true, ..PlanOptions::default() };
    make_plan(&mut target, source, &options, &Silent)
}

/// The same from what such a source says for a listing.
fn plan_offline(pair: &Pair, source: &mut Liar) -> Result<Manifest> {
    let mut listing = list_source(source, "now".to_owned(), &Silent)?;
    let read = listing::parse(&listing::to_json(&mut listing)?).unwrap();
    let mut target = DataDirectory::open(&pair.target.data()).unwrap();
    let options = PlanOptions { allow_unreleased: true, ..PlanOptions::default() };
    make_plan(&mut target, &mut ListedSource::new(read), &options, &Silent)
}

/// Applies a plan to the pair's target.
fn apply_to(pair: &Pair, manifest: &mut Manifest, source: &mut Liar) -> Result<Outcome> {
    let document = to_json(manifest)?;
    let manifest = parse(&document).unwrap();
    let roots: Vec<_> = manifest.target.roots.iter().map(|root| (root.path.clone(), root.link.clone())).collect();
    let mut store = DirectoryStore::open(&pair.target.data(), &roots, SyncMethod::None)?;
    let mut target = DataDirectory::open(&pair.target.data())?;
    apply(ApplyContext {
        manifest: &manifest,
        document: &document,
        target: &mut target,
        store: &mut store,
        source,
        now: &|| Now { unix: 0, local: "1970-01-01 00:00:00 UTC".to_owned(), utc: "1970-01-01T00:00:00Z".to_owned() },
        progress: &Silent,
        options: ApplyOptions { undo: true, durable: false, batch_bytes: BATCH_BYTES },
        id: "id",
        interrupt: &Interrupt::new(),
        actor: &Actor { host: "host".to_owned(), process: 1, user: "user".to_owned(), version: "0".to_owned() },
    })
}

/// All that an error or a failed check says.
fn said(outcome: &Result<Manifest>) -> String {
    match outcome {
        Ok(manifest) if manifest.verdict == Verdict::Impossible => format!("{:#?}", manifest.checks),
        Ok(manifest) => panic!("planned {:?}", manifest.verdict),
        Err(error) => {
            assert!(!error.hints().is_empty(), "{error:?}");
            format!("{error:?}")
        }
    }
}

/// Names, types and sizes that a plan must not be made of.
#[test]
fn listings() {
    let pair = Pair::shared(Major(16)).copy();
    let before = Untouched::of(&pair);
    let link = |text: &str| entry(FileKind::Symlink { text: text.into() });
    let directory = || entry(FileKind::Directory);
    let cases = [
        (vec![("odd/below", file(1))], "odd/below lies in odd, which is not there"),
        (vec![("odd", file(1)), ("odd/below", file(1))], "odd/below lies in odd, which is a file"),
        (vec![("odd", link("/etc")), ("odd/passwd", file(1))], "odd/passwd lies in odd, which is a symlink"),
        (vec![("odd", file(1 << 63))], "odd has 9223372036854775808 bytes"),
        (vec![("base/5/1247", file(1 << 63))], "base/5/1247 has 9223372036854775808 bytes"),
        (vec![("base/5", file(1))], "which is a file"),
        (vec![("pg_wal", file(1))], "lies in pg_wal, which is a file"),
        (vec![("PG_VERSION", directory())], "PG_VERSION is a file on the target"),
    ];
    let named = |entries: Vec<(&str, FileEntry)>| {
        entries.into_iter().map(|(name, entry)| (path(name), entry)).collect::<Vec<_>>()
    };
    for (lie, message) in cases {
        let lie = named(lie);
        for make in [plan, plan_offline] {
            let said = said(&make(&pair, &mut Liar::of(&pair).listing(lie.clone())));
            assert!(said.contains(message), "{message}: {said}");
        }
    }
    // Names that mean something to this program are never copied.
    let own = [".pg_unfork", "pg_wal/.pg_unfork", "pg_tblspc/.pg_unfork"].map(|name| (name, directory()));
    let names = [".pg_unfork/state.json", "pg_wal/.pg_unfork/new.1", "postmaster.pid", "backup_label"];
    let listing = named(own.into_iter().chain(names.map(|name| (name, file(10)))).collect());
    let manifest = plan(&pair, &mut Liar::of(&pair).listing(listing)).unwrap();
    let odd = manifest.actions.iter().filter(|action| action.source.is_some()).map(|action| action.path.to_string());
    let odd: Vec<String> = odd.filter(|path| path.contains(".pg_unfork") || path.contains("postmaster")).collect();
    assert_eq!(odd, [""; 0]);
    before.check();
}

/// Positions that no WAL has, and histories without end.
#[test]
fn positions_and_histories() {
    let pair = Pair::shared(Major(18)).copy();
    let before = Untouched::of(&pair);
    for position in [u64::MAX, 1 << 62, 1 << 45] {
        let mut liar = Liar { position: Lsn::new(position), ..Liar::of(&pair) };
        for make in [plan, plan_offline] {
            assert!(said(&make(&pair, &mut liar)).contains("WAL cannot reach from its redo position"));
        }
    }
    for position in [0, 1] {
        let mut liar = Liar { position: Lsn::new(position), ..Liar::of(&pair) };
        assert!(said(&plan(&pair, &mut liar)).contains("the source has only come to 0/"));
    }
    let long = vec![b'\n'; usize::try_from(SMALL_FILE_LIMIT).unwrap()];
    let mut liar = Liar { history: Some(long), ..Liar::of(&pair) };
    assert!(said(&plan(&pair, &mut liar)).contains("share no timeline"));
    let many: String = (1..=500_000).map(|number| format!("{number}\t0/1\n")).collect();
    let mut liar = Liar { history: Some(many.into_bytes()), ..Liar::of(&pair) };
    assert!(said(&plan(&pair, &mut liar)).contains("an ancestor's number is not below"));
    before.check();
}

/// Answers that nobody asked for end the apply; no byte lands where the manifest has none.
#[test]
fn answers() {
    let shared = Pair::shared(Major(14));
    type Reply = fn(usize, &Request, &mut dyn Sink) -> Result<()>;
    let answers: [(&str, Reply, &str); 5] = [
        (
            "more",
            |index, request, sink| sink.bytes(index, request.offset, &vec![7; length(request) + 1]),
            "beyond those",
        ),
        ("before", |index, request, sink| sink.bytes(index, request.offset.wrapping_sub(1), &[7]), "beyond those"),
        ("far", |index, _, sink| sink.bytes(index, u64::MAX, &[7]), "beyond those"),
        ("unknown", |_, _, sink| sink.bytes(usize::MAX, 0, &[7]), "was not asked"),
        ("unknown gone", |_, request, sink| sink.gone(usize::MAX).and_then(|()| Err(fail(request))), "the source ends"),
    ];
    for (name, answer, message) in answers {
        let pair = shared.copy();
        let mut liar = Liar::of(&pair);
        let mut manifest = plan(&pair, &mut liar).unwrap();
        // Bounded requests only: to a whole file belongs whatever it has.
        manifest.actions.retain(|action| !action.blocks.is_empty());
        manifest.wal.as_mut().unwrap().segments.clear();
        let before = Tree::of(&pair.target);
        liar.answer = Some(Box::new(answer));
        let error = apply_to(&pair, &mut manifest, &mut liar).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incomplete, "{name}: {error:?}");
        assert!(format!("{error:?}").contains(message), "{name}: {error:?}");
        let own = |path: &std::path::Path| tree::is_own_state(path) || path.ends_with("pg_control");
        assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &own), [""; 0], "{name}");
    }
}

fn length(request: &Request) -> usize {
    usize::try_from(request.length.unwrap()).unwrap()
}

fn fail(request: &Request) -> Error {
    Error::failure(format!("the source ends at {}", request.path))
}
