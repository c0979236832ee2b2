//! The bytes of a pair record, as docs/FORMATS.md describes them: header, suspension slot, frames.
//!
//! Bytes from a store become a [`Header`], [`Suspension`], [`Closing`] or [`Frame`] only by a right checksum, a
//! matching sequence number and a complete parse. All numbers are big-endian.
//!
//! Three versions are read, and version 3 is the one that is written. Since version 2 the header says how long the log
//! was at that time, and a page of its own closes the log. One sector decides whether a header is valid, and one
//! sector decides it for a closing. So a device that writes a sector whole or not at all leaves the old page or the
//! new one. A header of version 1 has its checksum in another sector and can be torn. Since version 3 a frame says to
//! which sets it adds extents; before, there was one set.

use std::ops::Range;
use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use jiff::Timestamp;
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, map_opt, verify};
use nom::multi::many0;
use nom::number::complete::{be_i64, be_u8, be_u16, be_u32, be_u64};
use nom::{IResult, Parser};

use super::bitmap::Bits;
use super::sets::SetMask;
use super::state::State;
use crate::store::{Store, StoreError};
use crate::wire::Put;

/// The length of a record store is a multiple of this.
pub(super) const GROWTH: u64 = 1 << 20;
/// Length of the header and of the suspension slot: one page, written at once.
pub(super) const PAGE: u64 = 4096;
/// Offset of the suspension slot.
pub(super) const SUSPENSION_OFFSET: u64 = PAGE;
/// Offset of the closing, from version 2 on.
pub(super) const CLOSING_OFFSET: u64 = 2 * PAGE;
/// Bytes that a device writes as a whole or not at all.
pub(super) const SECTOR: u64 = 512;
/// Frames start at multiples of this offset.
pub(super) const FRAME_ALIGN: u64 = 32;
/// Bytes of a frame before its payload.
pub(super) const FRAME_HEADER: usize = 32;
/// Longest payload of a frame.
pub(super) const PAYLOAD_MAX: usize = 64 << 10;
/// The longest sentence in the suspension slot.
pub(super) const REASON_MAX: usize = 1024;
const HEADER_MAGIC: &[u8; 8] = b"CLEAVEPR";
const SUSPENSION_MAGIC: &[u8; 8] = b"CLEAVESU";
const CLOSING_MAGIC: &[u8; 8] = b"CLEAVECL";
const FRAME_MAGIC: u32 = u32::from_be_bytes(*b"PRfr");

/// The end of a header's fields in version 1: zeros follow.
const FIELDS_END: usize = 48;

const KIND_STATE: u8 = 1;
const KIND_RUNS: u8 = 2;
const KIND_LEAF: u8 = 3;
const KIND_MARK: u8 = 4;
/// Numbers 5 to 7 are free for more frames like those before.
const KIND_PREPARED: u8 = 8;

/// The most runs in a frame.
pub(super) const RUNS_MAX: usize = 4000;
const _: () = assert!(RUNS_MAX * 16 + 8 <= PAYLOAD_MAX);

/// Identifies one split of several pairs. It is drawn at random and never used again.
pub(crate) type SplitIdentity = [u8; 16];

/// Tells whether the split of several pairs with this identity was decided ([`super::group`]). An error: nobody knows now.
pub(crate) type Decided<'a> = &'a dyn Fn(SplitIdentity) -> Result<bool, StoreError>;

/// The two stores of a record.
pub type RecordStores = [Arc<dyn Store>; 2];

/// The names of the two record stores, as files and in messages.
pub(crate) const RECORD_NAMES: [&str; 2] = ["record.0", "record.1"];

/// CRC32C of `bytes`.
#[allow(clippy::cast_possible_truncation)] // a 32-bit checksum in a u64
fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The pair that a record belongs to. A record of other volumes is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The pair's identity, made once by the creator of the pair.
    pub(super) identity: [u8; 16],
    /// Length of either side in bytes.
    pub(super) length: u64,
    /// Extent size in bytes.
    pub(super) extent: u32,
}

