//! Version 4 of the catalog, which has no groups. Its entries have the types of version 5.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::version_5::{self, VolumeEntry};
use super::version_6::PairEntry;
use crate::catalog::entries::{CartridgeEntry, DriveEntry, Scrap, Seed, TargetEntry, TokenEntry};
use crate::catalog::names::{Barcode, IscsiName, Name};
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
    pub(super) tokens: BTreeMap<Name, Kept<TokenEntry>>,
    pub(super) scrap: BTreeSet<Scrap>,
}

impl From<Catalog> for version_5::Catalog {
    fn from(old: Catalog) -> Self {
        let Catalog { revision, data_dir, demo, volumes, drives, cartridges, targets, pairs, tokens, scrap } =
            old;
        let groups = BTreeMap::new();
        Self { revision, data_dir, demo, volumes, drives, cartridges, targets, pairs, groups, tokens, scrap }
    }
}
