//! The threads behind the pairs: they copy what a secondary does not hold yet, each pair at its pace.
//!
//! A few threads serve all pairs in turn, one bounded step at a time. After a step a pair rests for a multiple of the
//! time that the step took, so the pace is a share of time and follows the device: the slower it is, the longer the
//! rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::catalog::Pace;
use super::pairs::PairUnit;
use crate::pair::{Progress, State};

/// Threads for all pairs.
const THREADS: usize = 2;

/// Bytes of one step: some tens of milliseconds on a slow disk.
const STEP: u64 = 4 << 20;

/// The longest rest, so that a pair whose device stalled once is not forgotten.
const MAX_REST: Duration = Duration::from_secs(2);

impl Pace {
    /// The rest after a step that took `step`.
    fn rest(self, step: Duration) -> Duration {
        match self {
            Self::Fast => Duration::ZERO,
            Self::Medium => step.min(MAX_REST),
            Self::Slow => (step * 4).min(MAX_REST),
        }
    }
}

/// The threads and what they have to do.
pub(super) struct Copier {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    resting: Vec<(Instant, Arc<PairUnit>)>,
    threads: usize,
    stopping: bool,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() }) }
    }

    /// Copies for `pair` until there is nothing to copy. Does nothing if that is under way already.
    pub(super) fn start(&self, pair: &Arc<PairUnit>) {
        if pair.copying.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.shared.state.lock();
        queue.resting.push((Instant::now(), Arc::clone(pair)));
        if queue.threads < THREADS {
            let shared = Arc::clone(&self.shared);
            let spawned =
                std::thread::Builder::new().name("cleave-copier".to_owned()).spawn(move || serve(&shared));
            match spawned {
                Ok(_) => queue.threads += 1,
                Err(error) => tracing::error!(%error, "no new copier thread"),
            }
        }
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Lets the threads end after the step that they are at, and waits for that, at most until `deadline`.
    pub(super) fn stop(&self, deadline: Instant) -> bool {
        let mut queue = self.shared.state.lock();
        queue.stopping = true;
        self.shared.wake.notify_all();
        while queue.threads > 0 {
            if self.shared.wake.wait_until(&mut queue, deadline).timed_out() {
                return queue.threads == 0;
            }
        }
        true
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
    }
}

fn serve(shared: &Shared) {
    let mut queue = shared.state.lock();
    while !queue.stopping {
        let next = queue.resting.iter().enumerate().min_by_key(|(_, (due, _))| *due);
        let Some((index, due)) = next.map(|(index, (due, _))| (index, *due)) else {
            shared.wake.wait(&mut queue);
            continue;
        };
        if due > Instant::now() {
            shared.wake.wait_until(&mut queue, due);
            continue;
        }
        let (_, pair) = queue.resting.swap_remove(index);
        drop(queue);
        let rest = step(&pair);
        queue = shared.state.lock();
        if let Some(rest) = rest {
            queue.resting.push((Instant::now() + rest, pair));
        }
    }
    queue.threads -= 1;
    shared.wake.notify_all();
}

/// One step; the rest after it, or `None` when nothing is left to copy.
fn step(unit: &PairUnit) -> Option<Duration> {
    let began = Instant::now();
    match unit.pair.copy_step(STEP) {
        Progress::Copied { .. } => return Some(unit.pace.rest(began.elapsed())),
        Progress::Whole => {
            tracing::info!(pair = %unit.name, state = %unit.pair.state(), "the secondary is whole")
        }
        Progress::Idle => {}
    }
    unit.copying.store(false, Ordering::Release);
    // A verb may have found the mark set and left the work to this thread, which had found nothing to do.
    let again = matches!(unit.pair.state(), State::Copy | State::PsusSp)
        && !unit.copying.swap(true, Ordering::AcqRel);
    again.then_some(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_share_of_time() {
        let step = Duration::from_millis(10);
        assert_eq!(Pace::Fast.rest(step), Duration::ZERO);
        assert_eq!(Pace::Medium.rest(step), step);
        assert_eq!(Pace::Slow.rest(step), 4 * step);
        assert_eq!(Pace::Slow.rest(Duration::from_secs(60)), MAX_REST);
    }
}
