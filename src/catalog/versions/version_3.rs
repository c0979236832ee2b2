//! Version 3 of the catalog, which does not have the identity of the data directory. Its entries have the types of
//! version 4.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::version_5::VolumeEntry;
use super::version_6::PairEntry;
use crate::catalog::entries::{CartridgeEntry, DriveEntry, Scrap, TargetEntry, TokenEntry};
use crate::catalog::names::{Barcode, IscsiName, Name};
use crate::catalog::{Kept, Revision};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) revision: Revision,
    pub(super) demo: bool,
    pub(super) volumes: BTreeMap<Name, Kept<VolumeEntry>>,
    pub(super) drives: BTreeMap<Name, Kept<DriveEntry>>,
    pub(super) cartridges: BTreeMap<Barcode, Kept<CartridgeEntry>>,
    pub(super) targets: BTreeMap<IscsiName, Kept<TargetEntry>>,
    pub(super) pairs: BTreeMap<Name, Kept<PairEntry>>,
    pub(super) tokens: BTreeMap<Name, Kept<TokenEntry>>,
    pub(super) scrap: BTreeSet<Scrap>,
}

impl From<Catalog> for super::version_4::Catalog {
    fn from(old: Catalog) -> Self {
        let Catalog { revision, demo, volumes, drives, cartridges, targets, pairs, tokens, scrap } = old;
        Self { revision, data_dir: None, demo, volumes, drives, cartridges, targets, pairs, tokens, scrap }
    }
}
