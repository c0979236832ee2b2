//! The data directory: one owner process, one catalog file, and a place for each object's files.
//!
//! ```text
//! DIR/lock                    flock'd for the daemon's life: a second daemon is refused
//! DIR/identity                which data directory it is (identity)
//! DIR/catalog.json            the catalog (replaced by rename from catalog.json.new, which holds its room before)
//! DIR/volumes/DIRECTORY/      a volume's files; named as the volume was when it was made
//! DIR/cartridges/BARCODE/     a cartridge's files
//! DIR/pairs/NAME/             a pair's records
//! DIR/restores/IDENTITY       the primary of a pair is being restored (unrecorded)
//! DIR/doubts/IDENTITY         the volumes of a pair may have been written without its record (unrecorded)
//! DIR/splits/IDENTITY         a split of several pairs was decided (decision)
//! DIR/journal/                events and the audit log
//! DIR/admin.sock              the admin API
//! DIR/admin.crt, admin.key    the certificate of its TCP port, and the private key of that (admin::certificate)
//! ```
//! An operator may replace a directory of objects, or the directory of an object, by a symbolic link. A copy of the
//! data directory then has the same link, so the link's target has a lock of its own: `.lock` in a directory of
//! objects, `lock` in the directory of one object.
//!
//! **Other users cannot interfere.** A directory that another user owns or may write, or that is below such a
//! directory, is refused by name, and so is anything that another user may have put into it ([`trust`]). All this is
//! checked before anything is made, read or removed there. Afterwards only the daemon's user and root can change what
//! a name leads to, so the names below are used as paths.
//!
//! **An operator may move the directory while it is used**, or put another one in its place. The names below would then lead to
//! the files of another array. So the directory is held open ([`HeldDirectory`]), and each verb asks first whether the path still
//! leads there ([`DataDir::in_place`]). What is written without a verb is written in what is held: the catalog, the notes about
//! pairs, the journal, and the note that a store has stopped, in the directory of that store.
//!
//! A directory that is not empty and has no catalog belongs to somebody else: it is refused with the name of an entry
//! in it, and nothing in it is touched.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::error::{ArrayError, Kind};
use super::identity::{self, IDENTITY, IDENTITY_NEW};
use crate::catalog::displaced::{Displaced, Displacement};
use crate::catalog::store::Blob;
use crate::catalog::{Catalog, MAX_BYTES, Revision, Seed};
use crate::store::{HeldDirectory, Lock, StoreError, Untrusted, make_directory, trust};

const LOCK: &str = "lock";
pub(super) const CATALOG: &str = "catalog.json";
const CATALOG_NEW: &str = "catalog.json.new";

/// The certificate of the admin port in the data directory.
pub(crate) const ADMIN_CERTIFICATE: &str = "admin.crt";

/// The private key of [`ADMIN_CERTIFICATE`].
pub(crate) const ADMIN_KEY: &str = "admin.key";

/// Directory of volumes in the data directory.
pub(super) const VOLUMES: &str = "volumes";

/// Directory of cartridges in the data directory.
pub(super) const CARTRIDGES: &str = "cartridges";

/// Directory of pairs' records in the data directory.
pub(super) const PAIRS: &str = "pairs";

/// Directory of the notes about pairs whose records could not be read.
pub(super) const DOUBTS: &str = "doubts";
pub(super) const RESTORES: &str = "restores";

/// Directory of the decisions about splits of several pairs.
pub(super) const SPLITS: &str = "splits";

/// Directory of the journal in the data directory, which the array does not use itself.
pub(crate) const JOURNAL: &str = "journal";

/// How much longer the next catalog may become on a full file system, in bytes.
const MARGIN: u64 = 16 << 10;

/// The entries that a data directory without a catalog may have: the files that a daemon makes before the first
/// catalog.
const BEFORE_CATALOG: [&str; 3] = [LOCK, CATALOG_NEW, "admin.sock"];

/// What may lie in a data directory whose catalog rests elsewhere.
const WITHOUT_CATALOG: [&str; 13] = [
    LOCK,
    IDENTITY,
    IDENTITY_NEW,
    "admin.sock",
    ADMIN_CERTIFICATE,
    ADMIN_KEY,
    VOLUMES,
    CARTRIDGES,
    PAIRS,
    DOUBTS,
    SPLITS,
    RESTORES,
    JOURNAL,
];

