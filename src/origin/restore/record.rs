//! The record of R: a file beside the pool, in which each piece of R has a sector of its own (docs/FORMATS.md).
//!
//! A sector is written whole or not at all, and has a checksum over the identity of the volume and its place. A piece of
//! which no extent was ever in R is a hole. The header says how many pieces there are, so one that is gone is damage, and
//! not taken for a piece without extents: a piece that has been emptied keeps its sector. All numbers are big-endian.
//!
//! The record counts from the owner's note on, so the order of writes before that is free: one flush at the end. From
//! then on extents only leave it. Each sector is written by one thread at a time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nom::number::complete::{be_u32, be_u64};
use nom::{IResult, Parser};
use parking_lot::{Mutex, RwLock};

use super::set::{self, Bits, Extents, PIECE, WORDS};
use crate::origin::EXTENT;
use crate::origin::format::{SECTOR, identity, sealed, unsealed};
use crate::store::{Durability, Patience, Store, StoreError};
use crate::wire::Put;

const MAGIC: &[u8; 8] = b"CLEAVERS";
const VERSION: u32 = 1;
/// Sectors that are read at once: 1 MiB.
const READ: usize = 1 << 20;

/// What a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The identity of the volume.
    pub(crate) identity: [u8; 16],
    /// Bytes of the volume.
    pub(crate) length: u64,
    /// The number of the image.
    pub(crate) image: u64,
}

impl Subject {
    pub(super) fn extents(&self) -> u64 {
        self.length.div_ceil(EXTENT)
    }
}

/// The record, and R itself.
#[derive(Debug)]
pub(super) struct Record {
    subject: Subject,
    /// Replaced by a whole new record, when the old store has stopped.
    store: RwLock<Arc<dyn Store>>,
    /// Held by whoever writes to the store. The pieces that have ever been written, and those that are to be written: both
    /// only of use before the record counts.
    writing: Mutex<Pieces>,
    set: RwLock<Extents>,
    /// How many extents were in R when the record began to count.
    total: AtomicU64,
    /// How often extents have left the record, and how many of these times have been flushed.
    left: AtomicU64,
    flushed: AtomicU64,
}

#[derive(Debug, Default)]
struct Pieces {
    written: BTreeSet<u64>,
    changed: BTreeSet<u64>,
}

fn offset(piece: u64) -> u64 {
    (piece + 1) * SECTOR as u64
}

fn header(subject: &Subject, total: u64, pieces: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.put_u32(VERSION);
    bytes.put_u32(0);
    bytes.put_slice(&subject.identity);
    bytes.put_u64(subject.length);
    bytes.put_u64(subject.image);
    bytes.put_u64(total);
    bytes.put_u64(pieces);
    sealed(bytes, &subject.identity, 0)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("the record of the restore is damaged: {what}"))
}

/// How many extents were in R, and how many pieces there are, by the header of a record that belongs to `subject`.
fn parse_header(bytes: &[u8], subject: &Subject) -> Result<(u64, u64), StoreError> {
    type Fields = (u32, u32, [u8; 16], u64, u64, u64, u64);
    fn fields(input: &[u8]) -> IResult<&[u8], Fields> {
        (be_u32, be_u32, identity, be_u64, be_u64, be_u64, be_u64).parse(input)
    }
    let broken = || damaged("its header is not what was written");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (_, (version, _, identity, length, image, total, pieces)) = fields(rest).map_err(|_| broken())?;
    unsealed(bytes, &identity, 0).map_err(|_| broken())?;
    if version != VERSION {
        let why = format!(
            "the record of the restore has version {version}, which this cleave is too old for: use a newer one"
        );
        return Err(StoreError::Corrupt(why));
    }
    match (Subject { identity, length, image }) == *subject {
        true => Ok((total, pieces)),
        false => Err(damaged("it belongs to another volume or snapshot")),
    }
}

/// The sector of `piece`. Its number is in it, so a piece without extents is no hole.
fn sector(subject: &Subject, piece: u64, bits: &Bits) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTOR);
    bits.iter().for_each(|word| bytes.put_u64(*word));
    bytes.put_u64(piece + 1);
    sealed(bytes, &subject.identity, offset(piece))
}

