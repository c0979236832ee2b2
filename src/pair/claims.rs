//! Who fills which extents now: claims that never overlap.
//!
//! The claimed runs are kept in order, so a look for free extents in a range costs a search for its beginning and one step
//! for each claim that lies in it, however many there are elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The extents that are being filled now.
#[derive(Default)]
pub(super) struct Claims {
    taken: Mutex<Taken>,
    released: Condvar,
}

/// Runs of extents, no two of which overlap.
#[derive(Default)]
pub(super) struct Taken {
    /// The end of each run by its beginning.
    runs: BTreeMap<u64, u64>,
    /// How many runs were looked at.
    #[cfg(test)]
    pub(super) looks: AtomicU64,
}

impl Taken {
    /// The parts of `range` that nobody has claimed, ascending.
    pub(super) fn free(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = range.start;
        let inside = self.runs.range(range.start..range.end.max(range.start));
        // Of the runs before the range only the last one can reach into it.
        if let Some((_, end)) = self.runs.range(..range.start).next_back() {
            at = at.max(*end);
            self.look();
        }
        let behind = std::iter::once((range.end, range.end));
        inside.map(|(start, end)| (*start, *end)).chain(behind).filter_map(move |(start, end)| {
            self.look();
            let free = at..start;
            at = at.max(end);
            (!free.is_empty()).then_some(free)
        })
    }

    /// Whether nobody has claimed anything of `range`.
    fn is_free(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.free(range.clone()).next().is_some_and(|free| free == *range)
    }

    fn look(&self) {
        #[cfg(test)]
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Claims {
    /// The claimed runs. Who has this can claim more of them.
    pub(super) fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }

    /// Claims `runs`, which ascend and are free.
    pub(super) fn take(&self, taken: &mut Taken, runs: Vec<Range<u64>>) -> Claim<'_> {
        debug_assert!(runs.iter().all(|run| taken.is_free(run)));
        taken.runs.extend(runs.iter().map(|run| (run.start, run.end)));
        Claim { claims: self, runs }
    }

    /// Waits until a claim is given back.
    pub(super) fn wait(&self, taken: &mut MutexGuard<'_, Taken>) {
        self.released.wait(taken);
    }

    /// Claims all of `range`, as soon as nobody else has any of it.
    pub(super) fn whole(&self, range: Range<u64>) -> Claim<'_> {
        let mut taken = self.taken.lock();
        while !taken.is_free(&range) {
            self.wait(&mut taken);
        }
        self.take(&mut taken, vec![range])
    }

    /// Waits until a claim is given back, if there is any.
    pub(super) fn wait_for_release(&self) {
        let mut taken = self.taken.lock();
        if !taken.runs.is_empty() {
            self.wait(&mut taken);
        }
    }
}

/// Extents that only the owner may fill, until the claim is dropped.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    runs: Vec<Range<u64>>,
}

impl Claim<'_> {
    /// The claimed runs, ascending.
    pub(super) fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// Shrinks the claim to its first run up to `end`, and gives back everything else.
    pub(super) fn shrink(&mut self, end: u64) {
        let mut taken = self.claims.taken.lock();
        for run in self.runs.drain(1..) {
            taken.runs.remove(&run.start);
        }
        let run = &mut self.runs[0];
        run.end = end;
        taken.runs.insert(run.start, end);
        drop(taken);
        self.claims.released.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut taken = self.claims.taken.lock();
        for run in &self.runs {
            taken.runs.remove(&run.start);
        }
        drop(taken);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_claimed_by_others_are_cut_out() {
        let claims = Claims::default();
        let claimed = [2..4, 4..5, 8..20].map(|run| claims.whole(run));
        let free = |range| claims.lock().free(range).collect::<Vec<_>>();
        assert_eq!(free(0..10), [0..2, 5..8]);
        assert_eq!(free(3..30), [5..8, 20..30]);
        assert!(free(9..12).is_empty() && free(4..5).is_empty() && free(6..6).is_empty());
        assert_eq!(free(20..21), std::slice::from_ref(&(20..21)));
        drop(claimed);
        assert_eq!(free(0..10), std::slice::from_ref(&(0..10)));
    }

    #[test]
    fn a_shrunk_claim_gives_its_tail_to_the_next() {
        let claims = Claims::default();
        let mut claim = claims.take(&mut claims.lock(), vec![0..100, 200..300]);
        claim.shrink(10);
        let tail = claims.whole(10..300);
        drop(claim);
        assert_eq!(claims.lock().free(0..300).collect::<Vec<_>>(), std::slice::from_ref(&(0..10)));
        drop(tail);
        assert!(claims.lock().runs.is_empty());
    }
}