/// The layout of a record store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The header does not say how long the log is; the last state frame says whether the pair was closed.
    One,
    /// The header says how long the log was; a page of its own closes the log. A frame adds to the held extents only.
    Two,
    /// A frame says to which sets it adds.
    Three,
}

impl Version {
    /// The version that is written.
    pub(super) const LATEST: Self = Self::Three;

    /// The offset of the first frame.
    pub(super) const fn frames(self) -> u64 {
        match self {
            Self::One => 2 * PAGE,
            Self::Two | Self::Three => 3 * PAGE,
        }
    }

    /// Whether the header has the end of the log, marks vouch for the last frame, and a page of its own closes the log.
    pub(super) fn has_closing(self) -> bool {
        self != Self::One
    }

    /// The sets that a log of this version can name.
    pub(super) fn sets(self) -> SetMask {
        match self {
            Self::One | Self::Two => SetMask::HELD,
            Self::Three => SetMask::ALL,
        }
    }

    /// Whether a log of this version may have prepared frames.
    pub(super) fn has_prepared(self) -> bool {
        self == Self::Three
    }

    /// The byte of a frame that names `sets`.
    fn sets_byte(self, sets: SetMask) -> u8 {
        debug_assert_eq!(sets.within(self.sets()), Some(sets));
        if self == Self::Three { sets.bits() } else { 0 }
    }

    /// The sets that `byte` of a frame names.
    fn sets_of(self, byte: u8) -> Option<SetMask> {
        match self {
            Self::One | Self::Two => (byte == 0).then_some(SetMask::HELD),
            Self::Three => SetMask::from_bits(byte),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// The offset of a header's checksum, which covers all bytes before it.
    fn sum_at(self) -> usize {
        match self {
            Self::One => PAGE as usize - 4,
            Self::Two | Self::Three => SECTOR as usize - 4,
        }
    }
}

/// The header of one record store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) sequence: u64,
    pub(super) shape: Shape,
    /// The log was whole and durable up to this offset when the header was written.
    pub(super) end: u64,
}

/// Why a page is not a valid header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// The page is blank: a header was removed, or never written.
    Blank,
    /// A header of version 1 whose writing or removal was interrupted, or which is damaged; these cannot be told
    /// apart.
    Torn,
    /// Bytes that this program never wrote.
    Damaged,
    /// A header of this later version.
    Newer(u32),
}

impl Header {
    pub(super) fn page(&self) -> Vec<u8> {
        let mut page = HEADER_MAGIC.to_vec();
        page.put_u32(self.version.number());
        page.put_u32(self.shape.extent);
        page.put_u64(self.sequence);
        page.put_u64(self.shape.length);
        page.put_slice(&self.shape.identity);
        if self.version.has_closing() {
            page.put_u64(self.end);
        }
        let mut page = sealed(page, self.version.sum_at());
        page.resize(PAGE as usize, 0);
        page
    }

