//! What do we lose?

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::content::{LONGEST, Part, Section, Table, Text, Tone};
use super::super::{bytes, count, number};
use super::row;
use crate::manifest::{Discarded, DiscardedRelation, DiscardedVerdict, Manifest};
use crate::types::RelFileNumber;

/// The target's own work; none where the plan says nothing of it.
pub(super) fn section(manifest: &Manifest) -> Option<Section> {
    let discarded = manifest.discarded.as_ref()?;
    let (answer, tone) = match discarded.verdict {
        DiscardedVerdict::Nothing => ("nothing", Tone::Good),
        DiscardedVerdict::MaintenanceOnly => ("no committed change by a user", Tone::Good),
        DiscardedVerdict::Data => ("data", Tone::Bad),
    };
    let mut parts = vec![Part::Row { label: "lost", text: lost(discarded), tone }];
    parts.extend(counts(discarded));
    parts.extend(objects(discarded));
    if !discarded.relations.is_empty() {
        parts.push(Part::Table(relations(discarded)));
    }
    if !discarded.commits.is_empty() {
        parts.push(Part::Table(commits(discarded)));
    }
    Some(Section { title: Text::words(format!("What is lost: {answer}")), tone, parts, folded: false })
}

fn lost(discarded: &Discarded) -> Text {
    let counts = &discarded.transactions;
    let work = format!(
        "the target's own work from {} to {}: {} of WAL, {}",
        discarded.from,
        discarded.through,
        bytes(discarded.bytes),
        count(counts.committed, "transaction committed", "transactions committed"),
    );
    let text = match (&discarded.first_commit, &discarded.last_commit) {
        (Some(first), Some(last)) if first != last => {
            Text::words(work).and(" from ").and_name(first).and(" to ").and_name(last)
        }
        (Some(first), _) => Text::words(work).and(" at ").and_name(first),
        _ => Text::words(work),
    };
    text.and(format!(", {}", count(counts.aborted, "rolled back", "rolled back")))
}

/// What else is to be said of transactions.
fn counts(discarded: &Discarded) -> Vec<Part> {
    let counts = &discarded.transactions;
    let mut parts = Vec::new();
    if counts.subtransactions > 0 {
        let text = count(counts.subtransactions, "subtransaction", "subtransactions");
        parts.push(row("", Text::words(format!("{text} of the committed ones"))));
    }
    if discarded.records_left_out > 0 {
        let text = count(discarded.records_left_out, "record", "records");
        parts.push(row("", Text::words(format!("{text} of relations that the plan does not list"))));
    }
    if counts.prepared > 0 {
        let text = count(counts.prepared, "transaction was prepared", "transactions were prepared");
        let text = Text::words(format!("{text}, and neither committed nor rolled back"));
        parts.push(Part::Row { label: "", text, tone: Tone::Bad });
    }
    parts
}

/// Databases and tablespaces that were created or dropped.
fn objects(discarded: &Discarded) -> Vec<Part> {
    let databases = discarded.databases.iter().map(|database| {
        let shown = Text::words("database ").and_name(database_name(database.name.as_deref(), database.oid));
        (shown, database.created, database.dropped)
    });
    let tablespaces = discarded.tablespaces.iter().map(|tablespace| {
        (Text::words(format!("tablespace {}", tablespace.oid)), tablespace.created, tablespace.dropped)
    });
    let changed: Vec<_> = databases.chain(tablespaces).filter(|(_, created, dropped)| *created || *dropped).collect();
    let more = changed.len().saturating_sub(LONGEST) as u64;
    let mut parts: Vec<Part> = changed
        .into_iter()
        .take(LONGEST)
        .enumerate()
        .map(|(index, (shown, created, dropped))| {
            let what = match (created, dropped) {
                (true, true) => ": created and dropped after the fork",
                (true, false) => ": created after the fork, is lost whole",
                _ => ": dropped after the fork, is there again",
            };
            row(if index == 0 { "objects" } else { "" }, shown.and(what))
        })
        .collect();
    if more > 0 {
        parts.push(row("", Text::words(format!("and {}", count(more, "more", "more")))));
    }
    parts
}

