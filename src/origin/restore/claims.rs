//! Who takes which extents out of R now. There are as many claims as threads that do so, which are few.

use std::ops::Range;

use parking_lot::{Condvar, Mutex};

/// The claims, no two of which overlap.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

/// Extents that only the owner may take out of R, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    run: Range<u64>,
}

fn overlaps(taken: &[Range<u64>], run: &Range<u64>) -> bool {
    taken.iter().any(|other| other.start < run.end && run.start < other.end)
}

impl Claims {
    /// Claims `run` as soon as nobody else has any of it. Who has a claim already must not wait for another one.
    pub(super) fn claim(&self, run: &Range<u64>) -> Claim<'_> {
        let mut taken = self.taken.lock();
        while overlaps(&taken, run) {
            self.released.wait(&mut taken);
        }
        taken.push(run.clone());
        Claim { claims: self, run: run.clone() }
    }

    /// The same without waiting.
    pub(super) fn try_claim(&self, run: &Range<u64>) -> Option<Claim<'_>> {
        let mut taken = self.taken.lock();
        if overlaps(&taken, run) {
            return None;
        }
        taken.push(run.clone());
        Some(Claim { claims: self, run: run.clone() })
    }

    /// Waits until a claim is given back, if there is any.
    pub(super) fn wait_for_release(&self) {
        let mut taken = self.taken.lock();
        if !taken.is_empty() {
            self.released.wait(&mut taken);
        }
    }
}

impl Claim<'_> {
    /// The claimed extents.
    pub(super) fn run(&self) -> &Range<u64> {
        &self.run
    }

    /// Gives back what lies at or behind `end`.
    pub(super) fn shrink(&mut self, end: u64) {
        if end >= self.run.end {
            return;
        }
        let shrunk = self.run.start..end;
        let mut taken = self.claims.taken.lock();
        taken.iter_mut().filter(|run| **run == self.run).for_each(|run| *run = shrunk.clone());
        drop(taken);
        self.run = shrunk;
        self.claims.released.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().retain(|run| *run != self.run);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claim_waits_for_those_that_overlap_it_alone() {
        let claims = Claims::default();
        let (first, other) = (claims.claim(&(2..4)), claims.claim(&(4..6)));
        assert!(claims.try_claim(&(0..2)).is_some() && claims.try_claim(&(3..5)).is_none());
        std::thread::scope(|scope| {
            let (got, waits) = channel();
            let claims = &claims;
            scope.spawn(move || {
                let claim = claims.claim(&(3..5));
                got.send(claim.run().clone()).unwrap();
            });
            assert!(waits.recv_timeout(Duration::from_millis(20)).is_err());
            drop(first);
            assert!(waits.recv_timeout(Duration::from_millis(20)).is_err());
            drop(other);
            assert_eq!(waits.recv_timeout(Duration::from_secs(60)), Ok(3..5));
        });
        claims.wait_for_release();
    }

    #[test]
    fn a_shrunk_claim_gives_back_its_tail() {
        let claims = Claims::default();
        let mut claim = claims.claim(&(0..100));
        claim.shrink(200);
        assert!(claims.try_claim(&(99..101)).is_none());
        claim.shrink(10);
        let tail = claims.try_claim(&(10..100)).unwrap();
        assert!(claims.try_claim(&(9..10)).is_none());
        drop((claim, tail));
        assert!(claims.taken.lock().is_empty());
    }
}
