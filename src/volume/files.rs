//! The names of the files in a volume's directory: those of the volume itself, and those of an
//! [`ExternalDirectory`](super::ExternalDirectory).

use std::fs;
use std::path::Path;

use super::VolumeError;
use super::header;
use crate::store::{SegmentedStore, sync_directory};

/// The lock file's name.
pub(super) const LOCK: &str = "lock";

/// The landing log's name.
pub(super) const LANDING: &str = "landing";

/// The name of a landing log that is not whole yet.
const LANDING_NEW: &str = "landing.new";

/// The files of the pool of a volume's images: the table and the slots.
pub(super) const POOL: [&str; 2] = ["snapshots.table", "snapshots.slots"];

/// The record of a clone that is not independent yet.
pub(super) const CLONE: [&str; 2] = ["clone.0", "clone.1"];
/// The record of a restore from one of the volume's images.
pub(super) const RESTORE: &str = "snapshots.restore";
/// The same while it is made anew.
pub(crate) const RESTORE_NEW: &str = "snapshots.restore-new";
/// The note that the record takes no more writes.
pub(crate) const RESTORE_STOPPED: &str = "snapshots.restore-stopped";
/// The note that the pool takes no more writes.
pub(crate) const POOL_STOPPED: &str = "snapshots.stopped";

/// The beginning of a mark's name.
const MARK: &str = "scrap.";

/// The name of the file for `mark`.
pub(super) fn mark_name(mark: [u8; 16]) -> String {
    format!("{MARK}{:032x}", u128::from_be_bytes(mark))
}

/// Whether a file of that name is a mark.
pub(super) fn is_mark(name: &str) -> bool {
    let digits = name.strip_prefix(MARK).unwrap_or("");
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

/// Whether a file of that name is the lock file or a mark.
pub(super) fn belongs_to_external_directory(name: &str) -> bool {
    name == LOCK || is_mark(name)
}

/// Makes the existence of a directory durable, or its absence.
pub(super) fn sync_parent(directory: &Path) -> Result<(), VolumeError> {
    match directory.parent().filter(|parent| parent.is_dir()) {
        Some(parent) => Ok(sync_directory(parent)?),
        None => Ok(()),
    }
}

/// Removes the volume in `directory`, durably. Leaves the directory with its lock file and marks.
pub(super) fn remove_files(directory: &Path) -> Result<(), VolumeError> {
    let names = entries(directory)?;
    let volumes = |name: &str| {
        [header::FILE, header::NEW, LANDING, LANDING_NEW, POOL_STOPPED].contains(&name)
            || [RESTORE, RESTORE_NEW, RESTORE_STOPPED].contains(&name)
            || POOL.contains(&name)
            || CLONE.contains(&name)
            || SegmentedStore::is_file_name(name)
    };
    let (names, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| volumes(name));
    if let Some(foreign) = others.iter().find(|name| !belongs_to_external_directory(name)) {
        return Err(VolumeError::Occupied { path: directory.join(foreign) });
    }
    let remove = |name: &String| {
        let path = directory.join(name);
        fs::remove_file(&path).map_err(|error| VolumeError::io(&path, error))
    };
    let (headers, segments): (Vec<_>, Vec<_>) = names.iter().partition(|name| *name == header::FILE);
    headers.into_iter().try_for_each(remove)?;
    sync_directory(directory)?;
    segments.into_iter().try_for_each(remove)?;
    Ok(sync_directory(directory)?)
}

/// The names in a directory, as text. A name that is no valid text is converted, and never matches one of ours.
pub(super) fn entries(directory: &Path) -> Result<Vec<String>, VolumeError> {
    let names = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    });
    names.map_err(|error| VolumeError::io(directory, error))
}
