//! What a plan says of its items, and of what it refuses, in terms of the file.

use std::collections::BTreeSet;

use crate::catalog::labels::{Description, Labels};
use crate::catalog::names::{IscsiName, ObjectName};
use crate::catalog::rules::Rule;
use crate::catalog::{Catalog, MapEntry};
use crate::operator::cause::Cause;

/// The labels that change: one text for each.
pub(super) fn labels(has: &Labels, wants: &Labels) -> Vec<String> {
    let keys: BTreeSet<_> = has.iter().chain(wants.iter()).map(|(key, _)| key).collect();
    let change = |key| match (has.get(key), wants.get(key)) {
        (Some(old), Some(new)) if old != new => {
            Some(format!("label {key} {:?} -> {:?}", old.as_str(), new.as_str()))
        }
        (None, Some(new)) => Some(format!("new label {key} {:?}", new.as_str())),
        (Some(old), None) => Some(format!("no more label {key} {:?}", old.as_str())),
        _ => None,
    };
    keys.into_iter().filter_map(change).collect()
}

/// The description that changes.
pub(super) fn description(has: &Description, wants: &Description) -> String {
    format!("description {:?} -> {:?}", has.as_str(), wants.as_str())
}

/// The entry `wants` in the place of the entries `replaced`: the object and the access, with what they were if that differs.
pub(super) fn lun(replaced: &[&MapEntry], wants: &MapEntry) -> String {
    let access = |read_only| if read_only { "read-only" } else { "read-write" };
    let others: BTreeSet<&ObjectName> = replaced.iter().map(|entry| &entry.object).collect();
    let others = others.into_iter().filter(|object| **object != wants.object);
    let others: Vec<String> = others.map(ObjectName::to_string).collect();
    let mut detail = match others.is_empty() {
        true => wants.object.to_string(),
        false => format!("{} -> {}", others.join(", "), wants.object),
    };
    if replaced.iter().any(|entry| entry.read_only != wants.read_only) {
        detail.push_str(&format!(", {} -> {}", access(!wants.read_only), access(wants.read_only)));
    }
    detail
}

/// A cause that names what is in the way, but is not on the array, `before`: another table of the file wants that, and no command
/// can take it away.
pub(super) fn of_file(before: &Catalog, cause: Cause) -> Cause {
    match cause {
        // A cartridge that is in the way in a drive of the array was taken out at the beginning of the plan.
        Cause::DriveHolds { drive, cartridge } => {
            Cause::Given { what: format!("drive {drive}"), to: format!("cartridge {cartridge}") }
        }
        Cause::InDrive { cartridge, drive } => {
            Cause::Given { what: format!("cartridge {cartridge}"), to: format!("drive {drive}") }
        }
        Cause::InPair { volume, pair } if !before.pairs.contains_key(&pair) => {
            Cause::Given { what: format!("volume {volume}"), to: format!("pair {pair}") }
        }
        Cause::InGroup { volume, group } if !before.groups.contains_key(&group) => {
            Cause::Given { what: format!("volume {volume}"), to: format!("group {group}") }
        }
        Cause::Rule { rule: Rule::Taken { target, entry } } if !is_there(before, &target, &entry) => {
            let what = format!("LUN {} of {target}", entry.lun);
            Cause::Given { what, to: entry.object.to_string() }
        }
        other => other,
    }
}

/// Whether the target shows the entry's object at its LUN to one of its initiators.
fn is_there(catalog: &Catalog, target: &IscsiName, entry: &MapEntry) -> bool {
    let maps = catalog.targets.get(target).map_or(&[][..], |target| &target.maps);
    maps.iter().any(|map| map.overlaps(entry) && map.object == entry.object)
}
