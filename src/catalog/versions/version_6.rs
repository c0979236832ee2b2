//! Version 6 of the catalog, which has no restores and no clones. Its volumes are of a type of their own. Its other entries have the types of
//! version 7, which are today's: who changes these gives version 6 types of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::catalog::entries::{
    self, CartridgeEntry, DriveEntry, GroupEntry, PairEntry, Scrap, Seed, SnapshotEntry, SnapshotPolicy,
    StoreKind, TargetEntry, TokenEntry,
};
use crate::catalog::labels::{Description, Labels};
use crate::catalog::names::{Barcode, ImageName, IscsiName, Name};
use crate::catalog::{Kept, Revision};
use crate::units::BlockSize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    revision: Revision,
    data_dir: Option<Seed>,
    demo: bool,
    volumes: BTreeMap<Name, Kept<VolumeEntry>>,
    drives: BTreeMap<Name, Kept<DriveEntry>>,
    cartridges: BTreeMap<Barcode, Kept<CartridgeEntry>>,
    targets: BTreeMap<IscsiName, Kept<TargetEntry>>,
    pairs: BTreeMap<Name, Kept<PairEntry>>,
    groups: BTreeMap<Name, Kept<GroupEntry>>,
    snapshots: BTreeMap<ImageName, Kept<SnapshotEntry>>,
    tokens: BTreeMap<Name, Kept<TokenEntry>>,
    scrap: BTreeSet<Scrap>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeEntry {
    seed: Seed,
    size: u64,
    block_size: BlockSize,
    store: StoreKind,
    path: Option<String>,
    directory: Option<Name>,
    last_image: u64,
    snapshot_limit: Option<u64>,
    snapshot_policy: SnapshotPolicy,
    labels: Labels,
    description: Description,
}

impl From<VolumeEntry> for entries::VolumeEntry {
    fn from(old: VolumeEntry) -> Self {
        let VolumeEntry { seed, size, block_size, store, path, directory, .. } = old;
        let VolumeEntry { last_image, snapshot_limit, snapshot_policy, labels, description, .. } = old;
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
            restoring: None,
            clone_of: None,
            labels,
            description,
        }
    }
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
        let volumes = volumes
            .into_iter()
            .map(|(name, kept)| (name, Kept::new(kept.revision(), VolumeEntry::clone(&kept).into())))
            .collect();
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
