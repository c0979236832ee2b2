//! The bytes of a landing log, as docs/FORMATS.md describes them: superblock, header of a segment, entries.
//!
//! A superblock and the header of a segment are each within one sector, which a device writes whole or not at all. So a
//! page that does not parse is blank, foreign or damaged, and never half of a write. An entry is within one sector, too,
//! and its checksum covers the data: whatever a power loss leaves of the rest of the log, the entry counts or does not.
//! All numbers are big-endian.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};
use nom::bytes::complete::{tag, take};
use nom::combinator::verify;
use nom::number::complete::{be_u8, be_u16, be_u32, be_u64};
use nom::{IResult, Parser};

use crate::units::BlockSize;
use crate::wire::Put;

/// Bytes of a page of the log. A write takes whole pages of the log.
pub const PAGE: u64 = 4096;
/// Bytes of a segment: a page with the header and the entries, then pages of data.
pub const SEGMENT: u64 = 1 << 20;
/// Bytes that a device writes as a whole or not at all; the unit of entries.
pub(super) const SECTOR: u64 = 512;
/// Sectors of a page.
pub(super) const PAGE_SECTORS: u64 = PAGE / SECTOR;
/// Pages of data in a segment. Page 0 has the header.
pub(super) const DATA_PAGES: u64 = SEGMENT / PAGE - 1;
/// The most entries of a segment.
pub(super) const ENTRIES: usize = (PAGE as usize - HEADER) / ENTRY;
/// The most sectors of an entry that makes a range zeros, a multiple of a page's.
pub(super) const ZEROS_MAX: u64 = (1 << 16) - PAGE_SECTORS;
/// The longest volume: sectors have 48 bits.
pub(super) const LENGTH_MAX: u64 = (1 << 48) * SECTOR;

const VERSION: u32 = 1;
const SUPERBLOCK_MAGIC: &[u8; 8] = b"CLEAVELL";
const HEADER_MAGIC: &[u8; 8] = b"CLEAVELS";
/// Bytes of a segment's header and of an entry.
const HEADER: usize = 80;
const ENTRY: usize = 16;
/// Bytes of an entry before its checksum.
const FIELDS: usize = ENTRY - 4;

const KIND_DATA: u8 = 0;
const KIND_ZEROS: u8 = 1;
const KIND_VOID: u8 = 2;

/// The volume that a log belongs to. A log of another volume is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The identity of the log, made once.
    pub identity: [u8; 16],
    /// Length of the volume in bytes.
    pub length: u64,
    /// Logical block length of the volume.
    pub block_size: BlockSize,
}

/// The place of an entry in the order of all entries: the sequence number of its segment, and its index there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

impl Position {
    /// Before every entry.
    pub(super) const ZERO: Self = Self(0);

    pub(super) fn new(sequence: u64, index: usize) -> Self {
        debug_assert!(index <= ENTRIES);
        Self(sequence << 8 | index as u64)
    }

    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn sequence(self) -> u64 {
        self.0 >> 8
    }

    #[allow(clippy::cast_possible_truncation)] // eight bits
    pub(super) fn index(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

/// The highest sequence number, and the highest of the other counters, that a store may have: a [`Position`] has 56
/// bits for a sequence number, and no log lives to count so far.
pub(super) const COUNT_MAX: u64 = 1 << 55;

/// CRC32C of `bytes`.
#[allow(clippy::cast_possible_truncation)] // a 32-bit checksum in a u64
fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Where the log begins, and what its segments have to be. There are two, which take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) shape: Shape,
    /// Counts the superblocks of this log. The higher one counts; its parity says in which slot it stands.
    pub(super) counter: u64,
    /// Counts the openings of this log. An entry of an earlier life never counts in a segment of this one.
    pub(super) life: u64,
    /// The first sequence number that counts.
    pub(super) tail: u64,
    /// The first sequence number of this life. All entries of earlier ones are durable.
    pub(super) resumed: u64,
    /// How many segments there are from `tail` to `resumed`.
    pub(super) standing: u64,
    /// Everything before this position is durable.
    pub(super) durable: Position,
}

