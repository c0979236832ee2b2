//! The pair record: the state of the relation and its sets of extents ([`Sets`]), durable before anything relies on
//! them.
//!
//! The record has two stores that take turns. The current one consists of a page of header, a page for a suspension,
//! a page for the closing, and a log of frames that only grows. [`super::replay`] reads it. Invariants, and the order
//! of writes that keeps them:
//!
//! * **The current store is the one with the valid header of the highest sequence number.** A rewrite first removes
//!   the header of the other store, zeroes everything behind it, and flushes. Then it writes suspension, closing and
//!   frames there and flushes. Then it writes the header with the next sequence number and the end of the log, and
//!   flushes. That header is the flip: before it the old store is whole, after it the new one is. Then the rewrite
//!   removes the old store's header, so that damage to the new one can never bring back an older log, which knows of
//!   fewer extents. A crash may leave the old header; the next rewrite overwrites the old log only after that
//!   header is gone.
//! * **A frame counts only in its own log**: it carries the store's sequence number.
//! * **A log only adds to the sets.** Extents leave a set when a rewrite, or a new generation, begins without them.
//! * **Behind the log stand zeros, durably, whenever something is appended.** A rewrite begins with such a store. The
//!   bytes that an append left when it failed for lack of room are discarded and flushed before anything else is
//!   appended. Nothing is appended to a log with a torn end: each opening rewrites the log or, on a full device,
//!   clears everything behind its end.
//! * **A torn end differs from damage** (see [`super::replay`]), by the end in the header, by the closing, by the
//!   durable offset in each frame, and by the mark. A mark follows each append once the append is durable. The mark
//!   itself is not flushed: it costs a write of 32 bytes into the page cache, beside two flushes of a device.
//! * **Suspension and closing need no new space.** Their pages were written with the header, so a full device can
//!   still take them. A suspension that does not parse was being written, and suspends; a closing that does not parse
//!   closes nothing, and the copy of a mirror begins anew. Before a closing is written the log is flushed with its
//!   mark, so a log that ends before the closing's end is damage. Nothing is appended to a closed log: an opening
//!   writes the log anew, or removes the closing, durably, before it goes on with the log.
//! * **A prepared frame needs its decision** ([`super::group`]), so a log with one is not written anew before it is known
//!   what has come of the split. A prepared frame that is decided says of the sets what the frames of a split say.
//!   The state that is appended after it says both again. Then nothing needs the decision any more, unless extents of
//!   the generation that the prepared frame began were recorded before that state: then only a rewrite ends the need.
//!
//! A log of an older version is written anew as version 3 when it is opened. Version 1 has neither an end in its header
//! nor a closing nor marks. Versions 1 and 2 can name held extents only, and have no prepared frames.
//! Where the device is too full for a new log, the old one goes on in its version, and loses nothing:
//!
//! * After the split an old log counts every extent as changed and as written ([`super::replay`]). Whatever would be
//!   added to these two sets is in them already, so no frame is written for them. The process may know fewer changes
//!   than the log says, if the pair was split on the old log, but never more; and the next rewrite writes what the
//!   process knows.
//! * Before the split both sets are empty, and an old log cannot say otherwise. To add to them is refused, for want of
//!   the room that a new log needs. Nothing is written that a reader of the old version would not understand.

use std::ops::Range;

use jiff::Timestamp;

use super::bitmap::{ExtentSet, Piece};
use super::format::{
    CLOSING_OFFSET, Closing, Decided, Entry, FRAME_ALIGN, Frame, GROWTH, Header, PAGE, RECORD_NAMES,
    RUNS_MAX, RecordStores, RelationState, SUSPENSION_OFFSET, Shape, Slot, SplitIdentity, Suspension,
    Version,
};
use super::replay::{self, Replayed};
use super::sets::{SetMask, Sets};
use super::state::State;
use crate::store::{Durability, Patience, Store, StoreError};

