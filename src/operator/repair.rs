//! What ends a suspension.

use serde::{Deserialize, Serialize};

/// What ends a suspension of a pair by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Repair {
    /// A resync.
    Resync,
    /// A restore, because one was broken off.
    Restore,
}