/// Why a page is no superblock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoSuperblock {
    /// Bytes that this program never wrote.
    Damaged,
    /// A superblock of this later version.
    Newer(u32),
}

impl Superblock {
    /// The offset of the slot for a superblock with this counter.
    pub(super) fn offset(counter: u64) -> u64 {
        counter % 2 * PAGE
    }

    pub(super) fn page(&self) -> Vec<u8> {
        let mut page = SUPERBLOCK_MAGIC.to_vec();
        page.put_u32(VERSION);
        page.put_u32(self.shape.block_size.bytes());
        page.put_u64(self.shape.length);
        page.put_slice(&self.shape.identity);
        for number in [self.counter, self.life, self.tail, self.resumed, self.standing, self.durable.bits()] {
            page.put_u64(number);
        }
        page.resize(SECTOR as usize - 4, 0);
        page.put_u32(crc(&page));
        page.resize(PAGE as usize, 0);
        page
    }

    pub(super) fn parse(page: &[u8]) -> Result<Self, NoSuperblock> {
        type Numbers = (u64, u64, u64, u64, u64, u64);
        fn fields(input: &[u8]) -> IResult<&[u8], (u32, u64, [u8; 16], Numbers)> {
            let (input, (block_size, length)) = (be_u32, be_u64).parse(input)?;
            let (input, identity) = identity(input)?;
            let (input, numbers) = (be_u64, be_u64, be_u64, be_u64, be_u64, be_u64).parse(input)?;
            Ok((input, (block_size, length, identity, numbers)))
        }
        let damaged = || NoSuperblock::Damaged;
        let sector = page.get(..SECTOR as usize).ok_or_else(damaged)?;
        let body = unsealed(sector, SUPERBLOCK_MAGIC).ok_or_else(damaged)?;
        let (version, rest) = body.split_first_chunk::<4>().ok_or_else(damaged)?;
        match u32::from_be_bytes(*version) {
            VERSION => {}
            newer => return Err(NoSuperblock::Newer(newer)),
        }
        let (_, (block_size, length, identity, numbers)) = fields(rest).map_err(|_| damaged())?;
        let block_size = BlockSize::try_from(block_size).map_err(|_| damaged())?;
        let (counter, life, tail, resumed, standing, durable) = numbers;
        let sound = [counter, life, tail, resumed].into_iter().all(|number| number <= COUNT_MAX);
        sound
            .then_some(Self {
                shape: Shape { identity, length, block_size },
                counter,
                life,
                tail,
                resumed,
                standing,
                durable: Position::of_bits(durable),
            })
            .ok_or_else(damaged)
    }
}

/// Sixteen bytes.
fn identity(input: &[u8]) -> IResult<&[u8], [u8; 16]> {
    let (input, bytes) = take(16usize).parse(input)?;
    Ok((input, bytes.try_into().unwrap_or_default()))
}

/// The bytes between magic and checksum, which ends `sealed`, if both are right.
fn unsealed<'a>(sealed: &'a [u8], magic: &[u8; 8]) -> Option<&'a [u8]> {
    let (covered, sum) = sealed.split_last_chunk::<4>()?;
    (crc(covered) == u32::from_be_bytes(*sum)).then_some(())?;
    covered.strip_prefix(magic)
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: [u8; 16],
    pub(super) sequence: u64,
    /// The life of the log in which the segment was begun.
    pub(super) life: u64,
    /// The interval to which the writes of the segment belong: the number of the youngest image when they landed, 0 if
    /// there was none.
    pub(super) interval: u64,
    /// Everything before this position was durable when the header was written.
    pub(super) durable: Position,
    /// How many entries followed when the header was written.
    pub(super) count: u16,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.identity);
        let numbers = [self.sequence, self.life, self.interval, self.durable.bits()];
        for (field, number) in bytes[32..64].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_be_bytes());
        }
        let sum = crc(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Parses the header at the beginning of a segment's first page. A page that does not parse is no segment.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        fn fields(input: &[u8]) -> IResult<&[u8], Header> {
            let (input, _) = tag(&VERSION.to_be_bytes()[..]).parse(input)?;
            let (input, (count, _)) =
                (verify(be_u16, |count| usize::from(*count) <= ENTRIES), be_u16).parse(input)?;
            let (input, identity) = identity(input)?;
            let (input, (sequence, life)) =
                (verify(be_u64, |sequence| *sequence <= COUNT_MAX), be_u64).parse(input)?;
            let (input, (interval, durable)) =
                (verify(be_u64, |interval| *interval <= COUNT_MAX), be_u64).parse(input)?;
            let durable = Position::of_bits(durable);
            Ok((input, Header { identity, sequence, life, interval, durable, count }))
        }
        fields(unsealed(page.get(..HEADER)?, HEADER_MAGIC)?).ok().map(|(_, header)| header)
    }
}