/// The log is rewritten when it has grown by this, and to twice its length after the last rewrite.
const REWRITE_MIN: u64 = 1 << 20;

/// Bytes that are kept free behind a log: a mark, and the zeros that show that nothing follows.
const SPARE: u64 = 2 * FRAME_ALIGN;

/// A record that is open for appending. It has one owner at a time: the pair keeps it under a lock.
#[derive(Debug)]
pub(super) struct Record {
    record_stores: RecordStores,
    shape: Shape,
    current: usize,
    /// The version of the current store.
    version: Version,
    sequence: u64,
    /// The offset of the next frame.
    end: u64,
    /// Everything before this offset is durable.
    durable: u64,
    /// The end of the log after the last rewrite, or after the last failed one.
    baseline: u64,
    /// A rewrite failed in a way that leaves open which store is the current one.
    ambiguous: bool,
    /// Behind the end stand bytes that nothing relied on. They must be cleared before anything is appended.
    torn: bool,
    /// The log has been closed in order: nothing is appended to it any more.
    closed: bool,
    standing: RelationState,
    /// The log has a prepared frame, and it is open whether that counts: the log is not written anew meanwhile.
    prepared: Option<RelationState>,
    /// The prepared frame began a generation.
    begins: bool,
    /// Behind the prepared frame may stand frames of the generation that it began: without the decision they fit nothing.
    leans: bool,
    /// The split whose decision a restart would need to find the present state.
    relies_on: Option<SplitIdentity>,
    suspended: Option<String>,
    /// The tracing span in which the owner made or opened the pair. It names the pair in log lines.
    span: tracing::Span,
}

impl Record {
    /// Makes a new record in both stores, whatever they contain.
    pub(super) fn create(
        record_stores: RecordStores,
        shape: Shape,
        standing: RelationState,
    ) -> Result<Self, StoreError> {
        Self::create_with(record_stores, shape, standing, Sets::new(0).as_ref())
    }

    /// The same with `sets`.
    pub(super) fn create_with(
        record_stores: RecordStores,
        shape: Shape,
        standing: RelationState,
        sets: Sets<&ExtentSet>,
    ) -> Result<Self, StoreError> {
        for record_store in &record_stores {
            record_store.resize(0)?;
            grow(&**record_store, Version::LATEST.frames())?;
            record_store.flush()?;
        }
        let mut record = Self::at(record_stores, shape, 1, 0, standing);
        record.rewrite(sets)?;
        Ok(record)
    }

    fn at(
        record_stores: RecordStores,
        shape: Shape,
        current: usize,
        sequence: u64,
        standing: RelationState,
    ) -> Self {
        Self {
            record_stores,
            shape,
            current,
            version: Version::LATEST,
            sequence,
            end: Version::LATEST.frames(),
            durable: Version::LATEST.frames(),
            baseline: 0,
            ambiguous: false,
            torn: false,
            closed: false,
            standing,
            prepared: None,
            begins: false,
            leans: false,
            relies_on: None,
            suspended: None,
            span: tracing::Span::current(),
        }
    }

    /// Reads the record of the pair `shape`, without writing. [`Record::resume`] must come before an append.
    pub(super) fn open(
        record_stores: RecordStores,
        shape: Shape,
        extents: u64,
        decided: Decided<'_>,
    ) -> Result<(Self, Replayed), StoreError> {
        let (current, header) = replay::choose(&record_stores, shape)?;
        let replayed =
            replay::replay(&*record_stores[current], RECORD_NAMES[current], &header, extents, decided)?;
        let mut record = Self::at(record_stores, shape, current, header.sequence, replayed.standing);
        record.suspended.clone_from(&replayed.suspended);
        record.version = header.version;
        (record.relies_on, record.leans) = (replayed.relies_on, replayed.relies_on.is_some());
        (record.end, record.durable) = (replayed.end, replayed.end);
        (record.torn, record.closed) = (replayed.torn, replayed.standing.clean);
        Ok((record, replayed))
    }

