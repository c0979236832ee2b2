//! Landing several writes together: their data by one call to the store, their entries by one write of the first page.
//!
//! The laws are those of a single write. The data is in the store before the entries are, each entry has the checksum of
//! its own data, and the map is told last. The entries get consecutive indexes in the order of the writes, and one write
//! of the page publishes all of them or fails for all. A power loss may take each of them alone, as it may take entries
//! that were written one by one. So nothing that reads a log can tell how its writes came.
//!
//! Nothing here waits. A group that cannot land at once has not landed at all, and its writes come one by one.

use super::format::{ENTRIES, Entry, Kind, LENGTH_MAX, PAGE, SECTOR};
use super::land::{Part, WHOLE_PAGES};
use super::log::{Active, Landing, Log, lock, offset};
use crate::store::{Patience, StoreError, TOGETHER, check_range};
use crate::volume::{SMALL_WRITE, Write};

/// A write of a group is never cut in two, and a group is never empty.
const _: () = assert!(SMALL_WRITE as u64 <= WHOLE_PAGES * PAGE && SMALL_WRITE <= TOGETHER);

const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

impl Landing {
    /// Lands `writes` in their order, as far as that is possible without waiting, and marks those that have landed.
    /// The others have not. Offsets and lengths are multiples of the volume's block size.
    pub(super) fn land_together(&self, writes: &mut [&mut Write<'_>]) {
        let mut rest = writes;
        while !rest.is_empty() {
            let Ok(landed @ 1..) = self.land_group(rest) else { return };
            let (first, others) = rest.split_at_mut(landed);
            first.iter_mut().for_each(|write| write.done = true);
            rest = others;
        }
    }

    /// Lands those at the beginning of `writes` that have room in one segment; how many.
    fn land_group(&self, writes: &[&mut Write<'_>]) -> Result<usize, StoreError> {
        self.check_clean(Patience::Now)?;
        if !writes.first().is_some_and(|write| lands(write)) {
            return Ok(0);
        }
        let Some((part, count)) = self.take_for(&mut *lock(&self.log, Patience::Now)?, writes)? else {
            return Ok(0);
        };
        let writes = &writes[..count];
        let (mut pieces, mut entries) = (Vec::with_capacity(2 * count), Vec::with_capacity(count));
        let mut page = part.page;
        for write in writes {
            entries.push((entry(write, page), part.segment.seal.over(write.data)));
            pieces.push(write.data);
            let rest = write.data.len() % PAGE as usize;
            if rest > 0 {
                pieces.push(&ZEROS[rest..]);
            }
            page += pages(write);
        }
        let at = offset(part.segment.slot) + part.page * PAGE;
        let published = self
            .store
            .write_parts(at, &pieces, Patience::Now)
            .inspect_err(|_| self.give_back(&part, Patience::Now))
            .and_then(|()| {
                self.publish(&part, &entries, Patience::Now).inspect_err(|error| {
                    if matches!(error, StoreError::WouldBlock) {
                        self.give_back(&part, Patience::Now);
                    }
                })
            });
        for (index, (entry, _)) in (published?..).zip(&entries) {
            self.tell_map(&part, entry, index);
        }
        Ok(count)
    }

    /// Takes room in one segment for as many of `writes`, from the first one on, as the segment has room for; `None` if
    /// there is none.
    fn take_for(
        &self,
        log: &mut Log,
        writes: &[&mut Write<'_>],
    ) -> Result<Option<(Part<'_>, usize)>, StoreError> {
        let mut fitting = log.active.as_ref().map_or((0, 0), |active| fitting_in(active, writes));
        if fitting.0 == 0 {
            if !self.begin_segment(log, Patience::Now)? {
                return Ok(None);
            }
            fitting = log.active.as_ref().map_or((0, 0), |active| fitting_in(active, writes));
        }
        let (count, pages) = fitting;
        let active = log.active.as_mut().filter(|_| count > 0);
        Ok(active.map(|active| (self.part(active, pages, count), count)))
    }
}

/// How many of `writes`, from the first one on, have room, and how many pages they take.
fn fitting_in(active: &Active, writes: &[&mut Write<'_>]) -> (usize, u64) {
    let (mut count, mut taken) = (0, 0);
    for write in writes.iter().take(ENTRIES - active.entries) {
        let all = taken + pages(write);
        if !lands(write) || all > active.room() || all * PAGE > TOGETHER as u64 {
            break;
        }
        (count, taken) = (count + 1, all);
    }
    (count, taken)
}

fn lands(write: &Write<'_>) -> bool {
    (1..=SMALL_WRITE).contains(&write.data.len())
        && check_range(write.offset, write.data.len() as u64, LENGTH_MAX).is_ok()
}

fn pages(write: &Write<'_>) -> u64 {
    (write.data.len() as u64).div_ceil(PAGE)
}

#[allow(clippy::cast_possible_truncation)] // within a segment
fn entry(write: &Write<'_>, page: u64) -> Entry {
    Entry {
        sector: write.offset / SECTOR,
        count: (write.data.len() as u64 / SECTOR) as u16,
        kind: Kind::Data(page as u8),
    }
}
