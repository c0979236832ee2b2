//! Group commit: many who filled extents share one flush of the secondary and one of the record.
//!
//! The first to come leads: it takes what has gathered, flushes the secondary, appends the runs to the record, flushes
//! that, and puts the runs into the set. Those who come meanwhile gather for the next leader. Everyone's bytes were
//! written before it queued, and the leader flushes after it took the queue, so the flush covers them all. The set
//! changes under the record's lock, so that a rewrite of the record from the set loses nothing.
//!
//! A failed commit fails all later ones until the next relation: the pair is suspended by then.

use std::ops::Range;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Pair;
use crate::store::StoreError;

#[derive(Default)]
struct Queue {
    gathered: Vec<Range<u64>>,
    /// How many batches have been taken; the one that gathers is the next.
    taken: u64,
    /// How many have ended.
    ended: u64,
    leading: bool,
    failed: Option<String>,
}

/// The batches of a pair.
#[derive(Default)]
pub(super) struct Batches {
    queue: Mutex<Queue>,
    ended: Condvar,
}

impl Batches {
    /// Forgets a failure: a new relation begins.
    pub(super) fn reset(&self) {
        self.queue.lock().failed = None;
    }
}

impl Pair {
    /// Makes durable that the secondary holds `runs`, whose bytes have been written to it, and puts them into the set.
    pub(super) fn commit(&self, runs: &[Range<u64>]) -> Result<(), String> {
        let mut queue = self.batches.queue.lock();
        queue.gathered.extend_from_slice(runs);
        let mine = queue.taken + 1;
        while queue.ended < mine {
            if queue.leading {
                self.batches.ended.wait(&mut queue);
                continue;
            }
            queue.leading = true;
            queue.taken += 1;
            let batch = std::mem::take(&mut queue.gathered);
            let failed = queue.failed.clone();
            let outcome = MutexGuard::unlocked(&mut queue, || match failed {
                Some(failed) => Err(failed),
                None => self.commit_batch(&batch).map_err(|error| error.to_string()),
            });
            queue.failed = outcome.err();
            queue.ended = queue.taken;
            queue.leading = false;
            self.batches.ended.notify_all();
        }
        queue.failed.clone().map_or(Ok(()), Err)
    }

    /// How many runs wait for the next batch.
    #[cfg(test)]
    pub(super) fn gathered(&self) -> usize {
        self.batches.queue.lock().gathered.len()
    }

    fn commit_batch(&self, runs: &[Range<u64>]) -> Result<(), StoreError> {
        self.secondary.flush()?;
        let mut record = self.record.lock();
        record.append_runs(runs)?;
        let mut held = self.held.write();
        runs.iter().for_each(|run| held.insert(run.clone()));
        drop(held);
        if record.is_long()
            && let Err(error) = record.rewrite(&self.held.read())
        {
            tracing::warn!(%error, "a pair record could not be written anew; its log goes on growing");
            record.put_off_rewrite();
        }
        Ok(())
    }
}
