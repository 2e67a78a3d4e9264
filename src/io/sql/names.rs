//! Names of databases and relations, each asked for in its database. They are a help and no more: what cannot be
//! found out in a few seconds, with the privileges that are there, has no name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postgres::types::Type;

use super::SqlSource;
use super::client::{Client, Limits, Parameter, Trouble};
use super::session::{Incarnation, STARTED, exactly};
use super::trouble::column;
use crate::cluster::Names;
use crate::interrupt::Interrupt;
use crate::io::conninfo::ConnInfo;
use crate::types::RelFileNumber;

/// How long all names together may take.
const BUDGET: Duration = Duration::from_secs(10);
/// How long the names of everything may take.
const BUDGET_FOR_ALL: Duration = Duration::from_secs(60);
/// How many relations all of them may be.
const MOST_OF_ALL: usize = 200_000;
/// How long the server may be silent meanwhile.
const SILENCE: Duration = Duration::from_secs(3);
/// How many relations are asked for, and how many in one query.
const MOST: usize = 1 << 15;
const AT_A_TIME: usize = 2_000;

/// What the sessions begin with. The owner of a database chooses its search path, and must not have this role run
/// functions and operators of his own: this has the last word over what is set for a database or a role.
const EMPTY_PATH: &str = "-c search_path=";

/// A session that waits for no lock. Everything is named with its schema, here and below, all the same.
const SETTINGS: &str = "
    SELECT pg_catalog.set_config('search_path', '', false),
           pg_catalog.set_config('default_transaction_read_only', 'on', false),
           pg_catalog.set_config('statement_timeout', '3000', false),
           pg_catalog.set_config('lock_timeout', '500', false),
           pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)";

const DATABASES: &str = "
    SELECT oid, pg_catalog.textsend(datname::pg_catalog.text) FROM pg_catalog.pg_database
     WHERE oid OPERATOR(pg_catalog.=) ANY ($1)";

// With several arguments, unnest is a part of the syntax, and has no schema.
const RELATIONS: &str = "
    SELECT w.n, pg_catalog.textsend(pg_catalog.concat(pg_catalog.quote_ident(s.nspname), '.', pg_catalog.quote_ident(c.relname)))
      FROM (SELECT n, pg_catalog.pg_filenode_relation(tablespace, file) AS relation
              FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.oid[]) WITH ORDINALITY AS u(tablespace, file, n) OFFSET 0) AS w
      JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) w.relation
      JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace";

/// The databases, and whether one can connect to them.
const ALL_DATABASES: &str = "
    SELECT oid, pg_catalog.textsend(datname::pg_catalog.text), datallowconn FROM pg_catalog.pg_database ORDER BY oid";

/// The relations with files: tablespace, database (none: all share it), file, name.
const ALL_RELATIONS: &str = "
    SELECT CASE WHEN c.relisshared THEN 1664::pg_catalog.oid
                WHEN c.reltablespace OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN d.dattablespace
                ELSE c.reltablespace END,
           CASE WHEN c.relisshared THEN 0::pg_catalog.oid ELSE d.oid END, pg_catalog.pg_relation_filenode(c.oid),
           pg_catalog.textsend(pg_catalog.concat(pg_catalog.quote_ident(s.nspname), '.', pg_catalog.quote_ident(c.relname)))
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
      JOIN pg_catalog.pg_database AS d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
     WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog.\"char\" AND pg_catalog.pg_relation_filenode(c.oid) IS NOT NULL
     ORDER BY c.oid
     LIMIT 200000";

/// What it takes to look for names: connections of their own, to the server that a session leads to.
#[derive(Clone)]
pub(super) struct NameFinder {
    conninfo: ConnInfo,
    interrupt: Interrupt,
    incarnation: Incarnation,
}

impl SqlSource {
    /// Looks for names of what the session leads to; none where there is no session.
    pub(super) fn name_finder(&self) -> Option<NameFinder> {
        let session = self.session.as_ref()?;
        let (incarnation, conninfo) = (session.incarnation, self.conninfo.only_to(session.client.endpoint().clone()));
        Some(NameFinder { conninfo, interrupt: self.patience.interrupt.clone(), incarnation })
    }
}

impl NameFinder {
    /// The names of everything, as far as they can be found out.
    pub(super) fn find_all_names(&self) -> Names {
        let until = Instant::now() + BUDGET_FOR_ALL;
        let mut names = Names::default();
        let Some(mut client) = self.connect_to(None, until) else { return names };
        let Ok(known) = client.query(ALL_DATABASES, &[]).map_err(drop).and_then(|rows| {
            let row = |row: &postgres::Row| Ok((column(row, 0)?, (column(row, 1)?, column(row, 2)?)));
            rows.iter().map(row).collect::<Result<BTreeMap<u32, (Vec<u8>, bool)>, Trouble>>().map_err(drop)
        }) else {
            return names;
        };
        names.databases = known.iter().map(|(&oid, (name, _))| (oid, shown(name))).collect();
        for (name, _) in known.into_values().filter(|(_, allows)| *allows) {
            if Instant::now() >= until || names.relations.len() >= MOST_OF_ALL {
                break;
            }
            let name = std::str::from_utf8(&name).ok();
            let Some(mut client) = name.and_then(|name| self.connect_to(Some(name), until)) else {
                continue;
            };
            // What came before something went wrong is a help, too.
            let _ = take_all(&mut client, &mut names);
        }
        names
    }

