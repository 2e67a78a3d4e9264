//! Passwords go to the server and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::relay::{Fault, Relay};
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::tool::pg_unfork;
use crate::support::workload::REWIND_USER;

/// What must be nowhere. Nothing else that is written has these letters.
const SECRET: &str = "zQ7secretQz";

/// Every plain file below a directory that has the secret.
fn leaks(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match fs::symlink_metadata(&path).unwrap().file_type() {
        kind if kind.is_dir() => leaks(&path),
        kind if kind.is_file() && has_secret(&fs::read(&path).unwrap()) => vec![path],
        _ => Vec::new(),
    });
    found.collect()
}

fn has_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

#[track_caller]
fn assert_silent(outcome: &Outcome) {
    assert!(!has_secret(outcome.stdout.as_bytes()) && !has_secret(outcome.stderr.as_bytes()), "{outcome}");
}

/// A service with a password and three servers, of which one is not there, takes a whole rewind: all sessions of a
/// command go the way that the first one has found, the standby is told of all, and the password is nowhere.
#[test]
fn a_rewind_keeps_the_password_to_itself() {
    let pair = Pair::shared(Major(17)).copy();
    let rules = "local all rewind_user scram-sha-256\nlocal all all trust\n";
    fs::write(pair.source.path("pg_hba.conf"), rules).unwrap();
    pair.source.start();
    let home = scratch::directory("home");
    let sockets = scratch::sockets().display().to_string();
    // The verifier is no secret of this kind: the server's log and WAL do not have the password either.
    let verifier = format!("SET log_statement = none; ALTER ROLE {REWIND_USER} PASSWORD '{SECRET}'");
    let _ = pair.source.psql("postgres", &verifier, &[]).success();
    let port = pair.source.port();
    let ways = [(); 2].map(|()| Relay::new(&[(&pair.source, Fault::None)]));
    let hosts = format!("{sockets}/none,127.0.0.1,127.0.0.1");
    let ports = format!("{port},{},{}", ways[0].port(), ways[1].port());
    let service = format!(
        "[source]\nhost={hosts}\nport={ports}\nuser={REWIND_USER}\npassword={SECRET}\ndbname=postgres\n\
         load_balance_hosts=random\n"
    );
    fs::write(home.path().join(".pg_service.conf"), service).unwrap();
    let work = scratch::directory("work");
    let plan = work.path().join("plan.json");
    let run = |arguments: &[&str], configure: &dyn Fn(&mut Command)| {
        let mut command = pg_unfork(arguments);
        configure(command.env("HOME", home.path()).current_dir(work.path()));
        let outcome = Outcome::of(&mut command).success();
        assert_silent(&outcome);
    };
    // How many connections were made each way since the last time.
    let mut before = [0; 2];
    let mut one_way = |least: usize| {
        let now = [ways[0].connections(), ways[1].connections()];
        let mut made = [now[0] - before[0], now[1] - before[1]];
        made.sort_unstable();
        assert!(made[0] == 0 && made[1] >= least, "{made:?}");
        before = now;
    };
    run(&["plan", "--source-server", "service=source target_session_attrs=read-write", "-R", "-D"], &|command| {
        command.arg(pair.target.data()).arg("-o").arg(&plan);
    });
    one_way(2);
    // The address in the plan has all but the password.
    run(&["apply", "--no-sync", "--jobs", "4"], &|command| {
        command.arg(&plan).env("PGPASSWORD", SECRET);
    });
    one_way(2);
    assert_eq!(leaks(work.path()), [""; 0].map(PathBuf::from));
    assert_eq!(leaks(&pair.target.data()), [""; 0].map(PathBuf::from));
    let settings = fs::read_to_string(pair.target.path("postgresql.auto.conf")).unwrap();
    let expected = format!(
        "primary_conninfo = 'user=rewind_user host=''{hosts}'' port=''{ports}'' target_session_attrs=''read-write'' \
         load_balance_hosts=random'"
    );
    assert!(settings.lines().any(|line| line == expected), "{expected}\n{settings}");
}

/// However a string is broken, and whatever the server says, no message has the password.
#[test]
fn no_error_tells_the_password() {
    let pair = Pair::shared(Major(17)).copy();
    let rules = "local all rewind_user scram-sha-256\nlocal all all trust\n";
    fs::write(pair.source.path("pg_hba.conf"), rules).unwrap();
    pair.source.start();
    let _ = pair.source.psql("postgres", "ALTER ROLE rewind_user PASSWORD 'another'", &[]).success();
    let address = pair.source.address(REWIND_USER);
    let home = scratch::directory("home");
    let services = format!("[odd]\n{SECRET}\n[other]\npass{SECRET}=x\n[wrong]\npassword={SECRET}\n");
    fs::write(home.path().join(".pg_service.conf"), services).unwrap();
    let passwords = format!("*:*:*:*:{SECRET}\n");
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        fs::write(home.path().join(name), &passwords).unwrap();
        fs::set_permissions(home.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let cases = [
        (format!("{address} password={SECRET}"), "28P01"),
        (format!("{address} password='a{SECRET}'"), "28P01"),
        (format!("{address} password='{SECRET}"), "unterminated quoted string"),
        (format!("{address} password=a {SECRET}"), "missing \"=\""),
        (format!("{address} password=a {SECRET}=b"), "invalid connection option \"***\""),
        (format!("{address} password={SECRET} sslmode=x"), "\"sslmode\": expected"),
        (format!("{address} sslmode={SECRET}"), "\"sslmode\": expected"),
        (format!("{address} port=1,{SECRET}"), "has 2 items for 1 servers"),
        (format!("{address} require_auth={SECRET}"), "\"require_auth\": expected"),
        (format!("{address} replication={SECRET}"), "\"replication\" is not supported"),
        (format!("{address} service={SECRET}"), "the service is not defined in"),
        (format!("{address} service=odd"), "line 2 of the service file"),
        (format!("{address} service=other"), "line 4 of the service file"),
        (format!("{address} service=wrong"), "28P01"),
        (format!("{address} passfile={}/closed", home.path().display()), "the password came from"),
        (format!("{address} passfile={}/open", home.path().display()), "has group or world access"),
        (format!("postgresql://rewind_user:{SECRET}@%2Fnowhere/postgres"), "cannot connect to the source server"),
        (format!("postgresql://rewind_user:{SECRET}%zz@h/postgres"), "invalid connection URI"),
        (format!("postgresql://rewind_user:a@{SECRET}@h/postgres"), "unexpected \"@\""),
        (format!("postgresql://h:{SECRET}/postgres"), "expected a port number"),
        (format!("postgresql://h/postgres?password={SECRET}&sslmode=x"), "\"sslmode\": expected"),
        (format!("postgresql://h/postgres?{SECRET}"), "no \"=\""),
    ];
    for (conninfo, text) in cases {
        let mut command = pg_unfork(&["plan", "--source-server", &conninfo, "-D"]);
        let outcome = Outcome::of(command.arg(pair.target.data()).env("HOME", home.path())).failure();
        assert_silent(&outcome);
        assert!(outcome.stderr.contains(text), "{text}: {outcome}");
    }
}
