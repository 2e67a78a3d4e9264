//! The owner of a database may choose what names mean in it. Whoever plans, as a superuser perhaps, runs nothing of his.

use std::path::Path;
use std::time::Duration;

use pg_unfork::cluster::Source;
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{Patience, SqlSource};

use crate::support::cluster::{Cluster, InitOptions};
use crate::support::servers::Major;

/// What the program calls has a namesake that says in the server's log that it ran, and fits better than the real one.
const EVIL: &str = r#"
    CREATE TABLE public.found(n int);
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.ran() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'evil code ran'; END $$;
    CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT evil.ran(); SELECT $2 $$;
    CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT evil.ran(); SELECT $1 $$;
    CREATE FUNCTION evil.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql
        AS $$ SELECT evil.ran(); SELECT pg_catalog.pg_postmaster_start_time() $$;
    CREATE FUNCTION evil.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS $$ SELECT evil.ran(); SELECT false $$;
    CREATE FUNCTION evil.pg_read_binary_file(text) RETURNS bytea LANGUAGE sql AS $$ SELECT evil.ran(); SELECT ''::bytea $$;
    CREATE FUNCTION evil.has_function_privilege(text, text) RETURNS bool LANGUAGE sql
        AS $$ SELECT evil.ran(); SELECT true $$;
    CREATE FUNCTION evil.textsend(name) RETURNS bytea LANGUAGE sql AS $$ SELECT evil.ran(); SELECT ''::bytea $$;
    CREATE FUNCTION evil.quote_ident(name) RETURNS text LANGUAGE sql AS $$ SELECT evil.ran(); SELECT ''::text $$;
    CREATE FUNCTION evil.eq(oid, oid) RETURNS bool LANGUAGE sql
        AS $$ SELECT evil.ran(); SELECT $1 OPERATOR(pg_catalog.=) $2 $$;
    CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = oid, RIGHTARG = oid);
    ALTER DATABASE hostile SET search_path = evil, pg_catalog;
"#;

/// A source in that database, and whether it let itself be connected to.
fn source(cluster: &Cluster, database: &str) -> Option<SqlSource> {
    let environment = Environment::fixed::<&str, &str>([], Some("postgres"), Path::new("/none"));
    let conninfo = ConnInfo::resolve(&cluster.conninfo(database, "postgres"), &environment).unwrap();
    let patience = Patience { timeout: Duration::from_secs(60), interrupt: Interrupt::new() };
    SqlSource::connect_to_plan(conninfo, patience).ok()
}

#[test]
fn nothing_of_its_owners_is_run() {
    let cluster = Cluster::initdb(Major(18), &InitOptions::default());
    cluster.start();
    let _ = cluster.psql("postgres", "CREATE DATABASE hostile;", &[]).success();
    let _ = cluster.psql("hostile", EVIL, &[]).success();
    assert_eq!(cluster.sql("hostile", "SELECT current_setting('port')"), "port");
    let ran = || cluster.log().matches("evil code ran").count();
    assert_eq!(ran(), 1, "the namesakes are found where the database has its way");

    let names = source(&cluster, "postgres").unwrap().all_names();
    assert!(names.relations.values().any(|name| name == "public.found"), "names were found");
    assert_eq!(ran(), 1, "{}", cluster.log());

    assert!(source(&cluster, "hostile").is_some());
    assert_eq!(ran(), 1, "{}", cluster.log());
}
