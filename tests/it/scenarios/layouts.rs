//! Where the parts of a cluster are: links, file systems, permissions, configuration.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::tablespaces::create_tablespace_beside;
use super::{assert_refused, scenarios};
use crate::support::cluster::{Cluster, InitOptions};
use crate::support::likeness::{From, assert_equal_outcome};
use crate::support::outcome::Outcome;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock;
use crate::support::tool::{Plan, pg_unfork};

scenarios! {
    linked_wal: v14 Stopped, v19 Live;
    other_file_systems: v15 Live, v18 Stopped;
    permissions: v13 Stopped, v17 Live;
    group_access: v14 Live, v16 Stopped;
    links: v13 Stopped, v17 Stopped;
    links_on_one_side: v16 Live, v18 Live;
    data_behind_links: v15 Stopped, v19 Live;
    configuration_elsewhere: v15 Stopped, v16 Live;
    log_directory: v14 Stopped, v18 Live;
    locales: v13 Live, v17 Stopped;
}

/// Moves a file or directory of the data directory to a place beside it, and leaves a link.
fn replace_by_link(cluster: &Cluster, path: &str) -> PathBuf {
    let moved = cluster.location("moved").join(path);
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::rename(cluster.path(path), &moved).unwrap();
    let up = "../".repeat(Path::new(path).components().count());
    symlink(format!("{up}linked/moved/{path}"), cluster.path(path)).unwrap();
    moved
}

/// pg_wal is a link on both sides.
pub(super) fn linked_wal(major: Major, from: From) {
    let init = InitOptions { linked_wal: true, ..InitOptions::default() };
    let pair = Pair::simple(major, |builder| builder.init(init));
    pair.rewind_as_stock(from);
    assert_eq!(pair.target.links(), [pair.target.path("pg_wal")]);
    pair.assert_lives(from);
}

/// A directory in another file system than the scratch directory's.
fn far_directory() -> TempDir {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let here = device(scratch::root());
    let candidates = ["/dev/shm", "/tmp", "/var/tmp", env!("CARGO_TARGET_TMPDIR")].map(Path::new);
    let far = candidates.into_iter().filter(|path| device(path).is_some_and(|found| Some(found) != here));
    let made = far.filter_map(|path| TempDir::new_in(path).ok()).next();
    made.unwrap_or_else(|| panic!("this test needs a second writable file system, one of {candidates:?}"))
}

/// Moves what the link `path` leads to, to another file system, behind a second link.
fn move_far(cluster: &Cluster, path: &str) -> TempDir {
    let far = far_directory();
    let near = fs::canonicalize(cluster.path(path)).unwrap();
    let there = far.path().join("there");
    let _ = Outcome::of(Command::new("cp").arg("-a").arg(&near).arg(&there)).success();
    fs::remove_dir_all(&near).unwrap();
    symlink(there, near).unwrap();
    far
}

/// pg_wal and a tablespace are in other file systems than the data directory.
fn other_file_systems(major: Major, from: From) {
    let mut link = String::new();
    let pair = Pair::simple(major, |builder| {
        builder
            .init(InitOptions { linked_wal: true, ..InitOptions::default() })
            .before_backup(|primary| link = create_tablespace_beside(primary, "far"))
            .on_target_after_fork(|target| {
                target.sql("postgres", "UPDATE in_far SET g = -g; CREATE TABLE more TABLESPACE far AS SELECT 1");
            })
            .on_source_after_fork(|source| {
                source.sql("postgres", "CREATE TABLE further TABLESPACE far AS SELECT * FROM in_far; VACUUM in_far");
            })
    });
    pair.settle(from);
    let stock_target = pair.copy_target();
    let clusters = [&pair.target, &stock_target];
    let _far = clusters.map(|cluster| (move_far(cluster, "pg_wal"), move_far(cluster, &link)));
    let device = |path: &str| fs::metadata(pair.target.path(path)).unwrap().dev();
    assert!(device("pg_wal") != device("base") && device(&link) != device("base"));
    let plan = pair.rewind_beside_stock(&stock_target, from);
    let touched = |prefix: &str| {
        let actions = plan["actions"].as_array().unwrap().iter();
        actions.filter(|action| action["path"].as_str().unwrap().starts_with(prefix)).count()
    };
    assert!(touched("pg_wal/") > 0 && touched(&link) > 0);
    pair.assert_lives(from);
}

/// Applies a plan under a umask.
fn apply_under(umask: &str, plan: &Plan) -> Outcome {
    let script = format!("umask {umask} && exec \"$@\"");
    let apply = pg_unfork(&["apply", "--no-sync"]);
    let mut command = Command::new("sh");
    Outcome::of(command.args(["-c", &script, "sh"]).arg(apply.get_program()).args(apply.get_args()).arg(plan.path()))
}

