//! Source servers that cannot be reached, refuse, may not be read, or go away.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread;

use super::{Untouched, assert_refused};
use crate::support::cluster::{Cluster, Stop};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::relay::{Fault, Relay};
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

fn plan(target: &Cluster, conninfo: &str) -> Outcome {
    Outcome::of(pg_unfork(&["plan", "--allow-unreleased", "-D"]).arg(target.data()).args(["--source-server", conninfo]))
}

/// Nobody listens, or somebody who speaks another language.
#[test]
fn no_server() {
    let pair = Pair::shared(Major(14)).copy();
    let before = Untouched::of(&pair);
    let sockets = scratch::directory("n");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unix = format!("host={} port=1 user=postgres", sockets.path().display());
    for conninfo in [unix.clone(), format!("host=127.0.0.1 port={closed} user=postgres")] {
        let texts = ["cannot connect to the source server", "check that the server runs, and host and port"];
        assert_refused(&plan(&pair.target, &conninfo), 4, &texts);
    }
    let answers: [&[u8]; 4] = [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", &[0xFF; 64]];
    for (number, answer) in answers.into_iter().enumerate() {
        let port = 2 + number;
        let listener = UnixListener::bind(sockets.path().join(format!(".s.PGSQL.{port}"))).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let _ = client.read(&mut asked).unwrap();
            let _ = client.write_all(answer);
            let _ = client.shutdown(Shutdown::Both);
        });
        let conninfo = unix.replace("port=1", &format!("port={port}"));
        assert_refused(&plan(&pair.target, &conninfo), 4, &["cannot connect to the source server"]);
        server.join().unwrap();
    }
    before.check();
}

