//! The pair record: which relation runs and which extents the secondary holds, durable before anything relies on it.
//!
//! Two homes (stores) take turns. The current one is a page of header, a page for a suspension, and a log of frames
//! that only grows. Invariants, and the order of writes that keeps them:
//!
//! * **The current home is the one with a valid header of the highest sequence number.** A rewrite first takes the
//!   header of the other home away and flushes, then writes slot and frames there and flushes, then writes the header
//!   with the next sequence number and flushes. That header page is the one flip: before it the old home stands whole,
//!   after it the new one does. Then it takes the old home's header away, so that damage to the new one can never bring
//!   an older log back, which knows less than is held. A crash may leave the old header; the next rewrite overwrites
//!   its log only after it is gone.
//! * **A frame counts only in its own log**: it carries the home's sequence number, so what an earlier use of the store
//!   left behind the end is never read as its continuation. Each opening rewrites, or, on a full device, goes on only
//!   with a log that has nothing of its own behind its end, so a torn end is never written over in part.
//! * **A torn end is told from damage.** Power loss may tear or drop what was not flushed, in any order, and nothing
//!   relied on that. Every frame says up to where the log was durable when it was written: if a valid frame behind the
//!   first invalid place says that place was durable, bytes that were relied on are gone, and the record is refused.
//! * **A suspension needs no new space.** Its slot was written with the header, so a full device can still take the
//!   page. A slot that does not parse was being written, and suspends.

use std::sync::Arc;

use super::bitmap::{ExtentSet, Piece};
use super::format::{
    Entry, FRAME_ALIGN, FRAME_HEADER, FRAMES_OFFSET, Frame, Header, NoHeader, PAGE, PAYLOAD_MAX, RUNS_MAX,
    SUSPENSION_OFFSET, Shape, Standing, Suspension,
};
use super::state::State;
use crate::store::{Durability, Patience, Store, StoreError};

/// The store grows by this much at a time.
const GROWTH: u64 = 1 << 20;
/// The log is rewritten when it has grown by this and to twice its length after the last rewrite.
const REWRITE_MIN: u64 = 1 << 20;

/// The two stores of a record.
pub type Homes = [Arc<dyn Store>; 2];

/// What a record said when it was opened.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) standing: Standing,
    pub(super) held: ExtentSet,
    /// Why the pair was suspended, if it was.
    pub(super) suspended: Option<String>,
    /// Where the log ends.
    end: u64,
    /// Behind the end stand frames that nothing relied on.
    torn: bool,
}

/// The record, open for appending. One owner at a time: the pair keeps it under a lock.
#[derive(Debug)]
pub(super) struct Record {
    homes: Homes,
    shape: Shape,
    current: usize,
    sequence: u64,
    /// Where the next frame goes.
    end: u64,
    /// Everything before this offset is durable.
    durable: u64,
    /// Where the log ended after the last rewrite, or after the last one that failed.
    baseline: u64,
    /// A rewrite failed in a way that leaves open which home counts.
    ambiguous: bool,
    /// Behind the end stand frames that nothing relied on: it must not be appended to.
    torn: bool,
    standing: Standing,
    suspended: Option<String>,
}

impl Record {
    /// Makes a new record, in both stores, whatever they held.
    pub(super) fn create(homes: Homes, shape: Shape, standing: Standing) -> Result<Self, StoreError> {
        for home in &homes {
            grow(&**home, FRAMES_OFFSET)?;
            home.write(0, &vec![0; FRAMES_OFFSET as usize], Durability::Cached, Patience::Wait)?;
            home.flush()?;
        }
        let mut record = Self::at(homes, shape, 1, 0, standing);
        record.rewrite(&ExtentSet::new(0))?;
        Ok(record)
    }

    fn at(homes: Homes, shape: Shape, current: usize, sequence: u64, standing: Standing) -> Self {
        Self {
            homes,
            shape,
            current,
            sequence,
            end: FRAMES_OFFSET,
            durable: FRAMES_OFFSET,
            baseline: 0,
            ambiguous: false,
            torn: false,
            standing,
            suspended: None,
        }
    }

