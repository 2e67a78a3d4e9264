//! A plan as a comment on a forge: short on top, the rest folded, never longer than a forge takes.
//!
//! What comes from outside is always code, which no forge searches for names of people, issues or commits. A name with
//! any character that could be markup has all of its punctuation as entities, which never are.

use super::content::{Finding, Lines, Part, Report, Section, Span, Table, Text, Tone};
use super::count;
use super::sections::{Naming, report};
use crate::manifest::Manifest;
use crate::types::plain;

/// The most bytes of such a document. Forges take 65,536 characters.
pub const MARKDOWN_LIMIT: usize = 65_000;

/// How much is shown: rows of a list, characters of a text. The first that fits is taken.
const SIZES: [(usize, usize); 9] =
    [(200, 2000), (100, 2000), (50, 1000), (25, 500), (12, 300), (6, 200), (3, 120), (1, 80), (0, 40)];

/// The plan as Markdown, of at most [`MARKDOWN_LIMIT`] bytes. `file` is what to apply.
#[must_use]
pub fn markdown(manifest: &Manifest, file: Option<&str>) -> String {
    let report = report(manifest, Naming { file: file.unwrap_or("plan.json"), pinned: true });
    let mut text = String::new();
    for (rows, characters) in SIZES {
        text = Page { text: String::new(), rows, characters }.write(&report);
        if text.len() <= MARKDOWN_LIMIT {
            break;
        }
    }
    text
}

struct Page {
    text: String,
    rows: usize,
    characters: usize,
}

impl Page {
    fn write(mut self, report: &Report) -> String {
        let title = self.inline(&report.title);
        self.block(&format!("### {}{title}", mark(report.tone)));
        for section in report.sections.iter().filter(|section| !section.folded) {
            self.top(section);
        }
        self.fold("source and fork", |page| page.rows(&report.about));
        for section in &report.sections {
            if section.folded {
                self.fold(&section.title.text(), |page| page.rows(&section.parts));
            }
            for part in section.parts.iter().filter(|part| section.folded || !is_brief(part)) {
                self.rest(part);
            }
        }
        self.text
    }

    /// A block with an empty line after it.
    fn block(&mut self, block: &str) {
        self.text.push_str(block.trim_end());
        self.text.push_str("\n\n");
    }

    /// What is not shown before somebody asks for it. `summary` is the report's own.
    fn fold(&mut self, summary: &str, content: impl FnOnce(&mut Self)) {
        self.block(&format!("<details><summary>{}</summary>", words(summary)));
        content(self);
        self.block("</details>");
    }

    /// What everybody must see of a section.
    fn top(&mut self, section: &Section) {
        let title = self.inline(&section.title);
        self.block(&format!("#### {}{title}", mark(section.tone)));
        self.rows(&section.parts);
        for part in section.parts.iter().filter(|part| is_brief(part)) {
            self.rest(part);
        }
        let findings: Vec<&Finding> = section.parts.iter().filter_map(finding).collect();
        let limit = self.rows.max(1);
        for finding in findings.iter().take(limit) {
            self.finding(finding);
        }
        self.and_more(findings.len().saturating_sub(limit) as u64);
        for part in &section.parts {
            if let Part::Command { command, .. } = part {
                self.code("sh", &Lines { lines: vec![plain(command)], more: 0 }, usize::MAX);
            }
        }
    }

    /// The rows among these parts, as a table without a header.
    fn rows(&mut self, parts: &[Part]) {
        let rows: Vec<String> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Row { label, text, tone } => {
                    Some(format!("| {} | {}{} |\n", words(label), mark(*tone), self.inline(text)))
                }
                _ => None,
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        let limit = self.rows.max(20);
        let shown: String = rows.iter().take(limit).map(String::as_str).collect();
        self.block(&format!("| | |\n|---|---|\n{shown}"));
        self.and_more(rows.len().saturating_sub(limit) as u64);
    }

    fn and_more(&mut self, more: u64) {
        if more > 0 {
            self.block(&format!("and {}", count(more, "more", "more")));
        }
    }

    /// A check that failed with all that is known; a warning in short.
    fn finding(&mut self, finding: &Finding) {
        let (word, tone) = if finding.failed { ("FAILED", Tone::Bad) } else { ("warning", Tone::Warning) };
        let (id, detail) = (self.inline(&finding.id), self.inline(&finding.detail));
        self.block(&format!("{}**{word}** {id}: {detail}", mark(tone)));
        if finding.failed {
            self.help(finding);
        } else if finding.remedy.is_some() || !finding.evidence.lines.is_empty() || !finding.commands.lines.is_empty() {
            self.fold("evidence and remedy", |page| page.help(finding));
        }
    }

