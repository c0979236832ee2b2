//! One change of a catalog: the objects that are put and the keys that are removed.
//!
//! A transaction is the difference of two catalogs and is not written by hand. So the catalog that was asked for, the
//! stored one and the one in memory cannot differ.

use std::collections::BTreeMap;

use super::Catalog;
use super::entries::{
    CartridgeEntry, CommandDeviceEntry, DriveEntry, GroupEntry, PairEntry, Scrap, Seed, SnapshotEntry,
    TargetEntry, TokenEntry, VolumeEntry,
};
use super::kept::{Kept, Revision};
use super::names::{Barcode, ImageName, IscsiName, Name};

/// Identifies a part of a catalog that a transaction can change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// [`Catalog::data_dir`]. The key exists if there is one.
    DataDir,
    /// [`Catalog::demo`]. The key exists if that is true.
    Demo,
    /// A volume.
    Volume(Name),
    /// A drive.
    Drive(Name),
    /// A command device.
    CommandDevice(Name),
    /// A cartridge.
    Cartridge(Barcode),
    /// A target, with its maps.
    Target(IscsiName),
    /// A pair.
    Pair(Name),
    /// A group.
    Group(Name),
    /// A snapshot.
    Snapshot(ImageName),
    /// A token.
    Token(Name),
    /// Files to be removed.
    Scrap(Scrap),
}

/// A key with its value. One type has both, so a value always fits its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The identity of the data directory.
    DataDir(Seed),
    /// `cleave serve --demo` made the array.
    Demo,
    /// A volume.
    Volume(Name, Kept<VolumeEntry>),
    /// A drive.
    Drive(Name, Kept<DriveEntry>),
    /// A command device.
    CommandDevice(Name, Kept<CommandDeviceEntry>),
    /// A cartridge.
    Cartridge(Barcode, Kept<CartridgeEntry>),
    /// A target, with its maps.
    Target(IscsiName, Kept<TargetEntry>),
    /// A pair.
    Pair(Name, Kept<PairEntry>),
    /// A group.
    Group(Name, Kept<GroupEntry>),
    /// A snapshot.
    Snapshot(ImageName, Kept<SnapshotEntry>),
    /// A token.
    Token(Name, Kept<TokenEntry>),
    /// Files to be removed.
    Scrap(Scrap),
}

/// A change that is made whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    taken: Vec<Key>,
    put: Vec<Value>,
}

impl Transaction {
    /// The smallest transaction that makes `after` of `before`.
    #[must_use]
    pub(crate) fn between(before: &Catalog, after: &Catalog) -> Self {
        let mut this = Self::default();
        match after.data_dir {
            same if same == before.data_dir => {}
            Some(identity) => this.put.push(Value::DataDir(identity)),
            None => this.taken.push(Key::DataDir),
        }
        match (before.demo, after.demo) {
            (true, false) => this.taken.push(Key::Demo),
            (false, true) => this.put.push(Value::Demo),
            _ => {}
        }
        this.compare(&before.volumes, &after.volumes, Key::Volume, Value::Volume);
        this.compare(&before.drives, &after.drives, Key::Drive, Value::Drive);
        let (old, new) = (&before.command_devices, &after.command_devices);
        this.compare(old, new, Key::CommandDevice, Value::CommandDevice);
        this.compare(&before.cartridges, &after.cartridges, Key::Cartridge, Value::Cartridge);
        this.compare(&before.targets, &after.targets, Key::Target, Value::Target);
        this.compare(&before.pairs, &after.pairs, Key::Pair, Value::Pair);
        this.compare(&before.groups, &after.groups, Key::Group, Value::Group);
        this.compare(&before.snapshots, &after.snapshots, Key::Snapshot, Value::Snapshot);
        this.compare(&before.tokens, &after.tokens, Key::Token, Value::Token);
        this.taken.extend(before.scrap.difference(&after.scrap).cloned().map(Key::Scrap));
        this.put.extend(after.scrap.difference(&before.scrap).cloned().map(Value::Scrap));
        this
    }

