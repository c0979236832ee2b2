//! The volume as hosts see it: what has landed from the log, the rest from home.
//!
//! A reader takes no lock during I/O. It looks a piece up, reads it, and then checks that its slot still has the segment
//! of the look-up. [`Batch::end`](super::batch::Batch::end) forgets a segment before its slot is free, and a slot gets its
//! new number before the first byte of the new segment. So bytes that pass the check are those of the look-up; otherwise
//! the reader looks again, and finds a later write or the bytes at home.
//!
//! A reader of home needs no check. A block that had not landed at the look-up has its last answered write at home.
//! Bytes come home only of what has landed, so whatever comes home there meanwhile landed after the look-up, while
//! the reader read. The look-up comes before home is asked, because what is forgotten in between is at home already.
//!
//! **With several intervals** a look-up sees all of them at one moment ([`super::map`]), and takes the youngest write of a
//! block. So "had not landed" means: in no interval; and home goes forward only, because the intervals come home in
//! their order, and a block that waits in a younger one is read there, whatever comes home meanwhile. Both rules hold as
//! they are.
//!
//! **As of an image** the look-up leaves out the image's own interval and the later ones. What it finds landed before
//! the image, and is checked like any other find. What it does not find has its last write from before the image at
//! home, because the map forgets only what is there. Home is the image's as long as nothing of the image's own interval
//! or of a later one has overwritten it: these come home after all of the earlier ones, and only when the keepers have
//! kept what is there. So the caller asks its index *after* the read: what is not kept then was not overwritten before.

use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

use super::format::SECTOR;
use super::log::{Landing, offset as segment_offset};
use super::map::{EVERY, EXTENT, Landed, Place};
use crate::store::{Patience, StoreError, check_range};
use crate::volume::Block;

/// A search for data skips at most so many runs of zeros, so that it does not keep the caller for ever.
const SKIPS: u32 = 4096;

impl Landing {
    /// Whether any part of `range`, in bytes, has landed.
    #[must_use]
    pub fn touches(&self, range: &Range<u64>) -> bool {
        self.map.first(range.start / SECTOR..range.end.div_ceil(SECTOR), EVERY).is_some()
    }

    /// Fills `buffer` from `offset` with the volume as hosts see it.
    ///
    /// # Errors
    /// Those of the log's store, and of `home`.
    pub fn read(
        &self,
        home: &dyn Block,
        offset: u64,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.read_as_of(EVERY, home, offset, buffer, patience)
    }

    /// The same with what landed in the intervals before `number` only: the image `number`, as far as nothing later has
    /// been written home.
    ///
    /// # Errors
    /// Those of the log's store, and of `home`.
    pub fn read_as_of(
        &self,
        number: u64,
        home: &dyn Block,
        offset: u64,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<(), StoreError> {
        check_range(offset, buffer.len() as u64, home.length())?;
        let end = (offset + buffer.len() as u64) / SECTOR;
        let mut at = offset / SECTOR;
        let part = |sectors: Range<u64>| {
            within(sectors.start * SECTOR - offset)..within(sectors.end * SECTOR - offset)
        };
        while at < end {
            let landed = self.map.first_piece(at..end, number);
            let until = landed.as_ref().map_or(end, |landed| landed.sectors.start);
            if until > at {
                home.read(at * SECTOR, &mut buffer[part(at..until)], patience)?;
                at = until;
                continue; // meanwhile more may have landed, and what was found may have come home
            }
            let Some(landed) = landed else { break };
            if self.read_piece(&landed.place, &mut buffer[part(landed.sectors.clone())], patience)? {
                at = landed.sectors.end;
            }
        }
        Ok(())
    }

    /// Fills `buffer` from `place`. Whether the segment there is still the one that the place means.
    pub(super) fn read_piece(
        &self,
        place: &Place,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<bool, StoreError> {
        if place.is_zeros() {
            buffer.fill(0);
            return Ok(true);
        }
        if self.failed.load(Ordering::SeqCst) && self.store.stopped().is_none() {
            // The store has been reinstated, and shows what the device has: another write's bytes, perhaps.
            return Err(StoreError::Stopped);
        }
        let at = segment_offset(place.slot) + u64::from(place.at) * SECTOR;
        let read = self.store.read(at, buffer, patience);
        fence(Ordering::SeqCst);
        let sequence = self.in_slot.get(place.slot);
        if sequence != place.position.sequence() && !matches!(read, Err(StoreError::WouldBlock)) {
            return Ok(false);
        }
        read.map(|()| true)
    }

    /// The first extent of 64 KiB, at or after the one of `offset`, of which something is in the log that landed in
    /// `intervals`: its bytes.
    #[must_use]
    pub fn next_landed(&self, intervals: &Range<u64>, offset: u64) -> Option<Range<u64>> {
        const BYTES: u64 = EXTENT * SECTOR;
        self.map.extent_in(offset / BYTES, intervals).map(|extent| extent * BYTES..(extent + 1) * BYTES)
    }

    /// The first run of bytes at or after `offset` that may hold data, as hosts see the volume. The run begins at
    /// `offset` at the earliest, and may be cut at its end. `None` when the rest reads as zeros. May wait.
    ///
    /// # Errors
    /// Those of `home`.
    pub fn next_data(&self, home: &dyn Block, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.next_data_as_of(EVERY, home, offset)
    }

    /// The same with what landed in the intervals before `number` only.
    ///
    /// # Errors
    /// Those of `home`.
    pub fn next_data_as_of(
        &self,
        number: u64,
        home: &dyn Block,
        offset: u64,
    ) -> Result<Option<Range<u64>>, StoreError> {
        let (mut at, end) = (offset, home.length());
        for _ in 0..SKIPS {
            let landed =
                self.map.first(at / SECTOR..end / SECTOR, number).map(|landed| in_bytes(&landed, at));
            let data = home.next_data(at)?;
            match (landed, data) {
                (None, data) => return Ok(data),
                (Some((landed, _)), Some(data)) if data.start < landed.start => {
                    return Ok(Some(data.start..data.end.min(landed.start)));
                }
                (Some((landed, true)), _) => at = landed.end,
                (Some((landed, false)), _) => return Ok(Some(landed)),
            }
        }
        Ok((at < end).then(|| at..end.min(at + EXTENT * SECTOR)))
    }
}

/// The bytes of `landed` from `at` on, and whether they are zeros.
fn in_bytes(landed: &Landed, at: u64) -> (Range<u64>, bool) {
    let sectors = &landed.sectors;
    ((sectors.start * SECTOR).max(at)..sectors.end * SECTOR, landed.place.is_zeros())
}

#[allow(clippy::cast_possible_truncation)] // within a buffer
fn within(bytes: u64) -> usize {
    bytes as usize
}
