//! The objects that a kernel device reaches, and its host's view after a restart.

use super::*;
use crate::array::backstore::{Backstore, Grant};
use crate::array::front::CopyFront;
use crate::scsi::sense::{Asc, Sense};

#[test]
fn a_kernel_device_reaches_its_object_and_what_is_listed_for_its_copies() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    for object in ["a", "b", "c"] {
        volume(&array, object, 1 << 20, StoreKind::Mem).unwrap();
    }
    let front = Arc::new(Front::default());
    let device = array.open_backstore("user_0/a", &reaching("a", &["c", "a"], &front)).unwrap();
    assert_eq!((device.size, device.device_type), (Some(1 << 20), DeviceType::Disk));
    let host = Host(Arc::clone(&device.session));
    host.ready(0);
    assert_eq!(host.write(0, 3, 0x5A), Status::Good);
    let page = host.command(0, &[0x12, 1, 0x83, 2, 0, 0], Vec::new()).data_in;
    assert_eq!(Designator::parse_list(&page[4..]).len(), 3, "the port is LIO's: only the unit is named");
    let door = CopyDoor(Arc::downgrade(&array));
    let resolves = |object: &str| {
        let own = array.open_backstore("other", &Grant::of(object_name(object))).unwrap();
        let host = Host(Arc::clone(&own.session));
        let page = host.command(0, &[0x12, 1, 0x83, 2, 0, 0], Vec::new()).data_in;
        let naa = Designator::parse_list(&page[4..]).remove(0);
        door.resolve(device.session.nexus().id, Backstore::LUN, &naa).is_some()
    };
    assert!(resolves("a") && resolves("c") && front.unreached.lock().is_empty());
    assert!(!resolves("b"), "nobody listed it");
    assert_eq!(*front.unreached.lock(), [name("a")], "the front is told what the copy was sent to");
    let devices = |object: &str| array.volume(&name(object)).unwrap().kernel_devices;
    assert_eq!((devices("a"), devices("c")), (vec!["user_0/a".to_owned()], Vec::new()));
    let sessions = array.session_list();
    assert!(sessions[0].kernel && sessions[0].initiator.is_empty());
    assert!(array.has_object(&object_name("a")) && !array.has_object(&object_name("z")));
    let refused = array.delete_volume(&name("a")).unwrap_err();
    assert!(refused.to_string().contains("user_0/a"), "{refused}");
    drop((host, device));
    array.delete_volume(&name("a")).unwrap();
    let gone = array.open_backstore("user_0/a", &Grant::of(object_name("a")));
    assert_eq!(gone.unwrap_err().kind, Kind::NotFound);
}

#[test]
fn a_kernel_device_of_an_image_reads_its_instant_and_writes_to_it_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    volume(&array, "a", 1 << 20, StoreKind::File).unwrap();
    let opened = |object: &str| {
        let device = array.open_backstore("user_0/x", &Grant::of(object_name(object))).unwrap();
        assert_eq!((device.size, device.device_type), (Some(1 << 20), DeviceType::Disk));
        let host = Host(Arc::clone(&device.session));
        host.ready_after_a_change(0);
        (host, device)
    };
    let (of_volume, kept) = opened("a");
    assert_eq!(of_volume.write(0, 0, 1), Status::Good);
    let image: crate::catalog::names::ImageName = "a@noon".parse().unwrap();
    array.done(crate::operator::verbs::snapshot::Create::new(image.clone())).unwrap();
    assert_eq!(of_volume.write(0, 0, 2), Status::Good);
    let (of_image, device) = opened("a@noon");
    assert_eq!((of_volume.read(0, 0), of_image.read(0, 0)), (2, 1));
    assert_eq!(of_image.write(0, 1, 7), Status::Good);
    assert_eq!((of_volume.read(0, 1), of_image.read(0, 1)), (0, 7));
    let shown = view::snapshot::named(&array, &image).unwrap();
    assert_eq!(shown.kernel_devices, ["user_0/x"]);
    let delete = crate::operator::verbs::snapshot::Delete { name: image };
    let refused = array.done(delete.clone()).unwrap_err();
    assert!(refused.to_string().contains("user_0/x"), "{refused}");
    drop((of_image, device));
    array.done(delete).unwrap();
    let gone = array.open_backstore("user_0/x", &Grant::of(object_name("a@noon")));
    assert_eq!(gone.unwrap_err().kind, Kind::NotFound);
    assert_eq!(of_volume.read(0, 0), 2);
    drop((of_volume, kept));
}

/// A front that owes sense data to the copies to one object, until a copy has got it.
#[derive(Debug, Default)]
struct Front {
    owed_for: Mutex<Option<ObjectName>>,
    unreached: Mutex<Vec<ObjectName>>,
}

impl CopyFront for Front {
    fn owed(&self, object: &ObjectName, device_type: DeviceType) -> Option<Sense> {
        assert_eq!(device_type == DeviceType::Tape, object.to_string() == "tape0");
        let is_owed = self.owed_for.lock().as_ref() == Some(object);
        is_owed.then(|| Sense::unit_attention(Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED))
    }

    fn informed(&self, object: &ObjectName) {
        assert_eq!(self.owed_for.lock().take().as_ref(), Some(object));
    }

    fn unreached(&self, object: &ObjectName) {
        self.unreached.lock().push(object.clone());
    }
}

fn reaching(object: &str, reach: &[&str], front: &Arc<Front>) -> Grant {
    let copy_front = Some(Arc::clone(front) as Arc<dyn CopyFront>);
    let reach = reach.iter().map(|object| object_name(object)).collect();
    Grant { reach, copy_front, ..Grant::of(object_name(object)) }
}

