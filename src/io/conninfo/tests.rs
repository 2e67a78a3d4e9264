//! The whole way from a string and an environment to a connection.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use postgres::config::Host as ConfigHost;

use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn resolve(text: &str, variables: Variables<'_>) -> Result<ConnInfo, ConnInfoError> {
    let environment = Environment::fixed(variables.iter().copied(), Some("os"), Path::new("/sock"));
    ConnInfo::resolve(text, &environment)
}

fn good(text: &str, variables: Variables<'_>) -> ConnInfo {
    resolve(text, variables).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn defaults_and_variables_complete_the_string() {
    let table: &[(&str, Variables<'_>, &str)] = &[
        ("", &[], "user=os dbname=os host='/sock' port=5432"),
        ("user=u", &[], "user=u dbname=u host='/sock' port=5432"),
        (
            "",
            &[("PGUSER", "u"), ("PGDATABASE", "d"), ("PGHOST", "h"), ("PGPORT", "7")],
            "user=u dbname=d host=h port=7",
        ),
        (
            "host=g port=8 user=v dbname=e",
            &[("PGUSER", "u"), ("PGDATABASE", "d"), ("PGHOST", "h"), ("PGPORT", "7")],
            "user=v dbname=e host=g port=8",
        ),
        // Given but empty hides the variable.
        (
            "host='' port='' user='' dbname=''",
            &[("PGUSER", "u"), ("PGDATABASE", "d"), ("PGHOST", "h"), ("PGPORT", "7")],
            "user=os dbname=os host='/sock' port=5432",
        ),
        ("postgresql://", &[("PGDATABASE", "d"), ("PGHOST", "h")], "user=os dbname=d host=h port=5432"),
        ("", &[("PGHOST", ""), ("PGPORT", "")], "user=os dbname=os host='/sock' port=5432"),
        ("hostaddr=127.0.0.1", &[], "user=os dbname=os hostaddr=127.0.0.1 port=5432"),
        ("port=' +7\t'", &[], "user=os dbname=os host='/sock' port=7"),
        (
            "",
            &[("PGPASSWORD", "s3cret"), ("PGAPPNAME", "a b"), ("PGOPTIONS", "-c x=y"), ("PGCONNECT_TIMEOUT", "9")],
            "connect_timeout=9 dbname=os host='/sock' options='-c x=y' user=os application_name='a b' port=5432",
        ),
        (
            "sslmode=disable tty=x authtype=y sslcompression=0 client_encoding=LATIN1 krbsrvname=k sslsni=1",
            &[("PGSSLROOTCERT", "/ca")],
            "user=os dbname=os host='/sock' port=5432 client_encoding=LATIN1 sslmode=disable sslcompression=0 krbsrvname=k",
        ),
    ];
    for (text, variables, expected) in table {
        let conninfo = good(text, variables);
        assert_eq!(sorted(&conninfo.redacted()), sorted(expected), "{text:?} {variables:?}");
        let again = good(&conninfo.redacted(), &[]);
        assert_eq!(again.redacted(), conninfo.redacted());
        assert_eq!(again.config().get_hosts(), conninfo.config().get_hosts());
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split(' ').collect();
    words.sort_unstable();
    words
}

#[test]
fn refuses_by_name_and_without_values() {
    let table: &[(&str, Variables<'_>, &str)] = &[
        ("a\0", &[], "NUL byte at position 2"),
        ("x=1", &[], "invalid connection option \"x\" at position 1"),
        ("service=s3cret", &[], "connection option \"service\" is not supported yet"),
        ("require_auth=s3cret", &[], "connection option \"require_auth\" is not supported yet"),
        ("sslmode=disable sslrootcert=s3cret", &[], "connection option \"sslrootcert\" is not supported yet"),
        ("sslpassword=s3cret", &[], "connection option \"sslpassword\" is not supported yet"),
        ("replication=true", &[], "connection option \"replication\" is not supported yet"),
        ("load_balance_hosts=random", &[], "\"load_balance_hosts\" is not supported yet"),
        ("", &[("PGSERVICE", "s3cret")], "environment variable PGSERVICE is not supported yet"),
        ("", &[("PGSSLROOTCERT", "s3cret")], "environment variable PGSSLROOTCERT is not supported yet"),
        ("sslmode=disable", &[("PGREQUIREPEER", "s3cret")], "environment variable PGREQUIREPEER is not supported yet"),
        (
            "sslmode=verify-full",
            &[],
            "connection option \"sslmode\" has the value \"verify-full\", which is not supported yet: TLS",
        ),
        ("postgresql://h?ssl=true", &[], "has the value \"require\", which is not supported yet: TLS"),
        ("", &[("PGSSLMODE", "require")], "environment variable PGSSLMODE has the value \"require\", which is not"),
        ("", &[("PGREQUIRESSL", "1")], "environment variable PGREQUIRESSL has the value \"require\", which is not"),
        ("sslmode=s3cret", &[], "invalid value of connection option \"sslmode\": expected disable,"),
        ("sslmode=''", &[], "invalid value of connection option \"sslmode\""),
        ("channel_binding=require", &[], "has the value \"require\", which is not supported yet: TLS"),
        ("gssencmode=require", &[], "has the value \"require\", which is not supported yet: Kerberos"),
        ("target_session_attrs=standby", &[], "has the value \"standby\", which is not supported yet"),
        ("host=a,b", &[], "connection option \"host\" lists several servers"),
        ("hostaddr=1.1.1.1,2.2.2.2", &[], "connection option \"hostaddr\" lists several"),
        ("port=1,2", &[], "connection option \"port\" lists several"),
        ("", &[("PGHOST", "a,b")], "environment variable PGHOST lists several"),
        ("host=@s3cret", &[], "abstract sockets are not supported"),
        ("hostaddr=s3cret", &[], "connection option \"hostaddr\": expected an IPv4 or IPv6 address"),
        ("port=0", &[], "expected a port number from 1 to 65535"),
        ("port=65536", &[], "expected a port number"),
        ("postgresql://u:s3cret/w@h", &[], "invalid connection URI at position 24: unexpected \"@\""),
        ("postgresql://u:s3cret", &[], "connection option \"port\": expected a port number"),
        ("connect_timeout=1s", &[], "connection option \"connect_timeout\": expected an integer"),
        ("keepalives_idle=9999999999", &[], "\"keepalives_idle\": expected an integer"),
        ("", &[("PGCONNECT_TIMEOUT", "s3cret")], "variable PGCONNECT_TIMEOUT: expected an integer"),
    ];
    for (text, variables, expected) in table {
        let error = resolve(text, variables).map(|conninfo| panic!("{text}: {conninfo:?}")).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!format!("{message}{error:?}").contains("s3cret"), "{message}");
    }
    let nobody = Environment::fixed::<&str, &str>([], None, Path::new("/sock"));
    assert_eq!(ConnInfo::resolve("", &nobody), Err(ConnInfoError::NoUserName { uid: 0 }));
    assert!(ConnInfo::resolve("user=u", &nobody).is_ok());
}

#[test]
fn accepts_what_changes_nothing() {
    let variables: Variables<'_> = &[
        ("PGSERVICE", ""),
        ("PGSSLROOTCERT", ""),
        ("PGSSLNEGOTIATION", "postgres"),
        ("PGSSLSNI", "1"),
        ("PGSSLCERTMODE", "allow"),
        ("PGGSSDELEGATION", "0"),
        ("PGLOADBALANCEHOSTS", "disable"),
        ("PGREQUIRESSL", "0"),
        ("PGTZ", "UTC"),
        ("PGMAXPROTOCOLVERSION", "latest"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.2"),
    ];
    let conninfo = good("replication=off sslcert='' sslmode=allow", variables);
    assert_eq!(conninfo.primary_conninfo(true), "user=os host='/sock' port=5432 sslmode=allow");
    assert_eq!(conninfo.ssl_mode, SslMode::Allow);
    // The string's own value hides a variable that would be refused.
    assert!(
        resolve("sslmode=prefer gssencmode=disable", &[("PGSSLMODE", "require"), ("PGGSSENCMODE", "require")]).is_ok()
    );
}

#[test]
fn configures_the_client() {
    let conninfo = good(
        "host=h hostaddr=::1 port=7 user=u dbname=d password=s3cret connect_timeout=3 options='-c a=b' \
         fallback_application_name=f keepalives=0 keepalives_idle=4 keepalives_interval=5 keepalives_count=6 \
         tcp_user_timeout=1500 channel_binding=disable target_session_attrs=read-only sslmode=prefer",
        &[],
    );
    let config = conninfo.config();
    assert_eq!(config.get_hosts(), [ConfigHost::Tcp("h".to_owned())]);
    assert_eq!(config.get_hostaddrs(), ["::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.get_ports(), [7]);
    assert_eq!((config.get_user(), config.get_dbname()), (Some("u"), Some("d")));
    assert_eq!(config.get_password(), Some(b"s3cret".as_slice()));
    assert_eq!((config.get_options(), config.get_application_name()), (Some("-c a=b"), Some("f")));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(4));
    assert_eq!(
        (config.get_keepalives_interval(), config.get_keepalives_retries()),
        (Some(Duration::from_secs(5)), Some(6))
    );
    assert_eq!(config.get_channel_binding(), ChannelBinding::Disable);
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadOnly);
    assert_eq!(config.get_ssl_mode(), postgres::config::SslMode::Disable);
    for text in [format!("{conninfo:?}"), conninfo.redacted(), conninfo.primary_conninfo(true)] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn zero_and_less_mean_no_limit() {
    for value in ["0", "-1", "''"] {
        let text = format!(
            "connect_timeout={value} tcp_user_timeout={value} keepalives_idle={value} keepalives_count={value}"
        );
        let conninfo = good(&text, &[]);
        let keepalives = Keepalives { enabled: true, idle: None, interval: None, count: None };
        assert_eq!(
            (conninfo.connect_timeout, conninfo.tcp_user_timeout, &conninfo.keepalives),
            (None, None, &keepalives)
        );
        assert!(conninfo.config().get_connect_timeout().is_none());
    }
    assert_eq!(good("application_name='' fallback_application_name=f", &[]).application_name, None);
    let socket = good("postgresql://%2Frun%2Fpg", &[]).config();
    assert_eq!(socket.get_hosts(), [ConfigHost::Unix("/run/pg".into())]);
}

#[test]
fn writes_primary_conninfo() {
    let text = r"application_name='it''s' ";
    assert!(resolve(text, &[]).is_err());
    let text = r"port=7 password=s3cret host=h.x user=a-b application_name='it\'s \\' passfile=~/.pw dbname=d
                 fallback_application_name=f sslmode=prefer tcp_user_timeout='5000' tty=t";
    let conninfo = good(text, &[("PGCONNECT_TIMEOUT", "2"), ("PGGSSENCMODE", "disable"), ("PGPASSWORD", "s3cret")]);
    let expected = |dbname| {
        format!(
            r"user='a-b' passfile='~/.pw' connect_timeout=2{dbname} host=h.x port=7 application_name='it\'s \\' tcp_user_timeout=5000 sslmode=prefer gssencmode=disable"
        )
    };
    assert_eq!(conninfo.primary_conninfo(true), expected(" dbname=d"));
    assert_eq!(conninfo.primary_conninfo(false), expected(""));
    assert_eq!(good("", &[]).primary_conninfo(true), "user=os host='/sock' port=5432");
    assert_eq!(good("", &[("PGDATABASE", "d")]).primary_conninfo(true), "user=os dbname=d host='/sock' port=5432");
}

#[test]
fn looks_for_the_password_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, home) = (dir.path().join(".pgpass"), dir.path().to_str().unwrap());
    let passfile = path.to_str().unwrap();
    fs::write(&path, "h:7:d:u:one\nlocalhost:5432:os:os:two\n::1:*:*:*:three\n/run:*:*:*:four\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let find = |text: &str, variables: Variables<'_>| {
        let conninfo = good(text, variables);
        assert_eq!(conninfo.password_file.is_some(), conninfo.password.is_some());
        conninfo.password.map(|password| password.expose().to_owned())
    };
    let table: &[(&str, Option<&str>)] = &[
        ("host=h port=7 dbname=d user=u", Some("one")),
        ("host=h port=7 dbname=d user=u hostaddr=::1", Some("one")),
        ("host=h port=7 dbname=e user=u", None),
        ("host=h port=7 dbname=d user=u password=''", Some("one")),
        ("", Some("two")),
        ("host=/sock", Some("two")),
        ("host=localhost", Some("two")),
        ("host=/run", Some("four")),
        ("hostaddr=::1", Some("three")),
        ("postgresql://[::1]", Some("three")),
    ];
    for (text, expected) in table {
        assert_eq!(find(text, &[("HOME", home)]).as_deref(), *expected, "{text}");
        assert_eq!(find(text, &[("PGPASSFILE", passfile)]).as_deref(), *expected, "{text}");
        assert_eq!(find(text, &[("HOME", home), ("PGPASSFILE", "/nowhere")]), None, "{text}");
    }
    let own = good("password=own", &[("HOME", home)]);
    assert_eq!((own.password, own.password_file), (Some(Secret::new("own".to_owned())), None));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let conninfo = good(&format!("passfile='{passfile}'"), &[]);
    assert_eq!((conninfo.password, conninfo.warning), (None, Some(PassfileWarning::OpenToOthers(path))));
}
