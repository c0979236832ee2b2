//! Which initiator sees which LUN: the rules of targets and LUN maps, as pure functions of the catalog.
//!
//! * An entry without initiators is for every initiator that has no entry of its own at that LUN.
//! * An initiator may log in to a target if it sees a LUN there, or if no entry of the target names an initiator.
//! * For an initiator that may not log in, the target does not exist: neither in discovery nor in a login.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Catalog;
use super::entries::{MapEntry, TargetEntry};
use super::names::{IscsiName, ObjectName};
use crate::sam::Lun;

/// The rule of the map that forbids a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The LUN is above [`Lun::MAX_NUMBER`].
    LunTooHigh(u16),
    /// No volume, drive or image has this name.
    NoObject(ObjectName),
    /// There is no target of this name.
    NoTarget(IscsiName),
    /// Another entry has this LUN for the same initiator.
    Taken {
        /// The target.
        target: IscsiName,
        /// The other entry, with only those of its initiators that the change is about. No initiators: all.
        entry: MapEntry,
    },
    /// The target has no such LUN to unmap.
    NotMapped {
        /// The target.
        target: IscsiName,
        /// The LUN.
        lun: u16,
    },
    /// The LUN cannot be unmapped for all initiators: each of its entries names initiators.
    NotForAll {
        /// The target.
        target: IscsiName,
        /// The LUN.
        lun: u16,
        /// The entries at the LUN.
        entries: Vec<MapEntry>,
    },
    /// The LUN cannot be unmapped for this initiator: no entry at the LUN names it.
    NotNamed(IscsiName),
    /// The object cannot be removed: it is mapped.
    Mapped {
        /// The target that shows it.
        target: IscsiName,
        /// The entry that maps it.
        entry: MapEntry,
    },
}

/// Whether `initiator` may log in to `target`.
#[must_use]
pub(crate) fn admits(target: &TargetEntry, initiator: &IscsiName) -> bool {
    target.maps.iter().any(|map| map.initiators.is_empty() || map.initiators.contains(initiator))
        || target.maps.is_empty()
}

/// The LUNs of `target` that `initiator` sees, in ascending order.
#[must_use]
pub(crate) fn visible<'a>(target: &'a TargetEntry, initiator: &IscsiName) -> Vec<&'a MapEntry> {
    let own = |map: &MapEntry| map.initiators.contains(initiator);
    let overruled: BTreeSet<u16> = target.maps.iter().filter(|map| own(map)).map(|map| map.lun).collect();
    let is_seen = |map: &MapEntry| own(map) || (map.initiators.is_empty() && !overruled.contains(&map.lun));
    let mut seen: Vec<&MapEntry> = target.maps.iter().filter(|map| is_seen(map)).collect();
    seen.sort_by_key(|map| map.lun);
    seen
}

/// The rules that forbid `entry` at target `iqn`, whatever else is mapped there.
#[must_use]
pub(crate) fn faults(catalog: &Catalog, iqn: &IscsiName, entry: &MapEntry) -> Vec<Rule> {
    let too_high = (entry.lun > Lun::MAX_NUMBER).then_some(Rule::LunTooHigh(entry.lun));
    let has_object = catalog.has_object(&entry.object);
    let no_object = (!has_object).then(|| Rule::NoObject(entry.object.clone()));
    let no_target = (!catalog.targets.contains_key(iqn)).then(|| Rule::NoTarget(iqn.clone()));
    [too_high, no_object, no_target].into_iter().flatten().collect()
}

