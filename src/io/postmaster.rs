//! Whether a server runs on a data directory.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, getppid, test_kill_process};

use crate::error::{Context, Error, Result};

/// The process id of the server that runs on `directory`, by its `postmaster.pid`.
///
/// As PostgreSQL itself judges: the file's first line names a process that exists, whatever it is, and is
/// neither this one nor its parent, nor another user's. A file whose process is gone is left from a
/// crash, and one that names none is in the way of any server, too.
///
/// A server in another container, or on another machine, has a process that does not exist here: its
/// control file says that it is running.
///
/// # Errors
/// When the file is there but cannot be read, or names no process.
pub(super) fn running_postmaster(directory: &Path) -> Result<Option<i32>> {
    let path = directory.join("postmaster.pid");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(|| format!("cannot read {}", path.display())),
    };
    // A standalone backend writes its process id with a minus sign.
    let number = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    let pid = number.and_then(i32::checked_abs).and_then(Pid::from_raw);
    if pid.is_none() {
        return Err(Error::precondition(format!("{} names no process", path.display()))
            .hint("a server is just starting there, or the file is left from a crash: remove it if you are sure that no server runs"));
    }
    Ok(pid.filter(|&pid| is_alive(pid)).map(|pid| pid.as_raw_nonzero().get()))
}

fn is_alive(pid: Pid) -> bool {
    let ours = pid == getpid() || getppid() == Some(pid);
    !ours && !matches!(test_kill_process(pid), Err(Errno::SRCH | Errno::PERM))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_pid_file_counts_while_its_process_lives() {
        let scratch = tempfile::tempdir().unwrap();
        let found = |text: &str| {
            std::fs::write(scratch.path().join("postmaster.pid"), text).unwrap();
            running_postmaster(scratch.path()).unwrap()
        };
        assert_eq!(running_postmaster(scratch.path()).unwrap(), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(found(&format!("{pid}\n/data\n")), Some(pid));
        assert_eq!(found(&format!("-{pid}\n")), Some(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found(&format!("{pid}\n/data\n")), None);
        assert_eq!(found(&format!("{}\n", std::process::id())), None);
        for text in ["", "\n", "garbage\n", "0\n", "99999999999\n"] {
            std::fs::write(scratch.path().join("postmaster.pid"), text).unwrap();
            assert_eq!(running_postmaster(scratch.path()).unwrap_err().kind(), ErrorKind::Precondition, "{text:?}");
        }
    }
}
