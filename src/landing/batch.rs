//! Bringing home: the oldest segments, what is live in them, and the tail behind them.
//!
//! A batch has segments of one interval, and the batches go in the order of the intervals. So when the first write of an
//! interval comes home, all of the earlier ones is there: home is the image that began the interval, as far as the
//! interval has not overwritten it. What follows is said of one interval. A write that only a later interval has
//! overwritten is live, because an image needs it, and comes home like any other.
//!
//! The order that makes this safe at any crash:
//!
//! 1. The segments are sealed, and nobody appends to them any more.
//! 2. What the map has of them at this moment is live. Everything else in them has been superseded by an entry in the
//!    map of the same interval at that moment, which is in the store, in these segments or behind them.
//! 3. What is live is the batch, and whatever an entry behind the segments has superseded that may be lost yet. So what
//!    is left out is hidden by something in the batch, or by something durable. The look at the map comes
//!    first: what supersedes something after the look may be lost, too, and then the batch has brought home what it
//!    would have hidden. The bytes of the batch need not be durable here, because they become so at home.
//!
//!    Where it is better to bring home only what is live, the log is flushed instead, and then nothing can be lost: if nothing
//!    is live, and if a keeper cannot keep for the rest ([`Batch::leave_hidden`]), so that keepers are asked for no more than
//!    they must keep; and if zeros have superseded something, because home must not take back the room that a host
//!    has given up.
//! 4. The batch is written home as it was at that moment, even where it has been superseded before or since, and home is flushed.
//!    Readers see the later write, which is in the map.
//! 5. The superblock with the new tail is written, stable by itself. Until then a replay finds the segments, and gives the
//!    same bytes as home has now, or later ones. What has landed behind the tail is not flushed by this.
//! 6. The map forgets what is left of the batch, and after that the slots are free. So a write that goes straight home
//!    comes after the durable tail: no replay undoes it.
//!
//! If a step fails, the batch ends without effect: the next one does the same again.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::MutexGuard;

use super::format::{Position, SECTOR, SEGMENT, Superblock};
use super::log::{Landing, Segment, offset};
use super::map::{Landed, Map, Place};
use crate::store::{Durability, Patience, StoreError};
use crate::volume::Block;

/// The most bytes that one write home has.
const MOVE: u64 = 1 << 20;

/// Slots that a log keeps that has just become empty: 64 MiB.
const KEPT: u32 = 64;

/// Slots that a log keeps in which nothing has landed for a while: so many that nobody has to wait while the others are given back.
const KEPT_IDLE: u32 = 4;

/// The oldest segments of a log, of one interval, and what they have to bring home. There is one at a time.
pub struct Batch<'a> {
    landing: &'a Landing,
    superblock: MutexGuard<'a, Superblock>,
    segments: Vec<Arc<Segment>>,
    /// Ascending.
    parts: Vec<Landed>,
    /// The parts that are live, if others come home, too.
    live: Option<Vec<Landed>>,
    ranges: Vec<Range<u64>>,
    brought: AtomicBool,
}

/// What segments have to bring home.
#[derive(Default)]
struct Found {
    /// What is live, in the order of the entries.
    parts: Vec<Landed>,
    /// What entries behind the segments have superseded that may be lost. Several of them may be of the same sectors.
    hidden: Vec<Landed>,
    /// The log has to be flushed before the segments may be forgotten.
    needs_flush: bool,
}

impl Found {
    /// What is hidden comes home, too, the last one of each sector.
    fn take_hidden(&mut self) {
        let last = Map::new();
        self.hidden.iter().for_each(|hidden| last.insert(0, hidden.sectors.clone(), hidden.place));
        for hidden in self.hidden.drain(..) {
            last.each_in(0, hidden.sectors, |there| {
                self.parts.extend(Some(there).filter(|there| there.place.position == hidden.place.position));
            });
        }
    }
}

/// Why a batch has not come home.
#[derive(Debug)]
pub enum NotBrought {
    /// The log's store has failed: home has nothing to do with it.
    Log(StoreError),
    /// Home has failed.
    Home(StoreError),
}

