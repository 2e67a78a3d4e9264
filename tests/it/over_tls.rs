//! A live source over TLS: plan and apply, on several connections, with names by other databases and lines that are cut.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{KeyPair, SanType};

use crate::support::certificates::{Authority, Identity};
use crate::support::cluster::{Cluster, Stop};
use crate::support::life::assert_follows;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::relay::{Fault, Relay};
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::workload::REWIND_USER;

/// How each role gets in, and nobody without TLS.
const RULES: &str = "
    local all all trust
    local replication all trust
    hostssl all rewind_user all cert
    hostssl replication rewind_user all cert
    hostssl all scrammer all scram-sha-256
    host all all all reject
";

fn write(path: &Path, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A pair of which so much has to be copied that several connections are worth it; its source wants TLS.
fn pair_over_tls(major: u16, root: &Authority, certificate: &Identity) -> Pair {
    let large = "CREATE TABLE large AS SELECT repeat('x', 900) FROM generate_series(1, 30000)";
    let pair = Pair::simple(Major(major), |builder| {
        builder.on_source_after_fork(|source| drop(source.sql("postgres", large))).on_target_after_fork(|target| {
            target.sql("postgres", "CREATE DATABASE elsewhere");
        })
    });
    let Pair { source, target } = pair;
    source.sql("postgres", "CREATE ROLE scrammer LOGIN PASSWORD 's3cret' IN ROLE pg_read_server_files");
    source.sql("postgres", "GRANT rewind_user TO scrammer; ALTER ROLE rewind_user REPLICATION");
    source.checkpoint();
    source.stop(Stop::Fast);
    let source = source.listening_on(&["127.0.0.1"]);
    write(&source.path("server.crt"), &certificate.chain);
    write(&source.path("server.key"), &certificate.key);
    write(&source.path("root.crt"), &root.pem);
    write(&source.path("pg_hba.conf"), RULES);
    source.append_config("ssl = on\nssl_ca_file = 'root.crt'\n");
    source.start();
    Pair { source, target }
}

/// Plans, applies on three connections, and lets the target follow: all over lines that are cut once.
fn rewind(target: &Cluster, source: &Cluster, conninfo: impl Fn(u16) -> String, password: Option<&str>) -> Plan {
    let whole = Relay::to_ports(&[(source, Fault::None)]);
    let (plan, outcome) = Plan::make_from(target, &["--source-server", &conninfo(whole.port())], &["-R"]);
    let _ = outcome.success();
    assert!(whole.connections() > 1, "names are asked for on a connection of their own");
    let cut = Relay::to_ports(&[(source, Fault::CutAfter(3 << 20)), (source, Fault::None)]);
    let mut command = pg_unfork(&["apply", "--no-sync", "--jobs", "3", "--source-server", &conninfo(cut.port())]);
    command.arg(plan.path()).envs(password.map(|password| ("PGPASSWORD", password)));
    let outcome = Outcome::of(&mut command).success();
    assert!(outcome.stderr.contains("is rewound"), "{outcome}");
    assert!(cut.connections() >= 4, "{} connections", cut.connections());
    plan
}

#[test]
fn with_a_certificate_and_no_password() {
    let root = Authority::root("root");
    let server = root.issue("db", |params| {
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    });
    let client = root.issue_for(&KeyPair::generate().unwrap(), REWIND_USER, |_| {});
    let Pair { source, target } = pair_over_tls(17, &root, &server);
    let files = scratch::directory("tls");
    let file = |name: &str| files.path().join(name).display().to_string();
    write(&files.path().join("root.crt"), &root.pem);
    write(&files.path().join("user.crt"), &client.chain);
    write(&files.path().join("user.key"), &client.key);
    // As CloudNativePG has it, but for the port, which is the relay's, and a stronger mode.
    let conninfo = |mode: &str, port: u16| {
        format!(
            "host=localhost hostaddr=127.0.0.1 user={REWIND_USER} port={port} sslkey={} sslcert={} sslrootcert={} \
             application_name=pod-1 sslmode={mode} dbname=postgres tcp_user_timeout='5000'",
            file("user.key"),
            file("user.crt"),
            file("root.crt")
        )
    };
    let plan = rewind(&target, &source, |port| conninfo("verify-full", port), None);
    assert!(plan.json()["discarded"].to_string().contains("public.rows"), "names were found");
    // What -R has written is for libpq, which proves that it is understood there, too.
    let written = fs::read_to_string(target.path("postgresql.auto.conf")).unwrap();
    assert!(written.contains("sslmode=''verify-full''") && written.contains("sslcert="), "{written}");
    fs::write(
        target.path("postgresql.auto.conf"),
        format!("{written}\nprimary_conninfo = '{}'\n", conninfo("verify-ca", source.port()).replace('\'', "''")),
    )
    .unwrap();
    assert_follows(&target, &source);
}

#[test]
fn with_a_password_that_is_bound_to_the_certificate() {
    let root = Authority::root("root");
    let server = root.issue("localhost", |_| {});
    let Pair { source, target } = pair_over_tls(14, &root, &server);
    let files = scratch::directory("tls");
    let roots = files.path().join("root.crt");
    write(&roots, &root.pem);
    let conninfo = |port: u16| {
        format!(
            "host=localhost hostaddr=127.0.0.1 user=scrammer dbname=postgres port={port} channel_binding=require \
             sslmode=verify-full sslrootcert={}",
            roots.display()
        )
    };
    let with_password = |port| format!("{} password=s3cret", conninfo(port));
    let plan = rewind(&target, &source, with_password, Some("s3cret"));
    assert!(!String::from_utf8_lossy(&plan.document()).contains("s3cret"), "a password is in the plan");
    assert!(
        plan.json()["source"]["address"].as_str().is_some_and(|address| address.contains("channel_binding=require"))
    );
    let refused = |change: &str, expected: &str| {
        let conninfo = format!("{} {change}", with_password(source.port()));
        let (_, outcome) = Plan::make_from(&target, &["--source-server", &conninfo], &["-R"]);
        let outcome = outcome.failure();
        assert!(outcome.stderr.contains(expected), "{outcome}");
        assert!(!outcome.stderr.contains("s3cret"), "{outcome}");
    };
    refused("host=elsewhere", "server certificate for \"localhost\" does not match host name \"elsewhere\"");
    refused("sslrootcert=/none", "root certificate file \"/none\" does not exist: give sslrootcert");
    refused("sslmode=disable", "reject");
}
