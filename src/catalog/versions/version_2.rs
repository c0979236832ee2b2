//! Version 2 of the catalog. Its types never change: a new field of today's entries must not be demanded of an old
//! file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::version_3;
use super::version_5::VolumeEntry;
use super::version_6::PairEntry;
use crate::catalog::entries::{self, CartridgeEntry, DriveEntry, MapEntry, Seed, TargetEntry};
use crate::catalog::names::{Barcode, IscsiName, Name};
use crate::catalog::{Kept, Revision};
use crate::units::BlockSize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) demo: bool,
    pub(super) volumes: BTreeMap<Name, Volume>,
    pub(super) drives: BTreeMap<Name, Drive>,
    pub(super) cartridges: BTreeMap<Barcode, Cartridge>,
    pub(super) targets: BTreeMap<IscsiName, Target>,
    pub(super) pairs: BTreeMap<Name, Pair>,
    pub(super) scrap: BTreeSet<Scrap>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    seed: Seed,
    size: u64,
    block_size: BlockSize,
    store: StoreKind,
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoreKind {
    File,
    Mem,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drive {
    seed: Seed,
    loaded: Option<Barcode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cartridge {
    seed: Seed,
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    relative_id: u16,
    maps: Vec<Map>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Map {
    lun: u16,
    object: Name,
    initiators: BTreeSet<IscsiName>,
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    seed: Seed,
    primary: Name,
    secondary: Name,
    pace: Pace,
    broken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pace {
    Slow,
    Medium,
    Fast,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scrap {
    Volume(Name),
    Outside(Outside),
    Cartridge(Barcode),
    Pair(Name),
    Import(Barcode),
    Image(String),
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    pub(super) path: String,
    pub(super) mark: Option<Seed>,
}

/// Objects of version 2 have no revision; they get the first.
fn each<K: Ord, Old, New: From<Old>>(old: BTreeMap<K, Old>) -> BTreeMap<K, Kept<New>> {
    old.into_iter().map(|(name, entry)| (name, Kept::new(Revision::FIRST, entry.into()))).collect()
}

impl From<Catalog> for version_3::Catalog {
    fn from(old: Catalog) -> Self {
        let volumes = old.volumes.into_iter().map(|(name, volume)| {
            let entry = volume.named(&name);
            (name, Kept::new(Revision::FIRST, entry))
        });
        Self {
            revision: Revision::FIRST,
            demo: old.demo,
            volumes: volumes.collect(),
            drives: each(old.drives),
            cartridges: each(old.cartridges),
            targets: each(old.targets),
            pairs: each(old.pairs),
            tokens: BTreeMap::new(),
            scrap: old.scrap.into_iter().map(entries::Scrap::from).collect(),
        }
    }
}

impl Volume {
    /// Version 2 named the directory of a volume as the volume.
    fn named(self, name: &Name) -> VolumeEntry {
        let Self { seed, size, block_size, store, path } = self;
        let (store, path, directory) = match (store, path) {
            (StoreKind::Mem, _) => (entries::StoreKind::Mem, None, None),
            (StoreKind::File, Some(path)) => (entries::StoreKind::File, Some(path), None),
            (StoreKind::File, None) => (entries::StoreKind::File, None, Some(name.clone())),
        };
        let (labels, description) = Default::default();
        VolumeEntry { seed, size, block_size, store, path, directory, labels, description }
    }
}

impl From<Drive> for DriveEntry {
    fn from(old: Drive) -> Self {
        let Drive { seed, loaded } = old;
        Self { loaded, ..Self::new(seed) }
    }
}

impl From<Cartridge> for CartridgeEntry {
    fn from(old: Cartridge) -> Self {
        let Cartridge { seed, size } = old;
        Self::new(seed, size)
    }
}

impl From<Target> for TargetEntry {
    fn from(old: Target) -> Self {
        Self { maps: old.maps.into_iter().map(MapEntry::from).collect(), ..Self::new(old.relative_id) }
    }
}

impl From<Map> for MapEntry {
    fn from(old: Map) -> Self {
        let Map { lun, object, initiators, read_only } = old;
        Self { lun, object: object.into(), initiators, read_only }
    }
}

impl From<Pair> for PairEntry {
    fn from(old: Pair) -> Self {
        let Pair { seed, primary, secondary, pace, broken } = old;
        let pace = match pace {
            Pace::Slow => entries::Pace::Slow,
            Pace::Medium => entries::Pace::Medium,
            Pace::Fast => entries::Pace::Fast,
        };
        let (labels, description) = Default::default();
        Self { seed, primary, secondary, pace, broken, labels, description }
    }
}

impl From<Scrap> for entries::Scrap {
    fn from(old: Scrap) -> Self {
        match old {
            Scrap::Volume(name) => Self::Volume(name),
            Scrap::Outside(Outside { path, mark }) => Self::External(entries::ExternalScrap { path, mark }),
            Scrap::Cartridge(barcode) => Self::Cartridge(barcode),
            Scrap::Pair(name) => Self::Pair(name),
            Scrap::Import(barcode) => Self::Import(barcode),
            Scrap::Image(path) => Self::Image(path),
        }
    }
}
