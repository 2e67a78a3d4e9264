//! The command line's definition.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;
use pg_unfork::error::Result;
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{Load, Patience, Rate, SyncMethod};
use pg_unfork::plan::{ConfigPolicy, PathRules};

use super::target::PreparationArguments;

/// Brings a forked PostgreSQL cluster back in two steps: a plan that can be reviewed, and an apply
/// that does exactly that plan.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_long_help = EXIT_STATUS)]
pub(super) struct Arguments {
    /// What standard error tells of work that takes long; without a value, plain.
    #[arg(short = 'P', long, value_enum, value_name = "HOW", global = true, num_args = 0..=1, require_equals = true,
          default_value_t = ProgressMode::Auto, default_missing_value = "plain")]
    pub(super) progress: ProgressMode,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What the codes of [`super::ExitCode`] mean, for people.
pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0   done, or nothing to do
  1   failure, nothing written
  2   the plan has changes (only with --detailed-exitcode)
  3   the plan is stale or belongs elsewhere, nothing written
  4   a precondition is not met, or the plan is impossible; nothing written
  5   interrupted or failed after the first write: the same command goes on
  6   half done, and this plan can never finish: undo, then plan again
  64  the command line is wrong
\"Written\" means below the target's data directory. pg_unfork rewind exits with 0 or 1, as pg_rewind does.";

/// What standard error is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressMode {
    /// Bars on a terminal, a line now and then elsewhere.
    Auto,
    /// A line every second.
    Plain,
    /// Nothing but events for programs, a JSON object in each line.
    Json,
    /// Nothing of progress.
    None,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Work out what must be done, without writing below target or source.
    Plan(PlanArguments),
    /// Write down everything that a plan asks a source, to plan without it.
    List(ListArguments),
    /// Show a plan.
    Show(ShowArguments),
    /// Do exactly what a plan says; where an apply of it has begun, go on with it.
    Apply(ApplyArguments),
    /// Say how far an apply has come, and what to run next.
    Status(StatusArguments),
    /// Take an apply back: the target is again as it was, bit for bit.
    Undo(UndoArguments),
    /// Prove that an applied target is what its plan and its journal say, until a server has run on it.
    Verify(VerifyArguments),
    /// Drop what is kept for an undo.
    Clean(CleanArguments),
    /// Plan and apply in one run, with the options, words and exit status of pg_rewind; see rewind --help. So does the
    /// program by itself where it is called pg_rewind.
    #[command(disable_help_flag = true)]
    Rewind(RewindArguments),
    /// Write a manual page.
    Man {
        /// The command that the page is about; without it, the program.
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Write what a shell needs to complete command lines.
    Completions {
        /// The shell.
        #[arg(value_enum, value_name = "SHELL")]
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct RewindArguments {
    /// pg_rewind's options.
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// The data directory that is to follow the source.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) source: PlanSourceArguments,
    /// Where the plan goes; without it, to standard output if that is no terminal.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Make the target a standby of the source: standby.signal, and primary_conninfo from
    /// --source-server without its password.
    #[arg(short = 'R', long, conflicts_with = "pgdata")]
    pub(super) write_recovery_conf: bool,
    /// Also write the password into primary_conninfo, in plain text: the one that the apply is given in its connection
    /// string or PGPASSWORD. The plan never holds it.
    #[arg(long, requires = "write_recovery_conf")]
    pub(super) with_password: bool,
    /// Say only whether a rewind is needed and possible: stops after the timelines, and what it writes cannot be
    /// applied.
    #[arg(long)]
    pub(super) check_only: bool,
    #[command(flatten)]
    pub(super) rules: RuleArguments,
    #[command(flatten)]
    pub(super) preparation: PreparationArguments,
    /// Exit with 0 where there is nothing to do, with 2 where there is, and with another status where the plan failed.
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
    /// Also say what is different from an earlier plan for this target.
    #[arg(long, value_name = "OLD")]
    pub(super) compare: Option<PathBuf>,
    /// Accept a major version of PostgreSQL that is not released yet.
    #[arg(long)]
    pub(super) allow_unreleased: bool,
    /// Tell how things stand while the target's server is still running, or has crashed: what would be lost, what
    /// would be copied. Reads the target's WAL up to its last valid record. Such a plan cannot be applied.
    #[arg(long, conflicts_with = "recover_target")]
    pub(super) preview: bool,
    #[command(flatten)]
    pub(super) patience: PatienceArguments,
}

#[derive(Debug, Args)]
pub(super) struct RuleArguments {
    /// Leave what the target has of its own at these paths; may be given several times. A glob begins at the data
    /// directory, and covers what lies below, too; `*` stops at slashes, `**` does not.
    #[arg(long, value_name = "GLOB")]
    keep: Vec<String>,
    /// Neither fetch nor remove anything at these paths; may be given several times.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Whose settings the target has afterwards: postgresql.conf, what that includes, postgresql.auto.conf, pg_hba.conf,
    /// pg_ident.conf.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = PolicyArgument::Source)]
    config_policy: PolicyArgument,
    /// Where a tablespace goes that only the source has: OLD=NEW, its directory there and the one on the target;
    /// may be given several times.
    #[arg(short = 'T', long, value_name = "OLD=NEW")]
    tablespace_mapping: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArgument {
    /// The source's.
    Source,
    /// Its own.
    Target,
}

impl RuleArguments {
    /// As the library wants them.
    pub(super) fn rules(&self) -> Result<PathRules> {
        let policy = match self.config_policy {
            PolicyArgument::Source => ConfigPolicy::Source,
            PolicyArgument::Target => ConfigPolicy::Target,
        };
        PathRules::new(&self.keep, &self.exclude, policy, &self.tablespace_mapping)
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct PlanSourceArguments {
    /// The source's data directory; its server must be stopped.
    #[arg(long = "source-pgdata", value_name = "DIR", id = "pgdata")]
    pub(super) pgdata: Option<PathBuf>,
    /// Connection string of the source, a running primary or standby.
    #[arg(long = "source-server", value_name = "CONNSTR", id = "server")]
    pub(super) server: Option<String>,
    /// What pg_unfork list wrote of the source, which is not asked anything then; `-` is standard input.
    #[arg(long = "source-listing", value_name = "FILE", id = "listing")]
    pub(super) listing: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    pub(super) source: SourceArguments,
    /// Where the listing goes; without it, to standard output if that is no terminal.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) patience: PatienceArguments,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SourceArguments {
    /// The source's data directory; its server must be stopped.
    #[arg(long = "source-pgdata", value_name = "DIR", id = "pgdata")]
    pub(super) pgdata: Option<PathBuf>,
    /// Connection string of the source, a running primary or standby.
    #[arg(long = "source-server", value_name = "CONNSTR", id = "server")]
    pub(super) server: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// How to show it.
    #[arg(long, value_enum, default_value_t = ShowFormat::Text)]
    pub(super) format: ShowFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ShowFormat {
    /// A summary for a terminal.
    Text,
    /// A comment for a forge: short on top, details folded, never longer than a forge takes.
    Markdown,
    /// A page by itself.
    Html,
    /// The manifest itself.
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StatusFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    /// The plan; `-` is standard input. Without it, the plan that was begun with is gone on with.
    #[arg(value_name = "FILE", required_unless_present = "target")]
    pub(super) file: Option<PathBuf>,
    /// The target's data directory, where it is not at the planned path any more.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: Option<PathBuf>,
    /// The source's data directory, where it is not at the planned path any more.
    #[arg(long = "source-pgdata", value_name = "DIR", conflicts_with = "server")]
    pub(super) pgdata: Option<PathBuf>,
    /// Connection string of the source, where the planned one does not do.
    #[arg(long = "source-server", value_name = "CONNSTR", id = "server")]
    pub(super) server: Option<String>,
    /// Look at everything that an apply looks at before its first write, and write nothing.
    #[arg(long)]
    pub(super) check: bool,
    /// Refuse every plan but the one with this digest, as `pg_unfork show` gives it: `sha256:` and 64 digits.
    #[arg(long, value_name = "DIGEST")]
    pub(super) expect_digest: Option<String>,
    /// Keep nothing of what is replaced: needs less room, and cannot be undone.
    #[arg(long)]
    pub(super) no_undo: bool,
    #[command(flatten)]
    pub(super) sync: SyncArguments,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    #[command(flatten)]
    pub(super) patience: PatienceArguments,
}

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// How many connections to a source server may be read from at a time, 1 to 16: one on the same machine and four
    /// elsewhere, unless given. Where the server has no more, fewer are used. Of no effect for a stopped source.
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u8).range(1..=16))]
    jobs: Option<u8>,
    /// The most that is read from a source server in a second: kilobytes, or with the suffix k or M kilobytes
    /// or megabytes; 32k to 1024M. Not for a stopped source.
    #[arg(short = 'r', long, value_name = "RATE", conflicts_with = "pgdata")]
    pub(super) max_rate: Option<Rate>,
}

impl LoadArguments {
    /// As the library wants it.
    pub(super) fn load(&self) -> Load {
        Load::new(self.jobs.map(usize::from), self.max_rate)
    }
}

#[derive(Debug, Args)]
pub(super) struct SyncArguments {
    /// Do not make changes durable: faster, but a crash of the machine may lose them.
    #[arg(short = 'N', long, conflicts_with = "sync_method")]
    pub(super) no_sync: bool,
    /// How to make changes durable.
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = SyncArgument::Fsync)]
    pub(super) sync_method: SyncArgument,
}