    fn help(&mut self, finding: &Finding) {
        self.code("text", &finding.evidence, self.characters);
        if let Some(remedy) = &finding.remedy {
            let remedy = self.inline(remedy);
            self.block(&format!("remedy: {remedy}"));
        }
        self.code("text", &finding.commands, self.characters);
    }

    /// Lines as they are; those that are too long are left out, for half a command is worse than none.
    fn code(&mut self, language: &str, lines: &Lines, longest: usize) {
        let fitting = lines.lines.iter().filter(|line| line.chars().count() <= longest);
        let shown: Vec<&str> = fitting.take(self.rows.max(1)).map(String::as_str).collect();
        if !shown.is_empty() {
            let longest_run = shown.iter().map(|line| longest_run(line)).max().unwrap_or(0);
            let fence = "`".repeat(3.max(longest_run + 1));
            self.block(&format!("{fence}{language}\n{}\n{fence}", shown.join("\n")));
        }
        self.and_more(lines.more.saturating_add((lines.lines.len() - shown.len()) as u64));
    }

    /// What can be unfolded.
    fn rest(&mut self, part: &Part) {
        let Part::Table(table) = part else { return };
        let all = table.more.saturating_add(table.rows.len() as u64);
        self.fold(&format!("{} ({})", table.title, super::number(all)), |page| page.table(table));
    }

    fn table(&mut self, table: &Table) {
        let shown = table.rows.len().min(self.rows);
        if shown > 0 {
            let header: Vec<String> = table.columns.iter().map(|column| words(column.name)).collect();
            let rule: Vec<&str> =
                table.columns.iter().map(|column| if column.number { "---:" } else { "---" }).collect();
            let mut text = format!("| {} |\n|{}|\n", header.join(" | "), rule.join("|"));
            for row in table.rows.iter().take(shown) {
                let cells: Vec<String> = row.iter().map(|cell| self.inline(cell)).collect();
                text.push_str(&format!("| {} |\n", cells.join(" | ")));
            }
            self.block(&text);
        }
        self.and_more(table.more.saturating_add((table.rows.len() - shown) as u64));
    }

    /// Text inside a line or a cell, cut where it is too long.
    fn inline(&self, text: &Text) -> String {
        let mut inline = String::new();
        let mut room = self.characters;
        for span in text.spans() {
            let cut: String = span.text().chars().take(room).collect();
            room -= cut.chars().count();
            let whole = cut.len() == span.text().len();
            let shown = if whole { cut } else { format!("{cut}…") };
            inline.push_str(&match span {
                Span::Words(_) => words(&shown),
                Span::Name(_) => code(&shown),
            });
            if !whole {
                break;
            }
        }
        inline
    }
}

fn finding(part: &Part) -> Option<&Finding> {
    match part {
        Part::Finding(finding) => Some(finding),
        _ => None,
    }
}

/// Whether a part is a table of which everybody should see something.
fn is_brief(part: &Part) -> bool {
    matches!(part, Part::Table(table) if table.brief)
}

/// What catches the eye where no colours are.
fn mark(tone: Tone) -> &'static str {
    match tone {
        Tone::Bad => "\u{1f534} ",
        Tone::Warning => "\u{1f7e1} ",
        Tone::Good => "\u{1f7e2} ",
        Tone::Plain => "",
    }
}

/// The longest run of backticks.
fn longest_run(line: &str) -> usize {
    line.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// The report's own words: markup is made of none of them.
fn words(text: &str) -> String {
    entities(text, |c| "\\`*{}[]<>#|~&@$".contains(c))
}

/// Something from outside.
fn code(text: &str) -> String {
    let is_harmless = |c: char| c.is_alphanumeric() || " ._-/:=,()%+;'\"…".contains(c);
    let trimmed = text.trim_matches(' ');
    if trimmed.len() == text.len() && !text.is_empty() && text.chars().all(is_harmless) {
        return format!("`{text}`");
    }
    format!("<code>{}</code>", entities(text, |c| c == ' ' || c.is_ascii_punctuation()))
}

/// The text with these characters as numbers.
fn entities(text: &str, is_one: impl Fn(char) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if is_one(c) { encoded.push_str(&format!("&#{};", u32::from(c))) } else { encoded.push(c) }
    }
    encoded
}
