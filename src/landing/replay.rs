//! What a log says when it is opened: which segments count, and which of their entries have to be there.
//!
//! Nothing is read or written here. Entries that were not flushed may be lost in any order, and so may the first page
//! of a segment, so a gap is no damage by itself. Damage is what lacks although it was durable. That is known from
//!
//! * **the superblock**: an opening makes everything durable that it has found, and counts the segments. So below
//!   [`resumed`](Superblock::resumed) there are as many segments as the superblock says, and each is whole.
//! * **headers**: each write of a header, and each superblock, says up to which position all was durable. The first
//!   page of a segment is written before any of its entries, and segments of one life have consecutive numbers. So from
//!   `resumed` up to the highest such position no segment lacks, those before its own are whole, and its own is up to
//!   its index.
//!
//! A whole segment has as many entries as its header says, and nothing behind them.
//!
//! The intervals of the segments never descend. Each segment says its own, so whatever a power loss takes, what is left
//! belongs to the interval in which it landed.
//!
//! This cannot be told: damage of entries that a flush made durable, if after that flush no header was written, and no
//! superblock. A kill or a power loss in that moment leaves a log of which nobody has written down that it was durable.

use std::collections::BTreeSet;

use super::format::{Header, NoSuperblock, Position, Shape, Sheet, Superblock};

/// A segment that was found in a slot of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) slot: u32,
    pub(super) header: Header,
}

/// How much of a segment has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    /// All, as the header says.
    Whole,
    /// The entries up to this index.
    UpTo(usize),
}

/// A segment that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) found: Found,
    durable: Durable,
}

/// The sentence about a log that cannot be used, because of `why`.
fn unusable(why: &str) -> String {
    format!("the landing log cannot be used: {why}")
}

/// The superblock that counts, of the pages in the two slots.
pub(super) fn choose(pages: [&[u8]; 2], shape: &Shape) -> Result<Superblock, String> {
    let mut found = None::<Superblock>;
    for (number, page) in pages.into_iter().enumerate() {
        let superblock = Superblock::parse(page).map_err(|error| match error {
            NoSuperblock::Newer(version) => {
                unusable(&format!("it has version {version}, which this cleave is too old to read"))
            }
            NoSuperblock::Damaged => unusable(&format!("its superblock {number} is damaged")),
        })?;
        if superblock.shape.identity != shape.identity {
            return Err(unusable("it belongs to another volume"));
        }
        if superblock.shape.block_size != shape.block_size {
            return Err(unusable("the volume had another block size when the log was made"));
        }
        if superblock.counter % 2 != number as u64 {
            return Err(unusable(&format!("its superblock {number} is that of the other place")));
        }
        if found.is_none_or(|other| other.counter < superblock.counter) {
            found = Some(superblock);
        }
    }
    found.ok_or_else(|| unusable("it has no superblock"))
}

/// The segments that count, in the order of their sequence numbers.
pub(super) fn standing(superblock: &Superblock, found: Vec<Found>) -> Result<Vec<Standing>, String> {
    let counts = |found: &Found| {
        found.header.identity == superblock.shape.identity && found.header.sequence >= superblock.tail
    };
    let mut found: Vec<Found> = found.into_iter().filter(counts).collect();
    found.sort_by_key(|found| found.header.sequence);
    if let Some(twice) = found.windows(2).find(|two| two[0].header.sequence == two[1].header.sequence) {
        let (number, slots) = (twice[0].header.sequence, (twice[0].slot, twice[1].slot));
        return Err(unusable(&format!("segment {number} stands at {} and at {}", slots.0, slots.1)));
    }
    if let Some(two) = found.windows(2).find(|two| two[0].header.interval > two[1].header.interval) {
        let (number, intervals) = (two[1].header.sequence, (two[1].header.interval, two[0].header.interval));
        return Err(unusable(&format!(
            "segment {number} is of interval {}, and the one before it of interval {}",
            intervals.0, intervals.1
        )));
    }
    let durable = found.iter().map(|found| found.header.durable).chain([superblock.durable]).max();
    let durable = durable.unwrap_or_default();
    let sequences: BTreeSet<u64> = found.iter().map(|found| found.header.sequence).collect();
    let older = sequences.range(..superblock.resumed).count() as u64;
    if older != superblock.standing {
        let standing = superblock.standing;
        return Err(unusable(&format!(
            "of {standing} segments that it had when it was opened there are {older}"
        )));
    }
    let first = superblock.resumed.max(superblock.tail);
    let end = durable.sequence() + u64::from(durable.index() > 0);
    let there = sequences.range(first..end.max(first)).count() as u64;
    if there < end.saturating_sub(first) {
        return Err(unusable(&format!("segments from {first} to {end} were durable, and some are missing")));
    }
    Ok(found
        .into_iter()
        .map(|found| Standing { found, durable: demanded(superblock, durable, &found) })
        .collect())
}

