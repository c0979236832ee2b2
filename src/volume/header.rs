//! The file `header` of a volume: the facts that the segment files themselves cannot hold (docs/FORMATS.md, Volume).
//!
//! The header is replaced, never rewritten: the new bytes are made stable under another name, then renamed, then the
//! directory is synced. After any crash there is the old header or the new one. The name of a header that is read is
//! made durable before anything is built on it, because the process that replaced the header may have been killed
//! between the last two steps. A file that is not exactly a header of a version known here is refused by name and
//! left as it is.
//!
//! **The header lists the segments that were made**, because a segment file that somebody removed cannot say that it
//! is missing: it would read as zeros. Version 1 had no such list. A header of version 1 is read, and replaced by
//! a later version with the segments that exist.
//!
//! **The header says whether there is a landing log**, because a log that somebody removed, or did not copy, cannot say
//! that it is missing: the volume would show older bytes. That is version 3, in which an older cleave refuses the
//! volume. The header of a volume that never had a log stays version 2.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use nom::Parser;
use nom::bytes::complete::{tag, take};
use nom::multi::count;
use nom::number::complete::{be_u32, be_u64};
use parking_lot::Mutex;

use super::VolumeError;
use crate::store::{MAX_SEGMENTS, StoreError, sync_directory, trust};
use crate::units::BlockSize;
use crate::wire::Put;

/// Name of the file in the volume's directory.
pub(super) const FILE: &str = "header";

/// Name of the file that is renamed to become the header.
pub(super) const NEW: &str = "header.new";

/// The first bytes. A transfer that changes text would change the line end and the end-of-text mark.
const MAGIC: &[u8; 16] = b"cleave volume\r\n\x1A";

/// The version of a volume with a landing log: it has flags.
const WITH_FLAGS: u32 = 3;

/// The version of a volume without a landing log.
const WITHOUT_FLAGS: u32 = 2;

/// A version that is not written any more, which has no list of segments.
const WITHOUT_SEGMENTS: u32 = 1;

/// The flag of a landing log.
const LOG: u32 = 1;

/// Bytes of the file without flags and runs.
const LENGTH: usize = 64;

/// Bytes of the flags.
const FLAGS: usize = 4;

/// Bytes of a run.
const RUN: usize = 8;

/// The most runs of a header: two runs that touch would be one.
const MAX_RUNS: usize = MAX_SEGMENTS as usize / 2;