    fn compare<N: Ord + Clone, E: PartialEq>(
        &mut self,
        before: &BTreeMap<N, Kept<E>>,
        after: &BTreeMap<N, Kept<E>>,
        key: fn(N) -> Key,
        value: fn(N, Kept<E>) -> Value,
    ) {
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        self.taken.extend(gone.map(|name| key(name.clone())));
        let is_old = |name: &N, entry: &Kept<E>| before.get(name).is_some_and(|old| old.says_the_same(entry));
        let new = after.iter().filter(|(name, entry)| !is_old(name, entry));
        self.put.extend(new.map(|(name, entry)| value(name.clone(), entry.clone())));
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.put.is_empty()
    }

    /// `catalog` with the changes of this transaction. The catalog and each object that is put get the next revision.
    /// [`Catalog::check`] says whether the result keeps the rules.
    #[must_use]
    pub fn apply(&self, catalog: &Catalog) -> Catalog {
        let mut after = catalog.clone();
        let revision = catalog.revision.next();
        after.revision = revision;
        self.taken.iter().for_each(|key| take(&mut after, key));
        self.put.iter().for_each(|value| put(&mut after, value.clone(), revision));
        after
    }
}

impl Catalog {
    /// The revision of the transaction that last wrote the object under `key`. Another revision means that the object
    /// has changed. `None` if there is no object.
    #[must_use]
    pub(crate) fn revision_of(&self, key: &Key) -> Option<Revision> {
        match key {
            Key::Volume(name) => self.volumes.get(name).map(Kept::revision),
            Key::Drive(name) => self.drives.get(name).map(Kept::revision),
            Key::CommandDevice(name) => self.command_devices.get(name).map(Kept::revision),
            Key::Cartridge(barcode) => self.cartridges.get(barcode).map(Kept::revision),
            Key::Target(iqn) => self.targets.get(iqn).map(Kept::revision),
            Key::Pair(name) => self.pairs.get(name).map(Kept::revision),
            Key::Group(name) => self.groups.get(name).map(Kept::revision),
            Key::Snapshot(name) => self.snapshots.get(name).map(Kept::revision),
            Key::Token(name) => self.tokens.get(name).map(Kept::revision),
            Key::DataDir | Key::Demo | Key::Scrap(_) => None,
        }
    }
}

impl Catalog {
    /// The volume, drive, command device, cartridge, target, pair, group, snapshot or token under `key`.
    #[must_use]
    pub(crate) fn value_of(&self, key: &Key) -> Option<Value> {
        Some(match key {
            Key::Volume(name) => Value::Volume(name.clone(), self.volumes.get(name)?.clone()),
            Key::Drive(name) => Value::Drive(name.clone(), self.drives.get(name)?.clone()),
            Key::CommandDevice(name) => {
                Value::CommandDevice(name.clone(), self.command_devices.get(name)?.clone())
            }
            Key::Cartridge(barcode) => {
                Value::Cartridge(barcode.clone(), self.cartridges.get(barcode)?.clone())
            }
            Key::Target(iqn) => Value::Target(iqn.clone(), self.targets.get(iqn)?.clone()),
            Key::Pair(name) => Value::Pair(name.clone(), self.pairs.get(name)?.clone()),
            Key::Group(name) => Value::Group(name.clone(), self.groups.get(name)?.clone()),
            Key::Snapshot(name) => Value::Snapshot(name.clone(), self.snapshots.get(name)?.clone()),
            Key::Token(name) => Value::Token(name.clone(), self.tokens.get(name)?.clone()),
            Key::DataDir | Key::Demo | Key::Scrap(_) => return None,
        })
    }

    /// Sets the object under `key` back to what [`Self::value_of`] has told of it.
    pub(crate) fn set_back(&mut self, key: &Key, value: Option<Value>) {
        let revision = value.as_ref().and(self.revision_of(key)).unwrap_or_default();
        take(self, key);
        if let Some(value) = value {
            put(self, value, revision);
        }
    }
}

