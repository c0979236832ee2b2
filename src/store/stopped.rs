//! The note that a store has stopped. It lies beside the store's files and tells the next daemon why the store takes
//! no more writes.
//!
//! When a sync fails, the kernel has marked pages clean that never reached the device, and it reports this once. A
//! process that opens the file afterwards sees in the page cache what is not on the device, and its first sync
//! succeeds. Therefore a store that stops leaves the file `stopped` in its directory before anybody learns of the
//! failure. A store that is opened beside such a note is stopped from the beginning: it reads from the device and not
//! from the page cache, and refuses everything else until an operator has it reinstated.
//!
//! **Order of writes.** First the empty file and its name are made stable. From then on the note counts, whatever its
//! text is. The empty file needs no data block, so it can be made on a device that has no room for data. Then the
//! reason is written, for people. The removal of the note is durable before the store takes writes again.
//!
//! **When the note cannot be made.** Then the file system takes no changes at all: its device is gone, or the kernel
//! has made it read-only. While that lasts, no daemon can open the files for writing, so their object is served as
//! failed without a note. The operator who brings the file system back has the log, which names the store and this
//! note. Until then every refused flush tries again to make the note. One gap is left: the daemon dies between the
//! failed sync and the note. In that case nobody was told that the sync had succeeded.
//!
//! **The directory is held** from the opening of the store on, or from its first segment, as the store's files are. An operator may move the directory, or
//! put another one in its place: the note still lies beside the files that it is about, and the store of another array is not
//! stopped by it. The note of a directory that was removed cannot be made, and nobody needs it: the store's files are gone too.
//!
//! **Stores in one directory that do not share their fate** have notes of different names: a volume and its log have one, and
//! the pool of the volume's images another. What the pool has lost says nothing about the volume.

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::StoreError;
use super::directory::{HeldDirectory, about};

/// The file's name, where the directory has one note.
pub(super) const FILE: &str = "stopped";

/// How many bytes of the reason are read.
const LIMIT: u64 = 1024;

/// Why a store takes no more writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What failed.
    pub why: String,
    /// When; `None` if the note could not be made.
    pub since: Option<SystemTime>,
}

/// The note of one directory, whether it exists or not.
#[derive(Debug)]
pub(super) struct Note {
    directory: HeldDirectory,
    file: &'static str,
}

impl Note {
    /// The note of the stores in `directory`.
    pub(super) fn of(directory: HeldDirectory) -> Self {
        Self::named(directory, FILE)
    }

    /// The note of those stores in `directory` that stop by themselves: it is in `file`.
    pub(super) fn named(directory: HeldDirectory, file: &'static str) -> Self {
        Self { directory, file }
    }

    /// As messages call the note.
    fn path(&self) -> PathBuf {
        self.directory.path().join(self.file)
    }

    /// Reads the note, if there is one.
    pub(super) fn read(&self) -> Result<Option<Stopped>, StoreError> {
        let mut bytes = Vec::new();
        let read = self.directory.open_file(self.file, OFlags::RDONLY).and_then(|file| {
            let since = file.metadata()?.modified().ok();
            // A part of the text is enough: the existence of the note is what counts.
            let _ = file.take(LIMIT).read_to_end(&mut bytes);
            Ok(since)
        });
        match read {
            Ok(since) => {
                let text = String::from_utf8_lossy(&bytes);
                let why = match text.trim() {
                    "" => "writing back failed",
                    text => text,
                };
                Ok(Some(Stopped { why: why.to_owned(), since }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(about(&self.path(), error)),
        }
    }

    /// Makes the note durably, with `why` as its text; a note that exists is left as it is. Returns when the note was
    /// made.
    fn write(&self, why: &str) -> std::io::Result<Option<SystemTime>> {
        let opened = self.directory.open_file(self.file, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL);
        let new = match opened {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
            Err(error) => return Err(error),
        };
        self.directory.sync()?;
        if let Some(mut file) = new
            && let Err(error) = file.write_all(why.as_bytes()).and_then(|()| file.sync_all())
        {
            tracing::warn!(path = %self.path().display(), %error, "the reason could not be noted");
        }
        let there = self.directory.open_file(self.file, OFlags::RDONLY).and_then(|file| file.metadata());
        Ok(there.and_then(|metadata| metadata.modified()).ok())
    }

    /// Removes the note, durably.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        match self.directory.remove(self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(about(&self.path(), error)),
            _ => self.directory.sync().map_err(|error| about(self.directory.path(), error)),
        }
    }
}

/// Whether a store takes writes. A write pays one atomic load for the question.
#[derive(Debug, Default)]
pub(super) struct StopState {
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: Option<Stopped>,
    /// The note is made, or there is to be none.
    noted: bool,
}

impl StopState {
    /// The state of a store beside which `note` was found.
    pub(super) fn from_note(note: Option<Stopped>) -> Self {
        let stopped = AtomicBool::new(note.is_some());
        Self { stopped, state: Mutex::new(State { stopped: note, noted: true }) }
    }