impl From<NotBrought> for StoreError {
    fn from(failure: NotBrought) -> Self {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("the landing log could not be read: {error}"))
        };
        match failure {
            NotBrought::Log(Self::Io(error)) => Self::Io(named(error)),
            NotBrought::Log(Self::Shortage(error)) => Self::Shortage(named(error)),
            NotBrought::Log(error) | NotBrought::Home(error) => error,
        }
    }
}

impl Landing {
    /// Takes the oldest segments, about `budget` bytes of them and at least one. Waits for a batch that somebody else
    /// has, and until nobody writes to the segments. `None` if nothing has landed. A batch that has nothing to bring
    /// home has to be ended, too.
    ///
    /// # Errors
    /// The store's, where the log has to be flushed.
    pub fn oldest(&self, budget: u64) -> Result<Option<Batch<'_>>, StoreError> {
        self.oldest_unless(budget, None)
    }

    /// The same, and `None` too if another batch has ended since `ended` was [`Landing::ended`].
    pub(super) fn oldest_unless(
        &self,
        budget: u64,
        ended: Option<u64>,
    ) -> Result<Option<Batch<'_>>, StoreError> {
        let superblock = self.bringing.lock();
        self.check_usable()?;
        if ended.is_some_and(|ended| ended != self.ended()) {
            return Ok(None);
        }
        let segments = self.seal_oldest(usize::try_from(budget / SEGMENT).unwrap_or(usize::MAX).max(1));
        if segments.is_empty() {
            return Ok(None);
        }
        for segment in &segments {
            let mut quiet = self.quiet.lock();
            while segment.appenders.load(Ordering::SeqCst) > 0 {
                self.quieted.wait(&mut quiet);
            }
        }
        let mut found = self.look_up(&segments);
        let mut live = None;
        if found.parts.is_empty() || found.needs_flush {
            if found.needs_flush || !found.hidden.is_empty() {
                self.flush()?;
            }
        } else if !found.hidden.is_empty() {
            live = Some(ascending(found.parts.clone()));
            found.take_hidden();
        }
        let parts = ascending(found.parts);
        let ranges = merged(&parts);
        Ok(Some(Batch {
            landing: self,
            superblock,
            segments,
            parts,
            live,
            ranges,
            brought: AtomicBool::new(false),
        }))
    }

    /// What the map says of the entries of `segments`, which are sealed.
    fn look_up(&self, segments: &[Arc<Segment>]) -> Found {
        let mut found = Found::default();
        let durable = Position::of_bits(self.durable.load(Ordering::SeqCst));
        let Some(last) = segments.last() else { return found };
        for segment in segments {
            for (index, entry) in segment.page.lock().sheet.entries() {
                let own = Place {
                    position: Position::new(segment.sequence, index),
                    slot: segment.slot,
                    at: entry.at(),
                };
                let mut left = u64::from(entry.count);
                self.map.each_in(segment.interval, entry.sectors(), |there| {
                    left -= there.sectors.end - there.sectors.start;
                    let later = there.place;
                    if later.position == own.position {
                        found.parts.push(there);
                    } else if later.position >= durable && later.position.sequence() > last.sequence {
                        found.needs_flush |= later.is_zeros();
                        let place = own.behind(there.sectors.start - entry.sector);
                        found.hidden.push(Landed { place, ..there });
                    }
                });
                found.needs_flush |= left > 0;
            }
        }
        found
    }

    /// The `count` oldest segments, as far as they are of one interval, sealed.
    fn seal_oldest(&self, count: usize) -> Vec<Arc<Segment>> {
        let mut log = self.log.lock();
        if log.segments.len() == 1 && log.active.as_ref().is_some_and(|active| active.entries == 0) {
            return Vec::new();
        }
        let Some(interval) = log.segments.front().map(|first| first.interval) else { return Vec::new() };
        let oldest = log.segments.iter().take(count).take_while(|segment| segment.interval == interval);
        let oldest: Vec<_> = oldest.cloned().collect();
        if oldest.len() == log.segments.len() {
            log.seal();
        }
        oldest
    }

    /// Whether nothing has landed, and the log takes up more room than it needs for that.
    pub(super) fn can_trim(&self) -> bool {
        let idle = offset(KEPT_IDLE) + SEGMENT;
        self.used() == 0 && self.limit() > idle && self.allocated().is_ok_and(|allocated| allocated > idle)
    }

    /// Gives back the room of a log in which nothing has landed for a while. Nothing comes home meanwhile.
    pub(super) fn trim(&self) {
        self.trim_to(KEPT_IDLE);
    }

    /// The same down to `kept` slots.
    pub(super) fn trim_to(&self, kept: u32) {
        let _bringing = self.bringing.lock();
        if self.check_usable().is_ok() {
            self.ready.store(0, Ordering::SeqCst);
            self.shrink(kept, true);
        }
    }

    /// Gives back the room of an empty log, as far as it is more than `kept` slots; `always`: even if no write has had more
    /// since the log was opened. The caller has `bringing`. A reader may still be about to read there: it finds that the slot has no segment any more, and
    /// looks again.
    fn shrink(&self, kept: u32, always: bool) {
        let kept = {
            let mut log = self.log.lock();
            let kept = log.cut_to.map_or(kept, |cut| cut.min(kept));
            let is_small = log.fresh <= kept && !always && log.cut_to.is_none();
            if !log.segments.is_empty() || log.failed_birth.is_some() || is_small || self.most <= kept {
                return;
            }
            // Nobody gets the slots behind meanwhile.
            let fresh = log.fresh.min(self.most);
            log.free.retain(|slot| *slot < kept);
            if log.cut_to.is_none() {
                log.free.extend(fresh..kept.max(fresh));
            }
            log.fresh = self.most;
            log.cut_to = Some(kept);
            kept
        };
        // Cut and made long again: a file system that punches no holes would get zeros written instead.
        let cut = self.store.resize(offset(kept));
        let grown = self.store.resize(offset(self.most));
        self.changes.fetch_add(1, Ordering::SeqCst);
        if grown.is_ok() {
            self.log.lock().has_slots_from(kept);
        }
        // Without them nobody gets the slots before the store has them again: they may be missing.
        if let Err(error) = cut.and(grown) {
            tracing::warn!(%error, "an empty landing log has not given back its room, or has less than it had");
        }
    }

    /// Waits while the log gives back room, during which it has few slots, and gets those back that it has lost by that.
    ///
    /// # Errors
    /// The store's, when it cannot be made as long as it was.
    pub(super) fn regain_room(&self) -> Result<(), StoreError> {
        if self.log.lock().cut_to.is_none() {
            return Ok(());
        }
        let _bringing = self.bringing.lock();
        let Some(kept) = self.log.lock().cut_to else { return Ok(()) };
        self.check_usable()?;
        self.store.resize(offset(self.most))?;
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.log.lock().has_slots_from(kept);
        Ok(())
    }
}

