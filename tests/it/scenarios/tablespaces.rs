//! Tablespaces that stay, come and go, outside and inside of the data directory, and locations that will not do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_refused, scenarios};
use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::{From, assert_equal_outcome};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock;
use crate::support::tool::{Plan, pg_unfork};

scenarios! {
    tablespaces_that_go: v13 Live, v16 Stopped;
    tablespaces_that_come: v15 Live, v17 Stopped;
    occupied_locations: v14 Live, v19 Stopped;
    shared_locations: v13 Stopped, v18 Stopped;
    one_location_twice: v15 Stopped, v18 Live;
    relative_links: v14 Live, v18 Live;
    in_place_tablespaces: v14 Stopped, v18 Live;
    in_place_tablespaces_of_old: v13 Live, v16 Live;
}

/// Makes a tablespace with a table in it; the path of its link in the data directory.
fn create_tablespace(cluster: &Cluster, name: &str, location: &str) -> String {
    cluster.sql("postgres", &format!("CREATE TABLESPACE {name} LOCATION '{location}'"));
    let fill = format!("CREATE TABLE in_{name} TABLESPACE {name} AS SELECT g FROM generate_series(1, 2000) g");
    cluster.sql("postgres", &fill);
    link_of(cluster, name)
}

/// The same, at the cluster's own location of this name.
pub(super) fn create_tablespace_beside(cluster: &Cluster, name: &str) -> String {
    let location = cluster.location(name);
    create_tablespace(cluster, name, location.to_str().unwrap())
}

fn drop_tablespace(cluster: &Cluster, name: &str) {
    cluster.sql("postgres", &format!("DROP TABLE in_{name}"));
    cluster.sql("postgres", &format!("DROP TABLESPACE {name}"));
}

fn link_of(cluster: &Cluster, name: &str) -> String {
    cluster.sql("postgres", &format!("SELECT 'pg_tblspc/' || oid FROM pg_tablespace WHERE spcname = '{name}'"))
}

/// Makes `path` in the data directory a link with this text.
fn set_link(cluster: &Cluster, path: &str, text: impl AsRef<Path>) {
    let link = cluster.path(path);
    fs::remove_file(&link).unwrap();
    symlink(text, link).unwrap();
}

/// One is dropped by the source, one was made by the target, one stays.
fn tablespaces_that_go(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                create_tablespace_beside(primary, "stays");
                create_tablespace_beside(primary, "goes");
            })
            .on_target_after_fork(|target| {
                target.sql("postgres", "UPDATE in_stays SET g = -g");
                target.sql("postgres", "UPDATE in_goes SET g = -g");
                create_tablespace_beside(target, "targets");
            })
            .on_source_after_fork(|source| drop_tablespace(source, "goes"))
    });
    pair.rewind_as_stock(from);
    assert_eq!(pair.target.links().len(), 1);
    let content = |gone: &str| {
        let names = fs::read_dir(pair.target.location(gone)).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    // What was there is kept for an undo, until it is dropped.
    assert!(["goes", "targets"].iter().all(|gone| content(gone) == [".pg_unfork"]));
    pair.assert_lives(from);
    // By now it may be somebody else's.
    let owner = pair.target.location("goes").join(".pg_unfork/owner");
    fs::write(&owner, "another").unwrap();
    drop_what_is_kept(&pair, from);
    assert!(content("targets").is_empty() && owner.exists());
}

/// What is kept goes by `clean`, or by the next apply.
fn drop_what_is_kept(pair: &Pair, from: From) {
    if from == From::Stopped {
        let _ = Outcome::of(pg_unfork(&["clean", "--force", "-D"]).arg(pair.target.data())).success();
        return;
    }
    pair.target.start();
    pair.target.promote();
    pair.target.sql("postgres", "CREATE TABLE afterwards (i int)");
    pair.target.stop(Stop::Fast);
    let _ = Plan::of(&pair.target, pair.source(from), Pair::arguments(from)).apply(&[]).success();
}

/// A way to a cluster's own locations that a server and its standby can both take, although they are on one
/// machine: by the working directory. No rewind looks at what has this name.
const WAY: &str = "/proc/self/cwd/.DS_Store";

