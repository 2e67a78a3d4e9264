//! The program under pg_rewind's name, in a directory of its own, with a record of its calls.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::scratch;

/// What is called in the program's place: records arguments, status and output, and ends the program if it is told to.
/// The program is ended by the kernel, at the first write that is behind 1000 KiB of any file: as by SIGKILL, nothing
/// can be done about it.
const WRAPPER: &str = r#"#!/bin/bash
here=$(dirname "$0")
[ "$*" != --help ] || exec "$here/pg_rewind" "$@"
printf 'argument %s\n' "$@" >>"$here/calls"
(
    if rm "$here/doomed" 2>/dev/null; then ulimit -c 0; ulimit -f 1000; fi
    exec "$here/pg_rewind" "$@"
) >"$here/stdout" 2>"$here/stderr"
status=$?
cat "$here/stdout"
cat "$here/stderr" >&2
echo "stdout $(wc -c <"$here/stdout")" >>"$here/calls"
echo "status $status" >>"$here/calls"
exit $status
"#;

/// The status of a call that was killed, as a shell says it.
const KILLED: i32 = 128 + 25;

/// One call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Bytes on its standard output, if it has ended.
    pub(crate) stdout: Option<u64>,
    /// Its status, if it has ended.
    pub(crate) status: Option<i32>,
}

impl Call {
    /// Whether it was killed in mid-work.
    pub(crate) fn was_killed(&self) -> bool {
        self.status == Some(KILLED)
    }
}

/// The program as callers of pg_rewind know it.
#[derive(Debug)]
pub(crate) struct DropIn {
    directory: TempDir,
}

impl DropIn {
    /// Makes it.
    pub(crate) fn new() -> Self {
        let directory = scratch::directory("dropin");
        symlink(env!("CARGO_BIN_EXE_pg_unfork"), directory.path().join("pg_rewind")).expect("a link");
        let wrapper = directory.path().join("wrapper");
        fs::write(&wrapper, WRAPPER).expect("the wrapper");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("the wrapper");
        Self { directory }
    }

    /// The program itself.
    pub(crate) fn link(&self) -> PathBuf {
        self.directory.path().join("pg_rewind")
    }

    /// What records calls.
    pub(crate) fn wrapper(&self) -> PathBuf {
        self.directory.path().join("wrapper")
    }

    /// The wrapper's next call is killed in mid-work.
    pub(crate) fn doom_next_call(&self) {
        fs::write(self.directory.path().join("doomed"), "").expect("a file");
    }

    /// The calls of the wrapper so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        let mut calls: Vec<Call> = Vec::new();
        for line in text.lines() {
            let (kind, value) = line.split_once(' ').expect("a line of the wrapper");
            if calls.last().is_none_or(|call| call.status.is_some()) {
                calls.push(Call::default());
            }
            let call = calls.last_mut().expect("a call");
            match kind {
                "argument" => call.arguments.push(value.to_owned()),
                "stdout" => call.stdout = value.parse().ok(),
                "status" => call.status = value.parse().ok(),
                _ => panic!("{line}"),
            }
        }
        calls
    }
}