/// A data directory that this process owns.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Whether the catalog is in it.
    has_catalog: bool,
    /// The directory itself, wherever it lies by now.
    held: HeldDirectory,
    /// Released when dropped, and when the process dies.
    lock: Lock,
    /// The locks of the targets of symbolic links.
    _links: Vec<Lock>,
}

impl DataDir {
    /// Takes possession of `path`, which is made if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, ArrayError> {
        Self::take(path, true, None, |path| {
            let foreign = foreign_entry(path)?;
            Ok(foreign.map(|foreign| {
                let why = format!(
                    "it is not a cleave data directory, for it has no {CATALOG}, and not empty: it holds '{foreign}'"
                );
                let remedy = format!(
                    "name an empty directory, or one that cleave made; restore {CATALOG} if it is gone"
                );
                (why, remedy)
            }))
        })
    }

    /// The same for an array whose `catalog` rests elsewhere. A directory with a catalog is another array's, and so are
    /// a directory with another identity than the catalog has, and one with objects if the catalog is new. In these
    /// nothing is made, and neither is a directory in the place of one that the catalog had.
    pub(super) fn open_without_catalog(path: &Path, catalog: &Catalog) -> Result<Self, ArrayError> {
        Self::take(path, false, catalog.data_dir, |path| {
            let foreign = entry_beside(path, &WITHOUT_CATALOG)?;
            if foreign.is_none() && catalog.revision == Revision::default() {
                let of_objects = first_of_objects(path)?;
                return Ok(of_objects.map(|object| {
                    let why = format!(
                        "the catalog is new, and the directory holds another one's objects: '{object}'"
                    );
                    (why, "name an empty directory, or open the catalog that has these objects".to_owned())
                }));
            }
            Ok(foreign.map(|foreign| {
                let why = format!(
                    "it is not the data directory of an array whose catalog rests elsewhere: it holds '{foreign}'"
                );
                (why, "name an empty directory, or the one that this array made".to_owned())
            }))
        })
    }

    /// Takes possession of `path`, unless its identity is another one than `wanted`, or `foreign` says why the directory
    /// is somebody else's and what to do.
    fn take(
        path: &Path,
        has_catalog: bool,
        wanted: Option<Seed>,
        foreign: impl FnOnce(&Path) -> io::Result<Option<(String, String)>>,
    ) -> Result<Self, ArrayError> {
        let asked = asked(path);
        let io = |error: io::Error| ArrayError::io(asked.clone(), path.display(), &error);
        let unusable = |why: &dyn std::fmt::Display| {
            let remedy = "name by --data-dir a directory that you may write, or a path where one can be made";
            ArrayError::new(Kind::Failed, asked.as_str(), why.to_string(), remedy)
        };
        let untrusted = |place: Untrusted| {
            let why = format!("{} {}", place.path.display(), place.why);
            ArrayError::refused(asked.as_str(), why, place.remedy)
        };
        trust::directory(path).map_err(untrusted)?;
        if wanted.is_some() {
            let identity = identity::at(path, wanted, has_catalog);
            identity.map_err(|mismatch| mismatch.refusal(asked.clone(), path, has_catalog))?;
        }
        make_directory(path).map_err(|error| match error {
            StoreError::NoSpace => ArrayError::store(asked.as_str(), &error),
            error => unusable(&error),
        })?;
        let path = path.canonicalize().map_err(io)?;
        if !path.is_dir() {
            return Err(unusable(&"it is not a directory"));
        }
        if let Some((why, remedy)) = foreign(&path).map_err(|error| unusable(&error))? {
            return Err(ArrayError::refused(asked, why, remedy));
        }
        look_at_files(&path).map_err(untrusted)?;
        let lock = Lock::take(&path.join(LOCK)).map_err(|error| unusable(&format!("its {LOCK}: {error}")))?;
        let lock = lock.ok_or_else(|| {
            let process = Lock::holder(&path.join(LOCK)).map(|process| format!(" (process {process})"));
            let why = format!("another cleave daemon serves it{}", process.unwrap_or_default());
            ArrayError::refused(asked.as_str(), why, "stop that one first, or name another directory")
        })?;
        let mut links = Vec::new();
        for (link, lock) in links_of_objects(&path).map_err(io)? {
            links.push(Lock::take(&lock).map_err(|error| unusable(&error))?.ok_or_else(|| {
                let why = format!(
                    "its {} is a symbolic link to what another cleave daemon serves, and one of the two data directories \
                     may be a copy of the other",
                    link.display()
                );
                ArrayError::refused(asked.as_str(), why, "stop that daemon, or put files of its own in the place of the link")
            })?);
        }
        let held = HeldDirectory::open(&path).map_err(io)?;
        let this = Self { path, has_catalog, held, lock, _links: links };
        this.in_place().map_err(|displaced| unusable(&displaced))?;
        Ok(this)
    }

    /// The absolute path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself, wherever it lies by now.
    #[must_use]
    pub(crate) fn held(&self) -> &HeldDirectory {
        &self.held
    }

    /// The identity of the directory, which is the one that `catalog` has, if it has one. It is durable when this
    /// returns. `None` if there is no room for the file: a directory with its catalog opens without, as one that is full
    /// has to.
    pub(super) fn identity(&self, catalog: &Catalog) -> Result<Option<Seed>, ArrayError> {
        let wanted = catalog.data_dir;
        let found = identity::of(&self.held, wanted, self.has_catalog);
        let found =
            found.map_err(|mismatch| mismatch.refusal(asked(&self.path), &self.path, self.has_catalog))?;
        let durable = match found {
            // Its maker may have been killed before the name was durable.
            Some(found) if wanted.is_none() => self.held.sync().map(|()| found).map_err(StoreError::from),
            Some(found) => Ok(found),
            None => identity::make(&self.held, wanted),
        };
        match durable {
            Err(StoreError::NoSpace) if self.has_catalog => {
                tracing::warn!(path = %self.path.display(), "there is no room for the file {IDENTITY}: the next start makes it");
                Ok(None)
            }
            durable => durable.map(Some).map_err(|error| ArrayError::store(asked(&self.path), &error)),
        }
    }

    /// The file of the catalog.
    #[must_use]
    pub(crate) fn catalog(&self) -> CatalogFile {
        CatalogFile { held: self.held.clone() }
    }

    /// Whether the path still leads to the directory that this process owns, with its lock in it.
    pub(super) fn in_place(&self) -> Result<(), Displaced> {
        let found = match self.held.is_at(&self.path) {
            Ok(true) if self.lock.is_at(&self.path.join(LOCK)) => return Ok(()),
            Ok(true) => Displacement::Emptied,
            Ok(false) => Displacement::Other,
            Err(_) => Displacement::Gone,
        };
        // What was removed is nowhere, wherever the path leads.
        let found = if self.lock.is_removed() { Displacement::Emptied } else { found };
        Err(Displaced { data_dir: self.path.display().to_string(), found })
    }

    /// Makes the directory `name` below the data directory, durably, if it does not exist. An existing directory is
    /// made durable, too: the daemon that made it may have been killed before that.
    pub(crate) fn make_dir(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok(path)
    }

    /// Removes the file or directory tree at `relative`, which may be missing, durably. Its absence is made durable,
    /// too: the daemon that removed it may have been killed before that.
    pub(crate) fn remove(&self, relative: &str) -> io::Result<()> {
        let path = self.path.join(relative);
        match remove_tree(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match path.parent().map_or(Ok(()), sync_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // the directory above it does not exist either
            synced => synced,
        }
    }
}

