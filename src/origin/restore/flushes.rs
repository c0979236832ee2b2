//! Flushes of the volume that many wait for together: one flush serves all who came before it began.

use parking_lot::{Condvar, Mutex};

use crate::store::StoreError;

/// The flushes of a medium, in the order of their beginnings.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have begun.
    begun: u64,
    /// The last one that has succeeded.
    done: u64,
    runs: bool,
}

impl Flushes {
    /// Returns when a `flush` has succeeded that began after this call. Who comes while one runs waits for it, and shares
    /// the next one with all who have come meanwhile.
    ///
    /// # Errors
    /// That of the flush which this caller has made itself.
    pub(super) fn after_now(&self, flush: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let before = state.begun;
        while state.done <= before {
            if state.runs {
                self.ended.wait(&mut state);
                continue;
            }
            state.runs = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let flushed = flush();
            let mut state = self.state.lock();
            state.runs = false;
            if flushed.is_ok() {
                state.done = number;
            }
            drop(state);
            self.ended.notify_all();
            return flushed;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn those_who_come_while_a_flush_runs_share_the_next_one_and_an_error_is_its_maker_s_alone() {
        let (flushes, made) = (Flushes::default(), AtomicU64::new(0));
        let (entered, enters) = channel();
        let (leave, leaves) = channel::<()>();
        std::thread::scope(|scope| {
            let (flushes, made) = (&flushes, &made);
            let first = scope.spawn(move || {
                flushes.after_now(|| {
                    entered.send(()).unwrap();
                    leaves.recv().unwrap();
                    Err(StoreError::Stopped)
                })
            });
            enters.recv().unwrap();
            let flush = || {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            let others: Vec<_> = (0..8).map(|_| scope.spawn(move || flushes.after_now(flush))).collect();
            leave.send(()).unwrap();
            assert!(first.join().unwrap().is_err());
            assert!(others.into_iter().all(|other| other.join().unwrap().is_ok()));
        });
        let shared = made.load(Ordering::SeqCst);
        assert!((1..=8).contains(&shared));
        flushes.after_now(|| Ok(())).unwrap();
        assert_eq!(
            flushes.state.lock().begun,
            2 + shared,
            "who comes afterwards is not served by an older one"
        );
    }
}