/// Adds `entry` to target `iqn`.
///
/// # Errors
/// The rule that forbids it; nothing is changed.
pub(crate) fn map(catalog: &mut Catalog, iqn: &IscsiName, entry: MapEntry) -> Result<(), Rule> {
    if let Some(fault) = faults(catalog, iqn, &entry).into_iter().next() {
        return Err(fault);
    }
    let target = catalog.targets.get_mut(iqn).ok_or_else(|| Rule::NoTarget(iqn.clone()))?;
    if let Some(other) = target.maps.iter().find(|other| other.overlaps(&entry)) {
        let shared = other.initiators.intersection(&entry.initiators).cloned().collect();
        let entry = MapEntry { initiators: shared, ..other.clone() };
        return Err(Rule::Taken { target: iqn.clone(), entry });
    }
    insert(target, entry);
    Ok(())
}

/// Adds `entry`, which overlaps no other, to target `iqn`.
///
/// # Errors
/// The rule that forbids it; nothing is changed.
pub(crate) fn add(catalog: &mut Catalog, iqn: &IscsiName, entry: MapEntry) -> Result<(), Rule> {
    if let Some(fault) = faults(catalog, iqn, &entry).into_iter().next() {
        return Err(fault);
    }
    let target = catalog.targets.get_mut(iqn).ok_or_else(|| Rule::NoTarget(iqn.clone()))?;
    insert(target, entry);
    Ok(())
}

fn insert(target: &mut TargetEntry, entry: MapEntry) {
    let at = target.maps.partition_point(|other| by_place(other, &entry).is_le());
    target.maps.insert(at, entry);
}

/// Gives target `iqn` the `entries` that it had, in the place of what is left of them and of those that were `made`. Returns
/// what was there.
pub(crate) fn set_back(
    catalog: &mut Catalog,
    iqn: &IscsiName,
    made: &[MapEntry],
    entries: Vec<MapEntry>,
) -> Vec<MapEntry> {
    let Some(target) = catalog.targets.get_mut(iqn) else { return Vec::new() };
    let is_of_them = |map: &mut MapEntry| made.iter().chain(&entries).any(|entry| entry.overlaps(map));
    let taken = target.maps.extract_if(.., is_of_them).collect();
    entries.into_iter().for_each(|entry| insert(target, entry));
    taken
}

/// The entries at a LUN that are to be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    /// The entry for all initiators that have none of their own.
    All,
    /// The entry of this initiator. Other initiators that the same entry names keep it.
    Of(&'a IscsiName),
    /// All entries.
    Every,
}

/// Removes the entries of `whose` at LUN `lun` of target `iqn`. The answer has the removed entries, each with the
/// initiators that lose it.
///
/// # Errors
/// The rule that forbids it; nothing is changed.
pub(crate) fn unmap(
    catalog: &mut Catalog,
    iqn: &IscsiName,
    lun: u16,
    whose: Whose<'_>,
) -> Result<Vec<MapEntry>, Rule> {
    let target = catalog.targets.get_mut(iqn).ok_or_else(|| Rule::NoTarget(iqn.clone()))?;
    // A LUN may have thousands of entries: each of one initiator.
    let found = match whose {
        Whose::Every => {
            let taken: Vec<MapEntry> = target.maps.extract_if(.., |map| map.lun == lun).collect();
            if !taken.is_empty() {
                return Ok(taken);
            }
            None
        }
        Whose::All => target.maps.iter().position(|map| map.lun == lun && map.initiators.is_empty()),
        Whose::Of(initiator) => {
            target.maps.iter().position(|map| map.lun == lun && map.initiators.contains(initiator))
        }
    };
    let Some(found) = found else {
        let there: Vec<MapEntry> = target.maps.iter().filter(|map| map.lun == lun).cloned().collect();
        return Err(match whose {
            _ if there.is_empty() => Rule::NotMapped { target: iqn.clone(), lun },
            Whose::Of(initiator) => Rule::NotNamed(initiator.clone()),
            Whose::All | Whose::Every => Rule::NotForAll { target: iqn.clone(), lun, entries: there },
        });
    };
    let mut map = target.maps.remove(found);
    let Whose::Of(initiator) = whose else { return Ok(vec![map]) };
    let taken = MapEntry { initiators: [initiator.clone()].into(), ..map.clone() };
    map.initiators.remove(initiator);
    if !map.initiators.is_empty() {
        insert(target, map);
    }
    Ok(vec![taken])
}

