//! The whole way from a string and an environment to a connection.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use std::net::IpAddr;

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
            "user=os dbname=os host='/sock' port=5432 client_encoding=LATIN1 sslmode=disable sslcompression=0 krbsrvname=k \
             sslrootcert='/ca'",
        ),
    ];
    for (text, variables, expected) in table {
        let conninfo = good(text, variables);
        assert_eq!(sorted(&conninfo.redacted()), sorted(expected), "{text:?} {variables:?}");
        let again = good(&conninfo.redacted(), &[]);
        assert_eq!(again.redacted(), conninfo.redacted());
        assert_eq!(again.endpoints, conninfo.endpoints.iter().cloned().map(without_password).collect::<Vec<_>>());
    }
}

fn without_password(endpoint: Endpoint) -> Endpoint {
    Endpoint { password: None, ..endpoint }
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
        ("service=s3cret", &[("PGSYSCONFDIR", "/nowhere")], "the service is not defined in /nowhere/pg_service.conf"),
        ("require_auth=s3cret", &[], "connection option \"require_auth\": expected a list of"),
        ("scram_client_key=s3cret", &[], "connection option \"scram_client_key\" is not supported: SCRAM takes"),
        ("min_protocol_version=3.2", &[], "has the value \"3.2\", which is not supported: protocol 3.0"),
        ("max_protocol_version=s3cret", &[], "\"max_protocol_version\": expected 3.0, 3.2 or latest"),
        ("replication=database", &[], "connection option \"replication\" is not supported: a connection for"),
        ("replication=true", &[], "connection option \"replication\" is not supported: a connection"),
        ("load_balance_hosts=s3cret", &[], "\"load_balance_hosts\": expected disable or random"),
        ("", &[("PGSERVICE", "s3cret"), ("PGSERVICEFILE", "/nowhere")], "the service file /nowhere cannot be read"),
        ("sslmode=s3cret", &[], "invalid value of connection option \"sslmode\": expected disable,"),
        ("sslmode=''", &[], "invalid value of connection option \"sslmode\""),
        ("gssencmode=require", &[], "has the value \"require\", which is not supported: Kerberos"),
        ("target_session_attrs=s3cret", &[], "\"target_session_attrs\": expected any, read-write,"),
        ("host=a,b,s3cret port=1,2", &[], "connection option \"port\" has 2 items for 3 servers"),
        ("hostaddr=1.1.1.1,2.2.2.2 host=s3cret", &[], "connection option \"host\" has 1 items for 2 servers"),
        ("port=1,2", &[], "connection option \"port\" has 2 items for 1 servers"),
        ("port=1,2,3", &[("PGHOST", "a,s3cret")], "connection option \"port\" has 3 items for 2 servers"),
        ("host=a,b port=1,s3cret", &[], "expected a port number from 1 to 65535"),
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
        ("PGOAUTHCAFILE", ""),
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
    let [endpoint] = conninfo.endpoints.as_slice() else { panic!("{conninfo:?}") };
    assert_eq!(endpoint.host, Some(Host::Tcp("h".to_owned())));
    assert_eq!((endpoint.hostaddr, endpoint.port), (Some("::1".parse::<IpAddr>().unwrap()), 7));
    let config = conninfo.config(endpoint);
    assert_eq!((config.get_user(), config.get_dbname()), (Some("u"), Some("d")));
    assert_eq!(config.get_password(), Some(b"s3cret".as_slice()));
    assert_eq!((config.get_options(), config.get_application_name()), (Some("-c a=b"), Some("f")));
    assert_eq!(config.get_channel_binding(), ChannelBinding::Disable);
    assert_eq!(conninfo.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(conninfo.tcp_user_timeout, Some(Duration::from_millis(1500)));
    let expected = Keepalives {
        enabled: false,
        idle: Some(Duration::from_secs(4)),
        interval: Some(Duration::from_secs(5)),
        count: Some(6),
    };
    assert_eq!(conninfo.keepalives, expected);
    assert_eq!((conninfo.target_session, conninfo.ssl_mode), (TargetSession::ReadOnly, SslMode::Prefer));
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
    }
    assert_eq!(good("application_name='' fallback_application_name=f", &[]).application_name, None);
    assert_eq!(servers("postgresql://%2Frun%2Fpg", &[]), ["/run/pg - 5432"]);
}