/// One was made by the source, one dropped by the target; the locations on the target's side are empty. Texts
/// of links differ where both sides have one.
fn tablespaces_that_come(major: Major, from: From) {
    let mut links = Vec::new();
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                for name in ["stays", "returns"] {
                    create_tablespace_beside(primary, name);
                }
            })
            .on_target_after_fork(|target| drop_tablespace(target, "returns"))
            .on_source_after_fork(|source| {
                symlink("../linked", source.path(".DS_Store")).unwrap();
                source.location("comes");
                create_tablespace(source, "comes", &format!("{WAY}/comes"));
                links = ["stays", "returns", "comes"].map(|name| (link_of(source, name), name)).into();
            })
    });
    let Pair { source, target } = &pair;
    target.location("comes");
    symlink("../linked", target.path(".DS_Store")).unwrap();
    pair.settle(from);
    let stock_target = pair.copy_target();
    let lead =
        |cluster: &Cluster, way: &Path| links.iter().for_each(|(link, name)| set_link(cluster, link, way.join(name)));
    // Links with these texts lead to whatever is beside the data directory in which they are followed.
    lead(source, Path::new(if from == From::Live { WAY } else { "../../linked" }));
    let plan = Plan::of(target, pair.source(from), Pair::arguments(from));
    let in_target = |command: &mut Command, target: &Cluster| Outcome::of(command.current_dir(target.data())).success();
    let _ = in_target(pg_unfork(&["apply", "--no-sync"]).arg(plan.path()), target);
    let open_segment =
        (from == From::Live).then(|| source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())"));
    let mut stock = stock::command(&stock_target, pair.source(from), Pair::arguments(from));
    let _ = in_target(&mut stock, &stock_target);
    let created = plan.json()["actions"].as_array().unwrap().iter().filter(|a| a["kind"] == "create_symlink").count();
    assert_eq!(created, 2);
    for cluster in [target, &stock_target] {
        lead(cluster, &cluster.base().join("linked"));
    }
    assert_equal_outcome(target, &stock_target, &plan.json(), open_segment.as_deref());
    // Replay makes the new link again, with the text that the source gave it first.
    lead(source, Path::new(WAY));
    lead(target, Path::new(WAY));
    if from == From::Stopped {
        source.start();
        target.follow(source);
    } else {
        source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    }
    assert_follows(target, source);
    target.stop(Stop::Fast);
    lead(target, &target.base().join("linked"));
    target.start();
    assert_sound_at_rest(target);
}

/// A new tablespace's location is not fit on the target's host: on one host, it is the source's own; or it
/// is in the target, or missing.
fn occupied_locations(major: Major, from: From) {
    let mut link = String::new();
    let pair = Pair::simple(major, |builder| {
        builder.on_source_after_fork(|source| link = create_tablespace_beside(source, "comes"))
    });
    let Pair { source, target } = &pair;
    pair.settle(from);
    let location = source.location("comes");
    let content = || fs::read_dir(&location).unwrap().count();
    assert_eq!(content(), 1);
    let plan = || Plan::make(target, pair.source(from), Pair::arguments(from)).1;
    assert_refused(target, 4, &[location.to_str().unwrap(), "is not empty", "remedy"], plan);
    assert_eq!(content(), 1);
    symlink("../linked", source.path(".DS_Store")).unwrap();
    set_link(source, &link, Path::new(if from == From::Live { WAY } else { "../../linked" }).join("comes"));
    symlink("../linked", target.path(".DS_Store")).unwrap();
    assert_refused(target, 4, &["FAILED: tablespaces", "comes", "cannot be opened"], plan);
    fs::create_dir(target.base().join("linked")).unwrap();
    fs::create_dir(target.base().join("linked/comes")).unwrap();
    let usable = Plan::of(target, pair.source(from), Pair::arguments(from));
    fs::remove_dir(target.base().join("linked/comes")).unwrap();
    fs::create_dir(target.path("base/inside")).unwrap();
    symlink(target.path("base/inside"), target.base().join("linked/comes")).unwrap();
    let words = ["comes", "lies inside this cluster"];
    assert_refused(target, 4, &words, plan);
    assert_refused(target, 4, &words, || {
        Outcome::of(pg_unfork(&["apply"]).arg(usable.path()).current_dir(target.data()))
    });
}

