//! Command lines that pg_rewind refuses are refused in its words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::support::outcome::Outcome;
use crate::support::rewind::pg_rewind;
use crate::support::scratch;
use crate::support::servers::{Installation, Major};

/// Arguments, apart by blanks; `''` is an empty one.
const LINES: [&str; 62] = [
    "",
    "-D x",
    "-n",
    "--source-pgdata=a",
    "--source-pgdata a",
    "--source-server b",
    "--source-pgdata=a --source-server=b",
    "--source-pgdata=a --source-server=b -D x extra",
    "--source-pgdata=a --source-server=b extra",
    "--source-pgdata=a -D x -R",
    "--source-pgdata=a -R",
    "-R --source-pgdata=a -D x extra",
    "--source-pgdata=a -D x extra1 extra2",
    "extra1 --source-pgdata=a -D x extra2",
    "--source-pgdata=a -D x -- extra",
    "--source-pgdata=a -D x -- -n",
    "--source-pgdata=a -D x -- --help",
    "--source-pgdata=a -D x -",
    "--source-pgdata=a -D x --",
    "--source-pgdata=a -D x ''",
    "--bogus",
    "--bogus=1",
    "--bogus -z",
    "-z",
    "-z --bogus",
    "-nzP",
    "-nD",
    "-D",
    "-D -n",
    "-W",
    "-v",
    "-s",
    "-n=1",
    "--source-pgdata",
    "--source-server",
    "--target-pgdata",
    "--target-pgdata --source-pgdata",
    "--so=a",
    "--source=a",
    "--sourc",
    "--source-pg",
    "--no",
    "--no-",
    "--no-s",
    "--no-sync=1",
    "--no-e=x",
    "--d",
    "--deb=1",
    "--dry=1",
    "--prog=1",
    "--w=1",
    "--restore-target-wal=x",
    "--version=1",
    "--help=1",
    "-n --help",
    "-n -?",
    "-n -V",
    "--he",
    "--source-pgdata=/a -D /nonexistent",
    "--source-pgdata /a --target-p /nonexistent -nPNc --debug --no-ensure",
    "-D /nonexistent/a -D /nonexistent --source-pgdata=a --source-pgdata=b",
    "--source-server=host=/nonexistent -D /nonexistent -R -- ",
];

/// Lines of options that not every major has.
const LATER_LINES: [(u16, &str); 8] = [
    (15, "--config-file"),
    (15, "--config=a"),
    (15, "--vers --source-pgdata=a -D /nonexistent"),
    (15, "--ver"),
    (17, "--s=1"),
    (17, "--sync-method=foo --source-pgdata=a -D x"),
    (17, "--sync-m foo --bogus"),
    (17, "--sync-method=syncfs --source-pgdata=a -D /nonexistent"),
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| if word == "''" { "" } else { word }).collect()
}

/// Stock's answer, in which it does not call itself by its path.
fn stock(major: Major, arguments: &[&str], posix: bool) -> Outcome {
    let installation = Installation::of(major);
    let mut command = installation.command("pg_rewind");
    if posix {
        command.env("POSIXLY_CORRECT", "1");
    }
    let mut outcome = Outcome::of(command.args(arguments).stdin(Stdio::null()));
    let path = installation.bin("pg_rewind");
    outcome.stderr = outcome.stderr.replace(path.to_str().unwrap(), "pg_rewind");
    outcome
}

/// Status and standard error, but for what the majors themselves say differently: the hint had no prefix before 14.
fn shown(outcome: &Outcome) -> (Option<i32>, String) {
    assert_eq!(outcome.stdout, "", "{outcome}");
    let text = outcome.stderr.replace("pg_rewind: hint: ", "").replace("pg_rewind: fatal: ", "pg_rewind: error: ");
    (outcome.status.code(), text)
}

#[test]
fn refusals_are_stocks() {
    for major in Major::ALL {
        let later = LATER_LINES.iter().filter(|(since, _)| major.0 >= *since).map(|(_, line)| line);
        for line in LINES.iter().chain(later) {
            let stock = stock(major, &words(line), false);
            let ours = Outcome::of(&mut pg_rewind(&words(line)));
            assert_eq!(stock.status.code(), Some(1), "{stock}");
            assert_eq!(shown(&ours), shown(&stock), "PostgreSQL {major}: {line:?}");
        }
    }
}

/// Options end at the first word that is none where the environment says so.
#[test]
fn posixly_correct() {
    let line = ["--source-pgdata=a", "extra", "-D", "x"];
    for major in [Major(13), Major(18)] {
        let stock = stock(major, &line, true);
        let ours = Outcome::of(pg_rewind(&line).env("POSIXLY_CORRECT", "1"));
        assert!(stock.stderr.contains("no target data directory"), "{stock}");
        assert_eq!(shown(&ours), shown(&stock));
    }
}

/// The answer to `--help` names every option of every major; programs read the one to `--version`.
#[test]
fn help_and_version() {
    let help = Outcome::of(&mut pg_rewind(&["--help"])).success();
    assert_eq!(help.stderr, "");
    assert_eq!(Outcome::of(&mut pg_rewind(&["-?", "--bogus"])).success().stdout, help.stdout);
    for major in Major::ALL {
        let stock = Outcome::of(Installation::of(major).command("pg_rewind").arg("--help")).success().stdout;
        let options = |text: &str| -> Vec<String> {
            let is_option = |line: &&str| line.trim_start().starts_with('-');
            let option = |line: &str| line.trim().split("  ").next().unwrap().to_owned();
            text.lines().filter(is_option).map(option).collect()
        };
        let ours = options(&help.stdout);
        let missing: Vec<String> = options(&stock).into_iter().filter(|option| !ours.contains(option)).collect();
        assert_eq!(missing, [""; 0], "PostgreSQL {major}");
    }
    for option in ["--version", "-V"] {
        let version = Outcome::of(&mut pg_rewind(&[option])).success().stdout;
        let number = version.strip_prefix("pg_rewind (PostgreSQL) ").unwrap();
        assert!(number.starts_with(|first: char| first.is_ascii_digit()) && number.ends_with('\n'), "{version}");
    }
}

/// The version is that of the server beside the program.
#[test]
fn version_of_the_server_beside_it() {
    let directory = scratch::directory("bin");
    let (postgres, program) = (directory.path().join("postgres"), directory.path().join("pg_rewind"));
    fs::write(&postgres, "#!/bin/sh\necho 'postgres (PostgreSQL) 14.99 (Debian 14.99-1)'\n").unwrap();
    fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(pg_rewind(&[]).get_program(), &program).unwrap();
    let version = Outcome::of(Command::new(program).arg("--version")).success().stdout;
    assert_eq!(version, "pg_rewind (PostgreSQL) 14.99 (Debian 14.99-1)\n");
}

/// Two ways to call it, and one name.
#[test]
fn both_names() {
    let as_command = Outcome::of(&mut crate::support::tool::pg_unfork(&["rewind", "-n"]));
    let by_name = Outcome::of(&mut pg_rewind(&["-n"]));
    assert_eq!((as_command.status.code(), &as_command.stderr), (Some(1), &by_name.stderr));
    assert!(by_name.stderr.contains("no source specified"), "{by_name}");
    let rewound = Outcome::of(pg_rewind(&["rewind"]).arg0("/x/pg_rewind.real"));
    assert!(rewound.stderr.contains("no source specified"), "{rewound}");
}
