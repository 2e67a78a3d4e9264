//! Programs that are run: nothing on their standard input, their output held within bounds, and none that outlives a
//! wish to stop.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::error::{Context, Result};
use crate::interrupt::Interrupt;

/// What is kept of each stream, in bytes: of standard output the beginning, of standard error the end.
const KEPT: usize = 64 << 10;
/// How long it takes at most to see that a program has ended, or shall.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long a program gets to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// What a program of somebody else's need not know: it lets into the source.
const SECRET: &str = "PGPASSWORD";

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status, or the signal that ended it.
    pub(super) status: ExitStatus,
    /// The beginning of what it wrote to standard output.
    pub(super) stdout: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub(super) stderr: Vec<u8>,
}

impl Ended {
    /// The last lines of standard error, for people: a few, and none that is long.
    pub(super) fn last_lines(&self) -> String {
        last_lines(&self.stderr)
    }
}

/// Runs a program to its end, in a process group of its own. Where the work shall stop meanwhile, the group gets the
/// signal `stop`, and a while later, or as soon as that is urgent, SIGKILL; the process does not end before that.
///
/// What a program leaves running behind it may hold its output open; that is not waited for.
///
/// # Errors
/// When it cannot be started, or the work shall stop.
pub(super) fn run(command: &mut Command, stop: Signal, interrupt: &Interrupt) -> Result<Ended> {
    let _held = interrupt.hold();
    interrupt.check()?;
    command.env_remove(SECRET);
    let shown = command.get_program().to_string_lossy().into_owned();
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let mut child = started.context(|| format!("cannot run {shown}"))?;
    let watched = watch(&mut child, interrupt);
    if !matches!(watched, Ok(Some(_))) {
        end(&mut child, stop, interrupt);
        interrupt.check()?;
    }
    let (status, stdout, stderr) =
        watched.context(|| format!("cannot wait for {shown}"))?.ok_or_else(Interrupt::error)?;
    Ok(Ended { status, stdout, stderr })
}

type Watched = (ExitStatus, Vec<u8>, Vec<u8>);

/// Takes what the program writes until it has ended; none where the work shall stop before.
fn watch(child: &mut Child, interrupt: &Interrupt) -> std::io::Result<Option<Watched>> {
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from))?;
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        if interrupt.is_set() {
            return Ok(None);
        }
        let ended = child.try_wait()?;
        let mut beginning = |bytes: &[u8], kept: &mut VecDeque<u8>| {
            kept.extend(bytes.iter().take(KEPT.saturating_sub(kept.len())));
        };
        let mut end = |bytes: &[u8], kept: &mut VecDeque<u8>| {
            kept.extend(bytes);
            kept.drain(..kept.len().saturating_sub(KEPT));
        };
        stdout.take(&mut beginning)?;
        stderr.take(&mut end)?;
        if let Some(status) = ended {
            return Ok(Some((status, stdout.kept.into(), stderr.kept.into())));
        }
        let mut waited: Vec<PollFd<'_>> = [&stdout, &stderr]
            .into_iter()
            .filter_map(|stream| Some(PollFd::new(stream.file.as_ref()?, PollFlags::IN)))
            .collect();
        // A signal may end it early.
        let _ = poll(&mut waited, Some(&TICK));
    }
}

/// Ends the program and what it has started, and waits for all of that.
fn end(child: &mut Child, stop: Signal, interrupt: &Interrupt) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = |signal| group.map(|group| kill_process_group(group, signal));
    signal(stop);
    let is_there = || group.is_some_and(|group| test_kill_process_group(group).is_ok());
    let begin = Instant::now();
    while begin.elapsed() < GRACE && !interrupt.is_urgent() {
        // What it has started may have more to do than it had.
        if !matches!(child.try_wait(), Ok(None)) && !is_there() {
            return;
        }
        let _ = poll(&mut [], Some(&TICK));
    }
    signal(Signal::KILL);
    let _ = child.wait();
    // Who dies is there for a moment; and for good where nobody buries orphans.
    let begin = Instant::now();
    while begin.elapsed() < GRACE && is_there() {
        let _ = poll(&mut [], Some(&TICK));
    }
}

