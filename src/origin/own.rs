//! Writes of hosts to an image: they go to that image alone.
//!
//! The first write to an extent of an image gives the extent a slot of the image's own: the image's bytes, with the host's
//! merged in. Later writes go to the slot in place, and are as durable as writes to a volume. The image's own extent
//! wins over what was kept, for this image only; other images and the volume never see it.
//!
//! The order of a first write is that of keeping: bytes, flush, entry, flush, index. The host's own bytes would not need
//! the flushes, because a power loss may take an unflushed write. Its neighbours need them: an entry that is durable
//! before the slot's bytes are would show garbage where the host has written nothing. And the entry may not wait for the
//! host's next flush in memory alone, because a write that was answered survives a kill.
//!
//! A discard gives whole extents an entry for a hole, and of those that have a slot punches the slot. Where the image
//! has no data nothing happens, so discarding an empty image costs nothing. A write to a hole fills the hole's slot, whose
//! entry then says so in its old place: after a crash it is one or the other.

use std::ops::Range;

use super::index::{Content, Entry, Key, Kind, Place};
use super::keep::{MOVE, is_hole};
use super::pool::Pool;
use super::{EXTENT, Origin, touched};
use crate::store::{Durability, Patience, StoreError};

/// A change by a host.
pub(super) enum Change<'a> {
    Write { offset: u64, data: &'a [u8], durability: Durability },
    Discard,
}

impl Change<'_> {
    /// Puts the part `part` of the change over `target`.
    #[allow(clippy::cast_possible_truncation)] // within the data
    fn lay_over(&self, part: &Range<u64>, target: &mut [u8]) {
        match self {
            Self::Write { offset, data, .. } => {
                target.copy_from_slice(&data[(part.start - offset) as usize..(part.end - offset) as usize]);
            }
            Self::Discard => target.fill(0),
        }
    }
}

/// `range` cut at the borders of extents.
fn pieces(range: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let Range { start, end } = *range;
    touched(start, end - start)
        .map(move |extent| (extent, start.max(extent * EXTENT)..end.min((extent + 1) * EXTENT)))
}

impl Origin {
    /// Changes `range` of image `number`. The caller is inside.
    pub(super) fn change_image(
        &self,
        number: u64,
        change: &Change<'_>,
        range: Range<u64>,
        patience: Patience,
    ) -> Result<(), StoreError> {
        if patience == Patience::Now {
            // One call, so that nothing or all of it happens.
            let (extent, one) =
                (range.start / EXTENT, touched(range.start, range.end - range.start).count() == 1);
            let place = self.index.own(extent, number).filter(|place| one && place.is_filled());
            let place = place.ok_or(StoreError::WouldBlock)?;
            return self.change_slot(place.slot, change, range, patience);
        }
        let mut first = Vec::new();
        for (extent, part) in pieces(&range) {
            match self.index.own(extent, number) {
                Some(Place { slot, content: Content::Bytes }) => {
                    self.change_slot(slot, change, part, patience)?
                }
                _ => first.push((extent, part)),
            }
        }
        for some in first.chunks(MOVE) {
            self.change_first(&mut self.pool.lock(), number, change, some)?;
        }
        Ok(())
    }

    /// Changes the part `part` of an extent in its slot.
    fn change_slot(
        &self,
        slot: u64,
        change: &Change<'_>,
        part: Range<u64>,
        patience: Patience,
    ) -> Result<(), StoreError> {
        let at = slot * EXTENT + part.start % EXTENT;
        match change {
            Change::Write { offset, data, durability } => {
                #[allow(clippy::cast_possible_truncation)] // within the data
                let data = &data[(part.start - offset) as usize..(part.end - offset) as usize];
                self.slots.write(at, data, *durability, patience)
            }
            Change::Discard => self.slots.discard(at, part.end - part.start),
        }
    }

