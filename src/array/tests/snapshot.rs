//! Only operators wait for an operator: a verb that waits for its device holds up no login, discovery, copy, kernel
//! device, list or split.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::array::backstore::Grant;

/// A catalog whose device answers a change only when the test tells it to, with the answer that the test gives.
#[derive(Debug)]
struct Slow {
    file: CatalogFile,
    begun: Sender<()>,
    goes_on: Mutex<Receiver<bool>>,
}

impl Blob for Slow {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        self.file.load()
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.begun.send(()).unwrap();
        match self.goes_on.lock().recv() {
            Ok(true) => self.file.replace(bytes),
            _ => Err(std::io::Error::other("the device is gone")),
        }
    }
}

/// From now on each change of the catalog reports that it has begun, and waits.
pub(super) fn slow(array: &Array) -> (Receiver<()>, Sender<bool>) {
    let ((begun, hears), (tells, goes_on)) = (channel(), channel());
    let file = array.dir.catalog();
    rests_in(array, Slow { file, begun, goes_on: Mutex::new(goes_on) });
    (hears, tells)
}

fn logs_in(array: &Arc<Array>, to: &IscsiName) -> Result<Arc<Session>, LoginRefusal> {
    array.login(port(HOST), to, 1)
}

/// Requests that have to be answered while a verb waits for its device.
fn ask_everything(array: &Arc<Array>) {
    let host = Host::login(array, HOST);
    host.ready(0);
    assert_eq!(array.discover(&HOST.parse().unwrap()), [target()]);
    let door = CopyDoor(Arc::downgrade(array));
    let nexus = host.0.nexus().id;
    assert!(door.addressed(nexus, Lun::from_number(0).unwrap()).is_some());
    let device = array.open_backstore("user_0/c", &Grant::of(object_name("c"))).unwrap();
    assert_eq!(array.volume(&name("c")).unwrap().kernel_devices, ["user_0/c"]);
    drop(device);

    assert!(array.has_object(&object_name("a")) && !array.is_demo());
    let status = view::status(array, Vec::new());
    assert_eq!((status.volumes.len(), status.targets.len(), status.luns.len()), (4, 1, 2));
    assert_eq!((status.pairs.len(), status.cartridges.len(), status.drives.len()), (1, 1, 1));
    assert_eq!(status.targets[0].sessions, 1);
    assert_eq!(array.volume(&name("a")).unwrap().luns.len(), 1);
    assert_eq!(array.pair(&name("p")).state, "smpl");
    assert_eq!(array.cartridge(&barcode()).drive.as_deref(), Some("tape"));
    assert_eq!(array.drive(&name("tape")).luns.len(), 1);
    assert!(!array.split_pair(&name("p")).unwrap().already_split);
    assert!(array.wait_pair(&name("p"), State::Psus, Duration::from_secs(60)).is_ok());
    assert!(array.volume(&name("x")).is_err() && view::pair::named(array, &name("x")).is_err());
}

#[test]
fn hosts_and_lists_are_answered_while_a_verb_waits_for_its_device() {
    let temporary = tempfile::tempdir().unwrap();
    let array = disk_and_tape(temporary.path());
    for text in ["b", "c", "d"] {
        volume(&array, text, 1 << 20, StoreKind::Mem).unwrap();
    }
    pair(&array, true).unwrap();
    let (begun, tells) = slow(&array);
    std::thread::scope(|scope| {
        let verb = scope.spawn(|| array.delete_volume(&name("d")));
        begun.recv().unwrap();
        assert!(array.control.try_lock().is_none(), "the verb has the turn");
        let (answered, answers) = channel();
        let asks = Arc::clone(&array);
        scope.spawn(move || {
            ask_everything(&asks);
            answered.send(()).unwrap();
        });
        let answers = answers.recv_timeout(Duration::from_secs(120));
        tells.send(true).unwrap();
        verb.join().unwrap().unwrap();
        answers.expect("something waits for the verb");
    });
    assert_eq!(array.volumes().len(), 3);
}

