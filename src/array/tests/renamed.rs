//! A volume is renamed while hosts use it.

use super::*;
use crate::operator::verbs::volume as verbs;

fn rename(array: &Array, from: &str, to: &str) -> Result<show::Volume, ArrayError> {
    array.done(verbs::Rename { name: name(from), to: name(to) })
}

#[test]
fn a_renamed_volume_goes_on_under_its_sessions_its_maps_and_its_pair() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    let made = volume(&array, "a", 1 << 20, StoreKind::File).unwrap();
    volume(&array, "b", 1 << 20, StoreKind::File).unwrap();
    array.create_target(&target()).unwrap();
    map(&array, "a", 0, &[], false);
    pair(&array, false).unwrap();
    array.wait_pair(&name("p"), State::Pair, PATIENCE).unwrap();
    let host = Host::login(&array, HOST);
    host.ready(0);
    assert_eq!(host.write(0, 3, 0x5A), Status::Good);

    let renamed = rename(&array, "a", "db").unwrap();
    assert_eq!((renamed.name.as_str(), &renamed.naa, &renamed.path), ("db", &made.naa, &made.path));
    assert_eq!((renamed.pair.as_deref(), renamed.luns.len()), (Some("p"), 1));
    assert_eq!(host.read(0, 3), 0x5A, "its host is told nothing, and loses nothing");
    let lun = Lun::from_number(0).unwrap();
    assert_eq!(host.0.object(lun), Some(object_name("db")));
    assert_eq!(&*host.0.itl_nexus(lun).unwrap().unit().object(), "db", "log lines say the new name");
    assert_eq!(array.luns()[0].object, "db");
    assert_eq!(array.pair(&name("p")).primary, "db");
    assert_eq!(array.volume(&name("a")).unwrap_err().kind, Kind::NotFound);

    let other = volume(&array, "a", 1 << 20, StoreKind::File).unwrap();
    assert_ne!(other.path, made.path, "its files are its own");
    array.split_pair(&name("p")).unwrap();
    assert_eq!(host.write(0, 3, 0xA5), Status::Good);
    rename(&array, "b", "image").unwrap();
    map(&array, "image", 1, &[], true);
    for lun in [0, 1] {
        host.ready_after_a_change(lun);
    }
    assert_eq!((host.read(0, 3), host.read(1, 3)), (0xA5, 0x5A));
    array.delete_volume(&name("a")).unwrap();
    drop(host);
    assert!(array.shutdown(Duration::from_secs(10)));
    drop(array);

    let array = open(temporary.path());
    let host = Host::login(&array, HOST);
    host.ready(0);
    host.ready(1);
    assert_eq!((host.read(0, 3), host.read(1, 3)), (0xA5, 0x5A));
}

#[test]
fn a_name_that_is_taken_or_a_volume_that_is_used_by_its_name_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let array = disk_and_tape(temporary.path());
    let why = |from, to| rename(&array, from, to).unwrap_err().why;
    assert_eq!(why("x", "y"), "there is no volume x");
    assert_eq!(why("a", "tape"), "drive tape exists already");
    assert_eq!(why("a", "a"), "volume a exists already");
    let host = Host::login(&array, HOST);
    let copy = stand_in(&array, &host);
    assert_eq!(why("a", "db"), format!("copy {copy} uses it"));
    let grant = crate::array::backstore::Grant::of(object_name("a"));
    let device = array.open_backstore("dev", &grant).unwrap();
    assert_eq!(why("a", "db"), "the kernel's device dev uses a");
    drop(device);
}

/// The copy has found out its names before the rename, and is among the running ones when the rename has looked for it.
#[test]
fn a_copy_that_says_the_old_name_is_found_by_the_new_one() {
    let temporary = tempfile::tempdir().unwrap();
    let array = disk_and_tape(temporary.path());
    map(&array, "a", 2, &[], false);
    let host = Host::login(&array, HOST);
    rename(&array, "a", "db").unwrap();
    let copy = stand_in(&array, &host);
    assert_eq!(array.copy(copy.0).unwrap().sources, ["a"]);
    assert_eq!(array.copies_of(&object_name("db")), [copy]);
    assert_eq!(rename(&array, "db", "a").unwrap_err().why, format!("copy {copy} uses it"));
    let other = volume(&array, "a", 1 << 20, StoreKind::Mem).unwrap();
    assert_eq!(array.copies_of(&object_name(&other.name)), [], "another volume of that name is another one");
    assert!(array.unmap_lun(&unmap(2, None)).unwrap().copies.is_empty());
    assert_eq!(array.unmap_lun(&unmap(0, None)).unwrap().copies, [copy.0]);
}
