//! LUNs, as they are seen.

use crate::array::{Array, show};
use crate::catalog::names::{IscsiName, ObjectName};
use crate::catalog::{Catalog, MapEntry};

/// The map entries of all targets.
#[must_use]
pub fn all(array: &Array) -> Vec<show::Lun> {
    let now = array.snapshot();
    let targets = now.catalog.targets.iter();
    let entries = targets.flat_map(|(iqn, target)| target.maps.iter().map(move |map| (iqn, map)));
    entries.map(|(iqn, map)| of(&now.catalog, iqn, map)).collect()
}

/// The entry of target `iqn` that is `entry`, if there is one.
#[must_use]
pub fn named(array: &Array, iqn: &IscsiName, entry: &MapEntry) -> Option<show::Lun> {
    let now = array.snapshot();
    let is_there = now.catalog.targets.get(iqn)?.maps.contains(entry);
    is_there.then(|| of(&now.catalog, iqn, entry))
}

/// The entry `map` of target `iqn`.
pub(crate) fn of(catalog: &Catalog, iqn: &IscsiName, map: &MapEntry) -> show::Lun {
    let kind = match &map.object {
        ObjectName::Whole(name) if catalog.volumes.contains_key(name) => "volume",
        ObjectName::Whole(name) if catalog.command_devices.contains_key(name) => "command-device",
        ObjectName::Whole(_) => "drive",
        ObjectName::Image(_) => "snapshot",
    };
    show::Lun {
        target: iqn.to_string(),
        lun: map.lun,
        object: map.object.to_string(),
        kind: kind.to_owned(),
        initiators: map.initiators.iter().map(IscsiName::to_string).collect(),
        read_only: map.read_only,
    }
}