/// The order of a target's entries.
fn by_place(a: &MapEntry, b: &MapEntry) -> std::cmp::Ordering {
    (a.lun, &a.initiators).cmp(&(b.lun, &b.initiators))
}

/// Refuses the removal of `object` while it is mapped.
///
/// # Errors
/// [`Rule::Mapped`].
pub(crate) fn unmapped(catalog: &Catalog, object: &ObjectName) -> Result<(), Rule> {
    match catalog.maps_of(object).next() {
        None => Ok(()),
        Some((iqn, map)) => Err(Rule::Mapped { target: iqn.clone(), entry: map.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalog::names::node_name;
    use crate::catalog::{Seed, VolumeEntry, VolumeLocation};

    const A: &str = "iqn.2026-01.example:a";
    const B: &str = "iqn.2026-01.example:b";

    fn iqn(text: &str) -> IscsiName {
        node_name(text).unwrap()
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (index, name) in ["v0", "v1"].into_iter().enumerate() {
            let volume =
                VolumeEntry::new(Seed([index as u8; 16]), 512, Default::default(), VolumeLocation::Memory);
            catalog.volumes.insert(name.parse().unwrap(), volume.into());
        }
        catalog.targets.insert(iqn("t"), TargetEntry::new(1).into());
        catalog
    }

    fn entry(lun: u16, object: &str, initiators: &[&str]) -> MapEntry {
        MapEntry {
            lun,
            object: object.parse().unwrap(),
            initiators: initiators.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<_>>(),
            read_only: false,
        }
    }

    fn seen(catalog: &Catalog, initiator: &str) -> Vec<(u16, String)> {
        let seen = visible(&catalog.targets[&iqn("t")], &iqn(initiator));
        seen.iter().map(|map| (map.lun, map.object.to_string())).collect()
    }

    #[test]
    fn an_own_entry_overrules_the_one_for_all() {
        let mut catalog = catalog();
        map(&mut catalog, &iqn("t"), entry(0, "v0", &[])).unwrap();
        map(&mut catalog, &iqn("t"), entry(0, "v1", &[A])).unwrap();
        assert_eq!(seen(&catalog, A), [(0, "v1".to_owned())]);
        assert_eq!(seen(&catalog, B), [(0, "v0".to_owned())]);
    }

    #[test]
    fn a_target_for_listed_initiators_hides_from_others() {
        let mut catalog = catalog();
        let is_admitted = |catalog: &Catalog, name: &str| admits(&catalog.targets[&iqn("t")], &iqn(name));
        assert!(is_admitted(&catalog, B), "a target without LUNs hides from nobody");
        map(&mut catalog, &iqn("t"), entry(3, "v0", &[A])).unwrap();
        assert!(is_admitted(&catalog, &A.to_ascii_uppercase()));
        assert!(!is_admitted(&catalog, B));
        assert!(seen(&catalog, B).is_empty());
    }

    #[test]
    fn one_lun_cannot_be_mapped_twice_for_one_initiator() {
        let mut catalog = catalog();
        map(&mut catalog, &iqn("t"), entry(0, "v0", &[A, B])).unwrap();
        let before = catalog.clone();
        let mut refused = |target, entry| map(&mut catalog, &iqn(target), entry).unwrap_err();
        let taken = Rule::Taken { target: iqn("t"), entry: entry(0, "v0", &[B]) };
        assert_eq!(refused("t", entry(0, "v1", &[B])), taken, "A is not asked for");
        assert_eq!(refused("t", entry(0x4000, "v1", &[])), Rule::LunTooHigh(0x4000));
        assert_eq!(refused("t", entry(1, "vX", &[])), Rule::NoObject("vX".parse().unwrap()));
        assert_eq!(refused("u", entry(1, "v1", &[])), Rule::NoTarget(iqn("u")));
        assert_eq!(catalog, before);
    }

    #[test]
    fn unmap_for_one_initiator_leaves_the_others() {
        let mut catalog = catalog();
        let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
        map(&mut catalog, &iqn("t"), entry(0, "v0", &[A, B])).unwrap();
        let before = catalog.clone();
        let taken = unmap(&mut catalog, &iqn("t"), 0, Whose::Of(&a)).unwrap();
        assert_eq!(taken, [entry(0, "v0", &[A])]);
        assert!(seen(&catalog, A).is_empty());
        assert_eq!(seen(&catalog, B), [(0, "v0".to_owned())]);
        let left = catalog.clone();
        map(&mut catalog, &iqn("t"), entry(0, "v1", &[A])).unwrap();
        let made = [entry(0, "v1", &[A])];
        let there = set_back(&mut catalog, &iqn("t"), &made, vec![entry(0, "v0", &[A, B])]);
        assert_eq!(there, [entry(0, "v1", &[A]), entry(0, "v0", &[B])]);
        assert_eq!(catalog, before);
        let mut catalog = left;
        let again = unmap(&mut catalog, &iqn("t"), 0, Whose::Of(&a));
        assert_eq!(again, Err(Rule::NotNamed(a.clone())));
        assert_eq!(unmap(&mut catalog, &iqn("t"), 0, Whose::Of(&b)), Ok(vec![entry(0, "v0", &[B])]));
        assert!(catalog.targets[&iqn("t")].maps.is_empty());
        for whose in [Whose::All, Whose::Of(&a), Whose::Every] {
            let missing = unmap(&mut catalog, &iqn("t"), 7, whose);
            assert_eq!(missing, Err(Rule::NotMapped { target: iqn("t"), lun: 7 }));
            assert_eq!(unmap(&mut catalog, &iqn("u"), 7, whose), Err(Rule::NoTarget(iqn("u"))));
        }
    }

    #[test]
    fn unmap_for_all_takes_no_entry_that_names_somebody() {
        let mut catalog = catalog();
        map(&mut catalog, &iqn("t"), entry(0, "v0", &[])).unwrap();
        map(&mut catalog, &iqn("t"), entry(0, "v1", &[A])).unwrap();
        map(&mut catalog, &iqn("t"), entry(1, "v0", &[])).unwrap();
        let full = catalog.clone();
        assert_eq!(unmap(&mut catalog, &iqn("t"), 0, Whose::All), Ok(vec![entry(0, "v0", &[])]));
        assert_eq!(catalog.targets[&iqn("t")].maps, [entry(0, "v1", &[A]), entry(1, "v0", &[])]);
        let before = catalog.clone();
        let named = unmap(&mut catalog, &iqn("t"), 0, Whose::All);
        assert_eq!(
            named,
            Err(Rule::NotForAll { target: iqn("t"), lun: 0, entries: vec![entry(0, "v1", &[A])] })
        );
        assert_eq!(catalog, before);
        catalog = full;
        let every = unmap(&mut catalog, &iqn("t"), 0, Whose::Every);
        assert_eq!(every, Ok(vec![entry(0, "v0", &[]), entry(0, "v1", &[A])]));
        assert_eq!(catalog.targets[&iqn("t")].maps, [entry(1, "v0", &[])]);
    }

    #[test]
    fn a_mapped_object_names_where_it_is_mapped() {
        let mut catalog = catalog();
        let name: ObjectName = "v0".parse().unwrap();
        assert_eq!(unmapped(&catalog, &name), Ok(()));
        map(&mut catalog, &iqn("t"), entry(7, "v0", &[])).unwrap();
        let mapped = Rule::Mapped { target: iqn("t"), entry: entry(7, "v0", &[]) };
        assert_eq!(unmapped(&catalog, &name), Err(mapped));
    }
}