    pub(super) fn parse(page: &[u8]) -> Result<Self, NoHeader> {
        type Fields = (u32, u64, u64, [u8; 16], u64);
        fn fields(input: &[u8]) -> IResult<&[u8], Fields> {
            let (input, (extent, sequence, length)) = (be_u32, be_u64, be_u64).parse(input)?;
            let (input, identity) = take(16usize).parse(input)?;
            let (input, end) = be_u64(input)?;
            Ok((input, (extent, sequence, length, identity.try_into().unwrap_or_default(), end)))
        }
        let first = page.get(..SECTOR as usize).ok_or(NoHeader::Damaged)?;
        if first.iter().all(|byte| *byte == 0) {
            return Err(NoHeader::Blank);
        }
        let number = first.strip_prefix(HEADER_MAGIC).and_then(|rest| rest.first_chunk::<4>());
        let number = number.map(|number| u32::from_be_bytes(*number)).ok_or(NoHeader::Damaged)?;
        let (version, damaged) = match number {
            // Its first sector is whole, so zeros follow the fields. Without them it may be version 3 with a flipped bit.
            1 if first[FIELDS_END..].iter().all(|byte| *byte == 0) => (Version::One, NoHeader::Torn),
            1 => (Version::One, NoHeader::Damaged),
            2 => (Version::Two, NoHeader::Damaged),
            3 => (Version::Three, NoHeader::Damaged),
            // A later version may have its checksum anywhere. Both offsets are tried before the page counts as
            // damaged.
            newer => {
                let sound =
                    [Version::One, Version::LATEST].map(|like| unsealed(page, HEADER_MAGIC, like.sum_at()));
                let sound = sound.iter().any(Option::is_some);
                return Err(if sound { NoHeader::Newer(newer) } else { NoHeader::Damaged });
            }
        };
        let Some(body) = unsealed(page, HEADER_MAGIC, version.sum_at()) else { return Err(damaged) };
        let Ok((_, (extent, sequence, length, identity, end))) = fields(&body[4..]) else {
            return Err(NoHeader::Damaged);
        };
        let end = if version.has_closing() { end } else { version.frames() };
        Ok(Self { version, sequence, shape: Shape { identity, length, extent }, end })
    }
}

/// The page that says that the pair was closed in order, and where its log ends. It is overwritten in place, like the
/// suspension, so that a full device can take it. Blank while the pair is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) sequence: u64,
    pub(super) end: u64,
}

impl Closing {
    pub(super) fn page(self) -> Vec<u8> {
        let mut page = CLOSING_MAGIC.to_vec();
        page.put_u64(self.sequence);
        page.put_u64(self.end);
        let mut page = sealed(page, SECTOR as usize - 4);
        page.resize(PAGE as usize, 0);
        page
    }

    /// Parses a closing. A page that does not parse closes nothing. This is the safe reading: the copy of a mirror
    /// begins anew.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        fn fields(input: &[u8]) -> IResult<&[u8], Closing> {
            let (input, (sequence, end)) = (be_u64, be_u64).parse(input)?;
            Ok((input, Closing { sequence, end }))
        }
        fields(unsealed(page, CLOSING_MAGIC, SECTOR as usize - 4)?).ok().map(|(_, closing)| closing)
    }
}

/// The suspension slot. It is preallocated, so that a pair can be suspended when the device is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspension {
    pub(super) sequence: u64,
    pub(super) slot: Slot,
}

/// What the suspension slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing.
    Blank,
    /// The pair is suspended, and why.
    Suspended(String),
    /// The pair is not suspended, but changes could not be recorded: every extent counts as changed and as written.
    Untracked(String),
}

impl Slot {
    /// The byte that says which, and the text.
    fn encoded(&self) -> (u8, &str) {
        match self {
            Self::Blank => (0, ""),
            Self::Suspended(reason) => (1, reason),
            Self::Untracked(reason) => (2, reason),
        }
    }
}

impl Suspension {
    pub(super) fn page(&self) -> Vec<u8> {
        let (byte, reason) = self.slot.encoded();
        let mut cut = reason.len().min(REASON_MAX);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut page = SUSPENSION_MAGIC.to_vec();
        page.put_u64(self.sequence);
        page.put_u8(byte);
        #[allow(clippy::cast_possible_truncation)] // at most REASON_MAX
        page.put_u16(cut as u16);
        page.put_slice(&reason.as_bytes()[..cut]);
        sealed(page, PAGE as usize - 4)
    }

    /// Parses a suspension. The writing of a slot that does not parse was interrupted, so the slot suspends. This is
    /// the safe reading.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        fn fields(input: &[u8]) -> IResult<&[u8], Suspension> {
            let (input, (sequence, set, length)) = (be_u64, be_u8, be_u16).parse(input)?;
            let (input, reason) = take(length).parse(input)?;
            let reason = || String::from_utf8_lossy(reason).into_owned();
            let slot = match set {
                0 => Slot::Blank,
                2 => Slot::Untracked(reason()),
                _ => Slot::Suspended(reason()),
            };
            Ok((input, Suspension { sequence, slot }))
        }
        fields(unsealed(page, SUSPENSION_MAGIC, PAGE as usize - 4)?).ok().map(|(_, suspension)| suspension)
    }
}