    /// Reads the record of the pair `shape`. Nothing is written; [`Record::resume`] must follow before an append.
    pub(super) fn open(homes: Homes, shape: Shape, extents: u64) -> Result<(Self, Replayed), StoreError> {
        let headers = [header_of(&*homes[0])?, header_of(&*homes[1])?];
        for header in &headers {
            match header {
                Err(NoHeader::Newer(version)) => {
                    return Err(corrupt(format!(
                        "it has version {version}, which this cleave is too old to read"
                    )));
                }
                Ok(header) if header.shape != shape => {
                    return Err(corrupt("it belongs to another pair, or the volumes changed size".into()));
                }
                _ => {}
            }
        }
        let sequence = |index: usize| headers[index].as_ref().ok().map(|header| header.sequence);
        let current = match (sequence(0), sequence(1)) {
            (None, None) => return Err(corrupt("neither of its stores has a valid header".into())),
            (first, second) => usize::from(second > first),
        };
        let chosen = sequence(current).unwrap_or_default();
        let replayed = replay(&*homes[current], chosen, extents)?;
        let mut record = Self::at(homes, shape, current, chosen, replayed.standing);
        record.suspended.clone_from(&replayed.suspended);
        (record.end, record.durable) = (replayed.end, replayed.end);
        record.torn = replayed.torn;
        Ok((record, replayed))
    }

    /// Where the relation stands, as last appended.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Appends `standing`, durably.
    pub(super) fn append_standing(&mut self, standing: Standing) -> Result<(), StoreError> {
        self.append(vec![Entry::Standing(standing)])?;
        self.standing = standing;
        Ok(())
    }

    /// Appends that the secondary holds `runs`, durably. The caller has flushed the secondary.
    pub(super) fn append_runs(&mut self, runs: &[std::ops::Range<u64>]) -> Result<(), StoreError> {
        let generation = self.standing.generation;
        self.append(
            runs.chunks(RUNS_MAX).map(|runs| Entry::Runs { generation, runs: runs.to_vec() }).collect(),
        )
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if self.ambiguous {
            return Err(StoreError::Stopped);
        }
        let mut bytes = Vec::new();
        for entry in entries {
            Frame { sequence: self.sequence, durable: self.durable, entry }.put(&mut bytes);
        }
        let home = &*self.homes[self.current];
        grow(home, self.end + bytes.len() as u64)?;
        home.write(self.end, &bytes, Durability::Cached, Patience::Wait)?;
        home.flush()?;
        self.end += bytes.len() as u64;
        self.durable = self.end;
        Ok(())
    }

    /// Records, without taking new space, that the pair is suspended.
    pub(super) fn suspend(&mut self, reason: &str) -> Result<(), StoreError> {
        if self.ambiguous {
            return Err(StoreError::Stopped);
        }
        let page = Suspension { sequence: self.sequence, reason: Some(reason.to_owned()) }.page();
        let home = &*self.homes[self.current];
        home.write(SUSPENSION_OFFSET, &page, Durability::Cached, Patience::Wait)?;
        home.flush()?;
        self.suspended = Some(reason.to_owned());
        Ok(())
    }

    /// Writes the record anew with `standing`, no extents and no suspension.
    pub(super) fn restart(&mut self, standing: Standing) -> Result<(), StoreError> {
        let before = (self.standing, self.suspended.take());
        self.standing = standing;
        let rewritten = self.rewrite(&ExtentSet::new(0));
        if rewritten.is_err() {
            (self.standing, self.suspended) = before;
        }
        rewritten
    }

