//! A restore that runs: its beginning, its steps and its end. [`super`] has the laws.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};

use super::claims::{Claim, Claims};
use super::flushes::Flushes;
use super::record::{Record, Subject};
use super::set::Extents;
use crate::origin::{EXTENT, touched};
use crate::store::{Durability, Patience, Store, StoreError};
use crate::units::BlockSize;
use crate::volume::Block;

/// The most runs of extents that one step gathers.
const RUNS_MAX: usize = 256;

/// The most extents of a run without data: 64 MiB. To discard them may mean to keep their old data for other images.
const HOLE_MAX: u64 = 1 << 10;

/// So many bytes of a hole are as much work as one byte of data.
const HOLE_SHARE: u64 = 16;

/// The longest time for which a host's write waits until the restore begins. After that it is answered BUSY.
const CLOSED_IN: Duration = Duration::from_secs(1);

/// The most bytes in memory at once.
const PART: u64 = 1 << 20;

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Hosts' writes go to the volume, and their extents are noted.
    Tracking,
    /// The same, but writes to extents outside of R wait.
    ClosingIn,
    /// The volume shows the image.
    Restoring,
    /// Everything goes to the volume.
    Over,
}

/// The way of hosts' commands. Each change by a host, and each step, has it as it is from its beginning to its end.
pub(super) struct Passage {
    pub(super) phase: Phase,
    /// The medium of the hosts before.
    pub(super) below: Arc<dyn Block>,
}

/// The result of a step.
#[derive(Debug)]
pub(crate) enum Advance {
    /// There is nothing to do: the restore has not begun, or is over.
    Idle,
    /// Extents have been restored.
    Restored {
        /// Bytes of data read and written; of holes a part counts.
        bytes: u64,
    },
    /// Nothing is left to restore, and the record says so durably.
    Whole,
    /// There was no room, or the system is short of something. Try again.
    NoRoom(StoreError),
    /// A store has failed, or the image is broken. What has not been restored stays so. Try again when the cause may be gone.
    Failed(StoreError),
}

/// The state of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreStatus {
    /// Bytes that differed at the beginning.
    pub(crate) total_bytes: u64,
    /// Bytes that are still to be restored.
    pub(crate) left_bytes: u64,
    /// Why the last step has not restored anything.
    pub(crate) error: Option<String>,
}

/// A volume that is being restored: a [`Block`] above the medium that its hosts used before.
pub(crate) struct Restore {
    pub(super) image: Arc<dyn Block>,
    pub(super) block_size: BlockSize,
    pub(super) record: Record,
    pub(super) passage: RwLock<Passage>,
    /// What hosts have changed since R was made durable last.
    tracked: Mutex<Extents>,
    /// Whether writes to extents outside of R wait.
    closing_in: Mutex<bool>,
    opened: Condvar,
    pub(super) claims: Claims,
    flushes: Flushes,
    /// Where the next step begins. Held for all of a step.
    cursor: Mutex<u64>,
    error: Mutex<Option<String>>,
    /// Why nobody knows R.
    pub(super) lost: Option<String>,
}

const BEGINS: &str = "the volume is about to be restored";

/// Whether `error` may be over later, with nothing lost.
fn is_shortage(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSpace | StoreError::Shortage(_) | StoreError::WouldBlock)
}

impl Restore {
    fn over(image: Arc<dyn Block>, below: Arc<dyn Block>, record: Record, phase: Phase) -> Self {
        Self {
            block_size: below.block_size(),
            image,
            record,
            passage: RwLock::new(Passage { phase, below }),
            tracked: Mutex::default(),
            closing_in: Mutex::new(false),
            opened: Condvar::new(),
            claims: Claims::default(),
            flushes: Flushes::default(),
            cursor: Mutex::new(0),
            error: Mutex::new(None),
            lost: None,
        }
    }