/// The bits of the sector `bytes` of `piece`; `None`: a hole.
fn parse_sector(bytes: &[u8], subject: &Subject, piece: u64) -> Result<Option<Bits>, StoreError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let broken = || damaged(&format!("sector {} is not what was written", piece + 1));
    let covered = unsealed(bytes, &subject.identity, offset(piece)).map_err(|_| broken())?;
    let (words, rest) = covered.as_chunks::<8>();
    let mut bits = [0; WORDS];
    for (bits, word) in bits.iter_mut().zip(words) {
        *bits = u64::from_be_bytes(*word);
    }
    let number = words.get(WORDS).map(|word| u64::from_be_bytes(*word));
    let mut beyond = bits;
    set::set(&mut beyond, &(0..subject.extents().saturating_sub(piece * PIECE).min(PIECE)), false);
    let is_sound = number == Some(piece + 1) && rest.iter().all(|byte| *byte == 0) && beyond == [0; WORDS];
    is_sound.then_some(Some(bits)).ok_or_else(broken)
}

impl Record {
    /// An empty record in `store`, whatever that contains. It is there with the first [`Self::save`].
    pub(super) fn create(store: Arc<dyn Store>, subject: Subject) -> Result<Self, StoreError> {
        store.resize(0)?;
        store.resize(offset(subject.extents().div_ceil(PIECE)))?;
        Ok(Self::empty(store, subject))
    }

    /// A record that is not in its `store` yet.
    pub(super) fn empty(store: Arc<dyn Store>, subject: Subject) -> Self {
        Self::over(store, subject, Extents::default(), 0, 0)
    }

    fn over(store: Arc<dyn Store>, subject: Subject, set: Extents, total: u64, left: u64) -> Self {
        Self {
            subject,
            store: RwLock::new(store),
            writing: Mutex::default(),
            set: RwLock::new(set),
            total: AtomicU64::new(total),
            left: AtomicU64::new(left),
            flushed: AtomicU64::new(0),
        }
    }

    /// Opens the record in `store`, which belongs to `subject`. What a killed daemon has left in the page cache counts as
    /// not flushed.
    pub(super) fn open(store: Arc<dyn Store>, subject: Subject) -> Result<Self, StoreError> {
        let pieces = subject.extents().div_ceil(PIECE);
        if store.length() < offset(pieces) {
            return Err(damaged(&format!("it was cut to {} bytes", store.length())));
        }
        let mut bytes = vec![0; SECTOR];
        store.read(0, &mut bytes, Patience::Wait)?;
        let (total, written) = parse_header(&bytes, &subject)?;
        let (mut set, mut found, mut at) = (Extents::default(), 0, offset(0));
        let (end, mut buffer) = (offset(pieces), vec![0; READ]);
        while let Some(data) = store.next_data(at)?.filter(|data| data.start < end) {
            let from = data.start - data.start % SECTOR as u64;
            let length = (data.end.min(end) - from).next_multiple_of(SECTOR as u64).min(READ as u64);
            #[allow(clippy::cast_possible_truncation)] // at most READ
            let bytes = &mut buffer[..length as usize];
            store.read(from, bytes, Patience::Wait)?;
            let first = from / SECTOR as u64 - 1;
            for (piece, bytes) in (first..).zip(bytes.chunks_exact(SECTOR)) {
                if let Some(bits) = parse_sector(bytes, &subject, piece)? {
                    set.put(piece, bits);
                    found += 1;
                }
            }
            at = from + length;
        }
        if found != written {
            return Err(damaged(&format!("it has {found} pieces, and had {written}")));
        }
        Ok(Self::over(store, subject, set, total.max(1), 1))
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// R.
    pub(super) fn set(&self) -> &RwLock<Extents> {
        &self.set
    }

    /// How many extents were in R.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Adds `run` to R, in memory. The record does not count yet.
    pub(super) fn add(&self, run: &Range<u64>) {
        let mut pieces = self.writing.lock();
        pieces.changed.extend(set::parts(run).map(|(piece, _)| piece));
        self.set.write().insert(run);
    }

    /// Makes R durable. The record does not count yet.
    pub(super) fn save(&self) -> Result<(), StoreError> {
        let mut pieces = self.writing.lock();
        for piece in &pieces.changed {
            let bits = self.set.read().piece(*piece);
            self.write(*piece, &bits)?;
        }
        let changed = std::mem::take(&mut pieces.changed);
        pieces.written.extend(changed);
        let total = self.set.read().count();
        self.total.store(total, Ordering::Relaxed);
        let header = header(&self.subject, total, pieces.written.len() as u64);
        let store = self.store();
        store.write(0, &header, Durability::Cached, Patience::Wait)?;
        store.flush()
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store.read())
    }

