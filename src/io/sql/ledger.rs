//! What was asked for, what has come, and what the sink gets next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::{Pace, Shape};
use super::pieces::{Cutter, Read};

/// The most reads in a query.
const READS: usize = 1000;

/// A read that was given out, and what came.
#[derive(Debug)]
struct Slot<A> {
    read: Arc<Read>,
    answer: Option<A>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Ask for these.
    Reads(Vec<Arc<Read>>),
    /// As much is under way as may be.
    Full,
    /// Nothing for so long: that is the rate.
    Wait(Duration),
    /// Everything is asked for.
    Nothing,
}

/// The reads of a run: given out in their order as far as a window of bytes allows, answered in any order,
/// delivered in their order again.
#[derive(Debug)]
pub(super) struct Ledger<A> {
    cutter: Cutter,
    /// Cut, and in no query yet.
    ahead: Option<Arc<Read>>,
    shape: Shape,
    /// Given out and not delivered.
    slots: VecDeque<Slot<A>>,
    /// The number of the first of these.
    first: u64,
    /// Bytes that were asked for and are not delivered.
    bytes: u64,
    /// Those whose sessions were lost.
    returned: Vec<Arc<Read>>,
}

impl<A> Ledger<A> {
    /// Nothing asked for yet.
    pub(super) fn new(mut cutter: Cutter, shape: Shape) -> Self {
        let ahead = cutter.next_read().map(Arc::new);
        Self { cutter, ahead, shape, slots: VecDeque::new(), first: 0, bytes: 0, returned: Vec::new() }
    }

    /// Whether all was delivered.
    pub(super) fn is_done(&self) -> bool {
        self.ahead.is_none() && self.slots.is_empty()
    }

    /// Whether there is something that nobody was asked for.
    pub(super) fn has_work(&self) -> bool {
        self.ahead.is_some() || !self.returned.is_empty()
    }

    /// Whether the window has room for a query.
    pub(super) fn has_room(&self) -> bool {
        self.bytes == 0 || self.bytes + self.shape.query <= self.shape.window
    }

    /// The reads of the next query.
    pub(super) fn take(&mut self, pace: &mut Pace, now: Instant) -> Take {
        if !self.has_work() {
            return Take::Nothing;
        }
        // What was lost is waited for: it goes first, and is in the window already.
        if self.returned.is_empty() && !self.has_room() {
            return Take::Full;
        }
        let wait = pace.wait(now);
        if !wait.is_zero() {
            return Take::Wait(wait);
        }
        let reads = if self.returned.is_empty() { self.cut() } else { self.again() };
        pace.spend(reads.iter().map(|read| read.length).sum(), now);
        Take::Reads(reads)
    }

    fn cut(&mut self) -> Vec<Arc<Read>> {
        let mut reads = Vec::new();
        let mut room = self.shape.query;
        while reads.len() < READS
            && let Some(read) = self.ahead.take_if(|read| read.length <= room)
        {
            room -= read.length;
            self.bytes += read.length;
            self.slots.push_back(Slot { read: Arc::clone(&read), answer: None });
            reads.push(read);
            self.ahead = self.cutter.next_read().map(Arc::new);
        }
        reads
    }

    fn again(&mut self) -> Vec<Arc<Read>> {
        let mut room = self.shape.query;
        let fits = |read: &&Arc<Read>| {
            let fits = read.length <= room;
            room = room.saturating_sub(read.length);
            fits
        };
        let count = self.returned.iter().take(READS).take_while(fits).count();
        self.returned.drain(..count).collect()
    }

    /// These will not be answered by whom they were given to.
    pub(super) fn give_back(&mut self, reads: impl IntoIterator<Item = Arc<Read>>) {
        self.returned.extend(reads);
        self.returned.sort_unstable_by_key(|read| read.number);
    }