/// Fills `page` up to the checksum of all bytes before, which ends it.
fn sealed(mut page: Vec<u8>, sum_at: usize) -> Vec<u8> {
    debug_assert!(page.len() <= sum_at);
    page.resize(sum_at, 0);
    page.put_u32(crc(&page));
    page
}

/// The bytes between magic and checksum, if both are right.
fn unsealed<'a>(page: &'a [u8], magic: &[u8; 8], sum_at: usize) -> Option<&'a [u8]> {
    let (covered, rest) = page.split_at_checked(sum_at)?;
    (rest.get(..4)? == crc(covered).to_be_bytes()).then_some(())?;
    covered.strip_prefix(magic)
}

/// The state of the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelationState {
    /// Counts the relations of this pair. Extents of an earlier relation do not count as held.
    pub(super) generation: u64,
    pub(super) state: State,
    /// Both sides were closed in order, so a mirror is still a mirror. Only in a frame of version 1; later versions
    /// close by a [`Closing`].
    pub(super) clean: bool,
    pub(super) split_at: Option<Timestamp>,
}

impl RelationState {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.generation);
        out.put_u8(self.state.code());
        out.put_u8(u8::from(self.clean));
        out.put_u8(u8::from(self.split_at.is_some()));
        let micros = self.split_at.map_or(0, |at| at.as_microsecond());
        out.put_slice(&micros.to_be_bytes());
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    RelationState(RelationState),
    /// These extents are in the sets now.
    Runs {
        generation: u64,
        sets: SetMask,
        runs: Vec<Range<u64>>,
    },
    /// The extents of leaf `leaf` whose bits are set are in the sets.
    Leaf {
        generation: u64,
        sets: SetMask,
        leaf: u64,
        bits: Box<Bits>,
    },
    /// The state after a split of several pairs. It counts as a state from here on if that split was decided, which is
    /// known elsewhere ([`super::group`]), and not at all otherwise.
    Prepared {
        split: SplitIdentity,
        standing: RelationState,
    },
    /// No contents of its own: only says, as every frame does, up to where the log is durable. Stands behind the last
    /// frame that matters, for which no later frame vouches.
    Mark,
}

/// An entry, with its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// Sequence number of the record store for which the frame was written.
    pub(super) sequence: u64,
    /// The log was durable up to this offset when the frame was written.
    pub(super) durable: u64,
    pub(super) entry: Entry,
}

impl Frame {
    /// Appends the frame, as a log of `version` has it, to `out`, padded to [`FRAME_ALIGN`]. The version must be able to
    /// name the sets of the entry.
    pub(super) fn put(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(FRAME_MAGIC);
        out.put_u32(0);
        out.put_u64(self.sequence);
        out.put_u64(self.durable);
        let (kind, payload) = self.entry.encoded();
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        out.put_u8(kind);
        out.put_u8(self.entry.sets().map_or(0, |sets| version.sets_byte(sets)));
        out.put_zeros(2);
        #[allow(clippy::cast_possible_truncation)] // at most PAYLOAD_MAX
        out.put_u32(payload.len() as u32);
        out.put_slice(&payload);
        let sum = crc(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&sum.to_be_bytes());
        out.resize(start + (out.len() - start).next_multiple_of(FRAME_ALIGN as usize), 0);
    }

    /// Parses the frame of a log of `version` in exactly these bytes.
    pub(super) fn parse(version: Version, bytes: &[u8]) -> Option<Self> {
        let header = UncheckedHeader::parse(version, bytes)?;
        let covered = bytes.get(8..FRAME_HEADER + header.payload)?;
        (crc(covered) == header.sum).then_some(())?;
        let entry = Entry::parse(header.kind, header.sets, &bytes[FRAME_HEADER..][..header.payload])?;
        Some(Self { sequence: header.sequence, durable: header.durable, entry })
    }
}

