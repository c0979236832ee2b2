//! Why a path is none for an operator's files.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How a path that is asked for lies to one that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Relation {
    /// The path is the volume's directory.
    Same,
    /// It lies in the other directory.
    Inside,
    /// The other directory lies in it.
    Above,
}

impl Relation {
    /// How `path` lies to the directory `there`; `None`: neither lies in the other.
    #[must_use]
    pub fn of(path: &Path, there: &Path) -> Option<Self> {
        match (path.starts_with(there), there.starts_with(path)) {
            (true, true) => Some(Self::Same),
            (true, false) => Some(Self::Inside),
            (false, true) => Some(Self::Above),
            (false, false) => None,
        }
    }
}

/// Why the daemon makes no files of an operator at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Misplaced {
    /// The path is relative, and the daemon does not run in the operator's directory.
    Relative,
    /// The path contains `..`.
    Upwards,
    /// The path leads into the data directory.
    InDataDirectory,
    /// The path is not UTF-8.
    NotText,
    /// The path is longer than any path of the system.
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most bytes of a path.
        most: usize,
    },
}