/// What an entry says of its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They have the data that begins in this page of the segment.
    Data(u8),
    /// They are zeros.
    Zeros,
    /// Nothing: the entry stands where one was that counts no more, or never counted.
    Void,
}

/// One landed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// First sector of the volume.
    pub(super) sector: u64,
    /// How many sectors; 0 of a void entry only.
    pub(super) count: u16,
    pub(super) kind: Kind,
}

impl Entry {
    pub(super) const VOID: Self = Self { sector: 0, count: 0, kind: Kind::Void };

    /// The sectors of the volume.
    pub(super) fn sectors(&self) -> Range<u64> {
        self.sector..self.sector + u64::from(self.count)
    }

    /// The sector of the segment where the data begins; 0 if the entry has none.
    pub(super) fn at(&self) -> u16 {
        match self.kind {
            Kind::Data(page) => u16::from(page) * PAGE_SECTORS as u16,
            Kind::Zeros | Kind::Void => 0,
        }
    }

    /// The bytes of the segment that have the data.
    #[allow(clippy::cast_possible_truncation)] // within a segment
    pub(super) fn data(&self) -> Range<usize> {
        match self.kind {
            Kind::Data(page) => {
                let start = usize::from(page) * PAGE as usize;
                start..start + usize::from(self.count) * SECTOR as usize
            }
            Kind::Zeros | Kind::Void => 0..0,
        }
    }

    fn fields(&self) -> [u8; FIELDS] {
        let (kind, page) = match self.kind {
            Kind::Data(page) => (KIND_DATA, page),
            Kind::Zeros => (KIND_ZEROS, 0),
            Kind::Void => (KIND_VOID, 0),
        };
        let mut fields = [0; FIELDS];
        fields[..6].copy_from_slice(&self.sector.to_be_bytes()[2..]);
        fields[6..8].copy_from_slice(&self.count.to_be_bytes());
        (fields[8], fields[9]) = (page, kind);
        fields
    }

    /// The entry with its checksum. `seal` has covered the data.
    fn bytes(&self, seal: Seal, index: usize) -> [u8; ENTRY] {
        let fields = self.fields();
        let mut bytes = [0; ENTRY];
        bytes[..FIELDS].copy_from_slice(&fields);
        bytes[FIELDS..].copy_from_slice(&seal.sum(&fields, index).to_be_bytes());
        bytes
    }

    /// The fields of an entry in a log of a volume of `sectors` sectors, and its checksum, which is to be compared.
    fn parse(bytes: &[u8], sectors: u64) -> Option<(Self, u32)> {
        type Fields = (u16, u32, u16, u8, u8, u16, u32);
        fn fields(input: &[u8]) -> IResult<&[u8], Fields> {
            (be_u16, be_u32, be_u16, be_u8, be_u8, be_u16, be_u32).parse(input)
        }
        let (_, (high, low, count, page, kind, rest, sum)) = fields(bytes).ok()?;
        let sector = u64::from(high) << 32 | u64::from(low);
        let kind = match (kind, page) {
            (KIND_DATA, 1..) => Kind::Data(page),
            (KIND_ZEROS, 0) => Kind::Zeros,
            (KIND_VOID, 0) => Kind::Void,
            _ => return None,
        };
        let entry = Self { sector, count, kind };
        let within = entry.sectors().end <= sectors && entry.data().end <= SEGMENT as usize;
        let fits = within && rest == 0 && if kind == Kind::Void { entry == Self::VOID } else { count > 0 };
        fits.then_some((entry, sum))
    }
}