/// Compares with stock pg_rewind after an apply under a umask; gives the modes of what is there.
fn rewind_under(umask: &str, pair: &Pair, from: From) -> Vec<u32> {
    pair.settle(from);
    let stock_target = pair.copy_target();
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = apply_under(umask, &plan).success();
    let json = plan.json();
    finish_stock(pair, &stock_target, from, &json);
    let mut modes = Vec::new();
    collect_modes(&pair.target.data(), &mut modes);
    modes.sort_unstable();
    modes.dedup();
    pair.assert_lives(from);
    modes
}

/// Rewinds a copy of the target with stock pg_rewind, after ours, and compares.
fn finish_stock(pair: &Pair, stock_target: &Cluster, from: From, plan: &Value) {
    let open_segment =
        (from == From::Live).then(|| pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())"));
    let _ = stock::rewind(stock_target, pair.source(from), Pair::arguments(from)).success();
    assert_equal_outcome(&pair.target, stock_target, plan, open_segment.as_deref());
}

/// The modes of everything in a directory, our own state apart.
fn collect_modes(directory: &Path, modes: &mut Vec<u32>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if path.ends_with(".pg_unfork") {
            continue;
        }
        modes.push(metadata.permissions().mode() & 0o7777);
        if metadata.is_dir() {
            collect_modes(&path, modes);
        }
    }
}

/// What only the source has: directories and files that an apply makes.
fn add_files(source: &Cluster) {
    fs::create_dir_all(source.path("new/below")).unwrap();
    fs::write(source.path("new/below/file"), "source").unwrap();
    source.sql("postgres", "CREATE DATABASE new");
}

/// What is made gets the modes of the data directory's kind, whatever the umask and the source's modes.
fn permissions(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder.on_source_after_fork(add_files));
    fs::set_permissions(pair.source.path("new/below/file"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(rewind_under("000", &pair, from), [0o600, 0o700]);
}

/// The group may read.
fn group_access(major: Major, from: From) {
    let init = InitOptions { arguments: vec!["-g".to_owned()], ..InitOptions::default() };
    let pair = Pair::simple(major, |builder| builder.init(init).on_source_after_fork(add_files));
    // The harness may have written these under its own umask.
    let _ = Outcome::of(Command::new("chmod").arg("g=rX,o=").arg("-R").arg(pair.target.data())).success();
    assert_eq!(rewind_under("077", &pair, from), [0o640, 0o750]);
}

/// Links to files and directories that are nobody's data: as stock pg_rewind does, those on both sides stay.
fn links(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.settle(from);
    for (cluster, side, other) in [(&pair.target, "target", "t"), (&pair.source, "source", "s")] {
        for name in ["both/file", "both directory/file", &format!("{side} directory/file"), &format!("{side} file")] {
            fs::create_dir_all(cluster.path(name).parent().unwrap()).unwrap();
            fs::write(cluster.path(name), other).unwrap();
        }
        replace_by_link(cluster, "both/file");
        replace_by_link(cluster, "both directory");
        replace_by_link(cluster, "postgresql.conf");
        replace_by_link(cluster, &format!("{side} directory"));
        replace_by_link(cluster, &format!("{side} file"));
        symlink("leads/nowhere", cluster.path("dangling")).unwrap();
        symlink(".", cluster.path("loop")).unwrap();
    }
    pair.rewind_as_stock_settled(from);
    for name in ["both/file", "both directory/file"] {
        assert_eq!(fs::read_to_string(pair.target.path(name)).unwrap(), "t", "{name}");
    }
    assert_eq!(fs::read_to_string(pair.target.location("moved").join("target directory/file")).unwrap(), "t");
    pair.assert_lives(from);
}

/// A live source shows links as what they lead to: what only it has is copied, but a link on the target is not
/// written through.
fn links_on_one_side(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.settle(from);
    let Pair { source, target } = &pair;
    for cluster in [source, target] {
        for name in ["new/file", "both"] {
            fs::create_dir_all(cluster.path(name).parent().unwrap()).unwrap();
            fs::write(cluster.path(name), "x").unwrap();
        }
    }
    fs::remove_dir_all(target.path("new")).unwrap();
    replace_by_link(source, "new");
    symlink("leads/nowhere", source.path("dangling")).unwrap();
    let moved = replace_by_link(target, "both");
    let (_, outcome) = Plan::make(target, pair.source(from), Pair::arguments(from));
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("both is a symlink on the target and a file on the source"), "{outcome}");
    let _ = stock::rewind(&target.duplicate(), pair.source(from), &[]).failure();
    fs::remove_file(target.path("both")).unwrap();
    fs::rename(moved, target.path("both")).unwrap();
    pair.rewind_as_stock_settled(from);
    assert_eq!(fs::read_to_string(target.path("new/file")).unwrap(), "x");
    fs::remove_file(source.path("dangling")).unwrap();
    pair.assert_lives(from);
}

