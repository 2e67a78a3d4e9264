//! A plan as a page: one file that loads nothing, runs nothing, and is well-formed XML, too.

use super::content::{Finding, Lines, Part, Report, Span, Table, Text, Tone};
use super::sections::{Naming, report};
use super::{count, number};
use crate::manifest::Manifest;
use crate::types::plain;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
table{border-collapse:collapse;margin:.5rem 0}td,th{text-align:left;vertical-align:top;padding:.1rem 1rem .1rem 0}\
th{font-weight:600}td.number,th.number{text-align:right}\
code{font-family:ui-monospace,monospace;unicode-bidi:isolate;overflow-wrap:anywhere}\
pre{background:#8881;padding:.5rem 1rem;overflow-x:auto}pre code{overflow-wrap:normal}\
.good{color:#17803d}.warning{color:#9a6700}.bad{color:#c01c28}";

/// The plan as one page of HTML. `file` is what to apply.
#[must_use]
pub fn html(manifest: &Manifest, file: Option<&str>) -> String {
    let report = report(manifest, Naming { file: file.unwrap_or("plan.json"), pinned: true });
    let mut page = Page(String::new());
    page.write(&report);
    page.0
}

struct Page(String);

impl Page {
    fn put(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn write(&mut self, report: &Report) {
        self.put("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
        self.put("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n");
        self.put("<meta name=\"viewport\" content=\"width=device-width\"/>\n");
        self.put(&format!(
            "<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            escaped(&report.title.text())
        ));
        self.put(&format!("<h1{}>{}</h1>\n", class(report.tone), inline(&report.title)));
        self.rows(&report.about);
        for section in &report.sections {
            self.put(&format!("<h2{}>{}</h2>\n", class(section.tone), inline(&section.title)));
            self.rows(&section.parts);
            for part in &section.parts {
                self.part(part);
            }
        }
        self.put("</body>\n</html>\n");
    }

    /// The rows among these parts.
    fn rows(&mut self, parts: &[Part]) {
        let rows: String = parts
            .iter()
            .filter_map(|part| match part {
                Part::Row { label, text, tone } => {
                    let label = escaped(label);
                    Some(format!("<tr><th>{label}</th><td{}>{}</td></tr>\n", class(*tone), inline(text)))
                }
                _ => None,
            })
            .collect();
        if !rows.is_empty() {
            self.put(&format!("<table>\n{rows}</table>\n"));
        }
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Row { .. } => {}
            Part::Command { command, .. } => self.lines(&Lines { lines: vec![plain(command)], more: 0 }),
            Part::Finding(finding) => self.finding(finding),
            Part::Table(table) => self.table(table),
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let (word, tone) = if finding.failed { ("FAILED", Tone::Bad) } else { ("warning", Tone::Warning) };
        let (id, detail) = (inline(&finding.id), inline(&finding.detail));
        self.put(&format!("<p><strong{}>{word}</strong> {id}: {detail}</p>\n", class(tone)));
        self.lines(&finding.evidence);
        if let Some(remedy) = &finding.remedy {
            self.put(&format!("<p>remedy: {}</p>\n", inline(remedy)));
        }
        self.lines(&finding.commands);
    }

    fn lines(&mut self, lines: &Lines) {
        if !lines.lines.is_empty() {
            self.put(&format!("<pre><code>{}</code></pre>\n", escaped(&lines.lines.join("\n"))));
        }
        self.and_more(lines.more);
    }

    fn and_more(&mut self, more: u64) {
        if more > 0 {
            self.put(&format!("<p>and {}</p>\n", count(more, "more", "more")));
        }
    }

    fn table(&mut self, table: &Table) {
        let all = table.more.saturating_add(table.rows.len() as u64);
        let open = if table.brief { " open=\"open\"" } else { "" };
        let title = escaped(table.title);
        self.put(&format!("<details{open}><summary>{title} ({})</summary>\n<table>\n<tr>", number(all)));
        let class = |number: bool| if number { " class=\"number\"" } else { "" };
        for column in &table.columns {
            self.put(&format!("<th{}>{}</th>", class(column.number), escaped(column.name)));
        }
        self.put("</tr>\n");
        for row in &table.rows {
            self.put("<tr>");
            for (cell, column) in row.iter().zip(&table.columns) {
                self.put(&format!("<td{}>{}</td>", class(column.number), inline(cell)));
            }
            self.put("</tr>\n");
        }
        self.put("</table>\n");
        self.and_more(table.more);
        self.put("</details>\n");
    }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Good => " class=\"good\"",
        Tone::Warning => " class=\"warning\"",
        Tone::Bad => " class=\"bad\"",
    }
}

fn inline(text: &Text) -> String {
    let spans = text.spans().iter().map(|span| match span {
        Span::Words(text) => escaped(text),
        Span::Name(text) => format!("<code>{}</code>", escaped(text)),
    });
    spans.collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