pub(super) fn asked(path: &Path) -> String {
    format!("open the data directory {}", path.display())
}

/// Removes a file or directory tree. The contents of a directory are durably removed before the directory: a file
/// system that forgot their removal at power loss would bring the files back without an owner (btrfs does).
fn remove_tree(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        remove_tree(&entry?.path())?;
    }
    sync_dir(path)?;
    fs::remove_dir(path)
}

/// Refuses a data directory in which other users have put something, or could. The directory itself and the path to
/// it have been checked already. Files that the array does not use are not checked.
fn look_at_files(data_dir: &Path) -> Result<(), Untrusted> {
    trust::directory(data_dir)?;
    for name in [LOCK, IDENTITY, IDENTITY_NEW, CATALOG, CATALOG_NEW, ADMIN_CERTIFICATE, ADMIN_KEY] {
        trust::file(&data_dir.join(name))?;
    }
    // A directory of objects may be a link, and so may that of an object.
    let kinds = [VOLUMES, CARTRIDGES, PAIRS];
    kinds.into_iter().try_for_each(|kind| trust::tree(&data_dir.join(kind), 2))?;
    [DOUBTS, SPLITS, RESTORES, JOURNAL].into_iter().try_for_each(|kind| trust::tree(&data_dir.join(kind), 0))
}