impl Batch<'_> {
    /// The interval in which all of the batch landed.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.interval)
    }

    /// The ranges of bytes of the volume that this batch brings home, ascending; no two touch.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Leaves out what is not live, after a flush of the log: then nothing is lost by that. False: all of the batch is live.
    ///
    /// # Errors
    /// The store's, of the flush.
    pub(super) fn leave_hidden(&mut self) -> Result<bool, StoreError> {
        let Some(live) = self.live.take() else { return Ok(false) };
        self.landing.flush()?;
        self.ranges = merged(&live);
        self.parts = live;
        Ok(true)
    }

    /// Writes the batch to `home`, in ascending order, and flushes `home`. The caller has kept whatever this overwrites.
    ///
    /// # Errors
    /// Those of the log's store, and of `home`: an unknown part of the batch has come home. It can be repeated.
    pub fn bring(&self, home: &dyn Block) -> Result<(), NotBrought> {
        let mut buffer = Vec::new();
        let mut parts = &self.parts[..];
        while let Some(first) = parts.first() {
            let (count, end) = together(parts);
            let (group, rest) = parts.split_at(count);
            parts = rest;
            let (start, length) = (first.sectors.start * SECTOR, (end - first.sectors.start) * SECTOR);
            if first.place.is_zeros() {
                home.discard(start, length).map_err(NotBrought::Home)?;
                continue;
            }
            buffer.resize(length as usize, 0);
            for part in group {
                let from = (part.sectors.start * SECTOR - start) as usize;
                let to = (part.sectors.end * SECTOR - start) as usize;
                let read = self.landing.read_piece(&part.place, &mut buffer[from..to], Patience::Wait);
                if !read.map_err(NotBrought::Log)? {
                    let why = "the landing log has lost a segment that is being brought home".to_owned();
                    return Err(NotBrought::Log(StoreError::Corrupt(why)));
                }
            }
            let written = home.write(start, &buffer, Durability::Cached, Patience::Wait);
            written.map_err(NotBrought::Home)?;
        }
        home.flush().map_err(NotBrought::Home)?;
        self.brought.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Moves the tail behind the batch, durably, and then forgets what no later write has superseded: nothing of the
    /// batch [touches](Landing::touches) anything any more, and its segments may be used again.
    ///
    /// # Errors
    /// The store's: all is as it was. [`StoreError::ReadOnly`] if the batch has not been brought home.
    pub fn end(mut self) -> Result<(), StoreError> {
        if !self.parts.is_empty() && !self.brought.load(Ordering::SeqCst) {
            return Err(StoreError::ReadOnly("the landing log keeps what has not been brought home"));
        }
        let (landing, count) = (self.landing, self.segments.len());
        let Some(last) = self.segments.last() else { return Ok(()) };
        let resumed = self.superblock.resumed;
        let standing = {
            let log = landing.log.lock();
            log.segments.iter().skip(count).filter(|segment| segment.sequence < resumed).count()
        };
        let next = Superblock {
            counter: self.superblock.counter + 1,
            tail: last.sequence + 1,
            standing: standing as u64,
            durable: Position::of_bits(landing.durable.load(Ordering::SeqCst)),
            ..*self.superblock
        };
        landing.check_usable()?;
        Landing::write_superblock(&*landing.store, &next, Durability::Stable)?;
        *self.superblock = next;
        for segment in &self.segments {
            for (index, entry) in segment.page.lock().sheet.entries() {
                let position = Position::new(segment.sequence, index);
                landing.map.forget(segment.interval, entry.sectors(), position);
            }
        }
        let is_empty = {
            let mut log = landing.log.lock();
            log.segments.drain(..count);
            for segment in &self.segments {
                landing.in_slot.set(segment.slot, 0);
                if segment.slot < landing.most {
                    log.free.insert(segment.slot);
                }
            }
            landing.count.store(log.segments.len() as u64, Ordering::Release);
            log.segments.is_empty()
        };
        landing.ended.fetch_add(1, Ordering::SeqCst);
        if is_empty {
            landing.shrink(KEPT.max(landing.ready.load(Ordering::SeqCst)), false);
        }
        Ok(())
    }
}

fn ascending(mut parts: Vec<Landed>) -> Vec<Landed> {
    parts.sort_unstable_by_key(|part| part.sectors.start);
    parts
}

/// How many of `parts` can come home together, and the sector behind them.
fn together(parts: &[Landed]) -> (usize, u64) {
    let Some(first) = parts.first() else { return (0, 0) };
    let (mut count, mut end) = (1, first.sectors.end);
    let most = first.sectors.start + MOVE / SECTOR;
    for part in &parts[1..] {
        let zeros = first.place.is_zeros();
        let fits = zeros || part.sectors.end <= most;
        if part.sectors.start != end || part.place.is_zeros() != zeros || !fits {
            break;
        }
        (count, end) = (count + 1, part.sectors.end);
    }
    (count, end)
}

/// The ranges of bytes of `parts`, which ascend.
fn merged(parts: &[Landed]) -> Vec<Range<u64>> {
    let mut ranges = Vec::<Range<u64>>::new();
    for part in parts {
        let (start, end) = (part.sectors.start * SECTOR, part.sectors.end * SECTOR);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}
