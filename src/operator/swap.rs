//! That no other object is put at a LUN which somebody uses.
//!
//! A host takes what it has found at a LUN for what is there. If another object is there without the LUN having been
//! away, the host's next write goes to that object. So a change of the catalog is refused after which an initiator that is
//! logged in would see another object at a LUN of its. Which entries the change adds, removes or parts is nothing to this.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::Cause;
use crate::catalog::names::{IscsiName, ObjectName};
use crate::catalog::{Catalog, Seed, rules};

/// The initiators that are logged in to each target; `None` where one is hidden.
pub(super) type Initiators = BTreeMap<String, Vec<Option<IscsiName>>>;

/// A LUN at which an initiator would see another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    target: IscsiName,
    lun: u16,
    initiator: IscsiName,
    object: ObjectName,
}

impl Swap {
    /// Whether LUN `lun` of `target` is the one.
    pub(super) fn is_at(&self, target: &IscsiName, lun: u16) -> bool {
        (&self.target, self.lun) == (target, lun)
    }

    /// Why it is refused.
    pub(super) fn cause(self) -> Cause {
        Cause::LunInUse { initiator: self.initiator, object: self.object }
    }
}

/// Finds the first LUN at which one of the `initiators` sees another object `after` a change than `before`.
pub(super) fn swap(before: &Catalog, after: &Catalog, initiators: &Initiators) -> Option<Swap> {
    let used = before.targets.iter().filter_map(|(iqn, was)| Some((iqn, was, initiators.get(iqn.as_str())?)));
    for (iqn, was, initiators) in used {
        let Some(is) = after.targets.get(iqn).filter(|is| is.maps != was.maps) else { continue };
        for initiator in initiators.iter().flatten().collect::<BTreeSet<_>>() {
            let shown: BTreeMap<u16, &ObjectName> =
                rules::visible(is, initiator).into_iter().map(|map| (map.lun, &map.object)).collect();
            let is_other = |lun: u16, object: &ObjectName| {
                // A new name of the same object is no other object.
                shown.get(&lun).is_some_and(|shown| identity(after, shown) != identity(before, object))
            };
            let seen = rules::visible(was, initiator);
            if let Some(map) = seen.into_iter().find(|map| is_other(map.lun, &map.object)) {
                let (target, initiator) = (iqn.clone(), initiator.clone());
                return Some(Swap { target, lun: map.lun, initiator, object: map.object.clone() });
            }
        }
    }
    None
}

fn identity(catalog: &Catalog, object: &ObjectName) -> Option<Seed> {
    match object {
        ObjectName::Whole(name) => {
            let volume = catalog.volumes.get(name).map(|entry| entry.seed);
            let drive = || catalog.drives.get(name).map(|entry| entry.seed);
            let device = || catalog.command_devices.get(name).map(|entry| entry.seed);
            volume.or_else(drive).or_else(device)
        }
        ObjectName::Image(name) => catalog.snapshots.get(name).map(|entry| entry.seed),
    }
}
