//! What an operation is about: the kinds of work that lasts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What kind of work lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationKind {
    /// EXTENDED COPY.
    Copy,
    /// The copy behind a pair.
    PairCopy,
    /// The copy behind a volume that is being restored from a snapshot.
    Restore,
    /// The split of a pair or of a group at a time that is to come.
    PairSplit,
    /// Snapshots at a time that is to come.
    Snapshot,
    /// A cartridge to a file.
    CartridgeExport,
    /// A file to a cartridge.
    CartridgeImport,
    /// A volume to a stream.
    VolumeExport,
    /// A stream to a new volume.
    VolumeImport,
    /// The copy behind a clone.
    VolumeClone,
    /// A file for the whole array.
    Apply,
}

impl OperationKind {
    /// As in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::PairCopy => "pair_copy",
            Self::Restore => "restore",
            Self::PairSplit => "pair_split",
            Self::Snapshot => "snapshot",
            Self::CartridgeExport => "cartridge_export",
            Self::CartridgeImport => "cartridge_import",
            Self::VolumeExport => "volume_export",
            Self::VolumeImport => "volume_import",
            Self::VolumeClone => "volume_clone",
            Self::Apply => "apply",
        }
    }

    /// What is counted of it, as in JSON.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Apply => "changes",
            _ => "bytes",
        }
    }
}

/// What an operation works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it does.
    pub kind: OperationKind,
    /// Names of the array's objects: for a copy the sources first, for the copy behind a pair the pair, and behind a restore the volume; none
    /// for a file, which is about the whole array.
    pub objects: Vec<String>,
    /// A file of the daemon's machine.
    pub file: Option<PathBuf>,
}
