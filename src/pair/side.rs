//! The sides of a pair, as hosts see them: two [`Block`]s.
//!
//! | state | write to the primary | secondary is read from | write to the secondary |
//! |---|---|---|---|
//! | SMPL, PSUS | primary | secondary | secondary |
//! | COPY, PAIR | primary, then held extents on the secondary | secondary | refused: read only |
//! | PSUS(SP) | primary where held, else its landing log | secondary where held, else the primary's home | secondary only; the rest of an extent is fetched first |
//! | PSUE | primary | refused | refused |
//!
//! A write that lands is done at once, without a claim: what it overwrites is kept when it is brought home
//! ([`super::home`]). If there is no log, or no room for a log, the old data is kept first, and the write goes home.
//!
//! With [`Patience::Now`] a write is done only if it goes straight to one volume or to the log. A write that has to
//! keep, claim or write twice is [`StoreError::WouldBlock`] before anything has happened.
//!
//! Mirrored writes claim their extents, so two overlapping writes reach both volumes in one order, and the copier
//! sees either none or all of each. A flush of the primary in COPY and PAIR flushes both volumes. A flush of the
//! secondary in PSUS(SP) flushes both too, because part of its image is the primary's: after it the whole image is
//! stable.

use std::fmt;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use super::commit::Failure;
use super::gate::Pass;
use super::keep::{CLAIM_EXTENTS, KeepResult, LOST};
use super::{EXTENT, Mode, Pair, touched};
use crate::landing::Outcome;
use crate::store::{Durability, Patience, StoreError};
use crate::units::BlockSize;
use crate::volume::{Block, Write};

/// A change by a host to a range.
#[derive(Clone, Copy)]
enum Change<'a> {
    Write(&'a [u8], Durability),
    Discard,
}

impl Change<'_> {
    /// Applies the part `part` of the change, which as a whole begins at `offset`.
    fn apply(
        self,
        block: &dyn Block,
        offset: u64,
        part: Range<u64>,
        patience: Patience,
    ) -> Result<(), StoreError> {
        match self {
            Self::Write(data, durability) => {
                #[allow(clippy::cast_possible_truncation)] // within `data`
                let within = (part.start - offset) as usize..(part.end - offset) as usize;
                block.write(part.start, &data[within], durability, patience)
            }
            Self::Discard => block.discard(part.start, part.end - part.start),
        }
    }
}

/// A search for data looks at this many runs of extents, held alternately by one volume and the other. After that it
/// reports that the next run may hold data: a set of many short runs must not keep the caller for ever.
const RUNS_MAX: u32 = 4096;

/// The primary of a pair.
pub(crate) struct PrimarySide(Arc<Pair>);

/// The secondary of a pair.
pub(crate) struct SecondarySide(Arc<Pair>);

impl PrimarySide {
    pub(super) fn new(pair: Arc<Pair>) -> Self {
        Self(pair)
    }
}

impl SecondarySide {
    pub(super) fn new(pair: Arc<Pair>) -> Self {
        Self(pair)
    }
}

const READ_ONLY: &str = "the volume is the secondary of a running copy; split the pair to write to it";