    /// Whether the store takes no writes any more, because a flush has failed.
    pub(super) fn has_stopped(&self) -> bool {
        self.store().stopped().is_some()
    }

    /// Makes the record anew in the empty `store`, whole and durable, and goes on there when `put` has given the store the place of the
    /// old one. R in memory is right whatever the old store has lost: of what has left R the volume has all bytes, durably.
    pub(super) fn renew(
        &self,
        store: Arc<dyn Store>,
        put: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        store.resize(offset(self.subject.extents().div_ceil(PIECE)))?;
        let set = self.set.read().clone();
        let left = self.left.load(Ordering::SeqCst);
        for (piece, bits) in set.pieces() {
            let bytes = sector(&self.subject, piece, bits);
            store.write(offset(piece), &bytes, Durability::Cached, Patience::Wait)?;
        }
        let header = header(&self.subject, self.total(), set.pieces().count() as u64);
        store.write(0, &header, Durability::Cached, Patience::Wait)?;
        store.flush()?;
        put()?;
        *self.store.write() = store;
        self.flushed.fetch_max(left, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, piece: u64, bits: &Bits) -> Result<(), StoreError> {
        let bytes = sector(&self.subject, piece, bits);
        self.store().write(offset(piece), &bytes, Durability::Cached, Patience::Wait)
    }

    /// Takes `runs` out of R. After an error all of them are still in R, and a restart may find some that are not: the caller
    /// has made sure that this does no harm.
    pub(super) fn clear(&self, runs: &[Range<u64>]) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        let mut at = None;
        for (piece, part) in runs.iter().flat_map(set::parts) {
            let bits = match at.take() {
                Some((same, bits)) if same == piece => bits,
                done => {
                    self.write_some(done)?;
                    self.set.read().piece(piece)
                }
            };
            let mut left = bits;
            set::set(&mut left, &part, false);
            at = Some((piece, left));
        }
        self.write_some(at)?;
        self.left.fetch_add(1, Ordering::SeqCst);
        let mut set = self.set.write();
        runs.iter().for_each(|run| set.remove(run));
        Ok(())
    }

    /// Writes a piece, if it was not so before.
    fn write_some(&self, piece: Option<(u64, Bits)>) -> Result<(), StoreError> {
        match piece {
            Some((piece, bits)) if self.set.read().piece(piece) != bits => self.write(piece, &bits),
            _ => Ok(()),
        }
    }

    /// Whether extents have left the record since its last flush.
    pub(super) fn is_behind(&self) -> bool {
        self.flushed.load(Ordering::SeqCst) < self.left.load(Ordering::SeqCst)
    }