    /// Refuses work when the store has stopped.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.stopped.load(Ordering::Acquire) { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Why the store has stopped, if it has.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        if self.check().is_ok() { None } else { self.state.lock().stopped.clone() }
    }

    /// Stops the store because of `why`. The first call also makes the note, and returns true.
    pub(super) fn stop(&self, why: String, note: Option<&Note>) -> bool {
        self.stopped.store(true, Ordering::Release);
        let mut state = self.state.lock();
        self.stopped.store(true, Ordering::Release); // it may have been released since
        let first = state.stopped.is_none();
        if first {
            *state = State { stopped: Some(Stopped { why, since: None }), noted: note.is_none() };
            state.note(note);
        }
        first
    }

    /// Tries again to make a note that could not be made.
    pub(super) fn retry_note(&self, note: Option<&Note>) {
        self.state.lock().note(note);
    }

    /// Lets the store take writes from now on.
    pub(super) fn resume(&self) {
        let mut state = self.state.lock();
        *state = State::default();
        self.stopped.store(false, Ordering::Release);
    }
}

impl State {
    fn note(&mut self, note: Option<&Note>) {
        let (Some(stopped), Some(note), false) = (&mut self.stopped, note, self.noted) else { return };
        match note.write(&stopped.why) {
            Ok(since) => (stopped.since, self.noted) = (since, true),
            Err(error) => tracing::error!(
                path = %note.path().display(), %error,
                "that the store has stopped could not be noted: make this file before another daemon serves the store"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_note_outlives_its_writer_and_counts_without_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let note = Note::of(HeldDirectory::open(directory.path()).unwrap());
        assert_eq!(note.read().unwrap(), None);
        assert!(note.write("data.00000: fdatasync: broken").unwrap().is_some());
        note.write("a later one").unwrap();
        let stopped = note.read().unwrap().unwrap();
        assert_eq!(stopped.why, "data.00000: fdatasync: broken");
        assert!(stopped.since.is_some());
        fs::write(directory.path().join(FILE), "").unwrap();
        assert_eq!(note.read().unwrap().unwrap().why, "writing back failed");
        note.remove().unwrap();
        note.remove().unwrap();
        assert_eq!(note.read().unwrap(), None);
    }

    #[test]
    fn a_note_lies_beside_its_store_wherever_that_was_moved() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        fs::create_dir(path("store")).unwrap();
        let note = Note::of(HeldDirectory::open(&path("store")).unwrap());
        fs::rename(path("store"), path("away")).unwrap();
        fs::create_dir(path("store")).unwrap();
        note.write("broken").unwrap();
        assert_eq!(fs::read(path("away/stopped")).unwrap(), b"broken");
        assert!(!path("store/stopped").exists(), "the store in its place has not stopped");
        fs::write(path("store/stopped"), "it has now").unwrap();
        assert_eq!(note.read().unwrap().unwrap().why, "broken");
        note.remove().unwrap();
        assert!(!path("away/stopped").exists());
        assert_eq!(fs::read(path("store/stopped")).unwrap(), b"it has now");
    }

    #[test]
    fn a_note_that_could_not_be_made_is_made_when_it_can() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let [gone, there] = ["gone", "there"].map(|name| {
            fs::create_dir(path(name)).unwrap();
            Note::of(HeldDirectory::open(&path(name)).unwrap())
        });
        fs::remove_dir(path("gone")).unwrap();
        let stop = StopState::default();
        assert!(stop.stop("broken".into(), Some(&gone)));
        assert_eq!(stop.stopped(), Some(Stopped { why: "broken".into(), since: None }));
        // Another directory of that name is not the store's.
        fs::create_dir(path("gone")).unwrap();
        stop.retry_note(Some(&gone));
        assert_eq!(stop.stopped(), Some(Stopped { why: "broken".into(), since: None }));
        assert!(!path("gone/stopped").exists());
        // A file system that takes no changes cannot be had here: a second directory stands for the first one when that
        // takes changes again.
        stop.retry_note(Some(&there));
        assert!(there.read().unwrap().is_some());
        assert_eq!(there.read().unwrap(), stop.stopped());
        fs::write(path("there/stopped"), "somebody's").unwrap();
        stop.retry_note(Some(&there));
        assert_eq!(fs::read(path("there/stopped")).unwrap(), b"somebody's", "it is made once");
        assert!(!stop.stop("broken again".into(), Some(&there)), "it has stopped before");
        stop.resume();
        assert!(stop.check().is_ok() && stop.stopped().is_none());
    }
}
