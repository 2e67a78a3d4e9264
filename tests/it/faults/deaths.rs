//! An apply, and an undo, that die at every step.
//!
//! The tests choose some of the steps. `PG_UNFORK_SOAK=50 cargo test --release --test it faults` chooses fifty times as
//! many, here and where the power is cut.

use super::case::{Case, assert_does_not_start, soak, some_of};
use crate::support::fault::{Fault, Trap};
use crate::support::likeness::From;
use crate::support::servers::Major;

/// Dies at a step, is run again (dying once more, sometimes), and ends like an uninterrupted one.
fn forward(case: &Case, undo: bool, fault: Fault, count: u64) -> usize {
    let (steps, _) = case.steps(undo);
    let chosen = some_of(steps, count);
    for (n, &at) in chosen.iter().enumerate() {
        let target = case.pair.copy_target();
        let outcome = case.apply(&target, &Trap::new(at, fault), undo);
        let sealed = case.assert_safe(&target);
        Case::assert_died(outcome, sealed);
        if sealed && n % 16 == 0 {
            assert_does_not_start(&target.duplicate());
        }
        if n % 3 == 0 {
            let again = case.apply(&target, &Trap::new(1 + at / 7, fault), undo);
            let sealed = case.assert_safe(&target);
            Case::assert_died(again, sealed);
        }
        let journaled = case.bytes_journaled(&target);
        let outcome =
            case.apply(&target, &Trap::counting(), undo).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_applied(&target);
        case.assert_nothing_twice(outcome, journaled);
    }
    chosen.len()
}

/// Dies at a step and is taken back; the undo dies, too, sometimes.
fn back(case: &Case, fault: Fault, count: u64) -> usize {
    let (steps, _) = case.steps(true);
    let chosen = some_of(steps, count);
    for (n, &at) in chosen.iter().enumerate() {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::new(at, fault), true);
        if !case.assert_safe(&target) && !target.path(".pg_unfork/state.json").exists() {
            continue;
        }
        if n % 3 == 0 {
            let again = case.undo(&target, &Trap::new(1 + at / 5, fault));
            let sealed = case.assert_safe(&target);
            Case::assert_died(again, sealed);
        }
        let _ = case.undo(&target, &Trap::counting()).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_as_before(&target);
    }
    chosen.len()
}

/// An undo dies at each of its steps.
fn undo_dies(case: &Case, fault: Fault, count: u64) -> usize {
    let (_, steps) = case.steps(true);
    let chosen = some_of(steps, count);
    for &at in &chosen {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::counting(), true).unwrap();
        let died = case.undo(&target, &Trap::new(at, fault));
        let sealed = case.assert_safe(&target);
        Case::assert_died(died, sealed);
        let _ = case.undo(&target, &Trap::counting()).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_as_before(&target);
    }
    chosen.len()
}

#[test]
fn an_apply_that_dies_is_gone_on_with() {
    let case = Case::new(Major(18), From::Stopped);
    let runs = forward(&case, true, Fault::Death, 40 * soak()) + forward(&case, false, Fault::Death, 20 * soak());
    println!("{runs} deaths");
}

#[test]
fn an_apply_that_dies_while_it_writes_is_gone_on_with() {
    let case = Case::new(Major(13), From::Stopped);
    let runs = forward(&case, true, Fault::DeathHalfWay, 40 * soak());
    println!("{runs} deaths");
}

#[test]
fn an_apply_that_dies_is_taken_back() {
    let case = Case::new(Major(15), From::Stopped);
    let runs = back(&case, Fault::Death, 40 * soak()) + back(&case, Fault::DeathHalfWay, 20 * soak());
    println!("{runs} deaths");
}

#[test]
fn an_undo_that_dies_is_gone_on_with() {
    let case = Case::new(Major(16), From::Stopped);
    let runs = undo_dies(&case, Fault::Death, 40 * soak()) + undo_dies(&case, Fault::DeathHalfWay, 16 * soak());
    println!("{runs} deaths");
}

/// Whatever the system says at whatever step: the same command goes on when the cause is gone.
#[test]
fn failures_are_survived() {
    let case = Case::new(Major(14), From::Stopped);
    for (number, count) in [(28, 12), (5, 12), (13, 8), (16, 8)] {
        forward(&case, true, Fault::Error(number), count * soak());
    }
}

/// A live source's files come in pieces over its connection, and its WAL once more at the end.
#[test]
fn an_apply_from_a_live_source_that_dies() {
    for (major, jobs) in [(Major(13), 1), (Major(18), 6)] {
        let case = Case::new(major, From::Live).with_jobs(jobs);
        let runs = forward(&case, true, Fault::Death, 14 * soak())
            + forward(&case, false, Fault::DeathHalfWay, 6 * soak())
            + back(&case, Fault::Death, 10 * soak());
        println!("{runs} deaths");
    }
}

/// Whatever a source answers or not: the same command goes on when the cause is gone.
#[test]
fn failures_of_the_source_are_survived() {
    for (major, from) in [(Major(17), From::Stopped), (Major(14), From::Live)] {
        let case = Case::new(major, from);
        for &at in &some_of(case.source_steps(), 12 * soak()) {
            for undo in [true, false] {
                let target = case.pair.copy_target();
                let failed = case.apply_from_failing(&target, at, undo);
                let sealed = case.assert_safe(&target);
                assert!(failed.is_err(), "at {at}");
                Case::assert_died(failed, sealed);
                let _ = case.apply(&target, &Trap::counting(), undo).unwrap_or_else(|error| panic!("at {at}: {error}"));
                case.assert_applied(&target);
            }
        }
    }
}

/// An undo needs no source, and fails as an apply does: run again, it ends.
#[test]
fn failures_of_an_undo_are_survived() {
    let case = Case::new(Major(19), From::Stopped);
    for number in [28, 5, 13, 16] {
        undo_dies(&case, Fault::Error(number), 8 * soak());
    }
}
