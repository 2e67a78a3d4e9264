//! A plan on a terminal: the verdict, what is lost, what is at risk, what will happen, what to run next.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::content::{Finding, Lines, Part, Report, Table, Tone};
use super::count;
use super::sections::{Naming, report};
use crate::manifest::Manifest;

/// The width of the labels.
const LABEL: usize = 13;
/// Columns before what is said.
const INDENT: usize = 2 + LABEL + 1;
/// The least width that is respected; what is narrower must bear with long lines.
const NARROWEST: usize = 40;
/// Rows of a table, or lines of evidence, that are shown.
const SHOWN: usize = 10;

/// Where the text goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Whether it may have colours.
    pub colour: bool,
    /// Columns of the terminal; none where lines need not end.
    pub width: Option<usize>,
}

/// The plan in words. `file` is what to apply; none where it was not saved.
#[must_use]
pub fn summary(manifest: &Manifest, file: Option<&str>, layout: Layout) -> String {
    let report = report(manifest, Naming { file: file.unwrap_or("plan.json"), pinned: false });
    Page { text: String::new(), layout }.write(&report)
}

struct Page {
    text: String,
    layout: Layout,
}

impl Page {
    fn write(mut self, report: &Report) -> String {
        self.line(&[(&report.title.text(), style(report.tone).bold())]);
        for part in &report.about {
            self.part(part);
        }
        for section in &report.sections {
            self.text.push('\n');
            self.line(&[(&section.title.text(), style(section.tone).bold())]);
            for part in &section.parts {
                self.part(part);
            }
        }
        self.text
    }

    /// A line of styled pieces.
    fn line(&mut self, pieces: &[(&str, Style)]) {
        for (piece, style) in pieces {
            self.styled(piece, *style);
        }
        self.text.push('\n');
    }

    fn styled(&mut self, text: &str, style: Style) {
        if self.layout.colour && style != Style::new() && !text.is_empty() {
            self.text.push_str(&format!("{style}{text}{style:#}"));
        } else {
            self.text.push_str(text);
        }
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Row { label, text, tone } => self.row(label, &text.text(), INDENT, style(*tone)),
            Part::Command { label, command } => {
                self.label(label);
                self.line(&[(&crate::types::plain(command), Style::new().bold())]);
            }
            Part::Finding(finding) => self.finding(finding),
            Part::Table(table) if table.brief => self.table(table),
            Part::Table(_) => {}
        }
    }

    fn label(&mut self, label: &str) {
        self.text.push_str("  ");
        self.styled(label, Style::new().dimmed());
        self.pad(LABEL + 1 - label.width().min(LABEL));
    }

    fn pad(&mut self, columns: usize) {
        self.text.extend(std::iter::repeat_n(' ', columns));
    }

    /// What is said, with further lines from column `hang` on.
    fn row(&mut self, label: &str, content: &str, hang: usize, style: Style) {
        self.label(label);
        self.wrapped(content, INDENT, hang, style);
    }

    /// Text whose first line begins at column `at`, where the page is, and whose others begin at `hang`.
    fn wrapped(&mut self, content: &str, at: usize, hang: usize, style: Style) {
        let width = self.layout.width.map(|width| width.max(NARROWEST));
        let lines = wrap(content, width.map(|width| (width.saturating_sub(at), width.saturating_sub(hang))));
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                self.pad(hang);
            }
            self.line(&[(line, style)]);
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let (word, tone) = if finding.failed { ("FAILED", Tone::Bad) } else { ("warning", Tone::Warning) };
        let content = format!("{word}: {}: {}", finding.id.text(), finding.detail.text());
        self.row("", &content, INDENT + 2, style(tone));
        self.lines(&finding.evidence, SHOWN);
        if let Some(remedy) = &finding.remedy {
            self.row("", &format!("  remedy: {}", remedy.text()), INDENT + 4, Style::new());
        }
        self.lines(&finding.commands, usize::MAX);
    }

    /// Lines as they are, that can be taken over to another window.
    fn lines(&mut self, lines: &Lines, most: usize) {
        let shown = lines.lines.len().min(most);
        for line in lines.lines.iter().take(shown) {
            self.pad(INDENT + 4);
            self.line(&[(line, Style::new())]);
        }
        let more = lines.more.saturating_add((lines.lines.len() - shown) as u64);
        if more > 0 {
            self.pad(INDENT + 4);
            self.line(&[(&format!("and {}", count(more, "more", "more")), Style::new())]);
        }
    }

    fn table(&mut self, table: &Table) {
        let header: Vec<String> = table.columns.iter().map(|column| column.name.to_owned()).collect();
        let shown = table.rows.iter().take(SHOWN).map(|row| row.iter().map(super::content::Text::text).collect());
        let rows: Vec<Vec<String>> = std::iter::once(header).chain(shown).collect();
        let width =
            |index: usize| rows.iter().filter_map(|row| Some(row.get(index)?.as_str().width())).max().unwrap_or(0);
        let last = table.columns.len().saturating_sub(1);
        let widths: Vec<usize> = (0..last).map(width).collect();
        let hang = INDENT + widths.iter().map(|width| width + 2).sum::<usize>();
        for (index, row) in rows.iter().enumerate() {
            let style = if index == 0 { Style::new().dimmed() } else { Style::new() };
            self.label(if index == 0 { table.title } else { "" });
            for ((cell, width), column) in row.iter().zip(&widths).zip(&table.columns) {
                let missing = width - cell.width().min(*width);
                self.pad(if column.number { missing } else { 0 });
                self.styled(cell, style);
                self.pad(2 + if column.number { 0 } else { missing });
            }
            self.wrapped(row.last().map_or("", String::as_str), hang, hang + 2, style);
        }
        let more = table.more.saturating_add(table.rows.len().saturating_sub(SHOWN) as u64);
        if more > 0 {
            self.row("", &format!("and {}", count(more, "more", "more")), INDENT, Style::new());
        }
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Warning => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
    }
}

/// Lines of at most so many columns, the first line and the others; a longer word has a line of its own, uncut.
fn wrap(content: &str, columns: Option<(usize, usize)>) -> Vec<String> {
    let Some((first, others)) = columns else { return vec![content.to_owned()] };
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut room = first;
    for (index, word) in content.split(' ').enumerate() {
        if index > 0 && line.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut line));
            room = others;
        } else if index > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words() {
        let wrapped = |text, columns| wrap(text, columns).join("|");
        for (text, columns, lines) in [
            ("a bc def", None, "a bc def"),
            ("a bc def", Some((4, 4)), "a bc|def"),
            ("a bc def", Some((8, 1)), "a bc def"),
            ("a bc def", Some((1, 6)), "a|bc def"),
            ("/a/long/path is not cut", Some((5, 8)), "/a/long/path|is not|cut"),
            ("  two  blanks", Some((80, 80)), "  two  blanks"),
            ("\u{65e5}\u{672c} \u{65e5}\u{672c}", Some((8, 8)), "\u{65e5}\u{672c}|\u{65e5}\u{672c}"),
            ("\u{65e5}\u{672c} \u{65e5}\u{672c}", Some((9, 9)), "\u{65e5}\u{672c} \u{65e5}\u{672c}"),
            ("", Some((8, 8)), ""),
        ] {
            assert_eq!(wrapped(text, columns), lines, "{text:?}");
        }
    }
}
