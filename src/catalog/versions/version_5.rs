//! Version 5 of the catalog, which has no snapshots. Its volumes are of a type of their own. Its other entries have the types
//! of version 6.
//! An entry of a LUN could not name an image; one that does leads nowhere, and the catalog is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::version_6::{self, PairEntry, each};
use crate::catalog::entries::{
    CartridgeEntry, DriveEntry, GroupEntry, Scrap, Seed, StoreKind, TargetEntry, TokenEntry,
};
use crate::catalog::labels::{Description, Labels};
use crate::catalog::names::{Barcode, IscsiName, Name};
use crate::catalog::{Kept, Revision};
use crate::units::BlockSize;

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
    pub(super) tokens: BTreeMap<Name, Kept<TokenEntry>>,
    pub(super) scrap: BTreeSet<Scrap>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeEntry {
    pub(super) seed: Seed,
    pub(super) size: u64,
    pub(super) block_size: BlockSize,
    pub(super) store: StoreKind,
    pub(super) path: Option<String>,
    pub(super) directory: Option<Name>,
    pub(super) labels: Labels,
    pub(super) description: Description,
}

impl From<VolumeEntry> for version_6::VolumeEntry {
    fn from(old: VolumeEntry) -> Self {
        let VolumeEntry { seed, size, block_size, store, path, directory, labels, description } = old;
        let (last_image, snapshot_limit, snapshot_policy) = Default::default();
        Self {
            seed,
            size,
            block_size,
            store,
            path,
            directory,
            last_image,
            snapshot_limit,
            snapshot_policy,
            labels,
            description,
        }
    }
}

impl From<Catalog> for version_6::Catalog {
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
            tokens,
            scrap,
        } = old;
        let volumes = each(volumes);
        let snapshots = BTreeMap::new();
        Self {
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
        }
    }
}