    /// The tracing span that names the pair.
    pub(super) fn span(&self) -> &tracing::Span {
        &self.span
    }

    /// The state of the relation, as last appended.
    pub(super) fn standing(&self) -> RelationState {
        self.standing
    }

    /// The state of the relation is `standing`, which the caller makes durable by a rewrite. Returns the former one.
    pub(super) fn stand(&mut self, standing: RelationState) -> RelationState {
        std::mem::replace(&mut self.standing, standing)
    }

    /// Appends the new state `standing`, durably. With a split it appends that every extent counts as changed and as
    /// written, until the pair vouches for less ([`super::track`]).
    pub(super) fn append_standing(&mut self, standing: RelationState) -> Result<(), StoreError> {
        if self.version != Version::LATEST && matches!(standing.state, State::CopySp | State::Rcpy) {
            return Err(StoreError::NoSpace); // an old log cannot say so, and there was no room for a new one
        }
        let is_known = self.standing.state.may_be_split() && self.relies_on.is_none();
        let splits = standing.state.may_be_split() && !is_known;
        let mut entries = vec![Entry::RelationState(standing)];
        if splits && self.version.sets() == SetMask::ALL {
            let everything = 0..self.shape.length.div_ceil(u64::from(self.shape.extent));
            let (generation, sets) = (standing.generation, SetMask::CHANGED | SetMask::WRITTEN);
            entries.push(Entry::Runs { generation, sets, runs: vec![everything] });
        }
        self.append(entries)?;
        self.standing = standing;
        if !self.leans {
            self.relies_on = None;
        }
        Ok(())
    }

    /// Appends, durably, that `standing` is the state from here on if `split` is decided. The caller says later what has
    /// come of that: [`Record::assume_prepared`] and [`Record::settle`], or [`Record::forget_prepared`].
    pub(super) fn prepare(
        &mut self,
        split: SplitIdentity,
        standing: RelationState,
    ) -> Result<(), StoreError> {
        if !self.version.has_prepared() {
            // The log goes on in its version because there was no room for a new one.
            return Err(StoreError::NoSpace);
        }
        self.append(vec![Entry::Prepared { split, standing }])?;
        (self.prepared, self.relies_on) = (Some(standing), Some(split));
        Ok(())
    }

    /// The split is decided: what is appended from now on belongs to the state after it.
    pub(super) fn assume_prepared(&mut self) {
        let before = self.standing.generation;
        self.standing = self.prepared.unwrap_or(self.standing);
        self.begins = self.standing.generation != before;
    }

    /// The split was not decided, and never will be: the state is still `before`.
    pub(super) fn forget_prepared(&mut self, before: RelationState) {
        if self.prepared.take().is_some() {
            (self.standing, self.relies_on, self.begins) = (before, None, false);
        }
    }

    /// The split was made at `instant`: appends the state by itself, durably. If the log [leans](Self::leans) on the prepared
    /// frame, it has to be written anew before the decision may be forgotten.
    pub(super) fn settle(&mut self, instant: Timestamp) -> Result<(), StoreError> {
        self.prepared = None;
        self.append_standing(RelationState { split_at: Some(instant), ..self.standing })
    }

    /// The split whose decision a restart would need to find the present state.
    pub(super) fn relies_on(&self) -> Option<SplitIdentity> {
        self.relies_on
    }

    /// Appends that `runs` are in `sets`, durably. The caller has flushed the secondary if it holds them. The sets that
    /// an old log cannot name are treated as the module's head says.
    #[cfg(test)]
    pub(super) fn append_runs(&mut self, sets: SetMask, runs: &[Range<u64>]) -> Result<(), StoreError> {
        self.append_additions(&runs.iter().map(|run| (sets, run.clone())).collect::<Vec<_>>())
    }

