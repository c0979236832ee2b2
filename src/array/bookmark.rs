//! Where a cartridge in a drive stands, kept beside it for the next daemon: `cartridges/BARCODE/position`.
//!
//! **What it promises.** Hosts see a tape that stays where it is when the daemon ends, however it ends. A process that dies
//! leaves what it has written in the kernel, so a note costs one small write and no flush. If the machine dies, notes
//! since the last flush may be missing; then only this is certain: a drive at the beginning of its medium is there,
//! because coming to it and leaving it are flushed before the command is answered. Any other one begins at the end of
//! data, where nothing that was recorded can be overwritten. A note that cannot be written, or not be read, means the
//! same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::lu::tape::{Bookmark, Start};

/// The file in a cartridge's directory.
const FILE: &str = "position";

const MAGIC: [u8; 8] = *b"CLVTPOS1";
const LENGTH: usize = 40;

/// The daemon that wrote it has ended in order: it holds whatever happened to the machine since.
const CLOSED: u8 = 1;

/// Names one run of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The note beside one cartridge.
pub(super) struct PositionFile {
    path: PathBuf,
    boot: [u8; 16],
    /// Absent after an error, until the cartridge is loaded again.
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    /// What is noted; a note that has not been made yet differs from it.
    object: Option<u64>,
}

impl PositionFile {
    /// The note in `directory`, and what it says.
    pub(super) fn open(directory: &Path) -> (Self, Start) {
        Self::open_in(directory, boot())
    }

    fn open_in(directory: &Path, boot: [u8; 16]) -> (Self, Start) {
        let path = directory.join(FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let this = |open| Self { path: path.clone(), boot, open: Mutex::new(open) };
        match file.and_then(|file| Ok((read(&file, boot)?, file))) {
            Ok((start, file)) => (this(Some(Open { file, object: None })), start),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "where the tape stands cannot be kept");
                (this(None), Start::End)
            }
        }
    }

    fn write(&self, object: u64, flags: u8) {
        let mut open = self.open.lock();
        let Some(there) = &mut *open else { return };
        let bytes = encode(object, flags, self.boot);
        let flush = flags == CLOSED || object == 0 || there.object.is_none_or(|last| last == 0);
        let written = there.file.write_all_at(&bytes, 0);
        match written.and_then(|()| if flush { there.file.sync_all() } else { Ok(()) }) {
            Ok(()) => there.object = Some(object),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "where the tape stands cannot be kept: the next daemon begins at its end");
                // An older note must not be believed.
                if let Err(error) = std::fs::remove_file(&self.path) {
                    tracing::error!(path = %self.path.display(), %error, "nor can the old note be removed");
                }
                *open = None;
            }
        }
    }
}

impl Bookmark for PositionFile {
    fn note(&self, object: u64) {
        self.write(object, 0);
    }

    fn close(&self, object: u64) {
        self.write(object, CLOSED);
    }
}

/// This run of the machine; zeros if it has no name, which then is the name of no other one either.
fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string(BOOT).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

fn encode(object: u64, flags: u8, boot: [u8; 16]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&object.to_be_bytes());
    bytes[16..32].copy_from_slice(&boot);
    bytes[32] = flags;
    let crc = crc(&bytes[..LENGTH - 4]);
    bytes[LENGTH - 4..].copy_from_slice(&crc);
    bytes
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    (crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_be_bytes()
}

fn read(file: &File, boot: [u8; 16]) -> io::Result<Start> {
    let mut bytes = [0; LENGTH];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Start::End),
        result => result?,
    }
    let (rest, sum) = bytes.split_at(LENGTH - 4);
    let (magic, rest) = rest.split_at(8);
    let (object, rest) = rest.split_at(8);
    let (of_boot, flags) = rest.split_at(16);
    if magic != MAGIC || sum != crc(&bytes[..LENGTH - 4]) {
        return Ok(Start::End);
    }
    let object = object.try_into().map_or(0, u64::from_be_bytes);
    let known = flags[0] == CLOSED || boot != [0; 16] && of_boot == boot;
    Ok(match object {
        0 => Start::Beginning,
        object if known => Start::Object(object),
        _ => Start::End,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: [u8; 16] = [7; 16];
    const OTHER: [u8; 16] = [8; 16];

    fn start(directory: &Path, boot: [u8; 16]) -> Start {
        PositionFile::open_in(directory, boot).1
    }

    #[test]
    fn a_dead_daemon_is_followed_where_it_stood_and_a_dead_machine_at_the_end() {
        let temporary = tempfile::tempdir().unwrap();
        let (note, first) = PositionFile::open_in(temporary.path(), THIS);
        assert_eq!(first, Start::End, "nothing is known yet");
        for (object, same, other) in [
            (0, Start::Beginning, Start::Beginning),
            (3, Start::Object(3), Start::End),
            (9, Start::Object(9), Start::End),
        ] {
            note.note(object);
            assert_eq!(
                (start(temporary.path(), THIS), start(temporary.path(), OTHER)),
                (same, other),
                "{object}"
            );
        }
        note.close(9);
        assert_eq!(start(temporary.path(), OTHER), Start::Object(9));
        note.note(10);
        assert_eq!(start(temporary.path(), OTHER), Start::End, "it goes on after all");
        assert_eq!(start(temporary.path(), [0; 16]), Start::End, "a run without a name");
    }

    #[test]
    fn the_note_is_these_bytes_and_a_damaged_one_is_not_believed() {
        let temporary = tempfile::tempdir().unwrap();
        PositionFile::open_in(temporary.path(), THIS).0.close(0x0102);
        let path = temporary.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..16], *b"CLVTPOS1\0\0\0\0\0\0\x01\x02");
        assert_eq!((&bytes[16..32], &bytes[32..36], bytes.len()), (&THIS[..], &[1, 0, 0, 0][..], LENGTH));
        for at in 0..LENGTH {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(start(temporary.path(), THIS), Start::End, "byte {at}");
        }
        std::fs::write(&path, &bytes[..LENGTH - 1]).unwrap();
        assert_eq!(start(temporary.path(), THIS), Start::End);
    }
}