/// How long a source server that is lost or silent is waited for, unless the command line says so.
pub(super) const DEFAULT_SOURCE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct PatienceArguments {
    /// How long a source server that is lost or silent is waited for, without getting any further; 0
    /// gives up at once. An answer may take half of it.
    #[arg(long = "source-timeout", value_name = "SECONDS", default_value_t = DEFAULT_SOURCE_TIMEOUT.as_secs() as u32)]
    seconds: u32,
}

impl PatienceArguments {
    /// As the library wants it.
    pub(super) fn with(&self, interrupt: Interrupt) -> Patience {
        Patience { timeout: Duration::from_secs(self.seconds.into()), interrupt }
    }
}

impl SyncArguments {
    pub(super) fn method(&self) -> SyncMethod {
        match (self.no_sync, self.sync_method) {
            (true, _) => SyncMethod::None,
            (false, SyncArgument::Fsync) => SyncMethod::Fsync,
            (false, SyncArgument::Syncfs) => SyncMethod::Syncfs,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// The target's data directory.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: PathBuf,
    /// How to say it.
    #[arg(long, value_enum, default_value_t = StatusFormat::Text)]
    pub(super) format: StatusFormat,
}

#[derive(Debug, Args)]
pub(super) struct UndoArguments {
    /// The target's data directory.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) sync: SyncArguments,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The plan that must have been applied; `-` is standard input. Without it, whichever was.
    #[arg(value_name = "FILE", required_unless_present = "target")]
    pub(super) file: Option<PathBuf>,
    /// The target's data directory, where it is not at the planned path any more.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CleanArguments {
    /// The target's data directory.
    #[arg(short = 'D', long = "target-pgdata", value_name = "DIR")]
    pub(super) target: PathBuf,
    /// Also where WAL goes that was never archived.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SyncArgument {
    /// Each changed file and directory.
    Fsync,
    /// Each changed file system as a whole.
    Syncfs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