    /// The same for runs of several sets, in one append.
    pub(super) fn append_additions(&mut self, additions: &[(SetMask, Range<u64>)]) -> Result<(), StoreError> {
        let generation = self.standing.generation;
        let mut entries = Vec::new();
        for additions in additions.chunk_by(|(mask, _), (next, _)| mask == next) {
            let sets = additions[0].0;
            let named = sets.within(self.version.sets());
            if named != Some(sets) && !self.standing.state.may_be_split() {
                return Err(StoreError::NoSpace);
            }
            let Some(sets) = named else { continue };
            entries.extend(additions.chunks(RUNS_MAX).map(|chunk| {
                let runs = chunk.iter().map(|(_, run)| run.clone()).collect();
                Entry::Runs { generation, sets, runs }
            }));
        }
        self.append(entries)?;
        self.leans |= self.begins && self.relies_on.is_some();
        Ok(())
    }

    /// Appends `entries`, durably. After a failure the log is unchanged if [`Record::is_certain`] says so.
    fn append(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if self.ambiguous || self.closed {
            return Err(StoreError::Stopped);
        }
        if self.torn {
            self.clear_tail()?;
        }
        let mut bytes = Vec::new();
        for entry in entries {
            Frame { sequence: self.sequence, durable: self.durable, entry }.put(self.version, &mut bytes);
        }
        let (record_store, end) = (&*self.record_stores[self.current], self.end + bytes.len() as u64);
        let appended = grow(record_store, end + SPARE)
            .and_then(|()| record_store.write(self.end, &bytes, Durability::Cached, Patience::Wait))
            .and_then(|()| record_store.flush());
        if let Err(error) = appended {
            self.torn = true;
            if matches!(error, StoreError::NoSpace | StoreError::Shortage(_))
                && let Err(error) = self.clear_tail()
            {
                tracing::debug!(parent: &self.span, %error, "what an append left behind could not be cleared");
            }
            return Err(error);
        }
        (self.end, self.durable) = (end, end);
        self.vouch();
        Ok(())
    }

    /// Writes the mark, which says that the last frame is durable. The module's head explains it.
    fn vouch(&mut self) {
        if !self.version.has_closing() {
            return;
        }
        let mut mark = Vec::new();
        Frame { sequence: self.sequence, durable: self.durable, entry: Entry::Mark }
            .put(self.version, &mut mark);
        let record_store = &*self.record_stores[self.current];
        match record_store.write(self.end, &mark, Durability::Cached, Patience::Wait) {
            Ok(()) => self.end += mark.len() as u64,
            Err(error) => {
                tracing::debug!(parent: &self.span, %error, "the end of a pair record could not be marked");
                self.torn = true;
            }
        }
    }

    /// Makes everything behind the log zeros, durably.
    fn clear_tail(&mut self) -> Result<(), StoreError> {
        let record_store = &*self.record_stores[self.current];
        blank(record_store, self.end, 0)?;
        record_store.flush()?;
        self.torn = false;
        Ok(())
    }

    /// Whether it is known what a restart would find. It is not known after a failed append, unless the append failed
    /// for lack of room and its bytes could be cleared.
    pub(super) fn is_certain(&self) -> bool {
        !self.torn && !self.ambiguous
    }