/// The first [`FRAME_HEADER`] bytes of a frame, which no checksum has confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UncheckedHeader {
    pub(super) sequence: u64,
    pub(super) durable: u64,
    /// Length of the whole frame, padding included.
    pub(super) length: usize,
    sum: u32,
    kind: u8,
    sets: Option<SetMask>,
    /// Length of the payload.
    payload: usize,
}

impl UncheckedHeader {
    /// The header of the frame of a log of `version` that may begin with these bytes.
    pub(super) fn parse(version: Version, header: &[u8]) -> Option<Self> {
        type Fields = (u32, u64, u64, u8, u8, u32);
        fn fields(input: &[u8]) -> IResult<&[u8], Fields> {
            let (input, (_, sum)) = (verify(be_u32, |magic| *magic == FRAME_MAGIC), be_u32).parse(input)?;
            let (input, (sequence, durable)) = (be_u64, be_u64).parse(input)?;
            let (input, (kind, sets, _)) = (be_u8, be_u8, take(2usize)).parse(input)?;
            let (input, payload) = verify(be_u32, |length| *length as usize <= PAYLOAD_MAX).parse(input)?;
            Ok((input, (sum, sequence, durable, kind, sets, payload)))
        }
        let (_, (sum, sequence, durable, kind, sets, payload)) = fields(header).ok()?;
        let sets = match kind {
            KIND_RUNS | KIND_LEAF => Some(version.sets_of(sets)?),
            KIND_STATE | KIND_MARK if sets == 0 => None,
            KIND_PREPARED if sets == 0 && version.has_prepared() => None,
            _ => return None,
        };
        let payload = payload as usize;
        let length = (FRAME_HEADER + payload).next_multiple_of(FRAME_ALIGN as usize);
        Some(Self { sequence, durable, length, sum, kind, sets, payload })
    }
}

impl Entry {
    /// The sets to which the entry adds.
    fn sets(&self) -> Option<SetMask> {
        match self {
            Self::Runs { sets, .. } | Self::Leaf { sets, .. } => Some(*sets),
            Self::RelationState(_) | Self::Prepared { .. } | Self::Mark => None,
        }
    }

    fn encoded(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let kind = match self {
            Self::RelationState(standing) => {
                standing.put(&mut out);
                KIND_STATE
            }
            Self::Prepared { split, standing } => {
                out.put_slice(split);
                standing.put(&mut out);
                KIND_PREPARED
            }
            Self::Runs { generation, runs, .. } => {
                out.put_u64(*generation);
                for run in runs {
                    out.put_u64(run.start);
                    out.put_u64(run.end - run.start);
                }
                KIND_RUNS
            }
            Self::Leaf { generation, leaf, bits, .. } => {
                out.put_u64(*generation);
                out.put_u64(*leaf);
                bits.iter().for_each(|word| out.put_u64(*word));
                KIND_LEAF
            }
            Self::Mark => KIND_MARK,
        };
        (kind, out)
    }