impl Pair {
    fn pass_gate(&self, patience: Patience) -> Result<Pass<'_>, StoreError> {
        self.gate.enter(patience).ok_or(StoreError::WouldBlock)
    }

    fn change_primary(
        &self,
        change: Change<'_>,
        range: &Range<u64>,
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.check(range.start, range.end - range.start)?;
        while let Outcome::Full = self.try_change_primary(change, range, patience)? {
            if patience == Patience::Now {
                return Err(StoreError::WouldBlock);
            }
            self.make_room()?; // without the gate, so that no flip waits for it
        }
        Ok(())
    }

    /// Changes the primary, unless the landing log is full: then nothing has happened.
    fn try_change_primary(
        &self,
        change: Change<'_>,
        range: &Range<u64>,
        patience: Patience,
    ) -> Result<Outcome, StoreError> {
        let _gate = self.pass_gate(patience)?;
        let extents = touched(range.start, range.end - range.start);
        loop {
            match self.mode() {
                Mode::Apart | Mode::Stopped => break,
                Mode::Split if self.held.read().contains_all(extents.clone()) => break,
                Mode::Split => {
                    if let Change::Write(data, durability) = change
                        && let Some(outcome) = self.land(range.start, data, durability, patience)?
                    {
                        return Ok(outcome);
                    }
                    if patience == Patience::Now {
                        return Err(StoreError::WouldBlock);
                    }
                    match self.keep(extents.clone()) {
                        KeepResult::Held => break,
                        KeepResult::NotSplit => {}
                        // Nothing was written: the host repeats the write, and the image stays whole.
                        KeepResult::NotYet(short @ Failure::Short(_)) => return Err(short.into()),
                        KeepResult::NotYet(failure) => self.suspend(&format!("{LOST}: {failure}")),
                    }
                }
                Mode::Mirror if patience == Patience::Now => return Err(StoreError::WouldBlock),
                Mode::Mirror => return self.change_both(change, range.clone()).map(|()| Outcome::Landed),
                Mode::Sealed | Mode::Closed => return Err(StoreError::Stopped),
            }
        }
        match change {
            Change::Write(data, durability) => {
                self.primary.try_write(range.start, data, durability, patience)
            }
            Change::Discard => self.primary.try_discard(range),
        }
    }

    /// Lands together those of `writes` that would land one by one ([`Pair::try_change_primary`]).
    fn write_primary_together(&self, writes: &mut [Write<'_>]) {
        let Ok(_gate) = self.pass_gate(Patience::Now) else { return };
        match self.mode() {
            Mode::Apart | Mode::Stopped => self.primary.write_together(writes),
            Mode::Split => {
                let absent = |write: &&mut Write<'_>| {
                    let length = write.data.len() as u64;
                    self.check(write.offset, length).is_ok()
                        && !self.held.read().contains_all(touched(write.offset, length))
                };
                let mut landing: Vec<_> = writes.iter_mut().filter(absent).collect();
                self.primary.land_together(&mut landing);
                self.primary.write_together(writes);
            }
            Mode::Mirror | Mode::Sealed | Mode::Closed => {}
        }
    }

    /// Lands a write to the primary of a split pair; `None` if there is no log, or no room for one.
    fn land(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<Option<Outcome>, StoreError> {
        match self.primary.land(offset, data, durability, patience) {
            Err(StoreError::NoSpace) => Ok(None),
            landed => landed,
        }
    }

    /// Applies a change to the primary and, where extents are held, to the secondary.
    fn change_both(&self, change: Change<'_>, range: Range<u64>) -> Result<(), StoreError> {
        let extents = touched(range.start, range.end - range.start);
        let _claim = self.claims.whole(extents.clone());
        change.apply(self.primary.home(), range.start, range.clone(), Patience::Wait)?;
        let mut at = extents.start;
        while at < extents.end {
            let (held, end) = self.held.read().run(at, extents.end);
            if held {
                let bytes = self.bytes(&(at..end));
                let part = bytes.start.max(range.start)..bytes.end.min(range.end);
                if let Err(error) = change.apply(&*self.secondary, range.start, part, Patience::Wait) {
                    if let (StoreError::Shortage(_), Change::Write(..)) = (&error, change) {
                        self.restore_primary(&range)?;
                        return Err(error);
                    }
                    self.suspend(&format!("a write could not be mirrored: {error}"));
                    return if self.mode() == Mode::Sealed { Err(StoreError::Stopped) } else { Ok(()) };
                }
            }
            at = end;
        }
        Ok(())
    }

    /// A write to both sides reached the primary only, and its host will be told to repeat it. Nobody knows whether
    /// the host does, so the sides are made equal again: where the secondary is held, its bytes are written to the
    /// primary. The caller has claimed `range`.
    fn restore_primary(&self, range: &Range<u64>) -> Result<(), StoreError> {
        let extents = touched(range.start, range.end - range.start);
        let (mut at, mut buffer) = (extents.start, Vec::new());
        let mut level = || {
            while at < extents.end {
                let (held, end) = self.held.read().run(at, extents.end);
                let bytes = self.bytes(&(at..end));
                let part = bytes.start.max(range.start)..bytes.end.min(range.end);
                if held {
                    #[allow(clippy::cast_possible_truncation)] // within one write
                    buffer.resize((part.end - part.start) as usize, 0);
                    self.secondary.read(part.start, &mut buffer, Patience::Wait)?;
                    self.primary.home().write(part.start, &buffer, Durability::Cached, Patience::Wait)?;
                }
                at = end;
            }
            Ok(())
        };
        level().inspect_err(|error: &StoreError| {
            self.suspend(&format!("a write that could not be mirrored could not be taken back: {error}"));
        })
    }

    fn flush_primary(&self) -> Result<(), StoreError> {
        if let Err(error) = self.primary.flush() {
            // The lost bytes may be older than the split, or be on the mirror.
            if matches!(self.mode(), Mode::Split | Mode::Mirror) {
                self.suspend(&format!("the primary could not be flushed: {error}"));
            }
            return Err(error);
        }
        match self.mode() {
            Mode::Mirror => {
                if let Err(error) = self.secondary.flush() {
                    self.suspend(&format!("the mirror could not be flushed: {error}"));
                }
                Ok(())
            }
            Mode::Closed => Err(StoreError::Stopped),
            Mode::Apart | Mode::Split | Mode::Stopped | Mode::Sealed => Ok(()),
        }
    }

    fn change_secondary(
        &self,
        change: Change<'_>,
        range: Range<u64>,
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.check(range.start, range.end - range.start)?;
        let _gate = self.pass_gate(patience)?;
        let extents = touched(range.start, range.end - range.start);
        match self.mode() {
            Mode::Apart => {}
            Mode::Split if self.held.read().contains_all(extents) => {}
            Mode::Split if patience == Patience::Now => return Err(StoreError::WouldBlock),
            Mode::Split => return self.change_split(change, range),
            Mode::Mirror => return Err(StoreError::ReadOnly(READ_ONLY)),
            Mode::Stopped | Mode::Sealed => return Err(self.refused()),
            Mode::Closed => return Err(StoreError::Stopped),
        }
        change.apply(&*self.secondary, range.start, range, patience)
    }

    /// Changes the secondary while extents of `range` may not be held. The extents at its edges are completed by
    /// fetching the rest. The extents that `range` covers as a whole need no old data: they are filled with the new
    /// data, and held from then on.
    fn change_split(&self, change: Change<'_>, range: Range<u64>) -> Result<(), StoreError> {
        let all = touched(range.start, range.end - range.start);
        let first = range.start.div_ceil(EXTENT);
        let last = if range.end == self.length { all.end } else { range.end / EXTENT };
        let whole = first.min(all.end)..last.max(first.min(all.end));
        for edge in [all.start..whole.start, whole.end..all.end] {
            self.fetch(edge)?;
        }
        let limit = match change {
            Change::Write(..) => CLAIM_EXTENTS,
            Change::Discard => u64::MAX,
        };
        let mut filled: Vec<Range<u64>> = Vec::new();
        while let Some(claim) = self.claim_absent(whole.clone(), limit) {
            for run in claim.runs() {
                // The extents are not held yet, so a failure here leaves the image as it was.
                change.apply(&*self.secondary, range.start, self.bytes(run), Patience::Wait)?;
            }
            match self.commit(claim.runs()) {
                Ok(()) => {}
                // The write does not count either: the extents are not held.
                Err(failure @ (Failure::NoRoom(_) | Failure::Short(_))) => return Err(failure.into()),
                Err(failure) => {
                    self.suspend(&failure.to_string());
                    return Err(self.refused());
                }
            }
            filled.extend_from_slice(claim.runs());
        }
        filled.sort_by_key(|run| run.start);
        let mut at = range.start;
        for run in filled.iter().map(|run| self.bytes(run)).chain(iter::once(range.end..range.end)) {
            if at < run.start {
                change.apply(&*self.secondary, range.start, at..run.start, Patience::Wait)?;
            }
            at = run.end;
        }
        Ok(())
    }

    /// Fetches extents of the split image to the secondary, for a caller that could do without.
    pub(super) fn fetch(&self, extents: Range<u64>) -> Result<(), StoreError> {
        match self.keep(extents) {
            KeepResult::Held => Ok(()),
            KeepResult::NotSplit => Err(self.refused()),
            KeepResult::NotYet(failure) => Err(failure.into()),
        }
    }

    /// Calls `read` until the epoch before and after the call is the same. The argument of `read` says what the mode
    /// makes of the secondary.
    fn read_consistently<T>(
        &self,
        mut read: impl FnMut(bool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let epoch = self.epoch();
            let outcome = match epoch.mode() {
                Mode::Apart | Mode::Mirror => read(false),
                Mode::Split => read(true),
                Mode::Stopped | Mode::Sealed => return Err(self.refused()),
                Mode::Closed => return Err(StoreError::Stopped),
            };
            if self.epoch() == epoch {
                return outcome;
            }
        }
    }

    /// Reads the split image: held extents from the secondary, others from the primary's home if they still are not
    /// held afterwards.
    fn read_split(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        let range = offset..offset + buffer.len() as u64;
        let extents = touched(offset, buffer.len() as u64);
        let mut at = extents.start;
        while at < extents.end {
            let (held, end) = self.held.read().run(at, extents.end);
            let bytes = self.bytes(&(at..end));
            let part = bytes.start.max(range.start)..bytes.end.min(range.end);
            #[allow(clippy::cast_possible_truncation)] // within `buffer`
            let target = &mut buffer[(part.start - offset) as usize..(part.end - offset) as usize];
            if held {
                self.secondary.read(part.start, target, patience)?;
            } else {
                self.primary.home().read(part.start, target, patience)?;
                if !self.held.read().contains_none(at..end) {
                    continue;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// The first run at or after `offset` where the split image may have data.
    fn next_data_split(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        let extents = self.extents();
        let mut at = offset;
        let mut runs = 0..RUNS_MAX;
        while at < self.length {
            if runs.next().is_none() {
                let end = at.saturating_add(EXTENT).min(self.length);
                return Ok(Some(at..end)); // it may hold data
            }
            let first = at / EXTENT;
            let (held, end) = self.held.read().run(first, extents.end);
            let side = if held { &*self.secondary } else { self.primary.home() };
            let data = side.next_data(at)?;
            if !held && !self.held.read().contains_none(first..end) {
                continue;
            }
            let limit = self.bytes(&(first..end)).end;
            if let Some(data) = data.filter(|data| data.start < limit) {
                return Ok(Some(data.start.max(at)..data.end.min(limit)));
            }
            at = limit;
        }
        Ok(None)
    }
}

impl Block for PrimarySide {
    fn block_size(&self) -> BlockSize {
        self.0.primary.block_size()
    }

    fn length(&self) -> u64 {
        self.0.length
    }

    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.primary.read(offset, buffer, patience)
    }

    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        let end = offset.saturating_add(data.len() as u64);
        self.0.change_primary(Change::Write(data, durability), &(offset..end), patience)
    }

    fn gathers(&self) -> bool {
        self.0.mode() == Mode::Split || self.0.primary.gathers()
    }

    fn write_together(&self, writes: &mut [Write<'_>]) {
        self.0.write_primary_together(writes);
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush_primary()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(length);
        self.0.change_primary(Change::Discard, &range, Patience::Wait)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.primary.next_data(offset)
    }
}

impl Block for SecondarySide {
    fn block_size(&self) -> BlockSize {
        self.0.secondary.block_size()
    }

    fn length(&self) -> u64 {
        self.0.length
    }

    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.check(offset, buffer.len() as u64)?;
        self.0.read_consistently(|split| {
            if split {
                self.0.read_split(offset, buffer, patience)
            } else {
                self.0.secondary.read(offset, buffer, patience)
            }
        })
    }

    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        let end = offset.saturating_add(data.len() as u64);
        self.0.change_secondary(Change::Write(data, durability), offset..end, patience)
    }

    fn flush(&self) -> Result<(), StoreError> {
        match self.0.mode() {
            Mode::Apart | Mode::Mirror => {}
            Mode::Split => self.0.flush_primary()?,
            Mode::Stopped | Mode::Sealed => return Err(self.0.refused()),
            Mode::Closed => return Err(StoreError::Stopped),
        }
        self.0.secondary.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(length);
        self.0.change_secondary(Change::Discard, range, Patience::Wait)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.read_consistently(|split| {
            if split { self.0.next_data_split(offset) } else { self.0.secondary.next_data(offset) }
        })
    }
}

impl fmt::Debug for PrimarySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "primary of {:?}", self.0)
    }
}

impl fmt::Debug for SecondarySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secondary of {:?}", self.0)
    }
}
