//! What goes on while a test does something else.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Does `work` again and again, with the number of the round, for as long as `body` lasts, and at least once.
pub(crate) fn meanwhile<T>(work: impl Fn(u32) + Sync, body: impl FnOnce() -> T) -> T {
    /// Sets a flag on drop.
    struct Finally<'a>(&'a AtomicBool);
    impl Drop for Finally<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _begun = Finally(&begun);
            for round in 0.. {
                work(round);
                begun.store(true, Ordering::Relaxed);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let _done = Finally(&done);
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let answer = body();
        assert!(!worker.is_finished(), "the work in the background failed");
        answer
    })
}

/// A program that runs in the background until this is dropped.
#[derive(Debug)]
pub(crate) struct Background(Child);

impl Background {
    /// Starts it, unheard.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program"))
    }

    /// Panics if it has ended.
    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it has ended");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
