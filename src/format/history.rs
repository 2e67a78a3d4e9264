//! Timeline history files, `pg_wal/XXXXXXXX.history`.
//!
//! One line per ancestor, oldest first: `<timeline>` TAB `<switch position>` TAB `<reason>`. Blank
//! lines and lines that begin with `#` do not count. The file's own timeline has no line.

use crate::types::{Lsn, TimelineHistory, TimelineId};

/// A line of a history file that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct HistoryError {
    line: usize,
    problem: &'static str,
}

/// Reads the history file of timeline `own`.
///
/// Timeline 1 has no file: its history is [`TimelineHistory::new`] without ancestors.
///
/// # Errors
/// [`HistoryError`] with the number of the first line that is malformed or out of order.
pub fn parse_history(text: &[u8], own: TimelineId) -> Result<TimelineHistory, HistoryError> {
    let mut ancestors: Vec<(TimelineId, Lsn)> = Vec::new();
    for (index, line) in text.split(|&b| b == b'\n').enumerate() {
        let fail = |problem| HistoryError { line: index.saturating_add(1), problem };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (timeline, end) = parse_line(line).map_err(fail)?;
        let last = ancestors.last();
        if last.is_some_and(|&(before, _)| timeline <= before) {
            return Err(fail("timeline numbers do not rise"));
        }
        if last.is_some_and(|&(_, before)| end < before) {
            return Err(fail("a timeline ends before it begins"));
        }
        if timeline >= own {
            return Err(fail("an ancestor's number is not below the file's own timeline"));
        }
        ancestors.push((timeline, end));
    }
    Ok(TimelineHistory::new(&ancestors, own))
}

/// Reads the timeline and the position of one line; the reason behind them is free text.
fn parse_line(line: &[u8]) -> Result<(TimelineId, Lsn), &'static str> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = line.split_at_checked(digits).ok_or("no timeline number")?;
    let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
    let number = number.filter(|&n: &u32| n > 0).ok_or("no timeline number at the beginning")?;
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let position = rest.get(..end).and_then(|p| std::str::from_utf8(p).ok()).and_then(|p| p.parse().ok());
    Ok((TimelineId::new(number), position.ok_or("no switch position of the form X/X after the timeline number")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn real_files_are_read() {
        let text = b"1\t0/3000158\tno recovery target specified\n\n2\t0/04000000\tno recovery target specified";
        let history = parse_history(text, TimelineId::new(3)).unwrap();
        let ends: Vec<_> = history.entries().iter().map(|e| (e.timeline.get(), e.begin.to_string(), e.end)).collect();
        assert_eq!(
            ends,
            [
                (1, "0/0".into(), Some(Lsn::new(0x300_0158))),
                (2, "0/3000158".into(), Some(Lsn::new(0x400_0000))),
                (3, "0/4000000".into(), None),
            ]
        );
        let commented = parse_history(b"# made by hand\n  \n 1 0/30\n", TimelineId::new(2)).unwrap();
        assert_eq!(commented.entries().len(), 2);
    }

    #[test]
    fn malformed_files_are_refused_with_their_line() {
        let cases: [(&[u8], usize); 8] = [
            (b"x\t0/1\n", 1),
            (b"1\n", 1),
            (b"1\t00\n", 1),
            (b"1\t0/100\n1\t0/200\n", 2),
            (b"2\t0/100\n1\t0/200\n", 2),
            (b"1\t0/200\n2\t0/100\n", 2),
            (b"\n9\t0/100\n", 2),
            (b"99999999999\t0/1\n", 1),
        ];
        for (text, line) in cases {
            let error = parse_history(text, TimelineId::new(9)).unwrap_err();
            assert_eq!(error.line, line, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
