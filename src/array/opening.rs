//! The volumes of an array are opened side by side: an opening reads all that has landed in the volume's log, which takes
//! seconds where a log is full. Meanwhile the progress is told, to the log of the daemon and to whoever started the array.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::assemble::Parts;
use super::units::VolumeUnit;
use super::{Array, Catalog};
use crate::catalog::names::Name;

/// The most volumes that are opened at a time.
const THREADS: usize = 8;

/// How often the progress is told.
const TELL: Duration = Duration::from_secs(5);

/// How far the opening of an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// The volumes of the array.
    pub volumes: usize,
    /// How many of them are open.
    pub opened: usize,
}

impl Array {
    /// Opens the volumes of `catalog` that `parts` does not have, into `parts`.
    pub(super) fn open_volumes(&self, catalog: &Catalog, parts: &mut Parts) {
        let closed = |name: &&Name| !parts.volumes.contains_key(*name);
        let names: Vec<&Name> = catalog.volumes.keys().filter(closed).collect();
        let open = |name: &&Name| {
            let entry = &catalog.volumes[*name];
            VolumeUnit::new(name, entry, self.open_volume(name, entry), &self.threads)
        };
        let told = |opened| {
            let volumes = names.len();
            tracing::info!(opened, volumes, "the volumes are being opened");
            (self.opening)(Opening { volumes, opened });
        };
        let units = side_by_side(&names, open, TELL, told);
        parts.units.extend(names.iter().map(|name| (*name).clone()).zip(units));
    }
}

/// The results of `work` for all `items`, in their order. Calls `told` with the number of results after each `interval`.
fn side_by_side<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> T + Sync,
    interval: Duration,
    told: impl Fn(usize),
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let run = |sender: mpsc::Sender<(usize, T)>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            if sender.send((index, work(item))).is_err() {
                return;
            }
        }
    };
    let mut done = Vec::with_capacity(items.len());
    thread::scope(|scope| {
        let begin = |_: &usize| {
            let (run, sender) = (&run, sender.clone());
            let thread = thread::Builder::new().name("cleave-opening".to_owned());
            thread.spawn_scoped(scope, move || run(sender)).is_ok()
        };
        if (0..THREADS.min(items.len())).filter(begin).count() == 0 {
            run(sender.clone());
        }
        drop(sender);
        loop {
            match results.recv_timeout(interval) {
                Ok(result) => done.push(result),
                Err(mpsc::RecvTimeoutError::Timeout) => told(done.len()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn as_many_as_there_are_threads_work_at_a_time_and_the_order_is_that_of_the_items() {
        let (items, together) = ((0..3 * THREADS).collect::<Vec<_>>(), Barrier::new(THREADS));
        let work = |item: &usize| {
            together.wait();
            item + 1
        };
        let results = side_by_side(&items, work, TELL, |_| ());
        assert_eq!(results, (1..=3 * THREADS).collect::<Vec<_>>());
        assert!(side_by_side(&[], |_: &usize| (), TELL, |_| ()).is_empty());
    }

    #[test]
    fn progress_is_told_while_something_takes_long() {
        let is_told = AtomicBool::new(false);
        let work = |item: &usize| {
            while *item == 1 && !is_told.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        };
        let told = |done| {
            is_told.fetch_or(done == 1, Ordering::SeqCst);
        };
        side_by_side(&[0, 1], work, Duration::from_millis(1), told);
        assert!(is_told.load(Ordering::SeqCst));
    }
}