    /// Gives the extents of `parts` slots of their own.
    fn change_first(
        &self,
        pool: &mut Pool,
        number: u64,
        change: &Change<'_>,
        parts: &[(u64, Range<u64>)],
    ) -> Result<(), StoreError> {
        pool.repair()?;
        #[allow(clippy::cast_possible_truncation)] // 64 KiB
        const BYTES: usize = EXTENT as usize;
        // The former place of each extent, if it has one of its own: a hole.
        let (mut firsts, mut buffer) = (Vec::new(), Vec::new());
        for (extent, part) in parts {
            let place = self.index.own(*extent, number);
            if let Some(Place { slot, content: Content::Bytes }) = place {
                // Another writer was first.
                self.change_slot(slot, change, part.clone(), Patience::Wait)?;
                continue;
            }
            let (bytes, at) = (self.bytes(&(*extent..extent + 1)), buffer.len());
            buffer.resize(at + BYTES, 0);
            #[allow(clippy::cast_possible_truncation)] // within an extent
            let place_of = |from: u64| at + (from - bytes.start) as usize;
            if *part != bytes {
                self.read_image(number, bytes.start, &mut buffer[at..place_of(bytes.end)], Patience::Wait)?;
            }
            change.lay_over(part, &mut buffer[place_of(part.start)..place_of(part.end)]);
            firsts.push((*extent, place));
        }
        if firsts.is_empty() {
            return Ok(());
        }
        let holes: Vec<bool> = buffer.chunks(BYTES).map(is_hole).collect();
        let entries = self.places(pool, number, &firsts, &holes)?;
        if pool.has_become_nearly_full() {
            self.tell_nearly_full(pool);
        }
        let written =
            self.write_slots(&entries, &buffer, Durability::Cached).and_then(|()| pool.commit(&entries));
        if let Err(error) = written {
            for (entry, (_, place)) in entries.iter().zip(&firsts) {
                match place {
                    Some(_) if entry.place.is_filled() => pool.unfill(1),
                    Some(_) => {}
                    None => pool.give_back([entry.place]),
                }
            }
            return Err(error);
        }
        for entry in &entries {
            self.index.insert(entry);
            if entry.place.is_filled() {
                pool.counts.fill(number);
            }
        }
        Ok(())
    }

    /// An entry for each of `firsts`: in the slot of its hole if there is one, else in a new slot.
    fn places(
        &self,
        pool: &mut Pool,
        number: u64,
        firsts: &[(u64, Option<Place>)],
        holes: &[bool],
    ) -> Result<Vec<Entry>, StoreError> {
        let wanted = |is_hole: bool| {
            firsts.iter().zip(holes).filter(|((_, place), hole)| place.is_none() && **hole == is_hole).count()
        };
        let refilled =
            firsts.iter().zip(holes).filter(|((_, place), hole)| place.is_some() && !**hole).count();
        let (filled, empty) = pool.allocate(wanted(false), wanted(true))?;
        if let Err(error) = pool.fill(refilled) {
            pool.give_back(filled.into_iter().map(|slot| Place { slot, content: Content::Bytes }));
            pool.give_back(empty.into_iter().map(|slot| Place { slot, content: Content::Zeros }));
            return Err(error);
        }
        let (mut filled, mut empty) = (filled.into_iter(), empty.into_iter());
        let entry = |((extent, place), hole): (&(u64, Option<Place>), &bool)| {
            let slot = place.map(|place| place.slot);
            let slot = slot.or_else(|| if *hole { empty.next() } else { filled.next() })?;
            let key = Key { extent: *extent, kind: Kind::Own, number };
            Some(Entry { key, place: Place { slot, content: Content::of(*hole) } })
        };
        Ok(firsts.iter().zip(holes).filter_map(entry).collect())
    }

    /// Makes `range` of image `number` zeros. The caller is inside.
    pub(super) fn discard_of(&self, number: u64, range: Range<u64>) -> Result<(), StoreError> {
        let mut at = range.start;
        while let Some(data) = self.next_data_of(number, at)?.filter(|data| data.start < range.end) {
            // Whole extents as far as the host discards them: the rest of an extent would have to be kept.
            let start = (data.start / EXTENT * EXTENT).max(at);
            let end = data.end.next_multiple_of(EXTENT).min(range.end);
            self.change_image(number, &Change::Discard, start..end, Patience::Wait)?;
            at = end;
        }
        Ok(())
    }
}
