//! What else lies in a data directory: names, kinds and sizes that no table has.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use super::{assert_refused, scenarios};
use crate::support::cluster::{Cluster, append};
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::servers::Major;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};

scenarios! {
    minimal: v14 Stopped, v19 Live;
    extra_files: v16 Live, v18 Stopped;
    names: v13 Stopped, v16 Live, v19 Stopped;
    names_that_are_no_text: v14 Live, v17 Live;
    names_for_another_encoding: v15 Live, v18 Live;
    left_out: v14 Live, v17 Stopped;
    sizes: v15 Stopped, v17 Live;
    holes: v16 Stopped, v18 Live;
    hard_links: v13 Stopped, v15 Live;
    unreadable: v16 Stopped, v19 Live;
    many_relations: v13 Live, v18 Stopped;
    sockets_and_fifos: v14 Stopped, v17 Stopped;
    special_files_of_a_server: v15 Live, v18 Live;
    growing: v13 Stopped, v15 Live, v16 Stopped;
}

/// A path in a data directory, whatever its bytes.
fn path(cluster: &Cluster, name: &[u8]) -> PathBuf {
    cluster.path(OsStr::from_bytes(name))
}

/// Writes a file, and the directories above it.
fn write(cluster: &Cluster, name: &[u8], content: impl AsRef<[u8]>) {
    let path = path(cluster, name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A pair with these files on the target and on the source.
fn pair_with(major: Major, on_target: &[(&[u8], &[u8])], on_source: &[(&[u8], &[u8])]) -> Pair {
    let pair = Pair::simple(major, |builder| builder);
    for (cluster, files) in [(&pair.target, on_target), (&pair.source, on_source)] {
        for (name, content) in files {
            write(cluster, name, content);
        }
    }
    pair
}

/// Clusters as initdb makes them.
fn minimal(major: Major, from: From) {
    let pair = PairBuilder::new(major).on_target_after_fork(|target| target.checkpoint()).build();
    pair.assert_like_stock_and_lives(from);
}

/// Files and directories on both sides, or on one.
pub(super) fn extra_files(major: Major, from: From) {
    let target: &[(&[u8], &[u8])] = &[
        (b"both/file", b"target, and longer"),
        (b"both/below/file", b"t"),
        (b"target only/below/it's a file", b"t"),
        (b"target only/empty", b""),
        (b"both/.DS_Store", b"target"),
    ];
    let source: &[(&[u8], &[u8])] = &[
        (b"both/file", b"source"),
        (b"both/below/file", b"source, and longer"),
        (b"source only/below/it's a file", b"s"),
        (b"source only/empty", b""),
        (b"source only/.DS_Store", b"source"),
    ];
    let pair = pair_with(major, target, source);
    fs::create_dir_all(pair.source.path("source only/no file")).unwrap();
    fs::create_dir_all(pair.target.path("target only/no file")).unwrap();
    pair.rewind_as_stock(from);
    assert_eq!(fs::read(pair.target.path("both/.DS_Store")).unwrap(), b"target");
    assert!(!pair.target.path("source only/.DS_Store").exists());
    pair.assert_lives(from);
}

/// Names that are text, and hard to write.
const HARD_NAMES: [&str; 10] = [
    "a  blank ",
    "it's \"quoted\"",
    "back\\slash\\",
    "\\N",
    "new\nline",
    "tab\tand\u{1}\u{7f}",
    "100% %41",
    "{array,\"of\"}",
    "$HOME;`true`",
    "\u{e4}\u{4f60}\u{1f418}",
];

/// Names that are hard to write; in directories, too.
fn names(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    let mut names: Vec<Vec<u8>> = HARD_NAMES.map(|name| name.as_bytes().to_vec()).into();
    if from == From::Stopped {
        names.extend([b"latin1 \xe4".to_vec(), b"\xff\xfe".to_vec()]);
    }
    for name in names {
        let in_directory = |side: &[u8]| [b"odd ", side, &name, b"/", &name].concat();
        write(&pair.target, &in_directory(b"both"), "target");
        write(&pair.source, &in_directory(b"both"), "source");
        write(&pair.target, &in_directory(b"target"), "target");
        write(&pair.source, &in_directory(b"source"), "source");
    }
    pair.assert_like_stock_and_lives(from);
}

/// Names that a server lists, and does not take back as text. Stock pg_rewind gives up on them half-way.
fn names_that_are_no_text(major: Major, from: From) {
    let names: [&[u8]; 3] = [b"latin1 \xe4", b"dir\xff/plain", b"plain dir/cut \xe4\xb8"];
    let pair = Pair::simple(major, |builder| builder);
    let large = vec![7; 3 << 20];
    for name in names {
        write(&pair.target, name, "target");
        write(&pair.source, name, &large);
        write(&pair.source, &[name, b" of the source"].concat(), "source");
        write(&pair.target, &[name, b" of the target"].concat(), "target");
    }
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    for name in names {
        assert!(fs::read(path(&pair.target, name)).unwrap() == large, "{name:?}");
        assert_eq!(fs::read(path(&pair.target, &[name, b" of the source"].concat())).unwrap(), b"source");
        assert!(!path(&pair.target, &[name, b" of the target"].concat()).exists());
    }
    pair.assert_lives(from);
}

/// A database whose encoding is not UTF-8 takes other names.
fn names_for_another_encoding(major: Major, from: From) {
    let init = crate::support::cluster::InitOptions {
        arguments: ["-E", "EUC_JP"].map(str::to_owned).into(),
        ..Default::default()
    };
    let pair = Pair::simple(major, |builder| builder.init(init));
    let names = ["n\u{e4}h".as_bytes(), b"euc \xb0\xa1", b"neither \xff\x01"];
    for name in names {
        write(&pair.source, name, "source");
    }
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    for name in names {
        assert_eq!(fs::read(path(&pair.target, name)).unwrap(), b"source", "{name:?}");
    }
    pair.assert_lives(from);
}

/// What is of no use to another server is not fetched, and removed where it is.
fn left_out(major: Major, from: From) {
    const LEFT_OUT: [&str; 14] = [
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
        "tablespace_map",
        "backup_manifest",
        "postmaster.opts",
        "base/1/pg_internal.init",
        "global/pg_internal.init.77",
        "base/pgsql_tmp/pgsql_tmp77.0",
        "base/1/pgsql_tmp77",
        "pg_stat_tmp/db_1.stat",
        "pg_notify/below/77",
        "pg_subtrans/FFFF",
        "extra/backup_manifest",
        "extra/postmaster.pid",
    ];
    const LIKE_OTHERS: [&str; 5] =
        ["backup_label.old", "tablespace_map.old", "base/1/t3_16384", "base/1/t3_16384_fsm", "pgsql_tmp/x"];
    let slot = |cluster: &Cluster, name: &str| {
        cluster.sql("postgres", &format!("SELECT pg_create_physical_replication_slot('{name}', true)"));
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .on_target_after_fork(|target| slot(target, "targets"))
            .on_source_after_fork(|source| slot(source, "sources"))
    });
    for (index, name) in LEFT_OUT.into_iter().chain(LIKE_OTHERS).enumerate() {
        // On both sides, on the target, on the source.
        if index % 3 != 2 {
            write(&pair.target, name.as_bytes(), "target");
        }
        if index % 3 != 1 {
            write(&pair.source, name.as_bytes(), "source");
        }
    }
    pair.rewind_as_stock(from);
    for name in LEFT_OUT {
        assert!(!pair.target.path(name).exists(), "{name}");
    }
    assert_eq!(fs::read_dir(pair.target.path("pg_replslot")).unwrap().count(), 0);
    fs::remove_file(pair.source.path("tablespace_map")).ok();
    pair.assert_lives(from);
}

/// Sizes that are no multiple of a block, or nothing; of files with and without a relation's name.
fn sizes(major: Major, from: From) {
    const SIZES: [(usize, usize); 9] = [
        (8192, 8193),
        (8193, 8192),
        (8193, 16385),
        (0, 5),
        (5, 0),
        (12_000, 20_000),
        (20_000, 12_000),
        (0, 0),
        (16384, 1),
    ];
    let pair = Pair::simple(major, |builder| builder);
    let names =
        |index: usize| [format!("base/1/9000{index}"), format!("base/1/9000{index}_vm"), format!("extra/{index}")];
    for (index, (on_target, on_source)) in SIZES.into_iter().enumerate() {
        for name in names(index) {
            write(&pair.target, name.as_bytes(), vec![b't'; on_target]);
            write(&pair.source, name.as_bytes(), vec![b's'; on_source]);
        }
        write(&pair.source, format!("extra/{index} of the source").as_bytes(), vec![b's'; on_source]);
        write(&pair.source, format!("base/1/9100{index}").as_bytes(), vec![b's'; on_source]);
    }
    pair.rewind_as_stock(from);
    // No page of them has a checksum.
    for entry in fs::read_dir(pair.target.path("base/1")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().as_bytes().starts_with(b"9") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    pair.assert_lives(from);
}

/// Holes read as zeros, and stay holes where both sides are directories.
fn holes(major: Major, from: From) {
    const SIZE: u64 = 32 << 20;
    let sparse = |cluster: &Cluster, name: &str, at: &[u64], size: u64| {
        write(cluster, name.as_bytes(), "");
        let file = File::options().write(true).open(cluster.path(name)).unwrap();
        for &offset in at {
            file.write_all_at(&[b'd'; 8192], offset).unwrap();
        }
        file.set_len(size).unwrap();
    };
    let pair = Pair::simple(major, |builder| builder);
    let files = ["extra/new", "extra/both", "extra/full", "base/1/90000", "base/1/90001"];
    for name in files {
        sparse(&pair.source, name, &[1 << 20, SIZE - 8192], SIZE + 5 * 8192);
    }
    sparse(&pair.source, "extra/only a hole", &[], SIZE);
    sparse(&pair.target, "extra/both", &[3 << 20], 4 << 20);
    sparse(&pair.target, "base/1/90000", &[3 << 20], 4 << 20);
    write(&pair.target, b"extra/full", vec![b't'; 2 << 20]);
    write(&pair.target, b"base/1/90001", vec![b't'; 2 << 20]);
    pair.rewind_as_stock(from);
    if from == From::Stopped {
        for name in files.into_iter().chain(["extra/only a hole"]) {
            let used = fs::metadata(pair.target.path(name)).unwrap().blocks() * 512;
            assert!(used < 4 << 20, "{name} takes {used} bytes");
        }
    }
    for name in ["base/1/90000", "base/1/90001"] {
        fs::remove_file(pair.target.path(name)).unwrap();
    }
    pair.assert_lives(from);
}

/// A file with several names is replaced under the one that is to change. Stock pg_rewind writes through all of them.
fn hard_links(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    let Pair { source, target } = &pair;
    write(target, b"extra/one", "of the target");
    for name in ["extra/two", "extra/goes", "extra/.DS_Store"] {
        fs::hard_link(target.path("extra/one"), target.path(name)).unwrap();
    }
    let outside = target.base().join("outside");
    fs::hard_link(target.path("postgresql.conf"), &outside).unwrap();
    let before = fs::read(&outside).unwrap();
    write(source, b"extra/one", "first");
    write(source, b"extra/two", "second, and longer");
    write(source, b"extra/three", "third");
    fs::hard_link(source.path("extra/three"), source.path("extra/four")).unwrap();
    source.append_config("# of the source\n");
    pair.settle(from);
    let plan = Plan::of(target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    let read = |name: &str| fs::read_to_string(target.path(name)).unwrap();
    assert_eq!(read("extra/one"), "first");
    assert_eq!(read("extra/two"), "second, and longer");
    assert_eq!(read("extra/three"), "third");
    assert_eq!(read("extra/four"), "third");
    assert_eq!(read("extra/.DS_Store"), "of the target");
    assert!(!target.path("extra/goes").exists());
    assert!(read("postgresql.conf").ends_with("# of the source\n"));
    assert!(fs::read(&outside).unwrap() == before, "written through a name outside of the target");
    pair.assert_lives(from);
}

/// Files that cannot be read, and need not be.
fn unreadable(major: Major, from: From) {
    let pair = pair_with(
        major,
        &[
            (b"extra/.DS_Store", b"target"),
            (b"pg_stat_tmp/x", b"x"),
            (b"extra/goes", b"x"),
            (b"extra/stays", b"target"),
        ],
        &[
            (b"extra/.DS_Store", b"source"),
            (b"pg_stat_tmp/y", b"y"),
            (b"base/pgsql_tmp/pgsql_tmp1.0", b"y"),
            (b"extra/stays", b"source"),
        ],
    );
    let forbid = |path: PathBuf| fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
    for name in ["extra/.DS_Store", "pg_stat_tmp/y", "base/pgsql_tmp/pgsql_tmp1.0"] {
        forbid(pair.source.path(name));
    }
    pair.settle(from);
    let stock_target = pair.copy_target();
    for cluster in [&pair.target, &stock_target] {
        for name in ["extra/.DS_Store", "pg_stat_tmp/x", "extra/goes"] {
            forbid(cluster.path(name));
        }
    }
    pair.rewind_beside_stock(&stock_target, from);
    let foreign = pair.target.path("extra/.DS_Store");
    assert_eq!(fs::metadata(&foreign).unwrap().permissions().mode() & 0o777, 0);
    assert_eq!(fs::read(pair.target.path("extra/stays")).unwrap(), b"source");
    pair.assert_lives(from);
}

/// Ten thousand tables, some of them changed on either side.
fn many_relations(major: Major, from: From) {
    let create = "DO $$ BEGIN FOR i IN 1..10000 LOOP
                      EXECUTE format('CREATE TABLE many_%s AS SELECT %s AS a', i, i);
                      IF i % 500 = 0 THEN COMMIT; END IF;
                  END LOOP; END $$";
    let update = |cluster: &Cluster, step: u32| {
        cluster.sql(
            "postgres",
            &format!(
                "DO $$ BEGIN FOR i IN 1..10000 BY {step} LOOP
                 EXECUTE format('UPDATE many_%s SET a = -{step}', i);
                 IF i % 7 = 0 THEN EXECUTE format('DROP TABLE many_%s', i); END IF;
                 IF i % 11 = 0 THEN EXECUTE format('CREATE TABLE more_%s AS SELECT {step} AS a', i); END IF;
                 IF i % 50 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
            ),
        );
    };
    let pair = PairBuilder::new(major)
        .before_backup(|primary| drop(primary.sql("postgres", create)))
        .on_target_after_fork(|target| update(target, 3))
        .on_source_after_fork(|source| update(source, 10))
        .build();
    pair.rewind_as_stock(from);
    let Pair { source, target } = &pair;
    if from == From::Stopped {
        source.start();
        target.follow(source);
    } else {
        source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    }
    // A dump of so many takes minutes.
    target.start();
    source.wait_for_streaming();
    target.wait_for_catchup(source);
    // A transaction for each, or the locks are too many.
    let content = "SELECT format('SELECT %L, sum(a) FROM %I', relname, relname) FROM pg_class \
                    WHERE relname ~ '^(many|more)_' ORDER BY relname \\gexec";
    assert!(target.sql("postgres", content) == source.sql("postgres", content), "the contents differ");
    target.stop(crate::support::cluster::Stop::Fast);
    target.assert_checksums();
}

/// Makes a socket and a named pipe in a data directory.
fn make_special_files(cluster: &Cluster) {
    drop(UnixListener::bind(cluster.path("socket")).unwrap());
    let _ = Outcome::of(Command::new("mkfifo").arg(cluster.path("pipe"))).success();
}

/// What is neither file, directory nor link is nobody's concern.
fn sockets_and_fifos(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    make_special_files(&pair.source);
    make_special_files(&pair.target);
    drop(UnixListener::bind(pair.source.path(".s.PGSQL.77")).unwrap());
    drop(UnixListener::bind(pair.target.path("target's")).unwrap());
    pair.rewind_as_stock(from);
    assert!(pair.target.path("target's").exists());
    pair.assert_lives(from);
}

/// A running server takes a socket or a named pipe for an empty file, and cannot read it: stock pg_rewind gives
/// up on the one half-way, and waits for ever at the other.
fn special_files_of_a_server(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    let Pair { source, target } = &pair;
    make_special_files(source);
    drop(UnixListener::bind(source.path(".s.PGSQL.77")).unwrap());
    fs::rename(source.path("pipe"), path(source, b"pipe \xff")).unwrap();
    let _ = Outcome::of(Command::new("mkfifo").arg(source.path("pipe"))).success();
    let plan = Plan::of(target, pair.source(from), Pair::arguments(from));
    let program = pg_unfork(&["apply", "--no-sync"]);
    let mut apply = Command::new("timeout");
    apply.arg("60").arg(program.get_program()).args(program.get_args()).arg(plan.path());
    let _ = Outcome::of(&mut apply).success();
    for name in [b"socket".as_slice(), b"pipe", b"pipe \xff"] {
        let metadata = fs::symlink_metadata(path(target, name)).unwrap();
        assert!(metadata.is_file() && metadata.len() == 0, "{name:?}");
    }
    assert!(!target.path(".s.PGSQL.77").exists());
    pair.assert_lives(from);
}

/// A file that grows between plan and apply: a stopped source must not, a live one may.
fn growing(major: Major, from: From) {
    let pair = pair_with(major, &[(b"extra/grows", b"target")], &[(b"extra/grows", b"source")]);
    pair.settle(from);
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    append(&pair.source.path("extra/grows"), ", and more");
    match from {
        From::Stopped => {
            let source_before = Tree::of(&pair.source);
            assert_refused(&pair.target, 3, &["the source has changed", "extra/grows"], || plan.apply(&[]));
            assert_eq!(tree::diff(&source_before, &Tree::of(&pair.source), &|_| false), [""; 0]);
            let _ = Plan::of(&pair.target, pair.source(from), &[]).apply(&[]).success();
        }
        From::Live => drop(plan.apply(&[]).success()),
    }
    assert_eq!(fs::read(pair.target.path("extra/grows")).unwrap(), b"source, and more");
    pair.assert_lives(from);
}
