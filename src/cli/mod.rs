//! The command line: the only place that knows terminal, arguments and exit codes.

mod apply;
mod applying;
mod args;
mod elsewhere;
mod exit_code;
mod kilobytes;
mod list;
mod man;
mod output;
mod plan;
mod progress;
mod rewind;
mod show;
mod source;
mod state;
mod target;
mod verify;

use std::ffi::OsStr;
use std::path::Path;

use args::ProgressMode;
use clap::Parser;
use pg_unfork::error::{Error, ErrorId, Result};
use serde_json::json;

pub(crate) use exit_code::ExitCode;

/// Runs the program and gives the status that it exits with.
pub(crate) fn run() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let mut words = words.peekable();
    // The drop-in's options are not for clap to judge.
    let is_drop_in = Path::new(&program).file_name() == Some(OsStr::new(rewind::NAME));
    if is_drop_in || words.next_if(|word| word == "rewind").is_some() {
        return rewind::run(&program, &words.collect::<Vec<_>>());
    }
    commands(&program)
}

/// What is no drop-in.
fn commands(program: &OsStr) -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    // What the drop-in says is for people.
    let is_drop_in = matches!(arguments.command, args::Command::Rewind(_));
    output::choose(if is_drop_in { ProgressMode::None } else { arguments.progress });
    let outcome = match &arguments.command {
        args::Command::Plan(options) => refuse_root(is_root()).and_then(|()| plan::run(options)),
        args::Command::List(options) => refuse_root(is_root()).and_then(|()| list::run(options)),
        args::Command::Show(options) => show::run(options),
        args::Command::Apply(options) => refuse_root(is_root()).and_then(|()| apply::run(options)),
        args::Command::Status(options) => state::status(options),
        args::Command::Undo(options) => refuse_root(is_root()).and_then(|()| state::undo(options)),
        args::Command::Verify(options) => refuse_root(is_root()).and_then(|()| verify::run(options)),
        args::Command::Clean(options) => refuse_root(is_root()).and_then(|()| state::clean(options)),
        args::Command::Man { command } => man::page_of(command.as_deref()),
        args::Command::Completions { shell } => man::completions(*shell),
        args::Command::Rewind(options) => return rewind::run(program, &options.arguments),
    };
    let code = outcome.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(error.kind())
    });
    ended(code)
}

/// The last event says how it ended.
fn ended(code: ExitCode) -> ExitCode {
    if output::mode() == ProgressMode::Json {
        output::event(json!({"event": "result", "exit_code": code.number()}));
    }
    code
}

/// clap's own answers: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::Done;
    }
    // What is not understood says all the same what it wants to read.
    if std::env::args_os().any(|argument| argument == "--progress=json" || argument == "-P=json") {
        output::choose(ProgressMode::Json);
    }
    output::misuse(error);
    ended(ExitCode::Usage)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A cluster belongs to an ordinary user, and what root writes does not.
fn refuse_root(is_root: bool) -> Result<()> {
    if is_root {
        return Err(Error::of(ErrorId::RunsAsRoot, "pg_unfork cannot be run as root")
            .hint("run it as the user that owns the data directory, like the server"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused() {
        assert!(refuse_root(false).is_ok());
        let error = refuse_root(true).unwrap_err();
        assert_eq!((ExitCode::from(error.kind()), error.hints().len()), (ExitCode::Precondition, 1));
    }
}
