//! What is not as planned, field by field and file by file.

use std::fmt::Display;

use serde_json::Value;

use crate::error::{Error, ErrorId};
use crate::manifest::{ControlFacts, Manifest, plan_command};
use crate::types::TimelineHistory;

/// How many lines of a kind are shown.
const SHOWN: usize = 10;

/// The fields of a control file that stay the same as long as a live server is the same cluster; its timeline is one,
/// because a plan is for one.
const LASTING: [&str; 6] =
    ["catalog_version", "control_version", "data_checksums", "geometry", "system_identifier", "timeline"];

/// What is not as planned on one side.
#[derive(Debug)]
pub(super) struct Differences {
    side: &'static str,
    fields: Vec<String>,
    files: Vec<String>,
    /// What programs want to know of it, where it is more than that the plan is stale.
    id: Option<ErrorId>,
}

impl Differences {
    /// None yet, on the side `target` or `source`.
    pub(super) fn of(side: &'static str) -> Self {
        Self { side, fields: Vec::new(), files: Vec::new(), id: None }
    }

    /// Notes a field that is not as planned.
    pub(super) fn field(&mut self, name: &str, planned: impl Display, found: impl Display) {
        self.fields.push(format!("{}: {name}: planned {planned}, found {found}", self.side));
    }

    /// Notes a file that is not as planned.
    pub(super) fn file(&mut self, path: &impl Display, how: &str) {
        self.files.push(format!("{path}: {how}"));
    }

    /// Compares what control files said; of a live server only what lasts.
    pub(super) fn control(&mut self, planned: &ControlFacts, found: &ControlFacts, live: bool) {
        let (planned, found) = (fields(planned), fields(found));
        for (name, value) in &planned {
            let other = found.get(name).unwrap_or(&Value::Null);
            if value != other && (!live || LASTING.contains(&name.as_str())) {
                let id = source_id(name).filter(|_| self.side == "source");
                self.id = self.id.or(id);
                let name = if name == "sha256" { "SHA-256 of global/pg_control" } else { name };
                self.field(name, plain(value), plain(other));
            }
        }
    }

    /// Compares lines of timelines.
    pub(super) fn history(&mut self, planned: &TimelineHistory, found: &TimelineHistory) {
        if planned != found {
            self.field("timeline history", history_text(planned), history_text(found));
        }
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.files.is_empty()
    }

    fn text(&self) -> String {
        let mut parts = self.fields.clone();
        if !self.files.is_empty() {
            let files = first_of(&self.files);
            parts.push(format!("the {} has changed since the plan was made: {files}", self.side));
        }
        parts.join("; ")
    }
}

/// Refuses a plan from which either side differs.
///
/// # Errors
/// A stale plan, with all that differs and the command for a fresh one.
pub(super) fn refuse(manifest: &Manifest, sides: &[Differences]) -> Result<(), Error> {
    let texts: Vec<String> = sides.iter().filter(|side| !side.is_empty()).map(Differences::text).collect();
    if texts.is_empty() {
        return Ok(());
    }
    let error = Error::stale(texts.join("; ")).hint(fresh_plan(manifest));
    Err(match sides.iter().find_map(|side| side.id) {
        Some(id) => error.with_id(id),
        None => error,
    })
}

/// What a field of the source's control file means that is not as planned.
fn source_id(field: &str) -> Option<ErrorId> {
    match field {
        "system_identifier" => Some(ErrorId::SourceIdentity),
        "timeline" => Some(ErrorId::SourceTimeline),
        _ => None,
    }
}

/// What to do about a plan that is stale.
pub(super) fn fresh_plan(manifest: &Manifest) -> String {
    format!("make a fresh plan: {}", plan_command(manifest))
}

/// The first of many, and how many more there are.
pub(super) fn first_of(lines: &[String]) -> String {
    let more = if lines.len() > SHOWN { format!(" (and {} more)", lines.len() - SHOWN) } else { String::new() };
    let shown: Vec<&str> = lines.iter().take(SHOWN).map(String::as_str).collect();
    format!("{}{more}", shown.join("; "))
}

fn fields(facts: &ControlFacts) -> serde_json::Map<String, Value> {
    match serde_json::to_value(facts) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The timelines with where each begins: `1, 2 from 0/5000028`.
fn history_text(history: &TimelineHistory) -> String {
    let entries = history.entries().iter().map(|entry| match entry.begin.is_valid() {
        true => format!("{} from {}", entry.timeline, entry.begin),
        false => entry.timeline.to_string(),
    });
    entries.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Major, control_file_sample};
    use crate::plan::control_facts;
    use crate::types::{Lsn, TimelineId};

    #[test]
    fn each_field_that_differs_is_named() {
        let planned = control_facts(&control_file_sample(Major::V17, |_| ()));
        let found = control_facts(&control_file_sample(Major::V17, |f| (f.system, f.hints) = (7, true)));
        let text = |live| {
            let mut differences = Differences::of("target");
            differences.control(&planned, &found, live);
            differences.text()
        };
        let system = format!("target: system_identifier: planned {}, found 7", planned.system_identifier);
        assert_eq!(text(true), system);
        let sha = format!("target: SHA-256 of global/pg_control: planned {}, found {}", planned.sha256, found.sha256);
        assert_eq!(text(false), format!("{sha}; {system}; target: wal_log_hints: planned false, found true"));
    }

    #[test]
    fn histories_and_files() {
        let one = TimelineHistory::new(&[], TimelineId::new(1));
        let two = TimelineHistory::new(&[(TimelineId::new(1), Lsn::new(0x500_0028))], TimelineId::new(2));
        let mut differences = Differences::of("source");
        differences.history(&one, &one);
        assert!(differences.is_empty());
        differences.history(&one, &two);
        (0..12).for_each(|number| differences.file(&number, "is gone"));
        let text = differences.text();
        assert!(
            text.starts_with("source: timeline history: planned 1, found 1, 2 from 0/5000028; the source has"),
            "{text}"
        );
        assert!(text.ends_with("9: is gone (and 2 more)"), "{text}");
    }
}
