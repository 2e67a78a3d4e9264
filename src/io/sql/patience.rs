//! How long a server is waited for, and what must hold of one that answers again.

use std::time::Duration;

use super::session::Session;
use super::trouble::Lost;
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::{ControlFile, ControlFileError};
use crate::interrupt::Interrupt;
use crate::types::{Lsn, TimelineId};

/// How long a silent server is waited for where nothing is tried again.
const SILENCE: Duration = Duration::from_secs(30);

/// How often a control file is read whose CRC does not fit: the server may be writing it.
const TORN_READS: u32 = 10;

/// How long a source is waited for.
#[derive(Clone, Debug)]
pub struct Patience {
    /// How long to try again without getting any further; zero never does.
    pub timeout: Duration,
    /// Ends every wait.
    pub interrupt: Interrupt,
}

impl Patience {
    /// How long one answer may take: time is left for another connection. An answer has at most 256 KiB
    /// of a file, or is about a few mebibytes of files.
    pub(super) fn silence(&self) -> Duration {
        if self.timeout.is_zero() { SILENCE } else { self.timeout / 2 }
    }
}

/// What is known of the server since the first session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    system_identifier: u64,
    timeline: TimelineId,
    /// The highest position.
    position: Lsn,
}

impl Seen {
    /// What can be seen now.
    pub(super) fn now(session: &mut Session) -> Result<Self> {
        let mut reads = 1;
        let control = loop {
            let bytes = session.control_file()?;
            match ControlFile::parse(&bytes) {
                Ok(control) => {
                    // It is asked for next.
                    session.control = Some(bytes);
                    break control;
                }
                Err(ControlFileError::Crc { .. }) if reads < TORN_READS => reads += 1,
                Err(error @ ControlFileError::Crc { .. }) => return Err(not_yet(error.to_string())),
                Err(error) => {
                    return Err(Error::of(
                        ErrorId::ControlFileDamaged,
                        "the source's global/pg_control cannot be used",
                    )
                    .because(error));
                }
            }
        };
        let position = session.position()?.map_or(Lsn::INVALID, |position| position.lsn);
        let header = control.header();
        Ok(Self { system_identifier: header.system_identifier, timeline: control.timeline(), position })
    }

    /// What is known after a server has been seen again: it must be the same cluster on the same timeline,
    /// and not behind.
    pub(super) fn again(self, now: Self) -> Result<Self> {
        if now.system_identifier != self.system_identifier {
            return Err(another("cluster", "system identifier", self.system_identifier, now.system_identifier));
        }
        if now.timeline != self.timeline {
            return Err(another("timeline", "timeline", self.timeline, now.timeline));
        }
        if now.position < self.position {
            let message = format!("the source server is at {}, but was at {} before", now.position, self.position);
            return Err(not_yet(message));
        }
        Ok(now)
    }

    /// The server was seen to be there.
    pub(super) fn reached(&mut self, position: Lsn) {
        self.position = self.position.max(position);
    }
}

/// A server that may be what it should be a moment later.
fn not_yet(text: String) -> Error {
    Error::failure("the source server is not back yet")
        .with_id(ErrorId::SourceUnreachable)
        .because(Lost { there: true, text })
}

fn another(what: &str, which: &str, before: impl std::fmt::Display, now: impl std::fmt::Display) -> Error {
    let message =
        format!("after a lost connection the source's address leads to another {what}: {which} {now}, before {before}");
    Error::of(if what == "cluster" { ErrorId::SourceIdentity } else { ErrorId::SourceTimeline }, message)
        .with_kind(ErrorKind::DeadEnd)
        .hint("let the address lead to the server that the plan is for, or plan again with where it leads now")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::trouble::lost;
    use super::*;

    fn seen(system_identifier: u64, timeline: u32, position: u64) -> Seen {
        Seen { system_identifier, timeline: TimelineId::new(timeline), position: Lsn::new(position) }
    }

    #[test]
    fn only_the_same_server_no_less_far_is_taken_again() {
        let before = seen(7, 2, 100);
        for position in [100, 101] {
            assert_eq!(before.again(seen(7, 2, position)).unwrap(), seen(7, 2, position));
        }
        assert!(lost(&before.again(seen(7, 2, 99)).unwrap_err()).is_some());
        for other in [seen(8, 2, 100), seen(7, 3, 100), seen(7, 1, 100), seen(8, 2, 1)] {
            let error = before.again(other).unwrap_err();
            assert_eq!((error.kind(), lost(&error).is_none()), (ErrorKind::DeadEnd, true));
        }
    }

    #[test]
    fn one_answer_never_takes_all_patience() {
        let silence = |seconds| {
            Patience { timeout: Duration::from_secs(seconds), interrupt: Interrupt::new() }.silence().as_secs()
        };
        assert_eq!((silence(0), silence(60), silence(600)), (30, 30, 300));
    }
}
