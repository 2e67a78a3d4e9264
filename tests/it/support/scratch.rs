//! One scratch directory per test process. Statics are never dropped and a killed process drops
//! nothing at all, so a janitor process waits for our end, stops the servers that are left and
//! removes the directory.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::statvfs;
use tempfile::{Builder, TempDir};

/// Begins when its standard input ends, that is when the test process is gone. A process is stopped
/// only if it works in the scratch directory, a server if it works in the data directory that names it; others go
/// first, since they start servers. The later rounds are for servers that were just starting. A server removes its lock file as its last act.
const JANITOR: &str = r#"
trap '' HUP INT TERM
cat
for process in /proc/[0-9]*; do
    case "$(readlink "$process/cwd")" in
        "$1"/*) [ "$(basename "$(readlink "$process/exe")")" = postgres ] || kill -KILL "${process#/proc/}" ;;
    esac
done
for round in 1 2 3; do
    for file in "$1"/*/data/postmaster.pid; do
        [ -f "$file" ] || continue
        pid=$(head -n 1 "$file")
        [ "$(readlink "/proc/$pid/cwd")" = "${file%/postmaster.pid}" ] || continue
        kill -QUIT "$pid"
        for tenth in $(seq 50); do [ -f "$file" ] && sleep 0.1; done
    done
    [ "$round" = 1 ] || sleep 0.3
done
chmod -R u+rwX "$1"
rm -rf "$1"
"#;

/// The longest root that leaves room for a socket's name in the 107 bytes that there are.
const LONGEST_ROOT: usize = 70;

/// What all tests together may need: seven shared pairs, some copies and two tables of a gigabyte, with room to
/// spare.
const PLENTY: u64 = 6 << 30;

struct Scratch {
    root: PathBuf,
    /// Its standard input is the pipe that tells it of our end.
    _janitor: Child,
}

/// The directory below which everything happens.
pub(crate) fn root() -> &'static Path {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    &SCRATCH.get_or_init(make).root
}

/// A new directory below [`root`], removed on drop.
pub(crate) fn directory(name: &str) -> TempDir {
    Builder::new().prefix(&format!("{name}-")).tempdir_in(root()).expect("a scratch directory")
}

/// The directory of all servers' sockets; their port numbers keep them apart.
pub(crate) fn sockets() -> PathBuf {
    let path = root().join("s");
    fs::create_dir_all(&path).expect("the socket directory");
    path
}

/// `TMPDIR` if it is set and short enough, else memory if there is plenty (a pair is built in a
/// third of the time there), else the system's temporary directory.
fn parent() -> PathBuf {
    if let Some(wanted) = env::var_os("TMPDIR") {
        if wanted.len() <= LONGEST_ROOT {
            return wanted.into();
        }
        return "/tmp".into();
    }
    let memory = Path::new("/dev/shm");
    let free = statvfs(memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if free >= PLENTY && tempfile::tempfile_in(memory).is_ok() {
        return memory.into();
    }
    env::temp_dir()
}

fn make() -> Scratch {
    let parent = fs::canonicalize(parent()).expect("the temporary directory");
    let root = Builder::new().prefix("pgu-").tempdir_in(parent).expect("a scratch directory").keep();
    let janitor = Command::new("sh")
        .args(["-c", JANITOR, "janitor"])
        .arg(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh");
    Scratch { root, _janitor: janitor }
}