fn demanded(superblock: &Superblock, durable: Position, found: &Found) -> Durable {
    let sequence = found.header.sequence;
    if sequence < superblock.resumed || sequence < durable.sequence() {
        Durable::Whole
    } else if sequence == durable.sequence() {
        Durable::UpTo(durable.index())
    } else {
        Durable::UpTo(0)
    }
}

impl Standing {
    /// The first page as it is to be, from `segment`, the bytes of the segment as far as its entries reach.
    pub(super) fn confirmed(&self, segment: &[u8], sectors: u64) -> Result<Sheet, String> {
        let Header { sequence, count, .. } = self.found.header;
        let sheet = Sheet::confirmed(self.found.header, segment, sectors);
        let (end, whole) = match self.durable {
            Durable::Whole => (usize::from(count), true),
            Durable::UpTo(end) => (end, false),
        };
        if let Some(index) = sheet.first_wrong(segment, end) {
            return Err(unusable(&format!("entry {index} of segment {sequence} was durable and is damaged")));
        }
        if whole && segment.get(..sheet.bytes().len()) != Some(sheet.bytes()) {
            return Err(unusable(&format!("segment {sequence} was durable, and its first page is damaged")));
        }
        Ok(sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Entry, Kind};
    use super::*;
    use crate::units::BlockSize;

    const SHAPE: Shape = Shape { identity: [7; 16], length: 1 << 30, block_size: BlockSize::B4096 };
    const SUPERBLOCK: Superblock = Superblock {
        shape: SHAPE,
        counter: 4,
        life: 2,
        tail: 3,
        resumed: 7,
        standing: 2,
        durable: Position::ZERO,
    };

    fn found(sequence: u64, durable: Position) -> Found {
        let header = Header { identity: [7; 16], sequence, life: 2, interval: 0, durable, count: 1 };
        Found { slot: sequence as u32, header }
    }

    fn with(sequences: &[u64], durable: Position) -> Result<Vec<(u64, Durable)>, String> {
        let found = sequences.iter().map(|sequence| found(*sequence, durable)).collect();
        let standing = standing(&SUPERBLOCK, found)?;
        Ok(standing.iter().map(|one| (one.found.header.sequence, one.durable)).collect())
    }

    #[test]
    fn of_the_two_superblocks_the_later_counts_and_damage_is_told() {
        let [even, odd] = [4, 5].map(|counter| Superblock { counter, ..SUPERBLOCK }.page());
        assert_eq!(choose([&even, &odd], &SHAPE).unwrap().counter, 5);
        let odd = Superblock { counter: 3, ..SUPERBLOCK }.page();
        assert_eq!(choose([&even, &odd], &SHAPE).unwrap().counter, 4);
        let say = |pages: [&[u8]; 2], shape: Shape| choose(pages, &shape).unwrap_err();
        assert!(say([&odd, &even], SHAPE).contains("the other place"));
        assert!(say([&even, &[0; 4096]], SHAPE).contains("superblock 1 is damaged"));
        assert!(say([&even, &odd], Shape { identity: [8; 16], ..SHAPE }).contains("another volume"));
        let block_size = BlockSize::B512;
        assert!(say([&even, &odd], Shape { block_size, ..SHAPE }).contains("another block size"));
        // The volume may have been resized since.
        assert_eq!(choose([&even, &odd], &Shape { length: 1 << 31, ..SHAPE }).unwrap().counter, 4);
    }

    #[test]
    fn segments_below_the_tail_do_not_count_and_gaps_count_only_where_nothing_was_durable() {
        use Durable::{UpTo, Whole};
        let zero = Position::ZERO;
        assert_eq!(with(&[9, 1, 5, 3, 2], zero).unwrap(), [(3, Whole), (5, Whole), (9, UpTo(0))]);
        assert_eq!(
            with(&[3, 5, 7, 8, 10], Position::new(8, 4)).unwrap(),
            [(3, Whole), (5, Whole), (7, Whole), (8, UpTo(4)), (10, UpTo(0))]
        );
        assert_eq!(with(&[3, 5, 7, 9], Position::new(8, 0)).unwrap().len(), 4);
        assert!(with(&[3, 5, 8], Position::new(8, 1)).unwrap_err().contains("from 7 to 9 were durable"));
        assert!(with(&[3, 5, 7, 9], Position::new(8, 1)).unwrap_err().contains("some are missing"));
        assert!(with(&[3, 7], zero).unwrap_err().contains("of 2 segments"));
        assert!(with(&[3, 4, 5], zero).unwrap_err().contains("there are 3"));
        assert!(with(&[3, 3], zero).unwrap_err().contains("stands at 3 and at 3"));
    }

    #[test]
    fn intervals_never_descend() {
        let with = |intervals: [u64; 3]| {
            let found = [3, 5, 9].into_iter().zip(intervals).map(|(sequence, interval)| {
                let found = found(sequence, Position::ZERO);
                Found { header: Header { interval, ..found.header }, ..found }
            });
            standing(&SUPERBLOCK, found.collect())
        };
        assert_eq!(with([0, 0, 0]).unwrap().len(), 3);
        assert_eq!(with([2, 2, 7]).unwrap().len(), 3);
        assert!(with([2, 7, 6]).unwrap_err().contains("segment 9 is of interval 6"));
    }

    #[test]
    fn what_was_durable_has_to_be_there() {
        let header = found(7, Position::ZERO).header;
        let mut sheet = Sheet::new(header);
        for sector in [0, 8, 16] {
            sheet.push(&Entry { sector, count: 8, kind: Kind::Zeros }, sheet.seal());
        }
        let found = Found { slot: 0, header: Header::parse(sheet.bytes()).unwrap() };
        let mut torn = sheet.bytes().to_vec();
        torn[80 + 16] ^= 1;
        let read = |durable, page: &[u8]| Standing { found, durable }.confirmed(page, 1 << 20);
        for durable in [Durable::Whole, Durable::UpTo(3), Durable::UpTo(0)] {
            assert_eq!(read(durable, sheet.bytes()).unwrap().bytes(), sheet.bytes());
        }
        assert_eq!(read(Durable::UpTo(1), &torn).unwrap().count(), 3);
        assert!(read(Durable::UpTo(2), &torn).unwrap_err().contains("entry 1 of segment 7"));
        assert!(read(Durable::Whole, &torn).unwrap_err().contains("entry 1"));
        let mut longer = sheet.bytes().to_vec();
        longer[4000] = 1;
        assert!(read(Durable::Whole, &longer).unwrap_err().contains("first page is damaged"));
        let mut shorter = sheet.bytes().to_vec();
        shorter[80 + 32..80 + 48].fill(0);
        assert!(read(Durable::Whole, &shorter).unwrap_err().contains("entry 2"));
    }
}
