//! Writing to the terminal. A closed stdout or stderr never ends the work.
//!
//! Standard error has text for people or, with `--progress=json`, one event a line for programs. What comes from
//! outside (names, texts of servers) reaches a terminal without control characters.

use std::error::Error as _;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
use pg_unfork::error::Error;
use pg_unfork::report::Layout;
use pg_unfork::types::{plain, plain_json, plain_lines};
use serde_json::{Value, json};

use super::ExitCode;
use super::args::ProgressMode;

static MODE: OnceLock<ProgressMode> = OnceLock::new();
static NAME: OnceLock<&'static str> = OnceLock::new();

/// The name with which every line of the program's own begins.
const OWN_NAME: &str = "pg_unfork";

/// Says, once and before anything is written, what the program calls itself.
pub(super) fn speak_as(name: &'static str) {
    let _ = NAME.set(name);
}

fn name() -> &'static str {
    NAME.get().copied().unwrap_or(OWN_NAME)
}

/// Lines of our own in the name of another program, whose warnings are in lower case.
fn renamed(text: &str) -> String {
    if name() == OWN_NAME {
        return text.to_owned();
    }
    let own = format!("{OWN_NAME}: ");
    let line = |line: &str| match line.strip_prefix(&own) {
        Some(rest) => format!("{}: {}\n", name(), rest.replacen("WARNING: ", "warning: ", 1)),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Says, once and before anything is written, what standard error is for.
pub(super) fn choose(mode: ProgressMode) {
    let _ = MODE.set(mode);
    if mode == ProgressMode::Json {
        // A defect of the program must be an event, too.
        std::panic::set_hook(Box::new(|panic| {
            event(json!({
                "event": "error",
                "id": pg_unfork::error::ErrorId::Failed.name(),
                "exit_code": 101,
                "message": panic.to_string(),
                "causes": [],
                "hints": [],
            }));
        }));
    }
}

/// What standard error is for.
pub(super) fn mode() -> ProgressMode {
    MODE.get().copied().unwrap_or(ProgressMode::Auto)
}

/// Writes lines for people to standard error, come what may; for programs as events.
pub(super) fn note(text: &str) {
    if mode() != ProgressMode::Json {
        return to_stderr(&renamed(&plain_lines(text)));
    }
    for line in text.lines() {
        let line = line.strip_prefix("pg_unfork: ").unwrap_or(line);
        let warning = ["WARNING: ", "warning: "].iter().find_map(|prefix| line.strip_prefix(prefix));
        event(json!({
            "event": if warning.is_some() { "warning" } else { "note" },
            "message": warning.unwrap_or(line),
        }));
    }
}

/// Writes a line of text of our own, in which nothing disturbs a terminal, to standard error.
pub(super) fn plain_line(line: &str) {
    to_stderr(&format!("{}\n", plain_lines(line)));
}

/// Writes a piece of a line to standard error.
pub(super) fn raw(text: &str) {
    to_stderr(text);
}

/// Writes text that may have colours and is made for [`layout`] to standard error.
pub(super) fn coloured(text: &str) {
    to_stderr(text);
}

/// Writes an event for programs to standard error, in a line by any reader's measure.
pub(super) fn event(event: Value) {
    to_stderr(&format!("{}\n", plain_json(&event.to_string())));
}

fn to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// What a text for standard error may look like.
pub(super) fn layout_of_stderr() -> Layout {
    layout(&std::io::stderr(), terminal_size::terminal_size_of(std::io::stderr()))
}

/// What a text for standard output may look like.
pub(super) fn layout_of_stdout() -> Layout {
    layout(&std::io::stdout(), terminal_size::terminal_size_of(std::io::stdout()))
}

/// `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` count, as everywhere.
fn layout(
    stream: &(impl IsTerminal + anstream::stream::RawStream),
    size: Option<(terminal_size::Width, terminal_size::Height)>,
) -> Layout {
    let colour = AutoStream::choice(stream) != ColorChoice::Never;
    Layout { colour, width: size.map(|(width, _)| usize::from(width.0)) }
}

/// Writes data to standard output.
pub(super) fn data(bytes: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// Writes a document in JSON to standard output as it comes: byte for byte, but on a terminal so that nothing in it is a
/// command of that.
pub(super) fn stream(mut from: impl Read) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if !stdout.is_terminal() {
        return std::io::copy(&mut from, &mut stdout).and_then(|_| stdout.flush());
    }
    let mut lines = BufReader::new(from);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        writeln!(stdout, "{}", plain_json(line.trim_end_matches('\n')))?;
        line.clear();
    }
    stdout.flush()
}

/// What an error's causes say.
fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes
}

/// Writes an error that does not end the run, with its causes.
pub(super) fn warning(error: &Error) {
    let parts = std::iter::once(error.to_string()).chain(causes(error));
    let parts: Vec<String> = parts.collect();
    note(&format!("{OWN_NAME}: warning: {}\n", plain(&parts.join(": "))));
}

/// Writes an error with its causes and what to do.
pub(super) fn error(error: &Error) {
    let causes = causes(error);
    if mode() == ProgressMode::Json {
        return event(json!({
            "event": "error",
            "id": error.id().name(),
            "exit_code": ExitCode::from(error.kind()).number(),
            "message": error.to_string(),
            "causes": causes,
            "hints": error.hints(),
        }));
    }
    let parts = std::iter::once(error.to_string()).chain(causes);
    let parts: Vec<String> = parts.map(|part| plain(&part)).collect();
    let mut text = format!("{}: error: {}\n", name(), parts.join(": "));
    for hint in error.hints() {
        text.push_str(&format!("{}: hint: {}\n", name(), plain_lines(hint)));
    }
    to_stderr(&text);
}

/// Writes what clap says of a command line that it does not understand.
pub(super) fn misuse(error: &clap::Error) {
    if mode() == ProgressMode::Json {
        let message = error.render().to_string();
        let (id, code) = (pg_unfork::error::ErrorId::Usage.name(), ExitCode::Usage.number());
        let causes: [&str; 0] = [];
        return event(json!({
            "event": "error", "id": id, "exit_code": code, "message": message.trim_end(), "causes": causes, "hints": causes,
        }));
    }
    let _ = error.print();
}