/// The server is there and does not let this client in: what it says is passed on.
#[test]
fn servers_that_refuse() {
    let pair = Pair::shared(Major(15)).copy();
    let rules = "local all rejected reject\nlocal all secret scram-sha-256\nlocal all all trust\n";
    fs::write(pair.source.path("pg_hba.conf"), rules).unwrap();
    pair.source.start();
    let statements = "SET password_encryption = 'scram-sha-256';
         CREATE ROLE rejected LOGIN; CREATE ROLE secret LOGIN PASSWORD 'right'; CREATE ROLE nologin;
         CREATE ROLE outsider LOGIN; CREATE DATABASE dropped; CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC;";
    let _ = pair.source.psql("postgres", statements, &[]).success();
    pair.source.sql("postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'dropped'");
    let before = Tree::of(&pair.target);
    let cases: [(&str, &str, &[&str]); 8] = [
        ("dropped", "postgres", &["invalid database \"dropped\"; Use DROP DATABASE to drop", "SQLSTATE 55000"]),
        ("postgres", "nobody", &["role \"nobody\" does not exist", "28000", "pg_hba.conf"]),
        ("postgres", "nologin", &["not permitted to log in", "pg_hba.conf"]),
        ("nowhere", "postgres", &["database \"nowhere\" does not exist", "any database will do"]),
        ("postgres", "rejected", &["pg_hba.conf rejects connection", "check user and password"]),
        ("postgres", "secret", &["password missing", "PGPASSWORD"]),
        ("postgres", "secret password=wrong", &["password authentication failed", "28P01", "check user and password"]),
        ("closed", "outsider", &["permission denied for database \"closed\"", "CONNECT"]),
    ];
    for (database, user, texts) in cases {
        let outcome = plan(&pair.target, &pair.source.conninfo(database, user));
        assert_refused(&outcome, 4, texts);
        assert!(!outcome.stderr.contains("wrong"), "{outcome}");
    }
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// Without one of the four grants, or all of them, the statements to run are said, and they help.
#[test]
fn grants() {
    const FUNCTIONS: [&str; 4] = [
        "pg_catalog.pg_ls_dir(text, boolean, boolean)",
        "pg_catalog.pg_stat_file(text, boolean)",
        "pg_catalog.pg_read_binary_file(text)",
        "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
    ];
    let pair = Pair::shared(Major(16)).copy();
    pair.source.start();
    let before = Tree::of(&pair.target);
    let conninfo = pair.source.conninfo("postgres", REWIND_USER);
    let revoke = |function: &str| {
        pair.source.sql("postgres", &format!("REVOKE EXECUTE ON FUNCTION {function} FROM rewind_user"));
    };
    for number in 0..=FUNCTIONS.len() {
        let missing = FUNCTIONS.get(number).map_or(&FUNCTIONS[..], std::slice::from_ref);
        missing.iter().for_each(|function| revoke(function));
        let outcome = plan(&pair.target, &conninfo);
        assert_refused(&outcome, 4, &["role rewind_user may not execute all functions", "in database postgres"]);
        let lines = outcome.stderr.lines().filter_map(|line| Some(&line[line.find("GRANT ")?..]));
        let statements: String = lines.collect();
        for function in FUNCTIONS {
            assert_eq!(statements.contains(&format!(" {function} TO")), missing.contains(&function), "{outcome}");
        }
        // Where the control file can be read, there is a plan that says it with all the rest.
        let is_planned = !missing.contains(&FUNCTIONS[2]);
        assert_eq!(outcome.stdout.contains("\"source_privileges\""), is_planned, "{outcome}");
        pair.source.sql("postgres", &statements);
        let _ = plan(&pair.target, &conninfo).success();
    }
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// A torn page could not be repaired: neither a plan nor an apply goes on, until a checkpoint has passed.
#[test]
fn full_page_writes_off() {
    let pair = Pair::shared(Major(13)).copy();
    pair.source.start();
    let before = Tree::of(&pair.target);
    let source = Source::Server(&pair.source, REWIND_USER);
    let made = Plan::of(&pair.target, source, &[]);
    let setting = |value: &str| {
        let set = format!("ALTER SYSTEM SET full_page_writes = {value}");
        pair.source.sql("postgres", &set);
        pair.source.sql("postgres", "SELECT pg_reload_conf()");
        pair.source.wait_for("postgres", &format!("current_setting('full_page_writes') = '{value}'"));
    };
    let refused = |texts: &[&str]| {
        let planned = plan(&pair.target, &pair.source.conninfo("postgres", REWIND_USER));
        for outcome in [planned, made.apply(&[])] {
            assert_refused(&outcome, 4, texts);
        }
    };
    setting("off");
    refused(&["full_page_writes is off on the source server", "set full_page_writes = on"]);
    pair.source.checkpoint();
    setting("on");
    refused(&["full_page_writes was off at the source's last checkpoint", "let a checkpoint pass"]);
    pair.source.checkpoint();
    let _ = plan(&pair.target, &pair.source.conninfo("postgres", REWIND_USER)).success();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// A connection that ends while the plan is made, wherever it does, and cannot be made again: no plan, and
/// nothing written.
#[test]
fn connections_that_end_in_mid_plan() {
    let pair = Pair::shared(Major(19)).copy();
    pair.source.start();
    let before = Tree::of(&pair.target);
    let planned = |relay: &Relay| {
        let mut command = pg_unfork(&["plan", "--allow-unreleased", "--source-timeout", "1", "-D"]);
        let command = command.arg(pair.target.data()).args(["--source-server", &relay.conninfo(REWIND_USER)]);
        Outcome::of(command)
    };
    let whole = Relay::new(&[(&pair.source, Fault::None)]);
    let _ = planned(&whole).success();
    let total = whole.passed();
    for limit in [0, 10, total / 4, total / 2, total * 3 / 4] {
        let outcome = planned(&cut_after(&pair.source, limit));
        assert_refused(&outcome, if limit <= 10 { 4 } else { 1 }, &["the source server"]);
        assert_eq!(outcome.stdout, "", "a plan was written");
    }
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// A relay whose first connection ends after so many bytes, and on which no other one lives.
fn cut_after(server: &Cluster, limit: u64) -> Relay {
    Relay::new(&[(server, Fault::CutAfter(limit)), (server, Fault::CutAfter(0))])
}

/// A connection that ends while the plan is applied, and cannot be made again: before the first write nothing is
/// changed, after it the target is sealed and no server starts.
#[test]
fn connections_that_end_in_mid_apply() {
    // Without tablespaces, so that one plan fits each copy of the target.
    let pair = Pair::simple(Major(18), |builder| builder);
    let whole = Relay::new(&[(&pair.source, Fault::None)]);
    let made = Plan::of(&pair.target, Source::Server(&pair.source, REWIND_USER), &["-R"]);
    let another = pair.target.duplicate();
    let apply = |target: &Cluster, relay: &Relay| {
        // Further connections, which are made where answers take long, would have bytes of their own.
        let mut command = pg_unfork(&["apply", "--no-sync", "--jobs", "1", "--source-timeout", "1"]);
        let command = command.arg(made.path()).arg("-D").arg(target.data());
        Outcome::of(command.args(["--source-server", &relay.conninfo(REWIND_USER)]))
    };
    let _ = apply(&another, &whole).success();
    let total = whole.passed();
    let mut codes = Vec::new();
    for limit in [0, 3000, total / 3, total * 2 / 3, total * 9 / 10] {
        let target = pair.target.duplicate();
        let before = Tree::of(&target);
        let outcome = apply(&target, &cut_after(&pair.source, limit));
        let code = outcome.status.code().unwrap();
        codes.push(code);
        if code == 5 {
            assert_refused(&outcome, 5, &["the source server", "the target is sealed"]);
            let start = target.try_start().failure();
            assert!(target.log().contains("invalid checkpoint location"), "{start}\n{}", target.log());
        } else {
            assert_refused(&outcome, 4, &["the source server"]);
            assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
        }
    }
    assert_eq!(codes, [4, 4, 5, 5, 5]);
    pair.source.stop(Stop::Fast);
}