fn servers(text: &str, variables: Variables<'_>) -> Vec<String> {
    let shown = |endpoint: &Endpoint| {
        let host = endpoint.host.as_ref().map_or("-", Host::as_text);
        let address = endpoint.hostaddr.map_or("-".to_owned(), |address| address.to_string());
        format!("{host} {address} {}", endpoint.port)
    };
    good(text, variables).endpoints.iter().map(shown).collect()
}

#[test]
fn lists_are_read_item_by_item() {
    let table: &[(&str, Variables<'_>, &[&str], &str)] = &[
        ("host=a,b", &[], &["a - 5432", "b - 5432"], "host='a,b' port=5432"),
        ("host=a,b port=7", &[], &["a - 7", "b - 7"], "host='a,b' port=7"),
        ("host=a,b port=7,8", &[], &["a - 7", "b - 8"], "host='a,b' port='7,8'"),
        (
            "host=a,,/run,@x port=,7,,",
            &[],
            &["a - 5432", "/sock - 7", "/run - 5432", "@x - 5432"],
            "host='a,/sock,/run,@x' port='5432,7,5432,5432'",
        ),
        ("hostaddr=1.1.1.1,::1", &[("PGPORT", "9")], &["- 1.1.1.1 9", "- ::1 9"], "hostaddr='1.1.1.1,::1' port=9"),
        (
            "hostaddr=1.1.1.1,,::1 host=a,b,",
            &[],
            &["a 1.1.1.1 5432", "b - 5432", "- ::1 5432"],
            "host='a,b,' hostaddr='1.1.1.1,,::1' port=5432",
        ),
        ("postgresql://a:1,b/", &[], &["a - 1", "b - 5432"], "host='a,b' port='1,5432'"),
        ("port=3", &[("PGHOST", "a,b")], &["a - 3", "b - 3"], "host='a,b' port=3"),
    ];
    for (text, variables, expected, written) in table {
        assert_eq!(servers(text, variables), *expected, "{text}");
        let conninfo = good(text, variables);
        assert_eq!(sorted(&conninfo.primary_conninfo(true)), sorted(&format!("user=os {written}")), "{text}");
        assert_eq!(good(&conninfo.redacted(), &[]).endpoints, conninfo.endpoints, "{text}");
        let last = conninfo.endpoints.last().unwrap();
        assert_eq!(conninfo.only_to(last.clone()).endpoints.as_slice(), std::slice::from_ref(last));
    }
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
        let is_found = conninfo.endpoints.iter().any(|endpoint| endpoint.password.is_some());
        assert_eq!(conninfo.password_file.is_some(), is_found && conninfo.password.is_none());
        let passwords = conninfo.endpoints.iter().map(|endpoint| Some(endpoint.password.as_ref()?.expose()));
        passwords.collect::<Option<Vec<_>>>().map(|passwords| passwords.join(" "))
    };
    let table: &[(&str, Option<&str>)] = &[
        ("host=h,localhost,::1 port=7,5432,9 dbname=d user=u", None),
        ("host=/run,::1,/sock", Some("four three two")),
        ("host=/run,/sock password=own", Some("own own")),
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
        let own = text.contains("own").then_some("own own");
        assert_eq!(find(text, &[("HOME", home), ("PGPASSFILE", "/nowhere")]).as_deref(), own, "{text}");
    }
    let own = good("password=own", &[("HOME", home)]);
    assert_eq!((own.password, own.password_file), (Some(Secret::new("own".to_owned())), None));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let conninfo = good(&format!("passfile='{passfile}'"), &[]);
    assert_eq!(
        (conninfo.endpoints[0].password.clone(), conninfo.warning),
        (None, Some(PassfileWarning::OpenToOthers(path)))
    );
}

#[test]
fn a_standby_is_told_what_lets_it_in() {
    let table = [
        ("host=h user=u", None),
        ("host=h user=u password=''", None),
        ("host=h user=u password=a", Some("password=a")),
        ("host=h user=u sslpassword='b c'", Some("sslpassword='b c'")),
        ("host=h user=u sslpassword=b password=a", Some("password=a sslpassword=b")),
    ];
    for (text, expected) in table {
        assert_eq!(good(text, &[]).password_setting().as_deref(), expected, "{text}");
    }
}
