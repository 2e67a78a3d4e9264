//! The store in which the nodes of all tests agree on who leads; each pair has keys of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::orchestrators::{address, eventually, root};
use crate::support::outcome::Outcome;
use crate::support::scratch;

/// Below the ports that clusters are named by.
const PORT: u16 = 2379;

/// One etcd for all tests of this process. It ends with the scratch directory.
struct Etcd {
    directory: TempDir,
    _process: Child,
}

/// Where it listens, started if it is not.
pub(super) fn endpoint() -> String {
    static ETCD: OnceLock<Etcd> = OnceLock::new();
    let etcd = ETCD.get_or_init(start);
    eventually(
        || format!("etcd\n{}", fs::read_to_string(log(&etcd.directory)).unwrap_or_default()),
        || etcdctl(&["get", "anything"]).status.success().then_some(()),
    );
    listens()
}

/// Removes a key.
pub(super) fn remove(key: &str) {
    let removed = etcdctl(&["del", key]).success();
    assert_eq!(removed.stdout.trim(), "1", "{key}");
}

fn listens() -> String {
    format!("{}:{PORT}", address())
}

fn etcdctl(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(root().join("bin/etcdctl"));
    command.env("ETCDCTL_API", "3").args(["--endpoints", &listens()]).args(arguments);
    Outcome::of(&mut command)
}

fn log(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}

fn start() -> Etcd {
    let directory = scratch::directory("etcd");
    let log = fs::File::create(log(&directory)).expect("a log");
    let (client, peer) = (format!("http://{}", listens()), format!("http://{}:{}", address(), PORT + 1));
    let process = Command::new(root().join("bin/etcd"))
        .current_dir(directory.path())
        .args(["--name", "one", "--data-dir", "data", "--initial-cluster"])
        .arg(format!("one={peer}"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("etcd");
    Etcd { directory, _process: process }
}
