//! What a connection string means: the program and libpq, asked for the same, must end up at the same server as the
//! same user, or both nowhere.
//!
//! A table has [`Case`]s, [`Comparison`] asks psql and the program, and says where they differ. What differs on purpose
//! is in the case, with the reason.

mod cases;
mod secrets;
mod tls;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{Patience, ask};

use crate::support::outcome::Outcome;
use crate::support::servers::{Installation, Major};

/// Who and where a session is, and how it came there.
const QUESTION: &str = "
    SELECT format('port %s %s as %s in %s%s%s%s', current_setting('port'),
                  CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END, session_user, current_database(),
                  ' application ' || nullif(nullif(current_setting('application_name'), 'psql'), ''),
                  (SELECT ' ' || version || coalesce(' ' || client_dn, '') FROM pg_stat_ssl
                    WHERE pid = pg_backend_pid() AND ssl),
                  ' work_mem ' || nullif(current_setting('work_mem'), '4MB'))";

/// How both take a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Alike: both get to the same place, or neither gets anywhere.
    Alike,
    /// libpq gets through and the program refuses, with this in its error, for this reason.
    RefusedHere(&'static str, &'static str),
    /// The program gets through and libpq does not, for this reason.
    RefusedByLibpq(&'static str),
}

/// One way to ask for a connection. `{NAME}` stands for a value of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) conninfo: &'static str,
    /// Variables of the environment.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Whether a session is what both come to; so that a table cannot fail alike all over.
    pub(crate) connects: bool,
    /// What the program says where neither gets anywhere: that it is for the same reason.
    pub(crate) says: &'static str,
    pub(crate) expected: Expected,
}

/// A case where both get to the same place.
pub(crate) const fn connects(conninfo: &'static str, variables: &'static [(&'static str, &'static str)]) -> Case {
    Case { conninfo, variables, connects: true, says: "", expected: Expected::Alike }
}

/// A case where neither gets anywhere.
pub(crate) const fn fails(conninfo: &'static str, variables: &'static [(&'static str, &'static str)]) -> Case {
    Case { conninfo, variables, connects: false, says: "", expected: Expected::Alike }
}

impl Case {
    pub(crate) const fn but(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    pub(crate) const fn saying(self, says: &'static str) -> Self {
        Self { says, ..self }
    }
}

/// What came of a case on one side: where it led, or why nowhere.
type Came = Result<String, String>;

/// Values for cases, and who is asked.
pub(crate) struct Comparison {
    values: BTreeMap<&'static str, String>,
    libpq: Installation,
    /// The home directory of both.
    home: PathBuf,
    /// Where libpq looks for a server that has no host.
    socket_directory: PathBuf,
}

/// All that an error says.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

impl Comparison {
    /// Compares with the libpq of this major.
    pub(crate) fn with(libpq: Major, home: &Path) -> Self {
        let values = BTreeMap::from([("HOME", home.display().to_string())]);
        let libpq = Installation::of(libpq);
        // What it was built with is in what it says when nobody is there.
        let asked = Outcome::of(libpq.command("psql").args(["-X", "-w", "-d", "port=1"])).failure().stderr;
        let directory = asked.split('"').nth(1).and_then(|path| path.strip_suffix("/.s.PGSQL.1"));
        let socket_directory = directory.unwrap_or_else(|| panic!("no socket in {asked}")).into();
        Self { values, libpq, home: home.to_owned(), socket_directory }
    }

    /// `{name}` stands for this.
    pub(crate) fn value(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.values.insert(name, value.to_string());
        self
    }

    fn fill(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn variables(&self, case: &Case) -> Vec<(String, String)> {
        let mut variables = vec![("HOME".to_owned(), self.home.display().to_string())];
        variables.extend(case.variables.iter().map(|(name, value)| ((*name).to_owned(), self.fill(value))));
        variables
    }

    /// What psql comes to.
    fn libpq(&self, case: &Case) -> Came {
        let mut command = self.libpq.command("psql");
        command.args(["-X", "-w", "-A", "-t", "-d"]).arg(self.fill(case.conninfo)).args(["-c", QUESTION]);
        let outcome = Outcome::of(command.envs(self.variables(case)));
        if outcome.status.success() { Ok(outcome.stdout.trim().to_owned()) } else { Err(outcome.stderr) }
    }

    /// What the program comes to.
    pub(crate) fn ours(&self, case: &Case) -> Came {
        let user = Environment::of_process().user_or_number();
        let environment = Environment::fixed(self.variables(case), Some(&user), &self.socket_directory);
        let conninfo = ConnInfo::resolve(&self.fill(case.conninfo), &environment).map_err(|error| error.to_string())?;
        let patience = Patience { timeout: Duration::from_secs(60), interrupt: Interrupt::new() };
        let answer = ask(&conninfo, &patience, QUESTION);
        answer.map(Option::unwrap_or_default).map_err(|error| with_causes(&error))
    }

    /// Everything that is not as expected.
    pub(crate) fn differences(&self, cases: &[Case]) -> Vec<String> {
        cases.iter().filter_map(|case| self.difference(case)).collect()
    }

    fn difference(&self, case: &Case) -> Option<String> {
        let (libpq, ours) = (self.libpq(case), self.ours(case));
        let is_fine = match (case.expected, &libpq, &ours) {
            (Expected::Alike, Ok(libpq), Ok(ours)) => libpq == ours && case.connects,
            (Expected::Alike, Err(_), Err(error)) => !case.connects && error.contains(case.says),
            (Expected::RefusedHere(text, _), Ok(_), Err(error)) => error.contains(text),
            (Expected::RefusedByLibpq(_), Err(_), Ok(_)) => true,
            _ => false,
        };
        let show = |came: &Came| came.as_ref().map_or_else(|error| format!("error: {error}"), String::clone);
        (!is_fine).then(|| format!("{case:?}\nlibpq: {}\nours:  {}\n", show(&libpq), show(&ours)))
    }
}