/// The beginning of a checksum: the log, the life and the segment, and then the data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal(Digest);

impl Seal {
    pub(super) fn new(identity: &[u8; 16], life: u64, sequence: u64) -> Self {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(identity);
        digest.update(&life.to_be_bytes());
        digest.update(&sequence.to_be_bytes());
        Self(digest)
    }

    /// Covers `data`, too.
    pub(super) fn over(mut self, data: &[u8]) -> Self {
        self.0.update(data);
        self
    }

    #[allow(clippy::cast_possible_truncation)] // a 32-bit checksum in a u64; an index below ENTRIES
    fn sum(mut self, fields: &[u8; FIELDS], index: usize) -> u32 {
        let mut last = [0; FIELDS + 1];
        last[..FIELDS].copy_from_slice(fields);
        last[FIELDS] = index as u8;
        self.0.update(&last);
        self.0.finalize() as u32
    }
}

/// The first page of a segment: its header and entries.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    header: Header,
    seal: Seal,
    bytes: Box<[u8; PAGE as usize]>,
}

impl Sheet {
    /// A page without entries. The count in `header` is ignored.
    pub(super) fn new(header: Header) -> Self {
        let seal = Seal::new(&header.identity, header.life, header.sequence);
        let mut sheet =
            Self { header: Header { count: 0, ..header }, seal, bytes: Box::new([0; PAGE as usize]) };
        sheet.put_header();
        sheet
    }

    /// The beginning of the checksums in this segment.
    pub(super) fn seal(&self) -> Seal {
        self.seal
    }

