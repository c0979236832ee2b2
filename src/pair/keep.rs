//! [`Pair::keep`]: makes the secondary hold extents as they are on the primary. Everything that fills extents goes through this method or its claims.
//!
//! A claim says who fills an extent now. Nobody waits for a claim while holding one, so claims cannot deadlock. A
//! thread that keeps extents takes the free ones, fills and commits them, gives them back, and looks again. A
//! mirrored write waits until its whole range is free, and takes it at once.
//!
//! While an extent is claimed and not held, its bytes on the primary do not change: a host write in PSUS(SP) must
//! keep it first, and in COPY must claim it. So all bytes read there are of one instant, that of the split.

use std::ops::Range;

use parking_lot::{Condvar, Mutex};

use super::commit::{Failure, PRIMARY, SECONDARY};
use super::sets::SetMask;
use super::{EXTENT, Mode, Pair};
use crate::store::{Durability, Patience, StoreError};
use crate::volume::Block;

/// The most extents of one claim, so that others find their way in between: 4 MiB.
pub(super) const CLAIM_EXTENTS: u64 = (4 << 20) / EXTENT;

/// The most extents that lie apart and are kept by one commit: 64 MiB.
const SCATTERED_EXTENTS: u64 = (64 << 20) / EXTENT;

/// The most runs of one claim.
const CLAIM_RUNS: usize = 64;

/// The most bytes that one read and one write of a copy move.
const MOVE: u64 = 1 << 20;

/// The beginning of the reason when a host's write could not wait until the old data was kept.
pub(super) const LOST: &str = "old data could not be kept";

/// The extents that are being filled now.
#[derive(Default)]
pub(super) struct Claims {
    taken: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

/// The result of an attempt to keep extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeepResult {
    /// The secondary holds them all.
    Held,
    /// The pair is not split any more: the caller must look at the mode again.
    NotSplit,
    /// There is no room for the extents, or the system is short of something. Nothing is lost as long as nobody
    /// writes to them on the primary.
    NotYet(Failure),
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
        taken.retain(|run| !self.runs[1..].contains(run));
        self.runs.truncate(1);
        let run = &mut self.runs[0];
        if let Some(entry) = taken.iter_mut().find(|entry| **entry == *run) {
            entry.end = end;
        }
        run.end = end;
        drop(taken);
        self.claims.released.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mine = |run: &Range<u64>| {
            let found = self.runs.binary_search_by_key(&run.start, |mine| mine.start);
            found.is_ok_and(|index| self.runs[index] == *run)
        };
        self.claims.taken.lock().retain(|run| !mine(run));
        self.claims.released.notify_all();
    }
}

/// The parts of `run` that no entry of `taken` overlaps.
fn minus(run: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = vec![run];
    for cut in taken {
        parts = parts
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(cut.start), part.start.max(cut.end)..part.end])
            .filter(|part| !part.is_empty())
            .collect();
    }
    parts
}

impl Claims {
    fn take(&self, taken: &mut Vec<Range<u64>>, runs: Vec<Range<u64>>) -> Claim<'_> {
        taken.extend_from_slice(&runs);
        Claim { claims: self, runs }
    }

    /// Claims all of `range`, as soon as nobody else has any of it.
    pub(super) fn whole(&self, range: Range<u64>) -> Claim<'_> {
        let mut taken = self.taken.lock();
        while taken.iter().any(|run| run.start < range.end && range.start < run.end) {
            self.released.wait(&mut taken);
        }
        self.take(&mut taken, vec![range])
    }
}