    /// Begins to track the changes of `below`, the medium of the hosts, with a new record in `store`. `image` is the one that
    /// the volume is to show.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn begin(
        subject: Subject,
        image: Arc<dyn Block>,
        below: Arc<dyn Block>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        Ok(Self::over(image, below, Record::create(store, subject)?, Phase::Tracking))
    }

    /// Goes on with the restore whose record is in `store`.
    ///
    /// # Errors
    /// The record cannot be read, or is not what was written.
    pub(crate) fn open(
        subject: Subject,
        image: Arc<dyn Block>,
        below: Arc<dyn Block>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        Ok(Self::over(image, below, Record::open(store, subject)?, Phase::Restoring))
    }

    /// A restore whose record cannot be read, because of `why`. `store` takes the place of the record, and is never used.
    /// Everything is refused.
    #[must_use]
    pub(crate) fn lost(subject: Subject, below: Arc<dyn Block>, store: Arc<dyn Store>, why: String) -> Self {
        let restore = Self::over(Arc::clone(&below), below, Record::empty(store, subject), Phase::Restoring);
        Self { lost: Some(why), ..restore }
    }

    /// Makes the image durable, which nobody writes to any more. What hosts have written to the image itself is not flushed with
    /// the volume, and a host that flushes the volume relies on what it sees there.
    ///
    /// # Errors
    /// The image's.
    pub(crate) fn flush_image(&self) -> Result<(), StoreError> {
        self.image.flush()
    }

    /// The bytes `range` differ.
    pub(crate) fn add(&self, range: &Range<u64>) {
        self.record.add(&touched(range.start, range.end - range.start));
    }

    /// Makes R durable, with what hosts have changed since the last time. Returns how many extents they were.
    ///
    /// # Errors
    /// The record's.
    pub(crate) fn save(&self) -> Result<u64, StoreError> {
        let tracked = std::mem::take(&mut *self.tracked.lock());
        tracked.runs().for_each(|run| self.record.add(&run));
        self.record.save()?;
        Ok(tracked.count())
    }

    /// Writes to extents outside of R wait from now on, until [`Self::flip`] or [`Self::end`].
    pub(crate) fn close_in(&self) {
        *self.closing_in.lock() = true;
        self.passage.write().phase = Phase::ClosingIn;
    }

    fn enter_phase(&self, phase: Phase) {
        self.passage.write().phase = phase;
        *self.closing_in.lock() = false;
        self.opened.notify_all();
    }

    /// The volume shows the image from now on.
    pub(crate) fn flip(&self) {
        self.enter_phase(Phase::Restoring);
    }

    /// Whether the record's store takes no writes any more.
    pub(crate) fn record_has_stopped(&self) -> bool {
        self.lost.is_none() && self.record.has_stopped()
    }

    /// Makes the record anew in the empty `store`, which `put` gives the place of the old one.
    ///
    /// # Errors
    /// Those of the store and of `put`: the old record is still in use.
    pub(crate) fn renew_record(
        &self,
        store: Arc<dyn Store>,
        put: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.record.renew(store, put)
    }

    /// Empties the record, durably: whoever finds it finds nothing to restore. Hosts' writes still wait.
    ///
    /// # Errors
    /// The record's.
    pub(crate) fn annul(&self) -> Result<(), StoreError> {
        let runs: Vec<Range<u64>> = self.record.set().read().runs().collect();
        self.record.clear(&runs)?;
        self.record.flush()
    }

    /// Everything goes to the volume from now on, whatever has been restored. No step is under way when this returns.
    pub(crate) fn end(&self) {
        self.enter_phase(Phase::Over);
    }

    /// The medium of the hosts without the restore.
    #[must_use]
    pub(crate) fn below(&self) -> Arc<dyn Block> {
        Arc::clone(&self.passage.read().below)
    }

    /// Replaces the medium below by the result of `exchange`, at an instant without changes by hosts or steps.
    pub(crate) fn exchange(&self, exchange: impl FnOnce(&Arc<dyn Block>) -> Arc<dyn Block>) {
        let mut passage = self.passage.write();
        let below = exchange(&passage.below);
        passage.below = below;
    }

    /// Makes durable what has left R. The volume has been flushed before.
    ///
    /// # Errors
    /// The record's.
    pub(crate) fn flush_record(&self) -> Result<(), StoreError> {
        self.record.flush()
    }

    /// The state.
    #[must_use]
    pub(crate) fn status(&self) -> RestoreStatus {
        let bytes = |extents: u64| (extents * EXTENT).min(self.record.subject().length);
        let left = self.record.set().read().count();
        let error = self.lost.clone().or_else(|| self.error.lock().clone());
        let total = if self.lost.is_some() { self.record.subject().extents() } else { self.record.total() };
        let left = if self.lost.is_some() { total } else { left };
        RestoreStatus { total_bytes: bytes(total), left_bytes: bytes(left), error }
    }

    /// R.
    #[cfg(test)]
    pub(in crate::origin) fn extents_left(&self) -> Vec<u64> {
        self.record.set().read().runs().flatten().collect()
    }

    /// The bytes of `extents`, cut at the end of the volume.
    fn bytes(&self, extents: &Range<u64>) -> Range<u64> {
        extents.start * EXTENT..(extents.end * EXTENT).min(self.record.subject().length)
    }

    pub(super) fn refuse_lost(&self) -> Result<(), StoreError> {
        self.lost.as_ref().map_or(Ok(()), |why| Err(StoreError::Corrupt(why.clone())))
    }

    /// R.
    pub(super) fn set(&self, patience: Patience) -> Result<RwLockReadGuard<'_, Extents>, StoreError> {
        match patience {
            Patience::Now => self.record.set().try_read().ok_or(StoreError::WouldBlock),
            Patience::Wait => Ok(self.record.set().read()),
        }
    }

    /// The way of a command that changes nothing.
    pub(super) fn look(&self, patience: Patience) -> Result<(Phase, Arc<dyn Block>), StoreError> {
        let passage = match patience {
            Patience::Now => self.passage.try_read().ok_or(StoreError::WouldBlock)?,
            Patience::Wait => self.passage.read(),
        };
        Ok((passage.phase, Arc::clone(&passage.below)))
    }

    /// The way of a change of `extents`. They have been noted, if that is needed.
    pub(super) fn enter(
        &self,
        extents: &Range<u64>,
        patience: Patience,
    ) -> Result<RwLockReadGuard<'_, Passage>, StoreError> {
        loop {
            let passage = match patience {
                Patience::Now => self.passage.try_read().ok_or(StoreError::WouldBlock)?,
                Patience::Wait => self.passage.read(),
            };
            match passage.phase {
                Phase::Tracking => self.note(extents),
                Phase::ClosingIn if !self.set(patience)?.has_all(extents) => {
                    drop(passage);
                    if patience == Patience::Now {
                        return Err(StoreError::WouldBlock);
                    }
                    let mut closing_in = self.closing_in.lock();
                    let waited =
                        self.opened.wait_while_for(&mut closing_in, |closing_in| *closing_in, CLOSED_IN);
                    if waited.timed_out() && *closing_in {
                        return Err(StoreError::Shortage(std::io::Error::other(BEGINS)));
                    }
                    continue;
                }
                Phase::ClosingIn | Phase::Restoring | Phase::Over => {}
            }
            return Ok(passage);
        }
    }

    fn note(&self, extents: &Range<u64>) {
        let is_known = self.record.set().read().has_all(extents);
        let mut tracked = self.tracked.lock();
        if !is_known && !tracked.has_all(extents) {
            tracked.insert(extents);
        }
    }

    /// Restores those parts of the first and the last extent of `range` that are not in `range`, if the extents are in R. The
    /// caller has claimed them.
    pub(super) fn restore_edges(&self, below: &dyn Block, range: &Range<u64>) -> Result<(), StoreError> {
        let (first, last) = (range.start / EXTENT, range.end.div_ceil(EXTENT).saturating_sub(1));
        let edges =
            [(first, first * EXTENT..range.start), (last, range.end..self.bytes(&(last..last + 1)).end)];
        for (extent, edge) in edges {
            if !edge.is_empty() && self.set(Patience::Wait)?.meets(&(extent..extent + 1)) {
                self.copy(below, edge)?;
            }
        }
        Ok(())
    }

    /// Copies `bytes` from the image to `below`.
    fn copy(&self, below: &dyn Block, bytes: Range<u64>) -> Result<(), StoreError> {
        let mut at = bytes.start;
        #[allow(clippy::cast_possible_truncation)] // at most PART
        let mut buffer = vec![0; (bytes.end - bytes.start).min(PART) as usize];
        while at < bytes.end {
            #[allow(clippy::cast_possible_truncation)] // at most PART
            let part = &mut buffer[..(bytes.end - at).min(PART) as usize];
            self.image.read(at, part, Patience::Wait)?;
            below.write(at, part, Durability::Cached, Patience::Wait)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Takes `runs`, which the caller has claimed and of which `below` has all bytes, out of R (law 2).
    pub(super) fn leave(&self, below: &dyn Block, runs: &[Range<u64>]) -> Result<(), StoreError> {
        self.flushes.after_now(|| below.flush())?;
        self.record.clear(runs)
    }

    /// Restores about `budget` bytes, at least one extent. May sleep.
    pub(crate) fn step(&self, budget: u64) -> Advance {
        let mut cursor = self.cursor.lock();
        let passage = self.passage.read();
        if passage.phase != Phase::Restoring || self.lost.is_some() {
            return Advance::Idle;
        }
        let advance = self.advance(&*passage.below, &mut cursor, budget);
        let (error, advance) = match advance {
            Ok(advance) => (None, advance),
            Err(error) if is_shortage(&error) => (Some(error.to_string()), Advance::NoRoom(error)),
            Err(error) => (Some(error.to_string()), Advance::Failed(error)),
        };
        *self.error.lock() = error;
        advance
    }

    fn advance(&self, below: &dyn Block, cursor: &mut u64, budget: u64) -> Result<Advance, StoreError> {
        if self.record.set().read().count() == 0 {
            self.record.flush()?;
            return Ok(Advance::Whole);
        }
        let (mut claims, mut runs, mut moved): (Vec<Claim<'_>>, Vec<Range<u64>>, u64) = Default::default();
        let mut failed = None;
        while (runs.is_empty() || moved < budget) && runs.len() < RUNS_MAX {
            let Some(mut claim) = self.claim_next(cursor, runs.is_empty()) else { break };
            let room = budget.saturating_sub(moved).div_ceil(EXTENT).max(1);
            moved += match self.restore(below, &mut claim, room) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // The next step begins behind: one extent that cannot be restored now does not hold up the others.
                    *cursor = claim.run().start + 1;
                    failed = Some(error);
                    break;
                }
            };
            *cursor = claim.run().end;
            runs.push(claim.run().clone());
            claims.push(claim);
        }
        if let Some(error) = failed.take_if(|_| runs.is_empty()) {
            return Err(error);
        }
        if runs.is_empty() {
            // Hosts are taking all that is left out of R.
            self.claims.wait_for_release();
            return Ok(Advance::Restored { bytes: 0 });
        }
        self.leave(below, &runs)?; // what was restored before an error counts
        match failed.filter(|error| !is_shortage(error)) {
            Some(error) => Err(error),
            None => Ok(Advance::Restored { bytes: moved }),
        }
    }

    /// Claims the next run of R at or after `cursor` that nobody has claimed; if there is none, the first one of all, if the
    /// caller has no claims.
    fn claim_next(&self, cursor: &mut u64, has_none: bool) -> Option<Claim<'_>> {
        // From the cursor to the end, and if the caller has none, once from the beginning.
        for _ in 0..=u8::from(has_none) {
            while let Some(run) = self.next_run(*cursor) {
                // A part of it may be free.
                let first = run.start..run.start + 1;
                let claim = self.claims.try_claim(&run).or_else(|| self.claims.try_claim(&first));
                // Who had a claim may have taken them out of R in between.
                if let Some(claim) = claim
                    && self.record.set().read().has_all(claim.run())
                {
                    return Some(claim);
                }
                *cursor = first.end;
            }
            *cursor = 0;
        }
        None
    }

    /// The next run of R at or after `at`.
    fn next_run(&self, at: u64) -> Option<Range<u64>> {
        let set = self.record.set().read();
        let start = set.next(at)?;
        Some(start..set.run(start, start.saturating_add(HOLE_MAX)).1)
    }

    /// Restores the hole at the beginning of what is claimed, or up to `room` extents of data, and gives the rest of the claim
    /// back. Returns how much work that was, in bytes of data.
    fn restore(&self, below: &dyn Block, claim: &mut Claim<'_>, room: u64) -> Result<u64, StoreError> {
        let run = claim.run().clone();
        let bytes = self.bytes(&run);
        let data = self.image.next_data(bytes.start)?.filter(|data| data.start < bytes.end);
        let hole = data.as_ref().map_or(run.end, |data| data.start / EXTENT);
        if hole > run.start {
            claim.shrink(hole);
            let bytes = self.bytes(&(run.start..hole));
            below.discard(bytes.start, bytes.end - bytes.start)?;
            return Ok((bytes.end - bytes.start) / HOLE_SHARE);
        }
        let end = data.map_or(run.end, |data| data.end.div_ceil(EXTENT)).max(run.start + 1);
        claim.shrink(end.min(run.end).min(run.start.saturating_add(room)));
        let bytes = self.bytes(claim.run());
        self.copy(below, bytes.clone())?;
        Ok(bytes.end - bytes.start)
    }
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restore from {:?}", self.image)
    }
}