/// Data behind a link that is not looked behind would stay as it is: stock pg_rewind leaves a mixture, we refuse.
fn data_behind_links(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    let Pair { source, target } = &pair;
    let database = format!("base/{}", source.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'postgres'"));
    pair.settle(from);
    for hidden in ["pg_xact", "base", &database, "global/1262"] {
        let moved = replace_by_link(target, hidden);
        let on_source = (from == From::Stopped).then(|| replace_by_link(source, hidden));
        let words = [hidden, "symlink", "remedy"];
        assert_refused(target, 4, &words, || Plan::make(target, pair.source(from), Pair::arguments(from)).1);
        for (cluster, moved) in [(target, Some(moved)), (source, on_source)] {
            if let Some(moved) = moved {
                fs::remove_file(cluster.path(hidden)).unwrap();
                fs::rename(moved, cluster.path(hidden)).unwrap();
            }
        }
    }
    if from == From::Stopped {
        // In pg_tblspc only the server makes links.
        symlink(source.location("root"), source.path("pg_tblspc/root")).unwrap();
        let words = ["pg_tblspc/root", "remedy"];
        assert_refused(target, 4, &words, || Plan::make(target, pair.source(from), &[]).1);
        fs::remove_file(source.path("pg_tblspc/root")).unwrap();
    }
    if from == From::Live {
        // A server sees what is behind its own links.
        replace_by_link(source, "pg_xact");
    }
    pair.rewind_as_stock_settled(from);
    pair.assert_lives(from);
}

/// Configuration files are not in the data directory.
fn configuration_elsewhere(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.settle(from);
    const FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
    let take_away = |cluster: &Cluster| {
        FILES.map(|name| fs::rename(cluster.path(name), cluster.location("etc").join(name)).unwrap())
    };
    let bring_back = |cluster: &Cluster| {
        FILES.map(|name| fs::rename(cluster.location("etc").join(name), cluster.path(name)).unwrap())
    };
    take_away(&pair.target);
    take_away(&pair.source);
    pair.rewind_as_stock_settled(from);
    bring_back(&pair.target);
    bring_back(&pair.source);
    pair.assert_lives(from);
}

/// The server writes its log into the data directory, also while a rewind reads it.
fn log_directory(major: Major, from: From) {
    let config = "logging_collector = on\nlog_directory = 'log'\nlog_filename = 'server.log'\nlog_statement = 'all'\n";
    let pair = Pair::simple(major, |builder| builder.config(config));
    pair.settle(from);
    fs::write(pair.target.path("log/targets.log"), "x").unwrap();
    let stock_target = pair.copy_target();
    let own = fs::read(pair.target.path("log/server.log")).unwrap();
    fs::write(pair.source.path("log/sources.log"), "x").unwrap();
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    assert!(fs::read(pair.target.path("log/server.log")).unwrap() == own, "the log is not the target's own");
    assert!(pair.target.path("log/targets.log").exists() && !pair.target.path("log/sources.log").exists());
    assert!(pair.target.path("current_logfiles").exists());
    let open_segment =
        (from == From::Live).then(|| pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())"));
    let _ = stock::rewind(&stock_target, pair.source(from), Pair::arguments(from)).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan.json(), open_segment.as_deref());
    pair.assert_lives(from);
}

/// Other locales than C, names that are not ASCII.
fn locales(major: Major, from: From) {
    let provider: &[&str] = match major.0 {
        ..=14 => &["--locale=C.UTF-8"],
        15 | 16 => &["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=de"],
        _ => &["--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
    };
    let arguments = provider.iter().map(|&argument| argument.to_owned()).collect();
    let init = InitOptions { arguments, ..InitOptions::default() };
    let words = |cluster: &Cluster, first: u32| {
        let text = "INSERT INTO w\u{f6}rter SELECT chr(ascii('\u{e4}') + g % 40) || chr(ascii('\u{4f60}') + g) || g";
        cluster.sql("postgres", &format!("{text} FROM generate_series({first}, {first} + 3000) g"));
    };
    let pair = PairBuilder::new(major)
        .init(init)
        .before_backup(|primary| {
            primary.sql("postgres", "CREATE TABLE w\u{f6}rter (w text PRIMARY KEY)");
            words(primary, 0);
        })
        .on_target_after_fork(|target| words(target, 5000))
        .on_source_after_fork(|source| {
            words(source, 10_000);
            source.sql("postgres", "CREATE DATABASE \"g\u{e4}ste\"");
        })
        .build();
    assert_ne!(pair.source.sql("postgres", "SELECT datctype FROM pg_database WHERE datname = 'template1'"), "C");
    pair.assert_like_stock_and_lives(from);
}