    /// The names of these, as far as they can be found out.
    pub(super) fn find_names(&self, databases: &[u32], relations: &[RelFileNumber]) -> Names {
        let until = Instant::now() + BUDGET;
        let mut names = Names::default();
        let mut by_database: BTreeMap<u32, Vec<RelFileNumber>> = BTreeMap::new();
        for &relation in relations.iter().filter(|relation| relation.relation != 0).take(MOST) {
            by_database.entry(relation.database).or_default().push(relation);
        }
        let Some(mut client) = self.connect_to(None, until) else { return names };
        let wanted: Vec<u32> = databases.iter().chain(by_database.keys()).copied().collect();
        let Ok(known) = database_names(&mut client, &wanted) else { return names };
        names.databases = known.iter().map(|(&oid, name)| (oid, shown(name))).collect();
        for (oid, relations) in by_database {
            let mut other = None;
            let client = if oid == 0 {
                Some(&mut client)
            } else {
                let name = known.get(&oid).and_then(|name| std::str::from_utf8(name).ok());
                other = name.and_then(|name| self.connect_to(Some(name), until));
                other.as_mut()
            };
            let Some(client) = client else { continue };
            for part in relations.chunks(AT_A_TIME) {
                if Instant::now() >= until || relation_names(client, part, &mut names).is_err() {
                    break;
                }
            }
            drop(other);
        }
        names.databases.retain(|oid, _| databases.contains(oid));
        names
    }

    /// A session in a database of the same server; none where there can be none.
    fn connect_to(&self, database: Option<&str>, until: Instant) -> Option<Client> {
        let silence = until.saturating_duration_since(Instant::now()).min(SILENCE);
        if silence.is_zero() {
            return None;
        }
        let mut conninfo = self.conninfo.clone();
        if let Some(database) = database {
            database.clone_into(&mut conninfo.dbname);
        }
        // What comes later counts.
        let options = conninfo.options.take().map_or_else(String::new, |options| options + " ");
        conninfo.options = Some(options + EMPTY_PATH);
        let limits = Limits { silence, interrupt: self.interrupt.clone(), over: Interrupt::new() };
        let mut client = Client::connect(&conninfo, limits).ok()?;
        let [set, started] = exactly(client.ask_all(&[(SETTINGS, &[]), (STARTED, &[])]).ok()?).ok()?;
        set.ok()?;
        let started = column(&started.ok()?, 0).ok().map(Incarnation::of);
        (started == Some(self.incarnation)).then_some(client)
    }
}

/// Takes the names of a database's relations.
fn take_all(client: &mut Client, names: &mut Names) -> Result<(), Trouble> {
    let mut rows = client.query_raw(ALL_RELATIONS)?;
    while let Some(row) = rows.next()? {
        let relation =
            RelFileNumber { tablespace: column(&row, 0)?, database: column(&row, 1)?, relation: column(&row, 2)? };
        let name: &[u8] = column(&row, 3)?;
        if names.relations.len() < MOST_OF_ALL {
            names.relations.insert(relation, shown(name));
        }
    }
    Ok(())
}

fn database_names(client: &mut Client, oids: &[u32]) -> Result<BTreeMap<u32, Vec<u8>>, Trouble> {
    let parameter: Parameter<'_> = (&oids, Type::OID_ARRAY);
    let rows = client.query(DATABASES, &[parameter])?;
    rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
}

fn relation_names(client: &mut Client, wanted: &[RelFileNumber], names: &mut Names) -> Result<(), Trouble> {
    let tablespaces: Vec<u32> = wanted.iter().map(|relation| relation.tablespace).collect();
    let files: Vec<u32> = wanted.iter().map(|relation| relation.relation).collect();
    let parameters: [Parameter<'_>; 2] = [(&tablespaces, Type::OID_ARRAY), (&files, Type::OID_ARRAY)];
    for row in client.query(RELATIONS, &parameters)? {
        let (number, name): (i64, &[u8]) = (column(&row, 0)?, column(&row, 1)?);
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        if let Some(relation) = index.and_then(|index| wanted.get(index)) {
            names.relations.insert(*relation, shown(name));
        }
    }
    Ok(())
}

/// Names are bytes in the database's encoding; what is no UTF-8 is shown as replaced.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