    /// An answer has come.
    pub(super) fn arrive(&mut self, read: &Read, answer: A) {
        let place = read.number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            slot.answer = Some(answer);
        }
    }

    /// Whether the next answer is there.
    pub(super) fn is_ready(&self) -> bool {
        self.slots.front().is_some_and(|slot| slot.answer.is_some())
    }

    /// The next answer, if it is there.
    pub(super) fn deliver(&mut self) -> Option<(Arc<Read>, A)> {
        if !self.is_ready() {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.first += 1;
        self.bytes -= slot.read.length;
        slot.answer.map(|answer| (slot.read, answer))
    }

    /// No more is asked for of this request.
    pub(super) fn skip(&mut self, request: usize) {
        self.cutter.skip(request);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::load::Load;
    use super::*;
    use crate::cluster::Request;
    use crate::types::ClusterPath;

    const BLOCK: u64 = 8192;

    /// A ledger for blocks that are too far apart to be read at once; a query has four, the window ten.
    fn ledger(blocks: u64) -> Ledger<u64> {
        let request = |number: u64| Request {
            path: ClusterPath::new(b"base/1/1").unwrap(),
            offset: number * 100 * BLOCK,
            length: Some(BLOCK),
            expected: 0,
        };
        let requests: Vec<_> = (0..blocks).map(request).collect();
        let shape = Shape { query: 4 * BLOCK, window: 10 * BLOCK, ..Shape::of(Duration::ZERO, Load::single()) };
        Ledger::new(Cutter::new(requests.into(), Vec::new(), shape), shape)
    }

    fn take(ledger: &mut Ledger<u64>) -> Take {
        ledger.take(&mut Load::single().pace(), Instant::now())
    }

    fn taken(ledger: &mut Ledger<u64>) -> Vec<Arc<Read>> {
        match take(ledger) {
            Take::Reads(reads) => reads,
            _ => Vec::new(),
        }
    }

    fn numbers(reads: &[Arc<Read>]) -> Vec<u64> {
        reads.iter().map(|read| read.number).collect()
    }

    #[test]
    fn the_window_bounds_what_is_under_way() {
        let mut ledger = ledger(11);
        let (first, second) = (taken(&mut ledger), taken(&mut ledger));
        assert_eq!((numbers(&first), numbers(&second)), (vec![0, 1, 2, 3], vec![4, 5, 6, 7]));
        assert_eq!(take(&mut ledger), Take::Full);
        // What has come behind a gap does not open it.
        ledger.arrive(&second[0], 4);
        ledger.arrive(&first[1], 1);
        assert!(!ledger.is_ready() && ledger.deliver().is_none());
        assert_eq!(take(&mut ledger), Take::Full);
        ledger.arrive(&first[0], 0);
        for expected in [0, 1] {
            let (read, answer) = ledger.deliver().unwrap();
            assert_eq!((read.number, answer), (expected, expected));
        }
        let third = taken(&mut ledger);
        assert_eq!(numbers(&third), [8, 9, 10]);
        assert_eq!(take(&mut ledger), Take::Nothing);
        for read in first[2..].iter().chain(&second[1..]).chain(&third) {
            assert!(!ledger.is_done());
            ledger.arrive(read, read.number);
        }
        assert_eq!(std::iter::from_fn(|| ledger.deliver()).count(), 9);
        assert!(ledger.is_done());
    }

    #[test]
    fn what_was_lost_goes_first_whatever_the_window() {
        let mut ledger = ledger(20);
        let (first, second) = (taken(&mut ledger), taken(&mut ledger));
        ledger.give_back(second);
        ledger.give_back(first.into_iter().skip(1));
        assert_eq!(numbers(&taken(&mut ledger)), [1, 2, 3, 4]);
        assert_eq!(numbers(&taken(&mut ledger)), [5, 6, 7]);
        assert_eq!(take(&mut ledger), Take::Full);
    }

    #[test]
    fn the_rate_comes_before_the_window() {
        let mut ledger = ledger(20);
        let mut pace = Load::new(Some(1), "32k".parse().ok()).pace();
        let now = Instant::now();
        assert!(matches!(ledger.take(&mut pace, now), Take::Reads(_)));
        assert_eq!(ledger.take(&mut pace, now), Take::Wait(Duration::from_secs(1)));
        assert!(matches!(ledger.take(&mut pace, now + Duration::from_secs(1)), Take::Reads(_)));
    }

    #[test]
    fn nothing_is_done_at_once() {
        let mut ledger = ledger(0);
        assert!(ledger.is_done() && !ledger.has_work());
        assert_eq!(take(&mut ledger), Take::Nothing);
    }

    proptest! {
        /// Whoever answers when, and whoever is lost: all is delivered once and in order, within the window.
        #[test]
        fn all_is_delivered_in_order(blocks in 0..60_u64, choices in prop::collection::vec((0..4_u8, 0..9_usize), 0..400)) {
            let mut ledger = ledger(blocks);
            let mut under_way: Vec<Arc<Read>> = Vec::new();
            let mut delivered = Vec::new();
            let afterwards = std::iter::repeat_n([(0, 0), (1, 0), (3, 0)], 500).flatten();
            for (choice, which) in choices.into_iter().chain(afterwards) {
                match choice {
                    0 => if let Take::Reads(reads) = take(&mut ledger) {
                        prop_assert!(!reads.is_empty());
                        under_way.extend(reads);
                    },
                    1 if which < under_way.len() => {
                        let read = under_way.swap_remove(which);
                        ledger.arrive(&read, read.number);
                    }
                    2 if which < under_way.len() => ledger.give_back(under_way.split_off(which)),
                    _ => delivered.extend(ledger.deliver().map(|(_, answer)| answer)),
                }
                prop_assert!(ledger.bytes <= ledger.shape.window);
            }
            prop_assert!(ledger.is_done());
            prop_assert_eq!(delivered, (0..blocks).collect::<Vec<_>>());
        }
    }
}