fn take(catalog: &mut Catalog, key: &Key) {
    match key {
        Key::DataDir => catalog.data_dir = None,
        Key::Demo => catalog.demo = false,
        Key::Volume(name) => drop(catalog.volumes.remove(name)),
        Key::Drive(name) => drop(catalog.drives.remove(name)),
        Key::CommandDevice(name) => drop(catalog.command_devices.remove(name)),
        Key::Cartridge(barcode) => drop(catalog.cartridges.remove(barcode)),
        Key::Target(iqn) => drop(catalog.targets.remove(iqn)),
        Key::Pair(name) => drop(catalog.pairs.remove(name)),
        Key::Group(name) => drop(catalog.groups.remove(name)),
        Key::Snapshot(name) => drop(catalog.snapshots.remove(name)),
        Key::Token(name) => drop(catalog.tokens.remove(name)),
        Key::Scrap(scrap) => {
            catalog.scrap.remove(scrap);
        }
    }
}

fn put(catalog: &mut Catalog, value: Value, revision: Revision) {
    match value {
        Value::DataDir(identity) => catalog.data_dir = Some(identity),
        Value::Demo => catalog.demo = true,
        Value::Volume(name, entry) => drop(catalog.volumes.insert(name, entry.at(revision))),
        Value::Drive(name, entry) => drop(catalog.drives.insert(name, entry.at(revision))),
        Value::CommandDevice(name, entry) => {
            drop(catalog.command_devices.insert(name, entry.at(revision)));
        }
        Value::Cartridge(barcode, entry) => drop(catalog.cartridges.insert(barcode, entry.at(revision))),
        Value::Target(iqn, entry) => drop(catalog.targets.insert(iqn, entry.at(revision))),
        Value::Pair(name, entry) => drop(catalog.pairs.insert(name, entry.at(revision))),
        Value::Group(name, entry) => drop(catalog.groups.insert(name, entry.at(revision))),
        Value::Snapshot(name, entry) => drop(catalog.snapshots.insert(name, entry.at(revision))),
        Value::Token(name, entry) => drop(catalog.tokens.insert(name, entry.at(revision))),
        Value::Scrap(scrap) => {
            catalog.scrap.insert(scrap);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::catalog::entries::{ExternalScrap, MapEntry, Pace, Role, SecretDigest, VolumeLocation};
    use crate::catalog::labels::Labels;
    use crate::units::BlockSize;

    /// One of four names, so that two catalogs often share some.
    fn name() -> impl Strategy<Value = Name> {
        "[a-d]".prop_map(|text| text.parse().unwrap())
    }

    fn barcode() -> impl Strategy<Value = Barcode> {
        "[A-D]".prop_map(|text| text.parse().unwrap())
    }

    fn iqn() -> impl Strategy<Value = IscsiName> {
        "iqn\\.2026-11\\.a:[a-d]".prop_map(|text| text.parse().unwrap())
    }

    fn seed() -> impl Strategy<Value = Seed> {
        (0..2_u8).prop_map(|byte| Seed([byte; 16]))
    }

    fn labels() -> impl Strategy<Value = Labels> {
        let label = any::<bool>()
            .prop_map(|is_there| is_there.then(|| ("env".parse().unwrap(), "x".parse().unwrap())));
        label.prop_map(|label| Labels::default().with(label, []).unwrap())
    }

    fn volume() -> impl Strategy<Value = Kept<VolumeEntry>> {
        let directory = proptest::option::of(name());
        (seed(), 1..3_u64, directory, labels()).prop_map(|(seed, size, directory, labels)| {
            let location =
                directory.as_ref().map_or(VolumeLocation::External("/srv/v"), VolumeLocation::Internal);
            let entry = VolumeEntry::new(seed, size << 20, BlockSize::B512, location);
            VolumeEntry { labels, ..entry }.into()
        })
    }

    fn target() -> impl Strategy<Value = Kept<TargetEntry>> {
        let map = (0..3_u16, name(), any::<bool>()).prop_map(|(lun, object, read_only)| MapEntry {
            lun,
            object: object.into(),
            initiators: BTreeSet::new(),
            read_only,
        });
        let maps = proptest::collection::vec(map, 0..3);
        (1..3_u16, maps, labels()).prop_map(|(relative_id, maps, labels)| {
            TargetEntry { maps, labels, ..TargetEntry::new(relative_id) }.into()
        })
    }

    fn token() -> impl Strategy<Value = Kept<TokenEntry>> {
        any::<bool>().prop_map(|is_admin| {
            let role = if is_admin { Role::Admin } else { Role::Viewer };
            let sha256 = SecretDigest([7; 32]);
            TokenEntry { role, sha256, created: Timestamp::UNIX_EPOCH, expires: None }.into()
        })
    }

    fn scrap() -> impl Strategy<Value = Scrap> {
        let external = |mark| Scrap::External(ExternalScrap { path: "/srv/v".to_owned(), mark: Some(mark) });
        prop_oneof![
            name().prop_map(Scrap::Volume),
            seed().prop_map(external),
            barcode().prop_map(Scrap::Cartridge),
            name().prop_map(Scrap::Pair),
            barcode().prop_map(Scrap::Import),
        ]
    }

    /// Any catalog, whether it keeps the rules or not.
    fn catalog() -> impl Strategy<Value = Catalog> {
        let drive = (seed(), proptest::option::of(barcode()))
            .prop_map(|(seed, loaded)| DriveEntry { loaded, ..DriveEntry::new(seed) }.into());
        let cartridge = (seed(), 1..3_u64).prop_map(|(seed, size)| CartridgeEntry::new(seed, size).into());
        let pair = (seed(), name(), name(), any::<bool>()).prop_map(|(seed, primary, secondary, is_slow)| {
            let pace = if is_slow { Pace::Slow } else { Pace::Fast };
            PairEntry::new(seed, primary, secondary, pace).into()
        });
        let group = btree_set(name(), 0..3)
            .prop_map(|volumes| GroupEntry { volumes, ..GroupEntry::default() }.into());
        let snapshot = (seed(), 1..3_u64)
            .prop_map(|(seed, number)| SnapshotEntry::new(seed, number, Timestamp::UNIX_EPOCH).into());
        let image = (name(), name()).prop_map(|(volume, image)| ImageName { volume, image });
        let device = (seed(), btree_set(name(), 0..3))
            .prop_map(|(seed, grants)| CommandDeviceEntry { grants, ..CommandDeviceEntry::new(seed) }.into());
        let groups = (btree_map(name(), group, 0..4), btree_map(image, snapshot, 0..4));
        (
            (proptest::option::of(seed()), any::<bool>()),
            btree_map(name(), volume(), 0..4),
            (btree_map(name(), drive, 0..4), btree_map(name(), device, 0..4)),
            btree_map(barcode(), cartridge, 0..4),
            btree_map(iqn(), target(), 0..4),
            (btree_map(name(), pair, 0..4), groups),
            btree_map(name(), token(), 0..4),
            btree_set(scrap(), 0..4),
        )
            .prop_map(
                |(
                    (data_dir, demo),
                    volumes,
                    (drives, command_devices),
                    cartridges,
                    targets,
                    (pairs, (groups, snapshots)),
                    tokens,
                    scrap,
                )| {
                    Catalog {
                        revision: Revision::FIRST,
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
                },
            )
    }

    /// The JSON form of a catalog, flat, each value by its path: an independent way to the same keys.
    fn flat(catalog: &Catalog) -> BTreeMap<String, Json> {
        let mut flat = BTreeMap::new();
        let Json::Object(kinds) = serde_json::to_value(catalog).unwrap() else { panic!() };
        for (kind, value) in kinds {
            match value {
                Json::Object(entries) => {
                    let entries = entries.into_iter();
                    flat.extend(
                        entries.map(|(name, kept)| (format!("{kind} {name}"), kept["entry"].clone())),
                    );
                }
                Json::Array(all) => {
                    flat.extend(all.into_iter().map(|one| (format!("{kind} {one}"), Json::Null)))
                }
                Json::Bool(true) => drop(flat.insert(kind, Json::Null)),
                Json::String(_) => drop(flat.insert(kind, value)),
                _ => {}
            }
        }
        flat
    }

    /// Whether both catalogs are equal, whatever their revisions are.
    fn says_the_same(one: &Catalog, other: &Catalog) -> bool {
        Transaction::between(one, other).is_empty()
    }

    proptest! {
        #[test]
        fn the_difference_of_two_catalogs_makes_one_of_the_other(before in catalog(), after in catalog()) {
            let transaction = Transaction::between(&before, &after);
            let made = transaction.apply(&before);
            prop_assert_eq!(flat(&made), flat(&after));
            prop_assert!(says_the_same(&made, &after));
            prop_assert!(says_the_same(&transaction.apply(&after), &after), "twice is once");
        }

        #[test]
        fn a_transaction_changes_only_the_difference(before in catalog(), after in catalog()) {
            let (old, new) = (flat(&before), flat(&after));
            let differ = |key: &&String| old.get(*key) != new.get(*key);
            let differ = old.keys().chain(new.keys()).filter(differ).collect::<BTreeSet<_>>();
            let transaction = Transaction::between(&before, &after);
            prop_assert_eq!(transaction.taken.len() + transaction.put.len(), differ.len());
            prop_assert_eq!(transaction.is_empty(), before == after);
        }

        /// Only objects that a transaction has changed have its revision. So two answers with one revision show the
        /// same object.
        #[test]
        fn a_changed_object_gets_the_new_revision_and_others_keep_theirs(before in catalog(), after in catalog()) {
            let transaction = Transaction::between(&before, &after);
            let made = transaction.apply(&before);
            prop_assert_eq!(made.revision, before.revision.next());
            let put: Vec<&Name> = transaction.put.iter().filter_map(|value| match value {
                Value::Volume(name, _) => Some(name),
                _ => None,
            }).collect();
            for (name, volume) in &made.volumes {
                let key = Key::Volume(name.clone());
                let expected = if put.contains(&name) { Some(made.revision) } else { before.revision_of(&key) };
                prop_assert_eq!(made.revision_of(&key), expected);
                prop_assert_eq!(Some(volume.revision()), expected);
            }
        }

        /// Changes by others under other keys stay.
        #[test]
        fn objects_that_a_transaction_does_not_name_stay(before in catalog(), demo: bool, volumes in btree_map(name(), volume(), 0..4)) {
            let mut after = before.clone();
            after.volumes = volumes;
            let mut other = before.clone();
            other.demo = demo;
            other.pairs.clear();
            let both = Transaction::between(&before, &after).apply(&other);
            let expected = Catalog { volumes: after.volumes, ..other };
            prop_assert!(says_the_same(&both, &expected));
        }
    }

    #[test]
    fn files_to_be_removed_move_the_revision_of_no_object() {
        let mut before = Catalog::default();
        before.pairs.insert(
            "p".parse().unwrap(),
            PairEntry::new(Seed([1; 16]), "a".parse().unwrap(), "b".parse().unwrap(), Pace::Fast).into(),
        );
        let first = Transaction::between(&Catalog::default(), &before).apply(&Catalog::default());
        let mut after = first.clone();
        after.scrap.insert(Scrap::Pair("q".parse().unwrap()));
        let second = Transaction::between(&first, &after).apply(&first);
        let pair = Key::Pair("p".parse().unwrap());
        assert_eq!((first.revision.number(), second.revision.number()), (1, 2));
        assert_eq!(second.revision_of(&pair), Some(first.revision));
        assert_eq!(second.revision_of(&Key::Pair("q".parse().unwrap())), None);
        let mut changed = second.clone();
        changed.pairs.get_mut("p").unwrap().pace = Pace::Slow;
        let third = Transaction::between(&second, &changed).apply(&second);
        assert_eq!(third.revision_of(&pair), Some(third.revision));
        assert_eq!(second.pairs["p"].pace, Pace::Fast);
    }
}
