//! `pg_unfork man` and `pg_unfork completions`: from the command line's own definition.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use pg_unfork::compat;
use pg_unfork::error::{Context, Error, ErrorKind, Result};

use super::args::{Arguments, EXIT_STATUS};
use super::{ExitCode, output};

/// Writes the page of the program, or of one command, to standard output.
pub(super) fn page_of(command: Option<&str>) -> Result<ExitCode> {
    let program = program();
    let wanted = match command {
        None => &program,
        Some(name) => commands(&program).find(|command| command.get_name() == name).ok_or_else(|| unknown(name))?,
    };
    to_stdout(&page(&program, wanted)?)
}

/// Writes what a shell needs to complete command lines to standard output.
pub(super) fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program(), env!("CARGO_PKG_NAME"), &mut script);
    to_stdout(&script)
}

fn program() -> Command {
    let mut program = Arguments::command();
    program.build();
    program.mut_subcommand("help", |help| help.hide(true))
}

/// The commands that have a page.
fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| command.get_name() != "help")
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("there is no command {name}")).hint("see pg_unfork --help")
}

fn page(program: &Command, command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let is_program = command.get_name() == program.get_name();
    let title = if is_program { program.get_name().to_owned() } else { page_name(program, command) };
    let source = format!("{} {}", program.get_name(), program.get_version().unwrap_or_default());
    let is_drop_in = command.get_name() == "rewind";
    let shown = command.clone().after_long_help(None::<&str>);
    // Its options are not the definition's.
    let shown = if is_drop_in { shown.mut_args(|option| option.hide(true)) } else { shown };
    let man = Man::new(shown).title(title).source(source);
    man.render(&mut page).context(|| "cannot make the page".to_owned())?;
    let options = is_drop_in.then(|| as_it_stands("OPTIONS", compat::help().lines()));
    let end = if is_program { as_it_stands("EXIT STATUS", EXIT_STATUS.lines().skip(1)) } else { see_also(program) };
    for section in options.into_iter().chain([end]) {
        page.extend_from_slice(section.to_roff().as_bytes());
    }
    Ok(page)
}

/// A section whose lines stay as they are.
fn as_it_stands<'a>(title: &str, lines: impl Iterator<Item = &'a str>) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]).control("nf", []);
    for line in lines {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    section
}

fn see_also(program: &Command) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]).text([bold(program.get_name()), roman("(1), for the exit status, too")]);
    section
}

fn page_name(program: &Command, command: &Command) -> String {
    format!("{}-{}", program.get_name(), command.get_name())
}

fn to_stdout(bytes: &[u8]) -> Result<ExitCode> {
    output::data(bytes).context(|| "cannot write to standard output".to_owned())?;
    Ok(ExitCode::Done)
}
