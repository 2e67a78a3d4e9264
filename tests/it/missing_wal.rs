//! WAL that the target's `pg_wal` lacks: from the source, from an archive, and nothing of it left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use pg_unfork::types::{Lsn, SegmentNumber, TimelineId, WalFileName, WalSegmentSize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::assert_equal_outcome;
use crate::support::offline::Listing;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

/// Segments outside of any cluster, and a list of those that were asked for.
struct Archive(TempDir);

impl Archive {
    fn new() -> Self {
        Self(scratch::directory("archive"))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Moves all segments of a cluster here.
    fn take_all(&self, cluster: &Cluster) {
        for name in segments(cluster) {
            fs::rename(cluster.path("pg_wal").join(&name), self.path(&name)).unwrap();
        }
    }

    /// A command that notes what it is asked for.
    fn command(&self) -> String {
        let shown = self.0.path().display();
        format!("echo %f >>{shown}/asked; test \"$PG_REWIND\" = 1 && cp {shown}/%f \"%p\"")
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.path("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.path("asked"));
        asked.lines().map(str::to_owned).collect()
    }
}

/// The names of the WAL segments that a cluster has.
fn segments(cluster: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(cluster.path("pg_wal")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.len() == 24);
    names.sort();
    names
}

/// The segments of 1 MiB that a plan must read, in the order in which it comes to need them: the one with the last
/// checkpoint, from the fork back to the common checkpoint, and from there to the end.
fn needed(plan: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_str().unwrap().parse::<Lsn>().unwrap().get();
    let [from, through] = ["from", "through"].map(|end| number(&plan["wal"]["scanned"][end]));
    let last = number(&plan["target"]["control_file"]["checkpoint"]);
    let fork = number(&plan["divergence"]["lsn"]);
    let segment = |lsn: u64| lsn >> 20;
    let back = (segment(from)..=segment(fork)).rev();
    let forth = segment(from)..=segment(through - 1);
    let mut names = Vec::new();
    for number in std::iter::once(segment(last)).chain(back).chain(forth) {
        let name = file(number);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The file of timeline 1 with the segment that has this number.
fn file(number: u64) -> String {
    let size = WalSegmentSize::new(1 << 20).unwrap();
    WalFileName { timeline: TimelineId::new(1), segment: SegmentNumber::of(Lsn::new(number << 20), size) }.text(size)
}

/// Panics unless two plans are the same but for what is in `pg_wal` and where it is.
#[track_caller]
fn assert_same(ours: Value, expected: Value) {
    let (ours, expected) = (without_wal(ours), without_wal(expected));
    for (field, expected) in expected.as_object().unwrap() {
        let lines = |value: &Value| serde_json::to_string_pretty(value).unwrap().lines().map(str::to_owned).collect();
        let [ours, expected]: [Vec<String>; 2] = [lines(&ours[field]), lines(expected)];
        let differ: Vec<_> = ours.iter().zip(&expected).filter(|(a, b)| a != b).take(5).collect();
        assert!(ours == expected, "{field}: {} and {} lines; {differ:#?}", ours.len(), expected.len());
    }
}

/// A plan but for what is in `pg_wal` and where it is.
fn without_wal(mut plan: Value) -> Value {
    for list in ["actions", "kept"] {
        let entries = plan[list].as_array_mut().unwrap();
        entries.retain(|entry| !entry["path"].as_str().unwrap().starts_with("pg_wal/"));
    }
    let fields = plan.as_object_mut().unwrap();
    for field in ["created", "digest", "totals", "estimate", "checks"] {
        fields.remove(field);
    }
    // A live source goes on.
    fields["source"].as_object_mut().unwrap().remove("wal_end");
    fields["wal"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["fetch", "obtained", "segments"].contains(&name.as_str()));
    plan
}

fn bindir(cluster: &Cluster) -> String {
    cluster.installation().bin("").display().to_string()
}

/// All of the target's WAL is in an archive. The plan is the one with all of it in `pg_wal`, asks for each segment once
/// and for none that is not needed, and the outcome is stock's.
fn archive_mode(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    let archive = Archive::new();
    let reference = Plan::of(&target, Source::Directory(&source), &[]).json();
    archive.take_all(&target);
    // The settings outside of the data directory, where stock can be told of that.
    let outside = archive.path("outside.conf");
    let settings = fs::read_to_string(target.path("postgresql.conf")).unwrap();
    let settings = format!("{settings}\nrestore_command = '{}'\n", archive.command());
    let file = outside.display().to_string();
    let bindir = bindir(&target);
    let mut arguments = vec!["-c"];
    if major.0 >= 15 {
        fs::write(&outside, settings).unwrap();
        fs::write(target.path("postgresql.conf"), "this is not read\n").unwrap();
        arguments.extend(["--config-file", &file]);
    } else {
        fs::write(target.path("postgresql.conf"), settings).unwrap();
    }
    let stock_target = target.duplicate();
    let before = Tree::of(&target);
    let plan = Plan::of(&target, Source::Directory(&source), &[&arguments[..], &["--pg-bindir", &bindir]].concat());
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    let needed = needed(&reference);
    let fork: Lsn = reference["divergence"]["lsn"].as_str().unwrap().parse().unwrap();
    let (common, own): (Vec<_>, Vec<_>) = needed.iter().cloned().partition(|name| *name < self::file(fork.get() >> 20));
    assert_eq!(archive.asked(), own);
    let mut expected: Vec<_> = common.iter().map(|file| json!({"file": file, "from": "source"})).collect();
    let mut own = own;
    own.sort();
    expected.sort_by_key(|entry| entry["file"].to_string());
    expected.extend(own.iter().map(|file| json!({"file": file, "from": "restore_command"})));
    assert_eq!(plan.json()["wal"]["obtained"], json!(expected));
    let equal_but_for_settings = |mut plan: Value| {
        for list in ["actions", "kept"] {
            plan[list].as_array_mut().unwrap().retain(|entry| entry["path"] != "postgresql.conf");
        }
        plan
    };
    let mut expected = equal_but_for_settings(reference);
    expected["target"]["directory"] = plan.json()["target"]["directory"].clone();
    assert_same(equal_but_for_settings(plan.json()), expected);
    // Twice the same bytes.
    let again = Plan::of(&target, Source::Directory(&source), &[&arguments[..], &["--pg-bindir", &bindir]].concat());
    assert_same(again.json(), plan.json());
    archive.asked();
    let _ = plan.apply(&[]).success();
    let mut stock = stock::command(&stock_target, Source::Directory(&source), &arguments);
    let _ = Outcome::of(stock.env("PG_REWIND", "1")).success();
    // Stock leaves what it has restored; of that, replay needs nothing that the source does not have.
    let ours = segments(&target);
    for name in segments(&stock_target).iter().filter(|name| !ours.contains(name) && archive.path(name).exists()) {
        fs::remove_file(stock_target.path("pg_wal").join(name)).unwrap();
    }
    assert_equal_outcome(&target, &stock_target, &plan.json(), None);
    source.start();
    target.follow(&source);
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

#[test]
fn archive_mode_of_13() {
    archive_mode(Major(13));
}

#[test]
fn archive_mode_of_18() {
    archive_mode(Major(18));
}

/// Without a source everything comes from the archive; `--check-only` and a preview ask for no more than they need.
#[test]
fn without_a_source_all_comes_from_the_archive() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    let archive = Archive::new();
    let listing = Listing::of(Source::Directory(&source));
    let listed = listing.path().display().to_string();
    let from = ["--source-listing", &listed];
    let (reference, outcome) = Plan::make_from(&target, &from, &[]);
    let _ = outcome.success();
    archive.take_all(&target);
    let command = archive.command();
    let make = |arguments: &[&str]| {
        let arguments = [&["--restore-command", &command][..], arguments].concat();
        let (plan, outcome) = Plan::make_from(&target, &from, &arguments);
        let _ = outcome.success();
        (plan.json(), archive.asked())
    };
    let needed = needed(&reference.json());
    let (plan, asked) = make(&[]);
    assert_eq!(asked, needed);
    assert_same(plan, reference.json());
    let checkpoint: Lsn = reference.json()["checkpoint"]["lsn"].as_str().unwrap().parse().unwrap();
    let until = needed.iter().position(|name| *name == file(checkpoint.get() >> 20)).unwrap();
    let (plan, asked) = make(&["--check-only"]);
    assert_eq!((&plan["verdict"], &asked[..]), (&json!("rewind"), &needed[..=until]));
    let (plan, _) = make(&["--preview"]);
    assert_eq!(plan["target"]["wal_end"], reference.json()["target"]["wal_end"]);
}

/// What lies before the fork is in a live source's `pg_wal`, too, with pg_rewind's privileges; what lies behind is
/// never taken from there, and is missed by name.
#[test]
fn from_a_live_source() {
    let Pair { source, target } = Pair::shared(Major(14)).copy();
    source.start();
    source.checkpoint();
    let live = Source::Server(&source, REWIND_USER);
    let reference = Plan::of(&target, live, &[]).json();
    let fork: Lsn = reference["divergence"]["lsn"].as_str().unwrap().parse().unwrap();
    let of_the_fork = file(fork.get() >> 20);
    let saved = Archive::new();
    for name in segments(&target).iter().filter(|name| **name < of_the_fork) {
        fs::rename(target.path("pg_wal").join(name), saved.path(name)).unwrap();
    }
    let plan = Plan::of(&target, live, &[]).json();
    let mut read: Vec<_> = needed(&reference).into_iter().filter(|name| *name < of_the_fork).collect();
    read.sort();
    let expected: Vec<_> = read.iter().map(|file| json!({"file": file, "from": "source"})).collect();
    assert_eq!(plan["wal"]["obtained"], json!(expected));
    assert_same(plan, reference);
    fs::remove_file(target.path("pg_wal").join(&of_the_fork)).unwrap();
    let (plan, outcome) = Plan::make(&target, live, &["--restore-command", "exit 1"]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    let message = format!(
        "the target's WAL segment {of_the_fork} is missing, but the plan must read it: it is not in the target's pg_wal, restore_command has not restored it"
    );
    assert!(outcome.stderr.contains(&message), "{outcome}");
    let manifest = serde_json::from_value(plan.json()).unwrap();
    assert_eq!(pg_unfork::plan::missing_segment(&manifest), Some(of_the_fork.as_str()));
}

/// What an archive, or the source, has under a segment's name may be anything.
#[test]
fn wrong_files_are_refused() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let archive = Archive::new();
    let reference = Plan::of(&target, Source::Directory(&source), &[]).json();
    archive.take_all(&target);
    let needed = needed(&reference);
    let before = [Tree::of(&target), Tree::of(&source)];
    let last = &needed[0];
    let good = fs::read(archive.path(last)).unwrap();
    let patched = |offset: usize, length: usize| {
        let mut bytes = good.clone();
        bytes[offset..offset + length].iter_mut().for_each(|byte| *byte ^= 0x5A);
        bytes
    };
    let torn = [&good[..8192], &vec![0; good.len() - 8192][..]].concat();
    let refused = |case: &str, id: &str, texts: &[&str]| {
        let command = archive.command();
        let arguments = ["--restore-command", &command];
        let (_, outcome) = Plan::make(&target, Source::Directory(&source), &arguments);
        assert_eq!(outcome.status.code(), Some(4), "{case}: {outcome}");
        for text in texts.iter().chain([&id]) {
            assert!(outcome.stderr.contains(text), "{case}: {text}\n{outcome}");
        }
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("short", good[..good.len() - 1].to_vec(), "it has 1048575 bytes, a segment has 1048576"),
        ("empty", Vec::new(), "it has 0 bytes"),
        ("long", [&good[..], b"x"].concat(), "it has 1048577 bytes"),
        ("another system", patched(24, 8), "the segment is of system"),
        ("another segment size", patched(32, 4), "by its own header"),
        ("another timeline", patched(4, 1), "the page's timeline is 91, expected 1"),
        ("another address", patched(8, 8), "page address is"),
        ("another major", patched(0, 2), "page magic is"),
        ("garbage", vec![0xA5; good.len()], "page magic is A5A5"),
        ("torn", torn, "which is not from its pg_wal, cannot be read"),
    ];
    for (case, bytes, text) in cases {
        fs::write(archive.path(last), bytes).unwrap();
        refused(case, "rewind_is_possible", &[last, text]);
    }
    fs::remove_file(archive.path(last)).unwrap();
    fs::create_dir(archive.path(last)).unwrap();
    refused("a directory", "target_wal", &[last, "is missing"]);
    fs::remove_dir(archive.path(last)).unwrap();
    fs::write(archive.path(last), &good).unwrap();
    // One record in the middle is not what was written: that shows when it is read.
    let middle = &needed[needed.len() - 1];
    let mut bytes = fs::read(archive.path(middle)).unwrap();
    let saved = bytes.clone();
    bytes[300_000..300_100].fill(0x77);
    fs::write(archive.path(middle), bytes).unwrap();
    refused("a damaged record", "rewind_is_possible", &[middle, "which is not from its pg_wal, cannot be read"]);
    fs::write(archive.path(middle), saved).unwrap();
    // The source has something else under a name of the common history: the archive is asked.
    let fork: Lsn = reference["divergence"]["lsn"].as_str().unwrap().parse().unwrap();
    let common = needed.iter().find(|name| **name < file(fork.get() >> 20)).unwrap();
    assert_eq!(tree::diff(&before[0], &Tree::of(&target), &|_| false), [""; 0]);
    assert_eq!(tree::diff(&before[1], &Tree::of(&source), &|_| false), [""; 0]);
    fs::write(source.path("pg_wal").join(common), vec![0; 1 << 20]).unwrap();
    archive.asked();
    let command = archive.command();
    let plan = Plan::of(&target, Source::Directory(&source), &["--restore-command", &command]).json();
    assert!(archive.asked().contains(common));
    let obtained = plan["wal"]["obtained"].as_array().unwrap();
    assert!(obtained.contains(&json!({"file": common, "from": "restore_command"})), "{obtained:?}");
}

/// A status that tells of no missing file ends the plan at once; a placeholder that this major does not know, too, as
/// stock has it.
#[test]
fn what_a_command_says_by_its_status() {
    for (major, unknown_is_refused) in [(Major(15), false), (Major(16), true)] {
        let Pair { source, target } = Pair::shared(major).copy();
        let archive = Archive::new();
        archive.take_all(&target);
        let make = |command: &str| Plan::make(&target, Source::Directory(&source), &["--restore-command", command]).1;
        let counted = |end: &str| format!("echo %f >>{}; {end}", archive.path("asked").display());
        for (end, text) in
            [("exit 126", "exit status 126"), ("no_such_command", "exit status 127"), ("kill -9 $$", "signal 9")]
        {
            let outcome = make(&counted(end));
            assert_eq!(outcome.status.code(), Some(4), "{outcome}");
            assert!(outcome.stderr.contains(text), "{outcome}");
            assert_eq!(archive.asked().len(), 1, "{end}");
        }
        let outcome = make(&counted("echo it is not there >&2; exit 1"));
        assert!(outcome.stderr.contains("restore_command: it is not there"), "{outcome}");
        assert_eq!(archive.asked().len(), 3);
        let command = format!("cp {0}/%f %p || : %d", archive.0.path().display());
        let outcome = make(&command);
        assert_eq!(outcome.status.code(), Some(if unknown_is_refused { 4 } else { 0 }), "{outcome}");
        fs::write(target.path("postgresql.auto.conf"), format!("restore_command = '{command}'\n")).unwrap();
        let stock = stock::rewind(&target, Source::Directory(&source), &["-c", "--dry-run"]);
        assert_eq!(stock.status.success(), !unknown_is_refused, "{stock}");
        if unknown_is_refused {
            let (_, outcome) =
                Plan::make(&target, Source::Directory(&source), &["-c", "--pg-bindir", &bindir(&target)]);
            assert!(outcome.stderr.contains("unknown placeholder %d"), "{outcome}");
            let (_, outcome) = Plan::make(&target, Source::Directory(&source), &["-c", "--pg-bindir", "/nowhere"]);
            assert!(outcome.stderr.contains("looked at /nowhere/postgres: not there"), "{outcome}");
        }
    }
}

/// A signal ends the command, too, and what it has started, even if that does not heed it; nothing stays behind.
#[test]
fn a_signal_ends_all() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let archive = Archive::new();
    archive.take_all(&target);
    let temporary = scratch::directory("tmp");
    let pid = archive.path("pid");
    let command = format!(
        "sh -c 'trap \"\" TERM; echo $$ >{0}.new; echo x >%p; mv {0}.new {0}; sleep 60' & wait; exit 1",
        pid.display()
    );
    let mut program = pg_unfork(&["plan", "--restore-command", &command, "-D"]);
    program.arg(target.data()).arg("--source-pgdata").arg(source.data()).env("TMPDIR", temporary.path());
    let child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !pid.exists() {
        thread::yield_now();
    }
    let signalled = Outcome::of(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]));
    let _ = signalled.success();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert!(is_gone(&pid));
}

/// Whether the process whose number is in a file has ended.
fn is_gone(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_err() || stat.unwrap().contains(") Z ")
}