#[test]
fn a_kernel_device_can_be_granted_for_reading_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    volume(&array, "a", 1 << 20, StoreKind::Mem).unwrap();
    volume(&array, "b", 1 << 20, StoreKind::Mem).unwrap();
    let read_only = ["a", "b"].map(object_name).into();
    let grant = Grant { read_only, reach: vec![object_name("b")], ..Grant::of(object_name("a")) };
    let device = array.open_backstore("user_0/a", &grant).unwrap();
    let host = Host(Arc::clone(&device.session));
    host.ready(0);
    assert_eq!(host.write(0, 3, 0x5A), Status::CheckCondition);
    // WRITE SAME(16) with NDOB moves no data, so that LIO's own write protection does not see it.
    let same = [0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let sense = host.command(0, &same, Vec::new()).sense;
    assert_eq!((sense[2] & 0xF, sense[12]), (7, 0x27));
    // Nor is an object in the reach of its copies.
    let (_, itl) = device.session.itl_nexuses().into_iter().find(|(seen, _)| *seen == name("b")).unwrap();
    assert!(itl.access().read_only);
}

#[test]
fn a_copy_meets_what_its_front_owes_it_once_by_all_names_of_the_unit() {
    const READY: [u8; 6] = [0; 6];
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    volume(&array, "a", 1 << 20, StoreKind::Mem).unwrap();
    array.create_drive(&name("tape0")).unwrap();
    let drive = array.open_backstore("other", &Grant::of(object_name("tape0"))).unwrap();
    let page = Host(drive.session).command(0, &[0x12, 1, 0x83, 2, 0, 0], Vec::new()).data_in;
    let naa = Designator::parse_list(&page[4..]).remove(0);
    let door = CopyDoor(Arc::downgrade(&array));
    for owed in [false, true] {
        let front = Arc::new(Front::default());
        *front.owed_for.lock() = owed.then(|| object_name("tape0"));
        let device = array.open_backstore("user_0/a", &reaching("a", &["tape0"], &front)).unwrap();
        let nexus = device.session.nexus().id;
        let find = || door.resolve(nexus, Backstore::LUN, &naa).unwrap();
        let ask = |tape: &Arc<dyn Endpoint>| {
            tape.perform(Cdb::new(&READY).unwrap(), Vec::new(), Vec::new()).sense[2] & 0xF
        };
        // A copy may name the object twice; and another copy that has not asked yet does not end the debt to this
        // one.
        let (one, again, other) = (find(), find(), find());
        let first = ask(&one);
        other.surveyed();
        let first = [first, ask(&again)];
        one.surveyed();
        // NOT READY is the drive's own answer, because the drive is empty.
        assert_eq!((first, ask(&find())), ([if owed { 6 } else { 2 }; 2], 2));
    }
}

#[test]
fn a_tape_stands_after_a_restart_where_it_stood_so_that_a_last_filemark_harms_nothing() {
    const WRITE: [u8; 6] = [0x0A, 0, 0, 0, 8, 0];
    const FILEMARK: [u8; 6] = [0x10, 0, 0, 0, 1, 0];
    let temporary = tempfile::tempdir().unwrap();
    let stands = |array: &Arc<Array>| {
        let device = array.open_backstore("user_0/t", &Grant::of(object_name("tape0"))).unwrap();
        let host = Host(Arc::clone(&device.session));
        host.ready(0);
        let long = host.command(0, &[0x34, 6, 0, 0, 0, 0, 0, 0, 0, 0], Vec::new()).data_in;
        (host, long[15])
    };
    {
        let array = open(temporary.path());
        array.create_drive(&name("tape0")).unwrap();
        let barcode: Barcode = "TAPE01L8".parse().unwrap();
        array.create_cartridge(&barcode, 64 << 20).unwrap();
        array.load_drive(&name("tape0"), &barcode).unwrap();
        let (host, at) = stands(&array);
        assert_eq!(at, 0, "what is loaded stands at the beginning");
        for _ in 0..2 {
            assert_eq!(host.command(0, &WRITE, vec![7; 8]).status, Status::Good);
        }
        assert_eq!(host.command(0, &FILEMARK, Vec::new()).status, Status::Good);
    }
    {
        let array = open(temporary.path());
        let (host, at) = stands(&array);
        assert_eq!(at, 3);
        assert_eq!(host.command(0, &FILEMARK, Vec::new()).status, Status::Good);
        // SPACE, one block back from behind a filemark: before it.
        host.command(0, &[0x11, 1, 0xFF, 0xFF, 0xFE, 0], Vec::new());
        assert!(array.shutdown(Duration::from_secs(10)));
    }
    let array = open(temporary.path());
    let (host, at) = stands(&array);
    assert_eq!(at, 2, "before the first filemark");
    assert_eq!(array.drive(&name("tape0")).state, DriveState::Loaded);
    for command in [[1, 0, 0, 0, 0, 0], [0x1B, 0, 0, 0, 0, 0]] {
        assert_eq!(host.command(0, &[0x2B, 0, 0, 0, 0, 0, 2, 0, 0, 0], Vec::new()).status, Status::Good);
        assert_eq!(host.command(0, &command, Vec::new()).status, Status::Good);
        if command[0] == 0x1B {
            break;
        }
    }
    drop((host, array));
    assert_eq!(stands(&open(temporary.path())).1, 0, "an initiator has unloaded it");
}