impl Pair {
    /// Claims up to `limit` extents of `range` that are not held. Waits while others have all of them; `None` when
    /// all are held.
    pub(super) fn claim_absent(&self, range: Range<u64>, limit: u64) -> Option<Claim<'_>> {
        let mut taken = self.claims.taken.lock();
        loop {
            let (mut runs, mut left, mut absent, mut at) = (Vec::new(), limit, false, range.start);
            let held = self.held.read();
            while let Some(run) =
                held.next_absent(at..range.end).filter(|_| left > 0 && runs.len() < CLAIM_RUNS)
            {
                (absent, at) = (true, run.end);
                for mut part in minus(run, &taken) {
                    part.end = part.end.min(part.start.saturating_add(left));
                    left -= part.end - part.start;
                    if !part.is_empty() {
                        runs.push(part);
                    }
                }
            }
            drop(held);
            if !absent {
                return None;
            }
            if !runs.is_empty() {
                return Some(self.claims.take(&mut taken, runs));
            }
            self.claims.released.wait(&mut taken);
        }
    }

    /// Claims the first run at or after extent `from` that is neither held nor claimed; does not wait.
    pub(super) fn claim_next(&self, from: u64) -> Option<Claim<'_>> {
        let mut taken = self.claims.taken.lock();
        let held = self.held.read();
        let mut at = from;
        while let Some(run) = held.next_absent(at..held.extents()) {
            at = run.end;
            if let Some(part) = minus(run, &taken).into_iter().next() {
                drop(held);
                return Some(self.claims.take(&mut taken, vec![part]));
            }
        }
        None
    }

    /// Claims those of up to `limit` extents of `ranges`, which ascend, that are neither held nor claimed; does not
    /// wait. `None` if there are none; the second value is whether there are any that others have claimed.
    fn claim_scattered(&self, ranges: &[Range<u64>], limit: u64) -> (Option<Claim<'_>>, bool) {
        let mut taken = self.claims.taken.lock();
        let held = self.held.read();
        let (mut runs, mut left, mut absent): (Vec<Range<u64>>, _, _) = (Vec::new(), limit, false);
        'ranges: for range in ranges {
            let mut at = range.start;
            while let Some(run) = held.next_absent(at..range.end) {
                (absent, at) = (true, run.end);
                for mut part in minus(run, &taken) {
                    part.end = part.end.min(part.start + left);
                    left -= part.end - part.start;
                    runs.push(part);
                    if left == 0 {
                        break 'ranges;
                    }
                }
            }
        }
        drop(held);
        ((!runs.is_empty()).then(|| self.claims.take(&mut taken, runs)), absent)
    }

    /// Waits until a claim is given back, if there is any.
    pub(super) fn wait_for_release(&self) {
        let mut taken = self.claims.taken.lock();
        if !taken.is_empty() {
            self.claims.released.wait(&mut taken);
        }
    }

    /// Makes the secondary hold `extents` as they were at the split, durably. Those that it does not hold yet are added to
    /// all sets of `mask`. A failure suspends the pair, except for a lack of room or of something else that may be there
    /// later; the caller decides what that means.
    pub(super) fn keep(&self, extents: Range<u64>, mask: SetMask) -> KeepResult {
        // A long range may be a single hole, for example when a host unmaps the whole volume. A hole is kept at once.
        let long = extents.end - extents.start > CLAIM_EXTENTS;
        let limit = if long { u64::MAX } else { CLAIM_EXTENTS };
        while self.mode() == Mode::Split {
            let Some(mut claim) = self.claim_absent(extents.clone(), limit) else {
                return KeepResult::Held;
            };
            match self.fill(&mut claim, long, mask, &[]) {
                Ok(()) => {}
                Err(failure @ (Failure::NoRoom(_) | Failure::Short(_))) => {
                    return KeepResult::NotYet(failure);
                }
                Err(failure) => self.suspend(&failure.to_string()),
            }
        }
        if self.held.read().contains_all(extents) { KeepResult::Held } else { KeepResult::NotSplit }
    }

    /// The same for extents that lie apart, in ascending ranges, and are about to be changed on the primary: many of
    /// them share a commit, those that are held already, too.
    pub(super) fn keep_scattered(&self, ranges: &[Range<u64>]) -> KeepResult {
        while self.mode() == Mode::Split {
            let kept = match self.claim_scattered(ranges, SCATTERED_EXTENTS) {
                (Some(mut claim), _) => {
                    let changes = self.held_unchanged(ranges);
                    self.fill(&mut claim, false, SetMask::HELD | SetMask::CHANGED, &changes)
                }
                (None, true) => {
                    self.wait_for_release();
                    Ok(())
                }
                (None, false) => match self.track(SetMask::CHANGED, ranges) {
                    Ok(()) => return KeepResult::Held,
                    Err(StoreError::Shortage(why)) => Err(Failure::Short(why.to_string())),
                    Err(error) => Err(Failure::Broken(format!("changes could not be recorded: {error}"))),
                },
            };
            match kept {
                Ok(()) => {}
                Err(failure @ (Failure::NoRoom(_) | Failure::Short(_))) => {
                    return KeepResult::NotYet(failure);
                }
                Err(failure) => self.suspend(&failure.to_string()),
            }
        }
        KeepResult::NotSplit
    }

    /// The runs of `ranges` that are held and have not been changed.
    fn held_unchanged(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let held = self.held.read();
        let mut runs = Vec::new();
        for range in self.missing(SetMask::CHANGED, ranges) {
            let mut at = range.start;
            while at < range.end {
                let (present, end) = held.run(at, range.end);
                if present {
                    runs.push(at..end);
                }
                at = end;
            }
        }
        runs
    }

    /// Copies the claimed extents from the primary and commits them to the sets of `mask`; of a long claim only its
    /// beginning. `changes` count as changed from then on.
    fn fill(
        &self,
        claim: &mut Claim<'_>,
        long: bool,
        mask: SetMask,
        changes: &[Range<u64>],
    ) -> Result<(), Failure> {
        let way = self.to_secondary();
        let copied = if long {
            self.copy_some(&way, claim, CLAIM_EXTENTS).map(drop)
        } else {
            claim.runs().iter().try_for_each(|run| self.copy_run(&way, run))
        };
        copied.map_err(|error| Failure::new(SECONDARY, LOST, &error))?;
        let changes = changes.iter().map(|run| (SetMask::CHANGED, run.clone()));
        self.commit_all(claim.runs().iter().map(|run| (mask, run.clone())).chain(changes))
    }

    /// The way of every copy but that of a restore.
    pub(super) fn to_secondary(&self) -> Way<'_> {
        Way { from: self.primary.home(), to: &*self.secondary, place: SECONDARY }
    }

    /// The way of a restore.
    pub(super) fn to_primary(&self) -> Way<'_> {
        Way { from: &*self.secondary, to: self.primary.home(), place: PRIMARY }
    }

    /// Copies the claimed `run`. Holes stay holes.
    pub(super) fn copy_run(&self, way: &Way<'_>, run: &Range<u64>) -> Result<(), StoreError> {
        let bytes = self.bytes(run);
        let mut buffer = Vec::new();
        let mut at = bytes.start;
        while at < bytes.end {
            let data = if run.end - run.start == 1 { at..bytes.end } else { way.data_in(at..bytes.end)? };
            if data.start > at {
                way.clear(at..data.start)?;
            }
            at = data.start;
            while at < data.end {
                let length = MOVE.min(data.end - at);
                buffer.resize(length as usize, 0);
                way.from.read(at, &mut buffer, Patience::Wait)?;
                if buffer.iter().all(|byte| *byte == 0) {
                    way.clear(at..at + length)?;
                } else {
                    way.to.write(at, &buffer, Durability::Cached, Patience::Wait)?;
                }
                at += length;
            }
        }
        Ok(())
    }
}