    fn parse(kind: u8, sets: Option<SetMask>, payload: &[u8]) -> Option<Self> {
        fn standing(input: &[u8]) -> IResult<&[u8], Option<RelationState>> {
            let (input, (generation, code, clean)) = (be_u64, be_u8, be_u8).parse(input)?;
            let (input, (split, micros)) = (be_u8, be_i64).parse(input)?;
            let standing =
                State::from_code(code).zip(Timestamp::from_microsecond(micros).ok()).map(|(state, at)| {
                    RelationState {
                        generation,
                        state,
                        clean: clean != 0,
                        split_at: (split != 0).then_some(at),
                    }
                });
            Ok((input, standing))
        }
        fn run(input: &[u8]) -> IResult<&[u8], Range<u64>> {
            map_opt((be_u64, be_u64), |(start, count)| Some(start..u64::checked_add(start, count)?))
                .parse(input)
        }
        fn runs(input: &[u8]) -> IResult<&[u8], (u64, Vec<Range<u64>>)> {
            (be_u64, many0(run)).parse(input)
        }
        fn leaf(input: &[u8]) -> IResult<&[u8], (u64, u64, Vec<u64>)> {
            (be_u64, be_u64, many0(be_u64)).parse(input)
        }
        match kind {
            KIND_STATE => all_consuming(standing).parse(payload).ok()?.1.map(Self::RelationState),
            KIND_RUNS => {
                let (generation, runs) = all_consuming(runs).parse(payload).ok()?.1;
                Some(Self::Runs { generation, sets: sets?, runs })
            }
            KIND_LEAF => {
                let (generation, leaf, words) = all_consuming(leaf).parse(payload).ok()?.1;
                let bits = Box::new(words.try_into().ok()?);
                Some(Self::Leaf { generation, sets: sets?, leaf, bits })
            }
            KIND_PREPARED => {
                let (split, rest) = payload.split_first_chunk()?;
                let standing = all_consuming(standing).parse(rest).ok()?.1?;
                Some(Self::Prepared { split: *split, standing })
            }
            KIND_MARK => payload.is_empty().then_some(Self::Mark),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const SHAPE: Shape = Shape { identity: [7; 16], length: 1 << 50, extent: 65536 };

    fn framed(version: Version, entry: Entry) -> Vec<u8> {
        let mut out = Vec::new();
        Frame { sequence: 3, durable: 8192, entry }.put(version, &mut out);
        out
    }

    const HEADER: Header = Header { version: Version::Three, sequence: 2, shape: SHAPE, end: 0x3040 };

    #[test]
    fn a_header_page_is_literal() {
        let page = HEADER.page();
        assert_eq!(&page[..16], b"CLEAVEPR\0\0\0\x03\0\x01\0\0");
        assert_eq!(&page[16..32], [0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&page[32..48], [7; 16]);
        assert_eq!(&page[48..56], [0, 0, 0, 0, 0, 0, 0x30, 0x40]);
        assert_eq!(page[508..512], crc(&page[..508]).to_be_bytes());
        assert!(page.len() == 4096 && page[512..].iter().all(|byte| *byte == 0));
        assert_eq!(Header::parse(&page), Ok(HEADER));
    }

    #[test]
    fn a_header_of_version_2_differs_in_its_number_only() {
        let header = Header { version: Version::Two, ..HEADER };
        let (page, latest) = (header.page(), HEADER.page());
        assert_eq!(page[8..12], [0, 0, 0, 2]);
        assert_eq!((&page[12..508], &page[512..]), (&latest[12..508], &latest[512..]));
        assert_eq!(page[508..512], crc(&page[..508]).to_be_bytes());
        assert_eq!(Header::parse(&page), Ok(header));
    }

    #[test]
    fn a_header_of_version_1_is_read() {
        let header = Header { version: Version::One, end: 8192, ..HEADER };
        let page = header.page();
        assert_eq!(&page[8..12], [0, 0, 0, 1]);
        assert!(page[48..4092].iter().all(|byte| *byte == 0));
        assert_eq!(page[4092..], crc(&page[..4092]).to_be_bytes());
        assert_eq!(Header::parse(&page), Ok(header));
        let mut torn = page.clone();
        torn[512..].fill(0);
        assert_eq!(Header::parse(&torn), Err(NoHeader::Torn));
        torn[..512].fill(0);
        torn[4092..].copy_from_slice(&page[4092..]);
        assert_eq!(Header::parse(&torn), Err(NoHeader::Blank));
    }

    #[test]
    fn a_header_that_differs_in_one_bit_is_damaged_and_a_later_version_is_named() {
        for bit in 0..8 * 512 {
            let mut page = HEADER.page();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&page), Err(NoHeader::Damaged), "bit {bit}");
        }
        for version in [Version::One, Version::Two, Version::Three] {
            let mut newer = Header { version, ..HEADER }.page();
            newer[11] = 9;
            newer.truncate(version.sum_at());
            let mut newer = sealed(newer, version.sum_at());
            newer.resize(4096, 0);
            assert_eq!(Header::parse(&newer), Err(NoHeader::Newer(9)));
        }
        assert_eq!(Header::parse(&[0; 4096]), Err(NoHeader::Blank));
    }

    #[test]
    fn a_closing_page_is_literal_and_one_that_differs_in_one_bit_closes_nothing() {
        let closing = Closing { sequence: 5, end: 0x3060 };
        let page = closing.page();
        assert_eq!(&page[..24], b"CLEAVECL\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\x30\x60");
        assert_eq!(page.len(), 4096);
        assert_eq!(Closing::parse(&page), Some(closing));
        assert_eq!(Closing::parse(&[0; 4096]), None);
        for bit in 0..8 * 512 {
            let mut page = page.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Closing::parse(&page), None, "bit {bit}");
        }
    }