    /// Records that the pair was closed in order. Nothing can be appended after that.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if self.ambiguous {
            return Err(StoreError::Stopped);
        }
        if !self.version.has_closing() {
            self.append_standing(RelationState { clean: true, ..self.standing })?;
            self.closed = true;
            return Ok(());
        }
        if self.torn {
            self.clear_tail()?;
        }
        let record_store = &*self.record_stores[self.current];
        record_store.flush()?;
        let page = Closing { sequence: self.sequence, end: self.end }.page();
        record_store.write(CLOSING_OFFSET, &page, Durability::Cached, Patience::Wait)?;
        record_store.flush()?;
        self.closed = true;
        Ok(())
    }

    /// Records, without taking new space, that the pair is suspended.
    pub(super) fn suspend(&mut self, reason: &str) -> Result<(), StoreError> {
        if self.ambiguous {
            return Err(StoreError::Stopped);
        }
        self.fill_slot(Slot::Suspended(reason.to_owned()))?;
        self.suspended = Some(reason.to_owned());
        Ok(())
    }

    /// Records, without taking new space, that every extent counts as changed and as written. Lasts until the record is
    /// written anew. Does not need [`Record::resume`]. The pair must not be suspended.
    pub(super) fn untrack(&mut self, why: &str) -> Result<(), StoreError> {
        if self.ambiguous || self.suspended.is_some() {
            return Err(StoreError::Stopped);
        }
        self.fill_slot(Slot::Untracked(why.to_owned()))
    }

    fn fill_slot(&self, slot: Slot) -> Result<(), StoreError> {
        let page = Suspension { sequence: self.sequence, slot }.page();
        let record_store = &*self.record_stores[self.current];
        record_store.write(SUSPENSION_OFFSET, &page, Durability::Cached, Patience::Wait)?;
        record_store.flush()
    }

    /// Writes the record anew with `standing`, without extents and without a suspension.
    pub(super) fn restart(&mut self, standing: RelationState) -> Result<(), StoreError> {
        let before = (self.standing, self.suspended.take());
        self.standing = standing;
        let rewritten = self.rewrite(Sets::new(0).as_ref());
        if rewritten.is_err() {
            (self.standing, self.suspended) = before;
        }
        rewritten
    }

    /// Writes the record anew with `standing` and `sets`, after an opening. On a full device a split goes on with the
    /// present log: its image is worth more than a shorter log.
    pub(super) fn resume(
        &mut self,
        standing: RelationState,
        sets: Sets<&ExtentSet>,
    ) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut self.standing, standing);
        let same = (before.state, before.generation) == (standing.state, standing.generation);
        let mirror = standing.state.mirrors() || standing.state == State::Rcpy;
        let Err(error) = self.rewrite(sets) else { return Ok(()) };
        if !same || mirror || self.ambiguous {
            return Err(error);
        }
        tracing::warn!(parent: &self.span, %error, "a pair record could not be written anew; its log goes on");
        self.reopen()?;
        self.put_off_rewrite();
        Ok(())
    }

    /// Goes on with the present log. First flushes it: the record is relied on from now on, and a killed daemon may
    /// have left it in the page cache only.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let record_store = &*self.record_stores[self.current];
        if self.version.has_closing() {
            record_store.write(CLOSING_OFFSET, &[0; PAGE as usize], Durability::Cached, Patience::Wait)?;
        }
        if self.torn {
            self.clear_tail()?;
        } else {
            record_store.flush()?;
        }
        self.closed = false;
        Ok(())
    }

    /// Records that the pair is not closed any more, so that a mirror will be copied anew. Does not need
    /// [`Record::resume`].
    pub(super) fn unclose(&mut self) -> Result<(), StoreError> {
        self.reopen()?;
        if self.version.has_closing() {
            return Ok(());
        }
        self.append_standing(RelationState { clean: false, ..self.standing })
    }

    /// Whether the log has grown enough to be written anew.
    pub(super) fn is_long(&self) -> bool {
        let long = self.end > self.baseline.saturating_mul(2).max(self.baseline + REWRITE_MIN);
        long && self.prepared.is_none()
    }

    /// Puts off the next rewrite, after one that failed and left the current store valid.
    pub(super) fn put_off_rewrite(&mut self) {
        self.baseline = self.end;
    }

    /// Writes the state and `sets` anew to the other store, which becomes the current one. After an error the current
    /// store is still valid, or the record refuses every append.
    pub(super) fn rewrite(&mut self, sets: Sets<&ExtentSet>) -> Result<(), StoreError> {
        let (other, sequence) = (1 - self.current, self.sequence + 1);
        let record_store = &*self.record_stores[other];
        grow(record_store, Version::LATEST.frames())?;
        record_store.write(0, &[0; PAGE as usize], Durability::Cached, Patience::Wait)?;
        blank(record_store, PAGE, GROWTH)?; // as much as a log of usual length takes up
        record_store.flush()?;
        let slot = self.suspended.clone().map_or(Slot::Blank, Slot::Suspended);
        let mut pages = Suspension { sequence, slot }.page();
        pages.resize(2 * PAGE as usize, 0); // no closing
        record_store.write(SUSPENSION_OFFSET, &pages, Durability::Cached, Patience::Wait)?;
        let end = self.write_frames(record_store, sequence, sets)?;
        record_store.flush()?;
        let header = Header { version: Version::LATEST, sequence, shape: self.shape, end }.page();
        let flipped = record_store
            .write(0, &header, Durability::Cached, Patience::Wait)
            .and_then(|()| record_store.flush());
        if let Err(error) = flipped {
            self.ambiguous = true;
            return Err(error);
        }
        let former = std::mem::replace(&mut self.current, other);
        (self.version, self.sequence) = (Version::LATEST, sequence);
        (self.end, self.durable, self.baseline) = (end, end, end);
        (self.torn, self.closed) = (false, false);
        (self.relies_on, self.begins, self.leans) = (None, false, false);
        if let Err(error) = retire(&*self.record_stores[former]) {
            tracing::warn!(parent: &self.span, %error, "the former record_store of a pair record could not be retired");
        }
        Ok(())
    }

    fn write_frames(
        &self,
        record_store: &dyn Store,
        sequence: u64,
        sets: Sets<&ExtentSet>,
    ) -> Result<u64, StoreError> {
        let generation = self.standing.generation;
        let mut out = Vec::new();
        let frames = Version::LATEST.frames();
        let mut put = |entry| Frame { sequence, durable: frames, entry }.put(Version::LATEST, &mut out);
        put(Entry::RelationState(self.standing));
        for (sets, set) in sets.each() {
            let mut runs = Vec::new();
            set.pieces(&mut |piece| match piece {
                Piece::Run(run) => {
                    runs.push(run);
                    if runs.len() == RUNS_MAX {
                        put(Entry::Runs { generation, sets, runs: std::mem::take(&mut runs) });
                    }
                }
                Piece::Leaf(leaf, bits) => {
                    put(Entry::Leaf { generation, sets, leaf, bits: Box::new(*bits) });
                }
            });
            if !runs.is_empty() {
                put(Entry::Runs { generation, sets, runs });
            }
        }
        let end = frames + out.len() as u64;
        grow(record_store, end + SPARE)?;
        record_store.write(frames, &out, Durability::Cached, Patience::Wait)?;
        Ok(end)
    }
}

/// Makes `store` at least `length` bytes long.
fn grow(store: &dyn Store, length: u64) -> Result<(), StoreError> {
    if store.length() < length { store.resize(length.next_multiple_of(GROWTH)) } else { Ok(()) }
}

/// Makes everything from `offset` on zeros. Bytes before `kept` stay allocated, so that a full device can take the
/// next writes there; the rest is given back.
fn blank(record_store: &dyn Store, offset: u64, kept: u64) -> Result<(), StoreError> {
    let mut at = offset;
    while let Some(data) = record_store.next_data(at)? {
        let end = if data.start < kept { data.end.min(kept) } else { data.end };
        if data.start < kept {
            let zeros = vec![0; (end - data.start) as usize];
            record_store.write(data.start, &zeros, Durability::Cached, Patience::Wait)?;
        } else {
            record_store.discard(data.start, end - data.start)?;
        }
        at = end;
    }
    Ok(())
}

/// Removes the header, durably.
fn retire(record_store: &dyn Store) -> Result<(), StoreError> {
    record_store.write(0, &[0; PAGE as usize], Durability::Cached, Patience::Wait)?;
    record_store.flush()
}