/// From where a copy reads, and where it writes.
pub(super) struct Way<'a> {
    pub(super) from: &'a dyn Block,
    pub(super) to: &'a dyn Block,
    /// What messages call the device that is written.
    pub(super) place: &'static str,
}

impl Way<'_> {
    /// Makes `bytes` of the target read as zeros. Leaves holes alone.
    pub(super) fn clear(&self, bytes: Range<u64>) -> Result<(), StoreError> {
        let mut at = bytes.start;
        while let Some(data) = self.to.next_data(at)?.filter(|data| data.start < bytes.end) {
            let end = data.end.min(bytes.end);
            self.to.discard(data.start, end - data.start)?;
            at = end;
        }
        Ok(())
    }

    /// The first run of data of the source in `bytes`, which start at an extent border. The run is widened to whole
    /// extents; it is empty, at the end, if there is no data.
    pub(super) fn data_in(&self, bytes: Range<u64>) -> Result<Range<u64>, StoreError> {
        let none = bytes.end..bytes.end;
        let next = self.from.next_data(bytes.start)?;
        let Some(data) = next.filter(|data| data.start < bytes.end) else {
            return Ok(none);
        };
        let start = (data.start / EXTENT * EXTENT).max(bytes.start);
        Ok(start..data.end.max(start + 1).next_multiple_of(EXTENT).min(bytes.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_claimed_by_others_are_cut_out() {
        assert_eq!(minus(0..10, &[2..4, 8..20, 4..5]), [0..2, 5..8]);
        assert!(minus(3..5, &[0..4, 4..10]).is_empty());
    }

    #[test]
    fn a_shrunk_claim_gives_its_tail_to_the_next() {
        let claims = Claims::default();
        let mut claim = claims.whole(0..100);
        claim.shrink(10);
        let tail = claims.whole(10..100);
        drop(claim);
        assert_eq!(claims.taken.lock().first(), Some(&(10..100)));
        drop(tail);
        assert!(claims.taken.lock().is_empty());
    }
}
