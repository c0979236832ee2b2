//! Version 6 of the catalog. Its pairs have no attributes for copies, and it has no command devices. Its other entries have
//! today's types: who changes these gives this version types of its own, and the older versions have those then.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::catalog::entries::{
    self, CartridgeEntry, DriveEntry, GroupEntry, Pace, Scrap, Seed, SnapshotEntry, TargetEntry, TokenEntry,
    VolumeEntry,
};
use crate::catalog::labels::{Description, Labels};
use crate::catalog::names::{Barcode, ImageName, IscsiName, Name};
use crate::catalog::{Kept, Revision};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) revision: Revision,
    pub(super) data_dir: Option<Seed>,
    pub(super) demo: bool,
    pub(super) volumes: BTreeMap<Name, Kept<VolumeEntry>>,
    pub(super) drives: BTreeMap<Name, Kept<DriveEntry>>,
    pub(super) cartridges: BTreeMap<Barcode, Kept<CartridgeEntry>>,
    pub(super) targets: BTreeMap<IscsiName, Kept<TargetEntry>>,
    pub(super) pairs: BTreeMap<Name, Kept<PairEntry>>,
    pub(super) groups: BTreeMap<Name, Kept<GroupEntry>>,
    pub(super) snapshots: BTreeMap<ImageName, Kept<SnapshotEntry>>,
    pub(super) tokens: BTreeMap<Name, Kept<TokenEntry>>,
    pub(super) scrap: BTreeSet<Scrap>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairEntry {
    pub(super) seed: Seed,
    pub(super) primary: Name,
    pub(super) secondary: Name,
    pub(super) pace: Pace,
    pub(super) broken: Option<String>,
    pub(super) labels: Labels,
    pub(super) description: Description,
}

impl From<PairEntry> for entries::PairEntry {
    fn from(old: PairEntry) -> Self {
        let PairEntry { seed, primary, secondary, pace, broken, labels, description } = old;
        Self { broken, labels, description, ..Self::new(seed, primary, secondary, pace) }
    }
}

/// Entries of another type, with the revisions that they had.
pub(super) fn each<K: Ord, Old: Clone, New: From<Old>>(
    old: BTreeMap<K, Kept<Old>>,
) -> BTreeMap<K, Kept<New>> {
    let entry = |kept: Kept<Old>| Kept::new(kept.revision(), New::from(Old::clone(&kept)));
    old.into_iter().map(|(name, kept)| (name, entry(kept))).collect()
}

impl From<Catalog> for crate::catalog::Catalog {
    fn from(old: Catalog) -> Self {
        let Catalog {
            revision,
            data_dir,
            demo,
            volumes,
            drives,
            cartridges,
            targets,
            pairs,
            groups,
            snapshots,
            tokens,
            scrap,
        } = old;
        let (pairs, command_devices) = (each(pairs), BTreeMap::new());
        Self {
            revision,
            data_dir,
            demo,
            volumes,
            drives,
            command_devices,
            cartridges,
            targets,
            pairs,
            groups,
            snapshots,
            tokens,
            scrap,
        }
    }
}