/// A database by its name, or else by its number.
fn database_name(name: Option<&str>, oid: u32) -> String {
    match (name, oid) {
        (Some(name), _) => name.to_owned(),
        (None, 0) => "(shared)".to_owned(),
        (None, oid) => format!("oid {oid}"),
    }
}

/// Whether a relation is a catalog, which changes with whatever users do: their own relations are told of first.
fn is_catalog(relation: &DiscardedRelation) -> bool {
    /// `FirstNormalObjectId`: smaller numbers are those that initdb gave.
    const FIRST_OF_USERS: u32 = 16384;
    match &relation.name {
        Some(name) => ["pg_catalog.", "pg_toast.", "information_schema."].iter().any(|schema| name.starts_with(schema)),
        None => relation.relation.relation < FIRST_OF_USERS,
    }
}

/// Relations, those of users first, and those with the most changed blocks.
fn relations(discarded: &Discarded) -> Table {
    let databases: BTreeMap<u32, Option<&str>> =
        discarded.databases.iter().map(|database| (database.oid, database.name.as_deref())).collect();
    let mut relations: Vec<&DiscardedRelation> = discarded.relations.iter().collect();
    relations.sort_by_key(|relation| (is_catalog(relation), Reverse(relation.blocks), relation.relation));
    let all = relations.len();
    let rows = relations.into_iter().map(|relation| {
        let records = &relation.records;
        let others = [records.ddl, records.hint_bits, records.index, records.other, records.truncate, records.vacuum];
        let others = others.into_iter().fold(0, u64::saturating_add);
        let mut cells: Vec<Text> = [relation.blocks, records.insert, records.update, records.delete, others]
            .into_iter()
            .map(|value| Text::words(number(value)))
            .collect();
        let oid = relation.relation.database;
        cells.push(Text::name(database_name(databases.get(&oid).copied().flatten(), oid)));
        let what = match (relation.created, relation.dropped) {
            (false, false) => "",
            (true, false) => " (created)",
            (false, true) => " (dropped)",
            (true, true) => " (created, dropped)",
        };
        cells.push(relation_name(relation).and(what));
        cells
    });
    let numbers = ["blocks", "inserts", "updates", "deletes", "others"];
    Table::new("relations", &numbers, &["database", "relation"], all, rows).for_terminals()
}

fn relation_name(relation: &DiscardedRelation) -> Text {
    match &relation.name {
        Some(name) => Text::name(name),
        None => Text::words(format!("file {}", relation.relation)),
    }
}

/// The committed transactions, the first ones first.
fn commits(discarded: &Discarded) -> Table {
    let named: BTreeMap<RelFileNumber, &DiscardedRelation> =
        discarded.relations.iter().map(|relation| (relation.relation, relation)).collect();
    let rows = discarded.commits.iter().map(|commit| {
        let mut relations = Text::default();
        for (index, number) in commit.relations.iter().take(10).enumerate() {
            let relations_so_far = if index == 0 { relations } else { relations.and(", ") };
            relations = match named.get(number).and_then(|relation| relation.name.as_ref()) {
                Some(name) => relations_so_far.and_name(name),
                None => relations_so_far.and(number.to_string()),
            };
        }
        if commit.relations.len() > 10 || commit.more_relations {
            relations = relations.and(", …");
        }
        let time = commit.time.as_ref().map_or_else(Text::default, Text::name);
        vec![Text::words(commit.xid.to_string()), time, Text::words(commit.lsn.to_string()), relations]
    });
    Table::new("committed transactions", &["xid"], &["committed", "at", "relations"], discarded.commits.len(), rows)
        .and_more(discarded.commits_left_out)
}