/// The symbolic links that lead to objects' files, each with the lock file in its target.
fn links_of_objects(data_dir: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut links = Vec::new();
    for kind in [VOLUMES, CARTRIDGES, PAIRS] {
        let directory = data_dir.join(kind);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if directory.is_symlink() {
            links.push((directory.clone(), directory.join(".lock")));
        }
        for entry in entries {
            let path = entry?.path();
            if path.is_symlink() && path.is_dir() {
                links.push((path.clone(), path.join(LOCK)));
            }
        }
    }
    Ok(links)
}

/// The first entry of a directory without a catalog that no daemon of cleave puts there.
fn foreign_entry(path: &Path) -> io::Result<Option<String>> {
    if path.join(CATALOG).symlink_metadata().is_ok() {
        return Ok(None);
    }
    entry_beside(path, &BEFORE_CATALOG)
}

/// The first file or directory of an object.
fn first_of_objects(path: &Path) -> io::Result<Option<String>> {
    for kind in [VOLUMES, CARTRIDGES, PAIRS] {
        match entry_beside(&path.join(kind), &[".lock"]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(None) => {}
            Ok(Some(object)) => return Ok(Some(format!("{kind}/{object}"))),
        }
    }
    Ok(None)
}

/// The first entry of a directory that is not among `expected`.
fn entry_beside(path: &Path, expected: &[&str]) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    // mkfs leaves lost+found in the root of a fresh file system.
    Ok(names.into_iter().find(|name| !expected.contains(&name.as_str()) && name != "lost+found"))
}

/// The catalog in a file, which is replaced by rename: the new bytes are durable before the name leads to them, and
/// the name is durable before `replace` returns. The name of a catalog that is read is made durable first, because
/// the daemon that replaced it may have been killed in between. Space for the next catalog is allocated as soon as
/// the last one is in its place, so that an object can be deleted when the file system is full.
#[derive(Debug)]
pub(crate) struct CatalogFile {
    held: HeldDirectory,
}

impl Blob for CatalogFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match self.held.open_file(CATALOG, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("the catalog is larger than any that cleave writes"));
        }
        self.held.sync()?;
        Ok(Some(bytes))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.replace_in_steps(bytes, |_| Ok(()))
    }
}

/// A step of the replacement of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The new bytes are written under another name.
    Write,
    /// The new bytes are made durable.
    Sync,
    /// The new bytes get the name of the catalog.
    Rename,
    /// The name is made durable.
    SyncDirectory,
}

impl CatalogFile {
    /// [`Blob::replace`]. `before` is told each step in advance, and can end the replacement there.
    pub(super) fn replace_in_steps(
        &self,
        bytes: &[u8],
        mut before: impl FnMut(Step) -> io::Result<()>,
    ) -> io::Result<()> {
        before(Step::Write)?;
        let mut file = self.open_new()?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        before(Step::Sync)?;
        file.sync_all()?;
        before(Step::Rename)?;
        self.held.rename(CATALOG_NEW, CATALOG)?;
        before(Step::SyncDirectory)?;
        self.held.sync()?;
        if let Err(error) = self.reserve(bytes.len() as u64) {
            tracing::debug!(%error, "no room could be taken for the next catalog");
        }
        Ok(())
    }

    /// The file for the next catalog, at its beginning, with the space that it has.
    fn open_new(&self) -> io::Result<File> {
        self.held.open_file(CATALOG_NEW, OFlags::CREATE | OFlags::WRONLY)
    }