    #[test]
    fn a_mark_is_a_frame_of_its_header_alone() {
        for version in [Version::Two, Version::Three] {
            let bytes = framed(version, Entry::Mark);
            assert_eq!(bytes.len(), 32);
            assert_eq!(&bytes[24..], [4, 0, 0, 0, 0, 0, 0, 0]);
            let mark = Frame { sequence: 3, durable: 8192, entry: Entry::Mark };
            assert_eq!(Frame::parse(version, &bytes), Some(mark));
        }
    }

    #[test]
    fn a_prepared_frame_is_literal() {
        let split_at = Some(Timestamp::from_microsecond(0x0102).unwrap());
        let standing = RelationState { generation: 5, state: State::PsusSp, clean: false, split_at };
        let bytes = framed(Version::Three, Entry::Prepared { split: [0xAB; 16], standing });
        assert_eq!(bytes.len(), 96);
        assert_eq!(&bytes[24..32], [8, 0, 0, 0, 0, 0, 0, 35]);
        assert_eq!(&bytes[32..48], [0xAB; 16]);
        assert_eq!(&bytes[48..67], [0, 0, 0, 0, 0, 0, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_runs_frame_is_literal() {
        let runs = |sets| Entry::Runs { generation: 5, sets, runs: iter::once(2..6).collect() };
        for (version, sets, byte) in [
            (Version::One, SetMask::HELD, 0),
            (Version::Two, SetMask::HELD, 0),
            (Version::Three, SetMask::HELD, 1),
            (Version::Three, SetMask::CHANGED, 2),
            (Version::Three, SetMask::WRITTEN, 4),
            (Version::Three, SetMask::HELD | SetMask::CHANGED, 3),
            (Version::Three, SetMask::ALL, 7),
        ] {
            let bytes = framed(version, runs(sets));
            assert_eq!(bytes.len(), 64);
            assert_eq!(&bytes[..4], b"PRfr");
            assert_eq!(&bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 32, 0]);
            assert_eq!(&bytes[24..32], [2, byte, 0, 0, 0, 0, 0, 24]);
            assert_eq!(bytes[39], 5);
            assert_eq!((bytes[47], bytes[55]), (2, 4));
            let frame = Frame { sequence: 3, durable: 8192, entry: runs(sets) };
            assert_eq!(Frame::parse(version, &bytes), Some(frame));
        }
    }

    #[test]
    fn a_leaf_frame_is_literal() {
        let mut bits = Box::new([0; 64]);
        bits[63] = 0x8000_0000_0000_0001;
        let sets = SetMask::CHANGED | SetMask::WRITTEN;
        let bytes = framed(Version::Three, Entry::Leaf { generation: 5, sets, leaf: 2, bits });
        assert_eq!(bytes.len(), 576);
        assert_eq!(&bytes[24..32], [3, 6, 0, 0, 0, 0, 2, 16]);
        assert_eq!((bytes[39], bytes[47], bytes[552], bytes[559]), (5, 2, 0x80, 1));
        assert_eq!(bytes[32..].iter().filter(|byte| **byte != 0).count(), 4);
    }

    #[test]
    fn sets_that_a_version_does_not_have_are_not_believed() {
        let runs = || Entry::Runs { generation: 5, sets: SetMask::HELD, runs: iter::once(2..6).collect() };
        let state = RelationState { generation: 5, state: State::Psus, clean: false, split_at: None };
        for version in [Version::One, Version::Two, Version::Three] {
            for byte in 0..=u8::MAX {
                let named = |entry| {
                    let mut bytes = framed(version, entry);
                    bytes[25] = byte;
                    let payload = u32::from_be_bytes(bytes[28..32].try_into().unwrap()) as usize;
                    let sum = crc(&bytes[8..FRAME_HEADER + payload]);
                    bytes[4..8].copy_from_slice(&sum.to_be_bytes());
                    Frame::parse(version, &bytes).is_some()
                };
                let believed = if version == Version::Three { (1..=7).contains(&byte) } else { byte == 0 };
                assert_eq!(named(runs()), believed, "{version:?} {byte}");
                assert_eq!(named(Entry::RelationState(state)), byte == 0, "{version:?} {byte}");
                assert_eq!(named(Entry::Mark), byte == 0, "{version:?} {byte}");
                let prepared = named(Entry::Prepared { split: [3; 16], standing: state });
                assert_eq!(prepared, byte == 0 && version == Version::Three, "{version:?} {byte}");
            }
        }
    }

    #[test]
    fn entries_come_back_and_no_flipped_bit_is_believed() {
        let split_at = Some(Timestamp::from_microsecond(1_700_000_000_000_001).unwrap());
        let standing = RelationState { generation: 9, state: State::PsusSp, clean: true, split_at };
        let entries = [
            Entry::RelationState(standing),
            Entry::Runs { generation: 1, sets: SetMask::HELD, runs: vec![0..1, 7..1 << 34] },
            Entry::Leaf { generation: 1, sets: SetMask::HELD, leaf: 4, bits: Box::new([0xa5; 64]) },
        ];
        let prepared = Entry::Prepared { split: [3; 16], standing };
        let versions = [Version::One, Version::Two, Version::Three];
        for (version, entry) in versions
            .into_iter()
            .flat_map(|version| entries.iter().map(move |entry| (version, entry.clone())))
            .chain([(Version::Three, prepared)])
        {
            let bytes = framed(version, entry.clone());
            let header = UncheckedHeader::parse(version, &bytes[..FRAME_HEADER]).unwrap();
            assert_eq!(header.length, bytes.len());
            assert_eq!(Frame::parse(version, &bytes), Some(Frame { sequence: 3, durable: 8192, entry }));
            let payload = u32::from_be_bytes(bytes[28..32].try_into().unwrap()) as usize;
            for bit in 32..(FRAME_HEADER + payload) * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Frame::parse(version, &bad), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_run_that_wraps_is_refused() {
        let payload: Vec<u8> = [1u64, u64::MAX, 2].iter().flat_map(|n| n.to_be_bytes()).collect();
        assert_eq!(Entry::parse(KIND_RUNS, Some(SetMask::HELD), &payload), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(1000);
        let page = Suspension { sequence: 4, slot: Slot::Suspended(reason) }.page();
        let Slot::Suspended(back) = Suspension::parse(&page).unwrap().slot else { panic!("not suspended") };
        assert_eq!(back.len(), REASON_MAX);
        assert_eq!(Suspension::parse(&[0; 4096]), None);
    }

    #[test]
    fn the_byte_of_a_slot_says_whether_the_pair_is_suspended_or_untracked() {
        let slots = [Slot::Blank, Slot::Suspended("full".to_owned()), Slot::Untracked("full".to_owned())];
        for (byte, slot) in slots.into_iter().enumerate() {
            let suspension = Suspension { sequence: 4, slot };
            let page = suspension.page();
            assert_eq!(usize::from(page[16]), byte);
            assert_eq!(Suspension::parse(&page), Some(suspension));
        }
    }
}
