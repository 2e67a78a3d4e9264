//! The machine's power is cut whenever something is made durable: of what was not, parts are lost.

use pg_unfork::error::Error;

use super::case::{Case, assert_does_not_start, soak, some_of};
use crate::support::cluster::Cluster;
use crate::support::fault::{Fault, Trap, TrappedStore};
use crate::support::likeness::From;
use crate::support::power::PowerStore;
use crate::support::servers::Major;

/// What is running when the power is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Running {
    Apply,
    Undo,
}

/// A machine that works on `live`; `disk` is what is left of it.
fn machine(case: &Case, live: &Cluster, disk: &Cluster, cut_at: u64) -> PowerStore {
    PowerStore::new(case.plain_store(live), case.plain_store(disk), disk.data(), cut_at)
}

/// Runs until the power is cut; how often something was made durable.
fn run(case: &Case, running: Running, undo: bool, cut_at: u64, seed: u64) -> (Cluster, u64) {
    let live = case.pair.copy_target();
    if running == Running::Undo {
        let _ = case.apply(&live, &Trap::counting(), true).unwrap();
    }
    let disk = live.duplicate();
    let mut store = machine(case, &live, &disk, cut_at);
    let outcome = match running {
        Running::Apply => case.apply_on(&live, &mut store, undo).map(drop),
        Running::Undo => case.undo_on(&live, &mut store).map(drop),
    };
    assert!(outcome.is_ok() || store.syncs() == cut_at, "{outcome:?}");
    let syncs = store.syncs();
    store.lose(seed);
    (disk, syncs)
}

/// Cuts the power at each of the moments in turn: no server starts on what is left, and one can go forward and back.
fn cut(case: &Case, running: Running, undo: bool, count: u64) -> usize {
    let (_, moments) = run(case, running, undo, u64::MAX, 0);
    let chosen = some_of(moments, count);
    for (n, &at) in chosen.iter().enumerate() {
        let seed = at * 1000 + n as u64;
        let (disk, _) = run(case, running, undo, at, seed);
        let sealed = case.assert_safe(&disk);
        if sealed && n % 16 == 0 {
            assert_does_not_start(&disk.duplicate());
        }
        let begun = disk.path(".pg_unfork/state.json").exists();
        assert!(begun || !sealed, "cut at {at}: sealed, and nothing says by whom");
        if running == Running::Apply {
            let again = disk.duplicate();
            let done = case.apply(&again, &Trap::counting(), undo);
            let _ = done.unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            case.assert_applied(&again);
        }
        if undo && begun {
            let _ = case.undo(&disk, &Trap::counting()).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            case.assert_as_before(&disk);
        }
    }
    chosen.len()
}

#[test]
fn an_apply_without_power() {
    let case = Case::new(Major(17), From::Stopped);
    let cuts = cut(&case, Running::Apply, true, 28 * soak()) + cut(&case, Running::Apply, false, 8 * soak());
    println!("{cuts} cuts");
}

#[test]
fn an_apply_from_a_live_source_without_power() {
    let case = Case::new(Major(14), From::Live);
    println!("{} cuts", cut(&case, Running::Apply, true, 14 * soak()));
}

#[test]
fn an_undo_without_power() {
    let case = Case::new(Major(15), From::Stopped);
    println!("{} cuts", cut(&case, Running::Undo, true, 14 * soak()));
}

/// The process dies; another one goes on, and then the power is cut: what the first had left in the machine's memory
/// must not be relied on.
fn die_and_cut(case: &Case, died_at: u64, cut_after: u64) {
    let live = case.pair.copy_target();
    let disk = live.duplicate();
    let first = machine(case, &live, &disk, u64::MAX);
    let inner = first.again(case.plain_store(&live), u64::MAX);
    let _ = case.apply_on(&live, &mut TrappedStore { inner, trap: Trap::new(died_at, Fault::Death) }, true);
    let mut second = first.again(case.plain_store(&live), cut_after);
    let _ = case.apply_on(&live, &mut second, true);
    second.lose(died_at * 1000 + cut_after);
    let _ = case.assert_safe(&disk);
    let again = disk.duplicate();
    let say = |error: Error| panic!("died at {died_at}, cut after {cut_after}: {error}");
    case.apply(&again, &Trap::counting(), true).map(drop).unwrap_or_else(say);
    case.assert_applied(&again);
    if disk.path(".pg_unfork/state.json").exists() {
        case.undo(&disk, &Trap::counting()).map(drop).unwrap_or_else(say);
        case.assert_as_before(&disk);
    }
}

#[test]
fn an_apply_that_died_without_power() {
    let case = Case::new(Major(16), From::Stopped);
    let whole = Trap::counting();
    let _ = case.apply(&case.pair.copy_target(), &whole, true).unwrap();
    let mut cuts = 0;
    for (n, died_at) in some_of(whole.count(), 8 * soak()).into_iter().enumerate() {
        die_and_cut(&case, died_at, 1 + n as u64 % 9);
        cuts += 1;
    }
    // When before-images are written, and not durable.
    let syncs = whole.numbers_of("sync undo/images");
    for place in some_of(syncs.len() as u64, 4 * soak()) {
        for cut_after in 1..=9 {
            die_and_cut(&case, syncs[usize::try_from(place).unwrap() - 1], cut_after);
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
}