    /// The interval to which the segment belongs.
    pub(super) fn interval(&self) -> u64 {
        self.header.interval
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..]
    }

    /// How many entries there are, void ones included.
    pub(super) fn count(&self) -> usize {
        usize::from(self.header.count)
    }

    fn put_header(&mut self) {
        self.bytes[..HEADER].copy_from_slice(&self.header.bytes());
    }

    #[allow(clippy::cast_possible_truncation)] // at most ENTRIES
    fn set_count(&mut self, count: usize) {
        self.header.count = count as u16;
        self.put_header();
    }

    fn slot(index: usize) -> Range<usize> {
        HEADER + index * ENTRY..HEADER + (index + 1) * ENTRY
    }

    /// Says in the header that everything before `durable` is durable.
    pub(super) fn vouch(&mut self, durable: Position) {
        self.header.durable = durable;
        self.put_header();
    }

    /// Appends an entry, whose data `seal` has covered; its index. There is room for it.
    pub(super) fn push(&mut self, entry: &Entry, seal: Seal) -> usize {
        let index = self.count();
        self.bytes[Self::slot(index)].copy_from_slice(&entry.bytes(seal, index));
        self.set_count(index + 1);
        index
    }

    /// Takes back the entries from `index` on.
    pub(super) fn truncate(&mut self, index: usize) {
        let end = Self::slot(self.count()).start;
        self.bytes[Self::slot(index).start..end].fill(0);
        self.set_count(index);
    }

    /// Makes the entries from `index` on void.
    pub(super) fn void(&mut self, indices: Range<usize>) {
        for index in indices {
            self.bytes[Self::slot(index)].copy_from_slice(&Entry::VOID.bytes(self.seal, index));
        }
    }

    /// The entries of this page, each with its index. The page is one that this process has made or confirmed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, Entry)> {
        let parse = |index| Some((index, Entry::parse(&self.bytes[Self::slot(index)], u64::MAX)?.0));
        (0..self.count()).filter_map(parse)
    }

    /// The page as it should be, from `segment`, the bytes of a segment as far as its entries reach, in a log of a
    /// volume of `sectors` sectors. Each entry that counts stays where it is; what does not count in front of it
    /// becomes void.
    pub(super) fn confirmed(header: Header, segment: &[u8], sectors: u64) -> Self {
        let mut sheet = Self::new(header);
        for index in 0..ENTRIES {
            let Some(bytes) = segment.get(Self::slot(index)) else { break };
            let Some((entry, sum)) = Entry::parse(bytes, sectors) else { continue };
            let Some(data) = segment.get(entry.data()) else { continue };
            if sheet.seal.over(data).sum(&entry.fields(), index) != sum {
                continue;
            }
            let before = sheet.count();
            sheet.set_count(index + 1);
            sheet.void(before..index);
            sheet.bytes[Self::slot(index)].copy_from_slice(bytes);
        }
        sheet
    }

    /// How many bytes of a segment have anything to do with the entries in its first page, `page`, wrong ones included.
    pub(super) fn reach(page: &[u8], sectors: u64) -> usize {
        let entries = (0..ENTRIES).filter_map(|index| Entry::parse(page.get(Self::slot(index))?, sectors));
        entries.map(|(entry, _)| entry.data().end).max().unwrap_or_default().max(PAGE as usize)
    }

    /// The first entry of `page` up to `end` that does not count, by comparison with this page, which is [confirmed](
    /// Sheet::confirmed) from the same bytes.
    pub(super) fn first_wrong(&self, page: &[u8], end: usize) -> Option<usize> {
        let same = |index: usize| {
            index < self.count()
                && page.get(Self::slot(index)).is_some_and(|bytes| *bytes == self.bytes[Self::slot(index)])
        };
        (0..end).find(|index| !same(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { identity: [7; 16], length: 1 << 50, block_size: BlockSize::B512 };
    const HEAD: Header =
        Header { identity: [7; 16], sequence: 5, life: 2, interval: 6, durable: Position(0x0403), count: 0 };
    const SECTORS: u64 = 1 << 41;

    #[test]
    fn a_superblock_is_literal() {
        let superblock = Superblock {
            shape: SHAPE,
            counter: 3,
            life: 2,
            tail: 4,
            resumed: 6,
            standing: 1,
            durable: Position::new(5, 9),
        };
        let page = superblock.page();
        assert_eq!(&page[..16], b"CLEAVELL\0\0\0\x01\0\0\x02\0");
        assert_eq!(&page[16..24], [0, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&page[24..40], [7; 16]);
        assert_eq!(&page[40..56], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(&page[56..72], [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(&page[72..88], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5, 9]);
        assert_eq!(page[508..512], crc(&page[..508]).to_be_bytes());
        assert!(page.len() == 4096 && page[512..].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::parse(&page), Ok(superblock));
        assert_eq!((Superblock::offset(6), Superblock::offset(7)), (0, 4096));
        for bit in 0..8 * 512 {
            let mut page = page.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::parse(&page), Err(NoSuperblock::Damaged), "bit {bit}");
        }
        let mut newer = page;
        newer[11] = 9;
        let sum = crc(&newer[..508]);
        newer[508..512].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Superblock::parse(&newer), Err(NoSuperblock::Newer(9)));
        assert_eq!(Superblock::parse(&[0; 4096]), Err(NoSuperblock::Damaged));
    }

    #[test]
    fn the_header_of_a_segment_is_literal_and_no_flipped_bit_is_believed() {
        let mut sheet = Sheet::new(HEAD);
        sheet.push(&Entry { sector: 8, count: 8, kind: Kind::Zeros }, sheet.seal());
        let page = sheet.bytes();
        assert_eq!(&page[..16], b"CLEAVELS\0\0\0\x01\0\x01\0\0");
        assert_eq!(&page[16..32], [7; 16]);
        assert_eq!(&page[32..48], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(&page[48..64], [0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 4, 3]);
        assert_eq!(&page[64..76], [0; 12]);
        assert_eq!(page[76..80], crc(&page[..76]).to_be_bytes());
        assert_eq!(Header::parse(page), Some(Header { count: 1, ..HEAD }));
        for bit in 0..8 * HEADER {
            let mut page = page.to_vec();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&page), None, "bit {bit}");
        }
    }

    /// A segment with one entry of data, and its bytes.
    fn segment() -> (Entry, Vec<u8>) {
        let entry = Entry { sector: 0x0001_0203_0405, count: 9, kind: Kind::Data(3) };
        let mut sheet = Sheet::new(HEAD);
        let data = vec![0xa5; 9 * 512];
        sheet.push(&entry, sheet.seal().over(&data));
        let mut segment = sheet.bytes().to_vec();
        segment.resize(3 * 4096, 0);
        segment.extend_from_slice(&data);
        (entry, segment)
    }

    #[test]
    fn an_entry_is_literal() {
        let (entry, segment) = segment();
        assert_eq!(&segment[80..92], [0, 1, 2, 3, 4, 5, 0, 9, 3, 0, 0, 0]);
        let covered = [
            &[7; 16][..],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &segment[3 * 4096..],
            &segment[80..92],
            &[0],
        ];
        assert_eq!(segment[92..96], crc(&covered.concat()).to_be_bytes());
        assert_eq!((entry.data(), entry.at()), (3 * 4096..3 * 4096 + 9 * 512, 24));
        assert_eq!(Sheet::reach(&segment, SECTORS), segment.len());
        let sheet = Sheet::confirmed(HEAD, &segment, SECTORS);
        assert_eq!(sheet.entries().collect::<Vec<_>>(), [(0, entry)]);
        assert_eq!(sheet.bytes(), &segment[..4096]);
    }

    #[test]
    fn an_entry_whose_bytes_or_data_differ_in_one_bit_does_not_count_and_neither_does_one_elsewhere() {
        let (entry, segment) = segment();
        let wrong =
            |header: Header, segment: &[u8], sectors| Sheet::confirmed(header, segment, sectors).count() == 0;
        for bit in (80 * 8..96 * 8).chain((3 * 4096 * 8..segment.len() * 8).step_by(97)) {
            let mut segment = segment.clone();
            segment[bit / 8] ^= 1 << (bit % 8);
            assert!(wrong(HEAD, &segment, SECTORS), "bit {bit}");
        }
        assert!(!wrong(HEAD, &segment, entry.sectors().end));
        assert!(wrong(HEAD, &segment, entry.sectors().end - 1));
        assert!(wrong(Header { sequence: 6, ..HEAD }, &segment, SECTORS));
        assert!(wrong(Header { life: 3, ..HEAD }, &segment, SECTORS));
        assert!(wrong(Header { identity: [8; 16], ..HEAD }, &segment, SECTORS));
        let mut moved = segment.clone();
        moved.copy_within(80..96, 96);
        moved[80..96].fill(0);
        assert!(wrong(HEAD, &moved, SECTORS));
    }

    #[test]
    fn what_was_lost_before_an_entry_becomes_void_where_it_stood() {
        let mut sheet = Sheet::new(HEAD);
        let zeros = |sector| Entry { sector, count: 8, kind: Kind::Zeros };
        for number in 0..4 {
            sheet.push(&zeros(number * 8), sheet.seal());
        }
        let mut page = sheet.bytes().to_vec();
        page[Sheet::slot(0)].fill(0);
        page[Sheet::slot(2).start + 3] ^= 1;
        page[Sheet::slot(3)].fill(0);
        let healed = Sheet::confirmed(HEAD, &page, SECTORS);
        assert_eq!(healed.count(), 2);
        assert_eq!(healed.entries().collect::<Vec<_>>(), [(0, Entry::VOID), (1, zeros(8))]);
        assert_eq!(healed.bytes()[Sheet::slot(1)], page[Sheet::slot(1)]);
        assert_eq!((healed.first_wrong(&page, 0), healed.first_wrong(&page, 2)), (None, Some(0)));
        let again = Sheet::confirmed(HEAD, healed.bytes(), SECTORS);
        assert_eq!(again.bytes(), healed.bytes());
        assert_eq!(
            (again.first_wrong(healed.bytes(), 2), again.first_wrong(healed.bytes(), 3)),
            (None, Some(2))
        );
    }

    #[test]
    fn entries_that_are_taken_back_leave_no_trace() {
        let mut sheet = Sheet::new(HEAD);
        let zeros = Entry { sector: 8, count: 8, kind: Kind::Zeros };
        sheet.push(&zeros, sheet.seal());
        let before = sheet.bytes().to_vec();
        sheet.push(&zeros, sheet.seal());
        sheet.push(&zeros, sheet.seal());
        sheet.truncate(1);
        assert_eq!(sheet.bytes(), before);
    }
}
