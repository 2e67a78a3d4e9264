//! What a report consists of, whoever shows it. Made once from a manifest; its lists are bounded.

use crate::types::plain;

/// The most entries of one list that a report holds; it counts the others.
pub(super) const LONGEST: usize = 200;

/// Text, in which what comes from outside is told from the report's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(Vec<Span>);

/// A piece of text. Both kinds are one line without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The report's own words.
    Words(String),
    /// A name, an address, a sentence of another program: anything from outside.
    Name(String),
}

impl Text {
    /// The report's own words.
    pub(super) fn words(text: impl AsRef<str>) -> Self {
        Self::default().and(text)
    }

    /// Something from outside.
    pub(super) fn name(text: impl AsRef<str>) -> Self {
        Self::default().and_name(text)
    }

    /// Goes on with words.
    pub(super) fn and(mut self, text: impl AsRef<str>) -> Self {
        self.0.push(Span::Words(plain(text.as_ref())));
        self
    }

    /// Goes on with something from outside.
    pub(super) fn and_name(mut self, text: impl AsRef<str>) -> Self {
        self.0.push(Span::Name(plain(text.as_ref())));
        self
    }

    /// The pieces in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.0
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(Span::text).collect()
    }
}

impl Span {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Words(text) | Self::Name(text) => text,
        }
    }
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// It is just said.
    Plain,
    /// It is well.
    Good,
    /// Somebody should look at it.
    Warning,
    /// It must not be overlooked.
    Bad,
}

/// All that is shown of a plan.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// What the plan comes to.
    pub(super) title: Text,
    /// How bad that is.
    pub(super) tone: Tone,
    /// What it is about.
    pub(super) about: Vec<Part>,
    /// The rest, the most important first.
    pub(super) sections: Vec<Section>,
}

/// An answer to one of the reader's questions.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// The question, and the answer in a word.
    pub(super) title: Text,
    /// How bad the answer is.
    pub(super) tone: Tone,
    /// The answer.
    pub(super) parts: Vec<Part>,
    /// Whether a reader who has no time can do without it.
    pub(super) folded: bool,
}

/// A part of a section.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// A line with a label, or one more line of the label before.
    Row {
        /// The label; empty to go on.
        label: &'static str,
        /// What is said.
        text: Text,
        /// How bad it is.
        tone: Tone,
    },
    /// A check that did not pass.
    Finding(Finding),
    /// A command to run as it stands.
    Command {
        /// The label.
        label: &'static str,
        /// The command, for a shell.
        command: String,
    },
    /// Rows of equal shape.
    Table(Table),
}

/// A check that did not pass.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// Whether it keeps the plan from being applied.
    pub(super) failed: bool,
    /// The check's stable name.
    pub(super) id: Text,
    /// What was found.
    pub(super) detail: Text,
    /// What was found, line by line.
    pub(super) evidence: Lines,
    /// What to do.
    pub(super) remedy: Option<Text>,
    /// What does that.
    pub(super) commands: Lines,
}

/// Lines that are shown as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The first ones; without control characters.
    pub(super) lines: Vec<String>,
    /// How many more there are.
    pub(super) more: u64,
}

impl Lines {
    /// The first of these lines.
    pub(super) fn of(lines: &[String]) -> Self {
        let shown: Vec<String> = lines.iter().take(LONGEST).map(|line| plain(line)).collect();
        let more = (lines.len() - shown.len()) as u64;
        Self { lines: shown, more }
    }
}

/// Rows of equal shape.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// What the rows are.
    pub(super) title: &'static str,
    /// The columns; numbers are aligned to the right.
    pub(super) columns: Vec<Column>,
    /// The first rows, each with a cell for each column.
    pub(super) rows: Vec<Vec<Text>>,
    /// How many more there are.
    pub(super) more: u64,
    /// Whether a terminal shows its first rows, too.
    pub(super) brief: bool,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What is in it.
    pub(super) name: &'static str,
    /// Whether it holds numbers.
    pub(super) number: bool,
}

impl Table {
    /// A table of the first of these rows; `all` is how many there are. Names stand last, where they may be long.
    pub(super) fn new(
        title: &'static str,
        numbers: &[&'static str],
        words: &[&'static str],
        all: usize,
        rows: impl Iterator<Item = Vec<Text>>,
    ) -> Self {
        let column = |number| move |name: &&'static str| Column { name, number };
        let columns = numbers.iter().map(column(true)).chain(words.iter().map(column(false))).collect();
        let rows: Vec<_> = rows.take(LONGEST).collect();
        let more = all.saturating_sub(rows.len()) as u64;
        Self { title, columns, rows, more, brief: false }
    }

    /// The same with more rows that were counted elsewhere.
    pub(super) fn and_more(mut self, more: u64) -> Self {
        self.more = self.more.saturating_add(more);
        self
    }

    /// The same, for a terminal, too.
    pub(super) fn for_terminals(mut self) -> Self {
        self.brief = true;
        self
    }
}