/// One end of a pipe, read as far as there is something.
struct Stream {
    /// None once it is closed.
    file: Option<File>,
    kept: VecDeque<u8>,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>) -> std::io::Result<Self> {
        let file = pipe.map(File::from);
        if let Some(file) = &file {
            fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { file, kept: VecDeque::new() })
    }

    fn take(&mut self, keep: &mut dyn FnMut(&[u8], &mut VecDeque<u8>)) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        // Whoever writes without end must not keep us from looking at anything else.
        for _ in 0..64 {
            let Some(file) = &mut self.file else { return Ok(()) };
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(count) => keep(buffer.get(..count).unwrap_or_default(), &mut self.kept),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many lines are shown, and how many characters of each.
const SHOWN: (usize, usize) = (10, 500);

fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let (most, longest) = SHOWN;
    let last = lines.get(lines.len().saturating_sub(most)..).unwrap_or_default();
    let cut = |line: &&str| line.chars().take(longest).collect::<String>();
    last.iter().map(cut).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str, interrupt: &Interrupt) -> Result<Ended> {
        run(Command::new("/bin/sh").args(["-c", script]), Signal::TERM, interrupt)
    }

    #[test]
    fn output_is_bounded_and_nothing_is_read() {
        let never = Interrupt::new();
        let ended = shell("cat; echo out; echo err >&2; exit 3", &never).unwrap();
        assert_eq!((ended.status.code(), &*ended.stdout, &*ended.stderr), (Some(3), &b"out\n"[..], &b"err\n"[..]));
        let much = "seq 100000; seq 100000 >&2";
        let ended = shell(much, &never).unwrap();
        assert!(ended.stdout.len() == KEPT && ended.stdout.starts_with(b"1\n2\n"));
        assert!(ended.stderr.len() == KEPT && ended.stderr.ends_with(b"\n100000\n"));
        assert_eq!(ended.last_lines().lines().count(), SHOWN.0);
    }

    #[test]
    fn what_stays_behind_is_not_waited_for() {
        let ended = shell("sleep 60 & echo $!", &Interrupt::new()).unwrap();
        let pid: i32 = String::from_utf8(ended.stdout).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_ok());
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    /// Runs a script, which writes the number of a process to the file PID, until it has done so; that process must be gone then.
    #[track_caller]
    fn assert_ended(script: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("pid");
        let script = script.replace("PID", &file.display().to_string());
        let interrupt = Interrupt::new();
        let outcome = std::thread::scope(|scope| {
            let running = scope.spawn(|| shell(&script, &interrupt).map(|_| ()));
            while !file.exists() {
                std::thread::yield_now();
            }
            interrupt.set();
            running.join().unwrap()
        });
        assert_eq!(outcome.unwrap_err().kind(), crate::error::ErrorKind::Interrupted);
        let pid = std::fs::read_to_string(&file).unwrap();
        // It is its parent's, or init's, to bury.
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        assert!(state.is_err() || state.unwrap().contains(") Z "));
    }

    #[test]
    fn the_wish_to_stop_ends_all_that_was_started() {
        assert_ended("trap '' TERM; sleep 60 & echo $! >PID.new; mv PID.new PID; wait");
    }

    #[test]
    fn what_outlives_the_program_is_ended_too() {
        assert_ended("sh -c 'trap \"\" TERM; echo $$ >PID.new; mv PID.new PID; exec sleep 60' & wait");
    }

    #[test]
    fn few_lines_are_shown() {
        let many: String = (0..50).map(|n| format!("line {n}\n\n")).collect();
        let shown = last_lines(many.as_bytes());
        assert!(shown.starts_with("line 40\n") && shown.ends_with("line 49"), "{shown}");
        assert_eq!(last_lines("x".repeat(9999).as_bytes()).len(), SHOWN.1);
    }
}