    /// Makes what has left the record leave it durably.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let left = self.left.load(Ordering::SeqCst);
        if self.flushed.load(Ordering::SeqCst) < left {
            // No sector changes while the device takes it: a device may take a part of each content.
            let _writing = self.writing.lock();
            self.store().flush()?;
            self.flushed.fetch_max(left, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // sets of one run
mod tests {
    use super::*;
    use crate::store::MemStore;

    const SUBJECT: Subject = Subject { identity: [7; 16], length: (3 * PIECE - 5) * EXTENT + 512, image: 9 };

    fn record(runs: &[Range<u64>]) -> (Arc<MemStore>, Record) {
        let store = Arc::new(MemStore::new(0));
        let record = Record::create(Arc::clone(&store) as Arc<dyn Store>, SUBJECT).unwrap();
        runs.iter().for_each(|run| record.add(run));
        record.save().unwrap();
        (store, record)
    }

    fn found(store: &Arc<MemStore>, subject: Subject) -> Result<Vec<Range<u64>>, String> {
        let opened = Record::open(Arc::clone(store) as Arc<dyn Store>, subject);
        opened.map(|record| record.set.read().runs().collect()).map_err(|error| error.to_string())
    }

    fn flip(store: &MemStore, at: u64) {
        let mut byte = [0];
        store.read(at, &mut byte, Patience::Wait).unwrap();
        store.write(at, &[byte[0] ^ 1], Durability::Cached, Patience::Wait).unwrap();
    }

    #[test]
    fn what_was_saved_and_has_left_is_found_so() {
        let runs = [3..9, PIECE - 1..PIECE + 2, 3 * PIECE - 6..3 * PIECE - 4];
        let (store, record) = record(&runs);
        assert_eq!(found(&store, SUBJECT).unwrap(), runs);
        assert!(!record.is_behind() && record.total() == 11);
        record.clear(&[3..5, 7..9, PIECE - 1..PIECE + 2]).unwrap();
        assert!(record.is_behind());
        record.flush().unwrap();
        assert!(!record.is_behind());
        assert_eq!(found(&store, SUBJECT).unwrap(), [5..7, 3 * PIECE - 6..3 * PIECE - 4]);
        let again = Record::open(store as Arc<dyn Store>, SUBJECT).unwrap();
        assert_eq!((again.total(), again.is_behind()), (11, true), "nobody knows what is on the device");
    }

    #[test]
    fn a_record_that_is_made_anew_says_the_same_and_goes_on() {
        let (_, record) = record(&[3..9, PIECE - 1..PIECE + 2]);
        record.clear(&[3..9]).unwrap();
        let anew = Arc::new(MemStore::new(0));
        let refused = record.renew(Arc::new(MemStore::new(0)), || Err(StoreError::NoSpace));
        assert!(refused.is_err() && record.is_behind());
        record.renew(Arc::clone(&anew) as Arc<dyn Store>, || Ok(())).unwrap();
        assert!(!record.is_behind() && !record.has_stopped());
        assert_eq!(found(&anew, SUBJECT).unwrap(), [PIECE - 1..PIECE + 2]);
        record.clear(&[PIECE..PIECE + 1]).unwrap();
        assert_eq!(found(&anew, SUBJECT).unwrap(), [PIECE - 1..PIECE, PIECE + 1..PIECE + 2]);
        assert_eq!(record.total(), 9);
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let (store, _) = record(&[1..3, PIECE..PIECE + 1]);
        let mut bytes = vec![0; 2048];
        store.read(0, &mut bytes, Patience::Wait).unwrap();
        assert_eq!(bytes[..16], *b"CLEAVERS\0\0\0\x01\0\0\0\0");
        assert_eq!(bytes[16..32], [7; 16]);
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([32, 40, 48, 56].map(number), [SUBJECT.length, 9, 3, 2]);
        assert_eq!([512, 512 + 496, 1024, 1024 + 496].map(number), [6, 1, 1, 2]);
        assert_eq!(bytes[1536..], [0; 512], "a piece that never had an extent is a hole");
        assert_eq!(store.length(), 2048);
    }

    #[test]
    fn every_flipped_bit_and_every_missing_piece_is_damage() {
        let (store, _) = record(&[1..3, PIECE..PIECE + 1]);
        let sound = found(&store, SUBJECT).unwrap();
        for at in (0..1536).step_by(7) {
            flip(&store, at);
            found(&store, SUBJECT).unwrap_err();
            flip(&store, at);
        }
        assert_eq!(found(&store, SUBJECT).unwrap(), sound);
        flip(&store, 1536);
        found(&store, SUBJECT).unwrap_err();
        flip(&store, 1536);
        for other in [
            Subject { image: 8, ..SUBJECT },
            Subject { identity: [8; 16], ..SUBJECT },
            Subject { length: SUBJECT.length - 512, ..SUBJECT },
        ] {
            assert!(found(&store, other).unwrap_err().contains("another volume or snapshot"));
        }
        store.discard(1024, 512).unwrap();
        assert!(found(&store, SUBJECT).unwrap_err().contains("it has 1 pieces, and had 2"));
        store.resize(1024).unwrap();
        assert!(found(&store, SUBJECT).unwrap_err().contains("cut to 1024 bytes"));
    }

    #[test]
    fn extents_behind_the_end_of_the_volume_are_damage() {
        let (store, _) = record(&[1..3]);
        let mut bits = [0; WORDS];
        set::set(&mut bits, &(PIECE - 4..PIECE), true);
        let bytes = sector(&SUBJECT, 2, &bits);
        store.write(offset(2), &bytes, Durability::Cached, Patience::Wait).unwrap();
        assert!(found(&store, SUBJECT).unwrap_err().contains("sector 3 is not"));
    }
}