/// Links of both sides lead to one directory.
fn shared_locations(major: Major, from: From) {
    let mut link = String::new();
    let pair = Pair::simple(major, |builder| {
        builder.before_backup(|primary| link = create_tablespace_beside(primary, "shared"))
    });
    let Pair { source, target } = &pair;
    pair.settle(from);
    let usable = Plan::of(target, pair.source(from), &[]);
    set_link(target, &link, source.location("shared"));
    let words = [link.as_str(), "is the source's"];
    assert_refused(target, 4, &words, || Plan::make(target, pair.source(from), &[]).1);
    assert_refused(target, 3, &["does not any more", "fresh plan"], || usable.apply(&[]));
}

/// On the target's host the locations of two new tablespaces are one directory.
fn one_location_twice(major: Major, from: From) {
    let mut links = Vec::new();
    let pair = Pair::simple(major, |builder| {
        builder.on_source_after_fork(|source| {
            links = ["one", "two"].map(|name| (create_tablespace_beside(source, name), name)).into();
        })
    });
    let Pair { source, target } = &pair;
    symlink(target.location("one"), target.base().join("linked/two")).unwrap();
    pair.settle(from);
    symlink("../linked", source.path(".DS_Store")).unwrap();
    symlink("../linked", target.path(".DS_Store")).unwrap();
    let way = Path::new(if from == From::Live { WAY } else { "../../linked" });
    for (link, name) in &links {
        set_link(source, link, way.join(name));
    }
    let words = [links[0].0.as_str(), links[1].0.as_str(), "linked/one", "another tablespace"];
    assert_refused(target, 4, &words, || Plan::make(target, pair.source(from), Pair::arguments(from)).1);
    let second = target.base().join("linked/two");
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    let usable = Plan::of(target, pair.source(from), Pair::arguments(from));
    fs::remove_dir(&second).unwrap();
    symlink(target.location("one"), &second).unwrap();
    assert_refused(target, 4, &words, || {
        Outcome::of(pg_unfork(&["apply"]).arg(usable.path()).current_dir(target.data()))
    });
}

/// Links of tablespaces whose texts are relative, as people make them who move whole clusters about. Stock
/// pg_rewind from 17 on takes a live source's for directories, and gives up.
fn relative_links(major: Major, from: From) {
    let mut link = String::new();
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| link = create_tablespace_beside(primary, "stays"))
            .on_target_after_fork(|target| drop(target.sql("postgres", "UPDATE in_stays SET g = -g")))
    });
    for cluster in [&pair.source, &pair.target] {
        set_link(cluster, &link, "../../linked/stays");
    }
    pair.settle(from);
    if major.0 < 17 {
        pair.rewind_as_stock_settled(from);
    } else {
        let _ = Plan::of(&pair.target, pair.source(from), Pair::arguments(from)).apply(&[]).success();
    }
    pair.assert_lives(from);
}

/// A pair with tablespaces in the data directory: one that stays, some that come and go.
fn pair_with_in_place_tablespaces(major: Major) -> Pair {
    let pair = Pair::simple(major, |builder| {
        builder
            .config("allow_in_place_tablespaces = on\n")
            .before_backup(|primary| {
                for name in ["stays", "dropped_by_source", "dropped_by_target"] {
                    create_tablespace(primary, name, "");
                }
            })
            .on_target_after_fork(|target| {
                target.sql("postgres", "UPDATE in_stays SET g = -g");
                drop_tablespace(target, "dropped_by_target");
                create_tablespace(target, "made_by_target", "");
            })
            .on_source_after_fork(|source| {
                drop_tablespace(source, "dropped_by_source");
                create_tablespace(source, "made_by_source", "");
            })
    });
    assert_eq!(pair.target.links(), [""; 0].map(PathBuf::from));
    pair
}

/// Tablespaces inside of the data directory.
fn in_place_tablespaces(major: Major, from: From) {
    pair_with_in_place_tablespaces(major).assert_like_stock_and_lives(from);
}

/// Stock pg_rewind before 17 takes them for links where the source is live, and gives up.
fn in_place_tablespaces_of_old(major: Major, from: From) {
    let pair = pair_with_in_place_tablespaces(major);
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    pair.assert_lives(from);
}