#[test]
fn no_kernel_device_opens_a_volume_that_is_being_deleted() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    for text in ["a", "b"] {
        volume(&array, text, 1 << 20, StoreKind::Mem).unwrap();
    }
    let opens = |object: &str| {
        let reach = if object == "a" { Vec::new() } else { vec![object_name("a")] };
        let grant = Grant { reach, ..Grant::of(object_name(object)) };
        array.open_backstore("user_0/x", &grant).map(drop).map_err(|error| error.kind)
    };
    let (begun, tells) = slow(&array);
    for succeeds in [false, true] {
        assert_eq!((opens("a"), opens("b")), (Ok(()), Ok(())));
        std::thread::scope(|scope| {
            let verb = scope.spawn(|| array.delete_volume(&name("a")));
            begun.recv().unwrap();
            assert_eq!((opens("a"), opens("b")), (Err(Kind::NotFound), Err(Kind::NotFound)));
            tells.send(succeeds).unwrap();
            assert_eq!(verb.join().unwrap().is_ok(), succeeds);
        });
    }
    assert_eq!(opens("a"), Err(Kind::NotFound));
}

#[test]
fn nobody_logs_in_to_a_target_that_is_being_deleted() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    array.create_target(&target()).unwrap();
    drop(logs_in(&array, &target()).unwrap());
    let (begun, tells) = slow(&array);
    for succeeds in [false, true] {
        std::thread::scope(|scope| {
            let verb = scope.spawn(|| array.delete_target(&target()));
            begun.recv().unwrap();
            assert_eq!(logs_in(&array, &target()).unwrap_err(), LoginRefusal::NotFound);
            tells.send(succeeds).unwrap();
            assert_eq!(verb.join().unwrap().is_ok(), succeeds);
        });
        assert_eq!(logs_in(&array, &target()).is_ok(), !succeeds, "a deletion that failed changes nothing");
    }
}

#[test]
fn a_session_that_is_opened_beside_a_change_of_the_map_sees_the_change() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    volume(&array, "a", 1 << 20, StoreKind::Mem).unwrap();
    array.create_target(&target()).unwrap();
    let (over, sessions) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let sees = |session: &Arc<Session>| session.itl_nexus(Lun::from_number(0).unwrap()).is_some();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let session = logs_in(&array, &target());
                    let mut sessions = sessions.lock();
                    if sessions.len() < 100 {
                        sessions.push(session.unwrap());
                    }
                }
            });
        }
        for _ in 0..50 {
            map(&array, "a", 0, &[], false);
            assert!(sessions.lock().iter().all(sees));
            array.unmap_lun(&unmap(0, None)).unwrap();
            assert!(!sessions.lock().iter().any(sees));
            sessions.lock().clear();
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(sessions);
    assert!(array.shutdown(Duration::from_secs(20)));
}

#[test]
fn a_session_that_ends_while_the_sessions_are_looked_through_ends_all_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    let other = node_name("other").unwrap();
    array.create_target(&target()).unwrap();
    array.create_target(&other).unwrap();
    let (ended, ends) = channel();
    let logging_in = Arc::clone(&array);
    std::thread::spawn(move || {
        let mut sessions = std::collections::VecDeque::new();
        for _ in 0..20_000 {
            sessions.push_back(logs_in(&logging_in, &target()).unwrap());
            if sessions.len() > 64 {
                sessions.pop_front();
            }
        }
        drop(sessions);
        ended.send(()).unwrap();
    });
    let looking = Arc::clone(&array);
    let (looked, looks) = channel();
    std::thread::spawn(move || {
        while ends.try_recv().is_err() {
            assert_eq!(looking.targets().len(), 2);
        }
        looked.send(()).unwrap();
    });
    looks.recv_timeout(Duration::from_secs(120)).expect("both threads go on");
}