    /// Writes the record anew with `standing` and `held`: what follows an opening. On a full device a split goes on
    /// with the log as it stands, where that is whole: its image is worth more than the shorter log.
    pub(super) fn resume(&mut self, standing: Standing, held: &ExtentSet) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut self.standing, standing);
        let same = (before.state, before.generation) == (standing.state, standing.generation);
        let mirror = matches!(standing.state, State::Copy | State::Pair);
        match self.rewrite(held) {
            Err(error) if same && !mirror && !self.torn && !self.ambiguous => {
                tracing::warn!(%error, "a pair record could not be written anew; its log goes on");
                self.put_off_rewrite();
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the log has grown enough to be written anew.
    pub(super) fn is_long(&self) -> bool {
        self.end > self.baseline.saturating_mul(2).max(self.baseline + REWRITE_MIN)
    }

    /// Puts off the next rewrite after one that failed and left the current home standing.
    pub(super) fn put_off_rewrite(&mut self) {
        self.baseline = self.end;
    }

    /// Writes the standing and `held` anew to the other home and goes over to it. On an error the current home still
    /// stands, or the record refuses every append.
    pub(super) fn rewrite(&mut self, held: &ExtentSet) -> Result<(), StoreError> {
        let (other, sequence) = (1 - self.current, self.sequence + 1);
        let home = &*self.homes[other];
        grow(home, FRAMES_OFFSET)?;
        retire(home)?;
        let slot = Suspension { sequence, reason: self.suspended.clone() }.page();
        home.write(SUSPENSION_OFFSET, &slot, Durability::Cached, Patience::Wait)?;
        let end = self.write_frames(home, sequence, held)?;
        home.flush()?;
        let header = Header { sequence, shape: self.shape }.page();
        let flipped = home.write(0, &header, Durability::Cached, Patience::Wait).and_then(|()| home.flush());
        if let Err(error) = flipped {
            self.ambiguous = true;
            return Err(error);
        }
        let former = std::mem::replace(&mut self.current, other);
        self.sequence = sequence;
        (self.end, self.durable, self.baseline) = (end, end, end);
        self.torn = false;
        if let Err(error) = retire(&*self.homes[former]) {
            tracing::warn!(%error, "the former home of a pair record could not be retired");
        }
        let spare = home.length().saturating_sub(end.next_multiple_of(PAGE));
        if spare > GROWTH {
            // Only space: what stands behind the end is of an earlier sequence and never read.
            if let Err(error) = home.discard(end.next_multiple_of(PAGE), spare) {
                tracing::debug!(%error, "the tail of a pair record could not be given back");
            }
        }
        Ok(())
    }

    fn write_frames(&self, home: &dyn Store, sequence: u64, held: &ExtentSet) -> Result<u64, StoreError> {
        let generation = self.standing.generation;
        let mut out = Vec::new();
        let mut put = |entry| Frame { sequence, durable: FRAMES_OFFSET, entry }.put(&mut out);
        put(Entry::Standing(self.standing));
        let mut runs = Vec::new();
        held.pieces(&mut |piece| match piece {
            Piece::Run(run) => {
                runs.push(run);
                if runs.len() == RUNS_MAX {
                    put(Entry::Runs { generation, runs: std::mem::take(&mut runs) });
                }
            }
            Piece::Leaf(leaf, bits) => put(Entry::Leaf { generation, leaf, bits: Box::new(*bits) }),
        });
        if !runs.is_empty() {
            put(Entry::Runs { generation, runs });
        }
        let end = FRAMES_OFFSET + out.len() as u64;
        grow(home, end)?;
        home.write(FRAMES_OFFSET, &out, Durability::Cached, Patience::Wait)?;
        Ok(end)
    }
}

fn corrupt(why: String) -> StoreError {
    StoreError::Corrupt(format!("the pair record cannot be used: {why}; restore it, or delete the pair"))
}

/// Makes `store` at least `length` bytes long.
fn grow(store: &dyn Store, length: u64) -> Result<(), StoreError> {
    if store.length() < length { store.resize(length.next_multiple_of(GROWTH)) } else { Ok(()) }
}

fn header_of(store: &dyn Store) -> Result<Result<Header, NoHeader>, StoreError> {
    if store.length() < FRAMES_OFFSET {
        return Ok(Err(NoHeader::Blank));
    }
    let mut page = vec![0; PAGE as usize];
    store.read(0, &mut page, Patience::Wait)?;
    Ok(Header::parse(&page))
}

/// Takes the header away, durably.
fn retire(home: &dyn Store) -> Result<(), StoreError> {
    home.write(0, &[0; PAGE as usize], Durability::Cached, Patience::Wait)?;
    home.flush()
}

/// The frame at `offset`, with where it ends.
fn frame_at(store: &dyn Store, offset: u64, sequence: u64) -> Result<Option<(Frame, u64)>, StoreError> {
    let room = store.length().saturating_sub(offset);
    if room < FRAME_HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; FRAME_HEADER];
    store.read(offset, &mut bytes, Patience::Wait)?;
    let Some(length) = Frame::length(&bytes).filter(|length| *length as u64 <= room) else {
        return Ok(None);
    };
    bytes.resize(length, 0);
    store.read(offset, &mut bytes, Patience::Wait)?;
    Ok(Frame::parse(&bytes)
        .filter(|frame| frame.sequence == sequence)
        .map(|frame| (frame, offset + length as u64)))
}