/// The fields of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) block_size: BlockSize,
    /// Capacity in bytes.
    pub(super) length: u64,
    /// Bytes of one segment file, at most.
    pub(super) segment: u64,
    /// The seed of the volume's identity.
    pub(super) seed: [u8; 16],
    /// The segments that were made; `None` after reading a header of version 1, which has no list.
    pub(super) made: Option<BTreeSet<u64>>,
    /// Whether there is a landing log.
    pub(super) log: bool,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.put_slice(MAGIC);
        bytes.put_u32(if self.log { WITH_FLAGS } else { WITHOUT_FLAGS });
        bytes.put_u32(self.block_size.bytes());
        bytes.put_u64(self.length);
        bytes.put_u64(self.segment);
        bytes.put_slice(&self.seed);
        if self.log {
            bytes.put_u32(LOG);
        }
        let runs = runs(self.made.iter().flatten().copied());
        bytes.put_u32(number(runs.len() as u64));
        for run in runs {
            bytes.put_u32(number(run.start));
            bytes.put_u32(number(run.end - run.start));
        }
        let crc = crc32c(&bytes);
        bytes.put_u32(crc);
        bytes
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, VolumeError> {
        let damaged = |reason: &str| VolumeError::Damaged { path: path.into(), reason: reason.into() };
        let (rest, version) = (tag::<_, _, ()>(&MAGIC[..]), be_u32)
            .parse(bytes)
            .map(|(rest, (_, version))| (rest, version))
            .map_err(|_| VolumeError::Foreign { path: path.into() })?;
        if !(WITHOUT_SEGMENTS..=WITH_FLAGS).contains(&version) {
            return Err(VolumeError::Newer { path: path.into(), version });
        }
        let short = |_| damaged("its length is wrong");
        let flags = if version == WITH_FLAGS { FLAGS } else { 0 };
        let (_, (block_size, length, segment, seed, flags, runs)) =
            (be_u32::<_, ()>, be_u64, be_u64, take(16usize), take(flags), be_u32)
                .parse(rest)
                .map_err(short)?;
        let (fixed, runs) = (LENGTH + flags.len(), runs as usize);
        if runs > MAX_RUNS || bytes.len() != fixed + RUN * runs {
            return Err(damaged("its length is wrong"));
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32c(body).to_be_bytes() != crc {
            return Err(damaged("its checksum is wrong"));
        }
        let (_, runs) = count((be_u32::<_, ()>, be_u32), runs).parse(&body[fixed - 4..]).map_err(short)?;
        let made = segments(&runs).ok_or_else(|| damaged("its list of segments is not one"))?;
        let block_size = BlockSize::try_from(block_size).map_err(|reason| damaged(&reason))?;
        if !length.is_multiple_of(block_size.bytes().into()) {
            return Err(damaged("its capacity is not a number of whole blocks"));
        }
        if segment == 0 || !segment.is_multiple_of(4096) {
            return Err(damaged("its segment length is not a number of whole pages"));
        }
        let seed = seed.try_into().map_err(|_| damaged("its length is wrong"))?;
        let made = (version != WITHOUT_SEGMENTS).then_some(made);
        let log = !flags.is_empty();
        if log && flags != LOG.to_be_bytes() {
            return Err(damaged("its flags are not ones"));
        }
        Ok(Self { block_size, length, segment, seed, made, log })
    }

    /// Reads the header of the volume in `directory`, and makes it durable.
    pub(super) fn read(directory: &Path) -> Result<Self, VolumeError> {
        let path = directory.join(FILE);
        let mut bytes = Vec::with_capacity(LENGTH);
        let most = (LENGTH + FLAGS + RUN * MAX_RUNS + 1) as u64;
        let file = trust::open(&path, OpenOptions::new().read(true));
        let read = file.and_then(|file| file.take(most).read_to_end(&mut bytes));
        match read {
            Ok(_) => {
                let header = Self::parse(&path, &bytes)?;
                sync_directory(directory)?;
                Ok(header)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(VolumeError::Missing { path }),
            Err(error) => Err(VolumeError::io(&path, error)),
        }
    }

    /// Replaces the header, as a whole and durably.
    pub(super) fn replace(&self, directory: &Path) -> Result<(), VolumeError> {
        let new = directory.join(NEW);
        let mut options = OpenOptions::new();
        trust::open(&new, options.write(true).create(true).truncate(false).mode(0o600))
            .and_then(|mut file| {
                file.set_len(0)?;
                file.write_all(&self.encode())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&new, directory.join(FILE)))
            .map_err(|error| VolumeError::io(&new, error))?;
        sync_directory(directory).map_err(StoreError::into)
    }
}

/// The header of an open volume, and its file. A change of one field writes all fields.
#[derive(Debug)]
pub(super) struct HeaderFile {
    directory: PathBuf,
    header: Mutex<Header>,
}

impl HeaderFile {
    /// The file in `directory`, whose content is `header`.
    pub(super) fn new(directory: &Path, header: Header) -> Self {
        Self { directory: directory.to_owned(), header: Mutex::new(header) }
    }

    /// The directory of the volume.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the header says that there is a landing log.
    pub(super) fn has_log(&self) -> bool {
        self.header.lock().log
    }

    /// Applies `change`, durably. After an error the file has its former content, unless the log says otherwise.
    pub(super) fn change(&self, change: impl FnOnce(&mut Header)) -> Result<(), VolumeError> {
        let mut header = self.header.lock();
        let mut new = header.clone();
        change(&mut new);
        if new != *header {
            new.replace(&self.directory).inspect_err(|_| self.restore(&header))?;
            *header = new;
        }
        Ok(())
    }

    /// After a failed change: the new name may have been given all the same, and what was answered as failed must not be
    /// found done after a restart.
    fn restore(&self, former: &Header) {
        if Header::read(&self.directory).is_ok_and(|now| now == *former) {
            return;
        }
        if let Err(error) = former.replace(&self.directory) {
            let path = self.directory.display();
            tracing::error!(%path, %error, "a change of the volume's header failed, and a restart may find it or not");
        }
    }

    /// Applies `change` in memory only; the next change of the file writes it.
    pub(super) fn assume(&self, change: impl FnOnce(&mut Header)) {
        change(&mut self.header.lock());
    }
}

/// Groups ascending numbers into runs.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// The segments of `runs`, which are pairs of a first number and a count. `None` unless the runs could come from
/// [`runs`]: ascending, and no two that touch.
fn segments(runs: &[(u32, u32)]) -> Option<BTreeSet<u64>> {
    let mut made = BTreeSet::new();
    let mut free = 0;
    for (first, length) in runs {
        let (first, end) = (u64::from(*first), u64::from(*first) + u64::from(*length));
        if *length == 0 || first < free || end > MAX_SEGMENTS {
            return None;
        }
        made.extend(first..end);
        free = end + 1;
    }
    Some(made)
}

fn number(value: u64) -> u32 {
    u32::try_from(value).expect("a volume has few segments")
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("CRC32C has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let made = Some(BTreeSet::from([0, 1, 2, 700]));
        Header {
            block_size: BlockSize::B4096,
            length: 1 << 50,
            segment: 1 << 40,
            seed: *b"0123456789abcdef",
            made,
            log: false,
        }
    }

    fn with_log() -> Header {
        Header { log: true, ..header() }
    }

    /// Appends the checksum.
    fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c(&bytes);
        bytes.put_u32(crc);
        bytes
    }

    #[test]
    fn the_layout_is_the_one_in_formats_md() {
        let mut expected =
            b"cleave volume\r\n\x1A\0\0\0\x02\0\0\x10\0\0\x04\0\0\0\0\0\0\0\0\x01\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"0123456789abcdef\0\0\0\x02");
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x03\0\0\x02\xBC\0\0\0\x01");
        assert_eq!(header().encode(), with_crc(expected));
    }

    #[test]
    fn a_volume_with_a_log_has_version_3_which_an_older_cleave_refuses() {
        let mut expected =
            b"cleave volume\r\n\x1A\0\0\0\x03\0\0\x10\0\0\x04\0\0\0\0\0\0\0\0\x01\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"0123456789abcdef\0\0\0\x01\0\0\0\x02");
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x03\0\0\x02\xBC\0\0\0\x01");
        assert_eq!(with_log().encode(), with_crc(expected.clone()));
        assert_eq!(Header::parse(Path::new("header"), &with_log().encode()).unwrap(), with_log());
        for flags in [0, 2, 3] {
            expected[59] = flags;
            let refused = Header::parse(Path::new("header"), &with_crc(expected.clone()));
            assert!(matches!(refused, Err(VolumeError::Damaged { .. })), "{flags}");
        }
    }

    #[test]
    fn version_1_is_read_and_has_no_list_of_segments() {
        let mut bytes =
            b"cleave volume\r\n\x1A\0\0\0\x01\0\0\x10\0\0\x04\0\0\0\0\0\0\0\0\x01\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(b"0123456789abcdef\0\0\0\0");
        let read = Header::parse(Path::new("header"), &with_crc(bytes)).unwrap();
        assert_eq!(read, Header { made: None, ..header() });
    }

    #[test]
    fn a_list_of_segments_that_nobody_wrote_is_refused() {
        let bad: [&[(u32, u32)]; 5] =
            [&[(0, 0)], &[(5, 1), (4, 1)], &[(0, 2), (1, 1)], &[(0, 1), (1, 1)], &[(65_535, 2)]];
        for runs in bad {
            assert_eq!(segments(runs), None, "{runs:?}");
        }
        assert_eq!(segments(&[(0, 65_536)]).map(|made| made.len()), Some(65_536));
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        header().replace(directory.path()).unwrap();
        assert_eq!(Header::read(directory.path()).unwrap(), header());
        let longer = Header { length: 1 << 51, ..header() };
        longer.replace(directory.path()).unwrap();
        assert_eq!(Header::read(directory.path()).unwrap(), longer);
        assert!(!directory.path().join(NEW).exists());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for good in [header(), with_log()].map(|header| header.encode()) {
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let answer = Header::parse(Path::new("header"), &bad);
                match (bit / 8, bad[19]) {
                    (0..16, _) => assert!(matches!(answer, Err(VolumeError::Foreign { .. })), "bit {bit}"),
                    (16..19, _) | (19, 0 | 4..) => {
                        assert!(matches!(answer, Err(VolumeError::Newer { .. })), "bit {bit}");
                    }
                    _ => assert!(matches!(answer, Err(VolumeError::Damaged { .. })), "bit {bit}"),
                }
            }
        }
    }

    #[test]
    fn cut_and_stretched_headers_are_refused() {
        for mut bytes in [header(), with_log()].map(|header| header.encode()) {
            for length in 0..bytes.len() {
                assert!(Header::parse(Path::new("header"), &bytes[..length]).is_err(), "{length} bytes");
            }
            bytes.push(0);
            assert!(matches!(Header::parse(Path::new("header"), &bytes), Err(VolumeError::Damaged { .. })));
        }
    }
}
