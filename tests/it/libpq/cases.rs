//! Strings, variables, services and password files, without TLS.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use pg_unfork::io::conninfo::Environment;

use super::Expected::{RefusedByLibpq, RefusedHere};
use super::{Case, Comparison, connects, fails};
use crate::support::cluster::{Cluster, InitOptions};
use crate::support::replication::RecoveryConfig;
use crate::support::scratch;
use crate::support::servers::Major;

/// Each role proves who it is in its own way.
const RULES: &str = "
    local all rejected reject
    local all md5er md5
    local all scrammer scram-sha-256
    local all plain password
    local all all trust
    host all rejected all reject
    host all md5er all md5
    host all scrammer all scram-sha-256
    host all plain all password
    host all all all trust
    local replication all trust
";

const ROLES: &str = "
    SET password_encryption = 'md5';
    CREATE ROLE md5er LOGIN PASSWORD 'md5''s';
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE scrammer LOGIN PASSWORD 'sc ram\\';
    CREATE ROLE plain LOGIN PASSWORD 'pl:ain';
    CREATE ROLE rejected LOGIN;
    CREATE ROLE nologin;
    CREATE ROLE limited LOGIN CONNECTION LIMIT 0;
    CREATE DATABASE \"a b\";
";

const SERVICES: &str = "
# comment
[first]
host=127.0.0.1
port={P}
user=scrammer
password=sc ram\\
dbname=postgres

[second]
host={SOCKETS}
port={S}
user=postgres
application_name=from the service
[bad]
no keyword
[unknown]
nonsense=1
[nested]
service=first
";

const ELSEWHERE: &str = "
[elsewhere]
host={SOCKETS}
port={P}
user=postgres
[again]
servicefile=x
";

const PASSWORDS: &str = "
# comment
127.0.0.1:{P}:*:scrammer:sc ram\\\\
localhost:{P}:postgres:plain:pl\\:ain
{SOCKETS}:*:postgres:md5er:md5's
*:{S}:*:md5er:md5's
*:*:*:md5er:wrong
";

/// The base of most cases.
const TRUST: &str = "host=127.0.0.1 port={P} user=postgres dbname=postgres";

const STRINGS: &[Case] = &[
    connects(TRUST, &[]),
    connects("host={SOCKETS} port={P} user=postgres", &[]),
    connects("host=localhost port={P} user=postgres", &[]),
    connects(" host = {SOCKETS}\tport= {P}\nuser =postgres dbname='a b'", &[]),
    connects(r"host={SOCKETS} port={P} user=postgres dbname=a\ b application_name='it\'s \\'", &[]),
    connects("host={SOCKETS} port={P} user=postgres application_name='' fallback_application_name=x", &[]),
    connects("host={SOCKETS} port={P} user=postgres options='-c work_mem=5MB'", &[]),
    connects("host={SOCKETS} port={P} user=postgres port={S}", &[]),
    connects("host={SOCKETS} port=' {P}' user=postgres", &[]),
    connects("host=nowhere.invalid hostaddr=127.0.0.1 port={P} user=postgres", &[]),
    connects("hostaddr=127.0.0.1 port={P} user=postgres", &[]),
    connects("host={SOCKETS} port={P} dbname=postgres", &[]),
    connects("host={SOCKETS} port={P} user='' dbname=''", &[("PGUSER", "rejected"), ("PGDATABASE", "nowhere")]),
    fails("host={SOCKETS} port={P} user=postgres dbname", &[]),
    fails("host={SOCKETS} port={P} user='postgres", &[]),
    fails("host={SOCKETS} port={P} user=postgres nonsense=1", &[]),
    fails("host={SOCKETS} port={P} User=postgres", &[]),
    fails("host={SOCKETS} port={P}x user=postgres", &[]),
    fails("host={SOCKETS} port=0 user=postgres", &[]),
    fails("host={SOCKETS} port={P} user=postgres dbname=nowhere", &[]),
    fails("host={SOCKETS} port={P} user=nobody dbname=postgres", &[]),
    fails("host={SOCKETS} port={P} user=nologin dbname=postgres", &[]),
    fails("host={SOCKETS} port={P} user=limited dbname=postgres", &[]),
    fails("host={SOCKETS} port={DEAD} user=postgres", &[]),
    fails("host=127.0.0.1 port={DEAD} user=postgres", &[]),
    fails("host=127.0.0.1 port={FOREIGN} user=postgres", &[]),
    fails("hostaddr=nonsense port={P} user=postgres", &[]),
    fails("host={SOCKETS} port={P} user=postgres connect_timeout=1s", &[]),
    fails("host={SOCKETS} port={P} user=postgres options='-c nonsense=1'", &[]),
    fails("host=@nobody port={P} user=postgres", &[]),
    connects("postgresql://postgres@127.0.0.1:{P}/postgres", &[]),
    connects("postgres://postgres@localhost:{P}/a%20b?application_name=a%3Db", &[]),
    connects("postgresql://plain:pl%3Aain@127.0.0.1:{P}/postgres", &[]),
    connects("postgresql:///postgres?host={SOCKETS}&port={P}&user=postgres", &[]),
    connects("postgresql://postgres@[::1]:{P},127.0.0.1:{P}/postgres", &[]),
    connects("postgresql://postgres@127.0.0.1:{DEAD},127.0.0.1:{S}/?target_session_attrs=standby", &[]),
    fails("postgresql://postgres@127.0.0.1:{P}/postgres?nonsense=1", &[]),
    fails("postgresql://postgres@127.0.0.1:{P}/post%zzgres", &[]),
    fails("postgresql://postgres@[::1", &[]),
];