    /// Allocates space for a catalog somewhat longer than `length`.
    fn reserve(&self, length: u64) -> io::Result<()> {
        fallocate(self.open_new()?, FallocateFlags::empty(), 0, length + MARGIN)?;
        Ok(())
    }
}

/// Makes the entries of `directory` durable.
pub(crate) fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let owner = DataDir::open(temporary.path()).unwrap();
        let second = DataDir::open(temporary.path()).unwrap_err();
        assert_eq!(second.kind, Kind::Refused);
        assert!(second.why.contains("another cleave daemon"), "{second}");
        drop(owner);
        DataDir::open(temporary.path()).unwrap();
    }

    #[test]
    fn the_target_of_a_link_has_one_owner_at_a_time_too() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        fs::create_dir_all(path("disk/DEMO01L8")).unwrap();
        fs::create_dir_all(path("disk/volume")).unwrap();
        for copy in ["one", "two"] {
            drop(DataDir::open(&path(copy)).unwrap().catalog().replace(b"x"));
            std::os::unix::fs::symlink(path("disk"), path(copy).join("cartridges")).unwrap();
        }
        let owner = DataDir::open(&path("one")).unwrap();
        let second = DataDir::open(&path("two")).unwrap_err();
        assert_eq!(second.kind, Kind::Refused);
        assert!(second.why.contains("two/cartridges is a symbolic link"), "{second}");
        drop(owner);
        for copy in ["one", "two"] {
            fs::remove_file(path(copy).join("cartridges")).unwrap();
            fs::create_dir(path(copy).join("volumes")).unwrap();
            std::os::unix::fs::symlink(path("disk/volume"), path(copy).join("volumes/db")).unwrap();
        }
        let owner = DataDir::open(&path("two")).unwrap();
        let second = DataDir::open(&path("one")).unwrap_err();
        assert!(second.why.contains("one/volumes/db is a symbolic link"), "{second}");
        drop(owner);
        DataDir::open(&path("one")).unwrap();
    }

    #[test]
    fn somebody_elses_directory_is_refused_by_name_and_untouched() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("thesis.tex"), "x").unwrap();
        let refused = DataDir::open(temporary.path()).unwrap_err();
        assert!(refused.why.contains("'thesis.tex'"), "{refused}");
        let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_directory_with_a_catalog_is_not_that_of_an_array_whose_catalog_rests_elsewhere() {
        let temporary = tempfile::tempdir().unwrap();
        let open = || DataDir::open_without_catalog(temporary.path(), &Catalog::default());
        let dir = open().unwrap();
        dir.make_dir(VOLUMES).unwrap();
        drop(dir);
        let dir = open().unwrap();
        dir.catalog().replace(b"x").unwrap();
        drop(dir);
        let refused = open().unwrap_err();
        assert!(refused.why.contains("'catalog.json'"), "{refused}");
    }

    #[test]
    fn a_path_that_can_be_no_directory_is_refused_with_what_to_name_instead() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = DataDir::open(&path).unwrap_err();
            assert!(refused.remedy.contains("--data-dir"), "{refused}");
            assert!(refused.why.to_lowercase().contains("not a directory"), "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn a_torn_new_catalog_is_ignored_and_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let file = dir.catalog();
        assert_eq!(file.load().unwrap(), None);
        fs::write(temporary.path().join(CATALOG_NEW), "to").unwrap();
        assert_eq!(file.load().unwrap(), None);
        file.replace(b"one").unwrap();
        fs::write(temporary.path().join(CATALOG_NEW), "tor").unwrap();
        assert_eq!(file.load().unwrap().unwrap(), b"one");
        file.replace(b"two").unwrap();
        assert_eq!(file.load().unwrap().unwrap(), b"two");
        let room = fs::metadata(temporary.path().join(CATALOG_NEW)).unwrap().len();
        assert_eq!(room, 3 + MARGIN, "the next one has its room already");
        file.replace(b"three").unwrap();
        assert_eq!(file.load().unwrap().unwrap(), b"three");
    }

    #[test]
    fn the_removal_of_a_missing_file_succeeds() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let volume = dir.make_dir("volumes").unwrap().join("v");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("x"), "x").unwrap();
        dir.remove("volumes/v").unwrap();
        assert!(!volume.exists());
        dir.remove("volumes/v").unwrap();
    }
}