fn replay(store: &dyn Store, sequence: u64, extents: u64) -> Result<Replayed, StoreError> {
    let mut standing: Option<Standing> = None;
    let mut held = ExtentSet::new(extents);
    let mut offset = FRAMES_OFFSET;
    while let Some((frame, end)) = frame_at(store, offset, sequence)? {
        let fits = match frame.entry {
            Entry::Standing(next) => {
                if standing.is_none_or(|last| last.generation != next.generation) {
                    held.clear();
                }
                standing = Some(next);
                true
            }
            Entry::Runs { generation, runs } => {
                let fits = standing.is_some_and(|standing| standing.generation == generation)
                    && runs.iter().all(|run| run.end <= extents);
                if fits {
                    runs.into_iter().for_each(|run| held.insert(run));
                }
                fits
            }
            Entry::Leaf { generation, leaf, bits } => {
                standing.is_some_and(|standing| standing.generation == generation)
                    && held.insert_bits(leaf, &bits).is_some()
            }
        };
        if !fits {
            return Err(corrupt(format!("the frame at {offset} does not fit what precedes it")));
        }
        offset = end;
    }
    let behind = durable_behind(store, offset, sequence)?;
    if behind.is_some_and(|durable| durable > offset) {
        return Err(corrupt(format!("its log is damaged at {offset}")));
    }
    let standing = standing.ok_or_else(|| corrupt("its log holds no state".into()))?;
    let mut slot = vec![0; PAGE as usize];
    store.read(SUSPENSION_OFFSET, &mut slot, Patience::Wait)?;
    let suspended = match Suspension::parse(&slot) {
        Some(slot) if slot.sequence == sequence => slot.reason,
        _ => Some("the pair was being suspended when the array stopped".to_owned()),
    };
    Ok(Replayed { standing, held, suspended, end: offset, torn: behind.is_some() })
}

/// Up to where the valid frames behind `gap` say that the log was durable; `None` if there are none.
fn durable_behind(store: &dyn Store, gap: u64, sequence: u64) -> Result<Option<u64>, StoreError> {
    const CHUNK: usize = 1 << 20;
    const _: () = assert!(CHUNK > PAYLOAD_MAX);
    let (mut at, mut durable) = (gap, None);
    while let Some(data) = store.next_data(at)? {
        at = data.start.max(at).next_multiple_of(FRAME_ALIGN);
        let mut chunk = vec![0; CHUNK.min(data.end.saturating_sub(at) as usize)];
        store.read(at, &mut chunk, Patience::Wait)?;
        for (index, header) in chunk.chunks_exact(FRAME_ALIGN as usize).enumerate() {
            if Frame::length(header).is_some() {
                let found = frame_at(store, at + index as u64 * FRAME_ALIGN, sequence)?;
                durable = durable.max(found.map(|(frame, _)| frame.durable));
            }
        }
        at += (chunk.len() as u64).max(FRAME_ALIGN);
    }
    Ok(durable)
}