const VARIABLES: &[Case] = &[
    connects("", &[("PGHOST", "127.0.0.1"), ("PGPORT", "{P}"), ("PGUSER", "postgres")]),
    connects("", &[("PGHOST", "{SOCKETS}"), ("PGPORT", "{S}"), ("PGUSER", "postgres"), ("PGDATABASE", "a b")]),
    connects("", &[("PGHOSTADDR", "127.0.0.1"), ("PGPORT", "{P}"), ("PGUSER", "postgres"), ("PGAPPNAME", "x")]),
    connects(TRUST, &[("PGHOST", "nowhere.invalid"), ("PGPORT", "1"), ("PGUSER", "x"), ("PGDATABASE", "y")]),
    connects("host={SOCKETS} port={P} user=postgres", &[("PGOPTIONS", "-c work_mem=6MB")]),
    connects("host={SOCKETS} port={P} user=scrammer dbname=postgres", &[("PGPASSWORD", r"sc ram\")]),
    fails("host={SOCKETS} port={P} user=scrammer dbname=postgres", &[("PGPASSWORD", "wrong")]),
    fails("host={SOCKETS} port={P} user=scrammer dbname=postgres", &[]),
    fails("host=127.0.0.1 port={P} user=rejected dbname=postgres", &[("PGPASSWORD", "any")]),
    connects("host=127.0.0.1 port={P} user=md5er dbname=postgres", &[("PGPASSWORD", "md5's")]),
    connects("host=127.0.0.1 port={P} user=plain dbname=postgres password=pl:ain", &[("PGPASSWORD", "wrong")]),
    connects(TRUST, &[("PGSSLMODE", "disable")]),
    fails(TRUST, &[("PGSSLMODE", "nonsense")]),
    fails(TRUST, &[("PGSSLMODE", "require")]),
    fails(TRUST, &[("PGREQUIRESSL", "1")]),
    connects("host={SOCKETS} port={P} user=postgres sslmode=require", &[]),
    connects(TRUST, &[("PGSSLMODE", "allow"), ("PGGSSENCMODE", "disable"), ("PGCHANNELBINDING", "disable")]),
    connects(TRUST, &[("PGTARGETSESSIONATTRS", "read-write"), ("PGLOADBALANCEHOSTS", "random")]),
    fails(TRUST, &[("PGTARGETSESSIONATTRS", "standby")]),
    fails(TRUST, &[("PGLOADBALANCEHOSTS", "nonsense")]),
    connects(
        TRUST,
        &[("PGCONNECT_TIMEOUT", "-1"), ("PGKRBSRVNAME", "x"), ("PGGSSLIB", "x"), ("PGSSLCOMPRESSION", "1")],
    ),
    connects(TRUST, &[("PGMINPROTOCOLVERSION", "3.0"), ("PGMAXPROTOCOLVERSION", "latest")]),
    connects(TRUST, &[("PGMINPROTOCOLVERSION", "latest")]).but(RefusedHere("protocol 3.0", "only that one is spoken")),
    fails(TRUST, &[("PGMAXPROTOCOLVERSION", "3.1")]),
    fails(TRUST, &[("PGTZ", "Nowhere/At_All")]).but(RefusedByLibpq("the session's time zone is not set here")),
    fails(TRUST, &[("PGCLIENTENCODING", "nonsense")])
        .but(RefusedByLibpq("names come as bytes, whatever encoding is set")),
];

const SERVERS: &[Case] = &[
    connects("host={SOCKETS},{SOCKETS} port={DEAD},{P} user=postgres", &[]),
    connects("host=nowhere.invalid,127.0.0.1,{SOCKETS} port={P} user=postgres", &[]),
    connects("host=,127.0.0.1 port={P},{S} user=postgres", &[]),
    connects("hostaddr=127.0.0.1,127.0.0.1 port={DEAD},{S} user=postgres", &[]),
    connects("host=a,b hostaddr=127.0.0.1, port={P} user=postgres", &[]),
    fails("host=a,b hostaddr=127.0.0.1 port={P} user=postgres", &[]),
    fails("host=127.0.0.1,127.0.0.1 port={P},{P},{P} user=postgres", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={S},{P} user=postgres target_session_attrs=read-write", &[]),
    connects(r"host=127.0.0.1,127.0.0.1 port={S},{P} user=postgres target_session_attrs=read\-write", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={P},{S} user=postgres target_session_attrs=read-only", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={S},{P} user=postgres target_session_attrs=primary", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={P},{S} user=postgres target_session_attrs=standby", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={P},{S} user=postgres target_session_attrs=prefer-standby", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={DEAD},{P} user=postgres target_session_attrs=prefer-standby", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={S},{P} user=postgres target_session_attrs=any", &[]),
    fails("host=127.0.0.1 port={S} user=postgres target_session_attrs=read-write", &[]),
    fails("host=127.0.0.1 port={P} user=postgres target_session_attrs=read-only", &[]),
    fails("host=127.0.0.1 port={P} user=postgres target_session_attrs=nonsense", &[]),
    connects(
        "host=127.0.0.1 port={P} user=postgres target_session_attrs=read-only options='-c default_transaction_read_only=on'",
        &[],
    ),
    // Whoever says no is not asked a second time at another server.
    fails("host=127.0.0.1,127.0.0.1 port={P},{S} user=rejected dbname=postgres", &[]),
    fails("host=127.0.0.1,127.0.0.1 port={P},{S} user=postgres dbname=nowhere", &[]),
    fails("host=127.0.0.1,127.0.0.1 port={FOREIGN},{P} user=postgres", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={SILENT},{P} user=postgres connect_timeout=1", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={P},0 user=postgres", &[])
        .but(RefusedHere("expected a port number", "every port is looked at before the first connection")),
    connects("host=127.0.0.1,127.0.0.1 hostaddr=127.0.0.1,nonsense port={P} user=postgres", &[])
        .but(RefusedHere("expected an IPv4 or IPv6 address", "every address is looked at before the first connection")),
    connects("host=127.0.0.1 port={OLD} user=postgres target_session_attrs=read-write", &[]),
    connects("host=127.0.0.1 port={OLD} user=postgres target_session_attrs=primary", &[]),
    fails("host=127.0.0.1 port={OLD} user=postgres target_session_attrs=standby", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={OLD},{S} user=postgres target_session_attrs=read-only", &[]),
];

const FILES: &[Case] = &[
    connects("service=first", &[]),
    connects("service=first user=postgres", &[("PGUSER", "rejected"), ("PGPORT", "1")]),
    connects("service=second", &[("PGAPPNAME", "from a variable")]),
    connects("", &[("PGSERVICE", "second"), ("PGHOST", "nowhere.invalid")]),
    connects("service=second", &[("PGSERVICEFILE", "{HOME}/.pg_service.conf")]),
    connects("service=elsewhere", &[("PGSYSCONFDIR", "{HOME}/etc")]),
    connects("service=elsewhere", &[("PGSERVICEFILE", "{HOME}/.pg_service.conf"), ("PGSYSCONFDIR", "{HOME}/etc")]),
    connects("postgresql://?service=second", &[]),
    fails("service=nowhere", &[("PGSYSCONFDIR", "{HOME}/etc")]),
    fails("service=''", &[]),
    fails("service=bad", &[]),
    fails("service=unknown", &[]),
    fails("service=nested", &[]),
    fails("service=first", &[("PGSERVICEFILE", "{HOME}/missing")]),
    // Found in the password file.
    connects("host=127.0.0.1 port={P} user=scrammer dbname=postgres", &[]),
    connects("host=localhost port={P} user=plain dbname=postgres", &[]),
    connects("host={SOCKETS} port={P} user=md5er dbname=postgres", &[]),
    connects("host=localhost hostaddr=127.0.0.1 port={P} user=plain dbname=postgres", &[]),
    connects("hostaddr=127.0.0.1 port={P} user=scrammer dbname=postgres", &[]),
    connects("host=127.0.0.1,127.0.0.1 port={DEAD},{S} user=md5er dbname=postgres", &[]),
    fails("host=127.0.0.1 port={P} user=md5er dbname=postgres", &[]),
    fails("host=localhost port={P} user=plain dbname='a b'", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres", &[("PGPASSFILE", "{HOME}/open")]),
    connects(
        "host=127.0.0.1 port={P} user=scrammer dbname=postgres passfile={HOME}/.pgpass",
        &[("PGPASSFILE", "/none")],
    ),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres", &[("PGPASSFILE", "/none")]),
];

const AUTHENTICATION: &[Case] = &[
    connects("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=scram-sha-256", &[]),
    connects("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=!password,!md5", &[]),
    connects("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=scram-sha-256,none", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=md5", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=!scram-sha-256", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=nonsense", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=md5,!password", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres require_auth=oauth", &[]),
    fails("host=127.0.0.1 port={P} user=scrammer dbname=postgres channel_binding=require", &[]),
    fails("host=localhost port={P} user=plain dbname=postgres", &[("PGREQUIREAUTH", "scram-sha-256,md5")]),
    connects("host=localhost port={P} user=plain dbname=postgres", &[("PGREQUIREAUTH", "password")]),
    connects("host={SOCKETS} port={P} user=md5er dbname=postgres require_auth=md5", &[]),
    fails("host={SOCKETS} port={P} user=md5er dbname=postgres require_auth=none", &[]),
    connects("host={SOCKETS} port={P} user=postgres require_auth=none", &[]),
    connects("host={SOCKETS} port={P} user=postgres require_auth=!password", &[]),
    fails("host={SOCKETS} port={P} user=postgres require_auth=!none", &[]),
    fails("host={SOCKETS} port={P} user=postgres require_auth=scram-sha-256", &[]),
    connects("host={SOCKETS} port={P} user=postgres requirepeer={OS_USER}", &[]),
    fails("host={SOCKETS} port={P} user=postgres requirepeer=nobody_at_all", &[]),
    connects("host=127.0.0.1 port={P} user=postgres requirepeer=nobody_at_all", &[]),
    fails("host={SOCKETS} port={P} user=postgres scram_client_key=", &[]),
    connects("host={SOCKETS} port={P} user=postgres replication=false", &[]),
    connects("host={SOCKETS} port={P} user=postgres gssencmode=prefer gssdelegation=1 oauth_issuer=x", &[]),
    connects("host={SOCKETS} port={P} user=postgres tcp_user_timeout=5000 keepalives_idle=3 keepalives=0", &[]),
    connects(
        "host=127.0.0.1 port={P} user=postgres tcp_user_timeout='5000' keepalives_count=2 keepalives_interval=1",
        &[],
    ),
];

/// As those write it who call pg_rewind: Patroni, Stolon, pg_auto_failover, repmgr.
const CALLERS: &[Case] = &[
    connects(
        r"dbname=postgres user=scrammer host=127.0.0.1,127.0.0.1 port={DEAD},{P} sslmode=prefer sslcompression=1 application_name=node\-1 krbsrvname=postgres gssencmode=prefer channel_binding=prefer target_session_attrs=read\-write sslnegotiation=postgres",
        &[("PGPASSFILE", "{HOME}/.pgpass"), ("PGOPTIONS", "-c statement_timeout=0")],
    ),
    connects(
        r"application_name=keeper dbname=postgres host=127.0.0.1 options=-c\ work_mem=5MB port={P} sslmode=prefer user=postgres",
        &[],
    ),
    connects(
        "application_name='pgautofailover_standby_1' host='127.0.0.1' port={P} user='plain' dbname='postgres' sslmode=prefer",
        &[("PGCONNECT_TIMEOUT", "2"), ("PGPASSWORD", "pl:ain")],
    ),
    connects("user=postgres connect_timeout=2 dbname=postgres host={SOCKETS} port={P} application_name=repmgr", &[]),
];

/// What only the newest libpq knows.
const NEWEST: &[Case] = &[
    connects("service=second servicefile={HOME}/.pg_service.conf", &[("PGSERVICEFILE", "{HOME}/missing")]),
    connects("postgresql:///?service=elsewhere&servicefile={HOME}/etc/pg_service.conf", &[]),
    fails("service=second servicefile={HOME}/missing", &[]),
    fails("service=again servicefile={HOME}/etc/pg_service.conf", &[]),
    connects("host={SOCKETS} port={P} user=postgres oauth_ca_file=x servicefile=y", &[("PGOAUTHCAFILE", "z")]),
];

/// A cluster with the roles of the cases, its server running.
fn server(major: u16, user: &str) -> Cluster {
    let cluster = Cluster::initdb(Major(major), &InitOptions::default()).listening_on(&["127.0.0.1"]);
    fs::write(cluster.path("pg_hba.conf"), RULES).unwrap();
    cluster.start();
    let own = format!("CREATE ROLE \"{user}\" LOGIN; CREATE DATABASE \"{user}\";");
    let _ = cluster.psql("postgres", ROLES, &[]).success();
    let _ = cluster.psql("postgres", &own, &[]).success();
    cluster
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Answers every connection like a web server.
fn foreign_server() -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 64]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    port
}

#[test]
fn strings_mean_what_libpq_takes_them_for() {
    let user = Environment::of_process().user_or_number();
    let primary = server(18, &user);
    let standby = primary.basebackup_standby(RecoveryConfig::Harness).listening_on(&["127.0.0.1"]);
    standby.start();
    let old = server(13, &user);
    // One takes connections and says nothing, the other takes none.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let foreign = foreign_server();
    let home = scratch::directory("home");
    let values = |comparison: Comparison| {
        comparison
            .value("P", primary.port())
            .value("S", standby.port())
            .value("OLD", old.port())
            .value("SILENT", silent.local_addr().unwrap().port())
            .value("FOREIGN", foreign)
            .value("DEAD", dead)
            .value("OS_USER", &user)
            .value("SOCKETS", scratch::sockets().display())
    };
    let comparison = values(Comparison::with(Major(18), home.path()));
    let newest = values(Comparison::with(Major(19), home.path()));
    let file = |name: &str, text: &str, mode| write(&home.path().join(name), &comparison.fill(text), mode);
    file(".pg_service.conf", SERVICES, 0o644);
    file("etc/pg_service.conf", ELSEWHERE, 0o644);
    file(".pgpass", PASSWORDS, 0o600);
    file("open", PASSWORDS, 0o644);
    let tables = [STRINGS, VARIABLES, SERVERS, FILES, AUTHENTICATION, CALLERS];
    let mut differences: Vec<String> = tables.iter().flat_map(|cases| comparison.differences(cases)).collect();
    differences.extend(newest.differences(NEWEST));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
