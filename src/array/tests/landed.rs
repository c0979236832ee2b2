//! Volumes with a landing log: what becomes of them when a file is lost, damaged or moved, or a verb comes at the wrong moment.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::landing::{LandedVolume, Place};
use crate::store::StoreError;
use crate::store::faulty::{Fault, FaultyStore, World};

/// Volumes `a` and `b`, and the pair `p` of them: so `a` has a landing log.
fn with_log(path: &Path) -> (Arc<Array>, PathBuf) {
    let array = open(path);
    volume(&array, "a", 1 << 20, StoreKind::File).unwrap();
    volume(&array, "b", 1 << 20, StoreKind::File).unwrap();
    pair(&array, true).unwrap();
    let log = path.join("volumes/a/landing");
    assert!(log.is_file());
    (array, log)
}

#[test]
fn a_volume_whose_landing_log_is_gone_is_served_as_failed_until_it_is_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    drop(array);
    let away = temporary.path().join("away");
    std::fs::rename(&log, &away).unwrap();
    let array = open(temporary.path());
    let shown = array.volume(&name("a")).unwrap();
    assert_eq!(shown.health, Health::Failed);
    let error = shown.error.unwrap();
    assert!(error.contains(&format!("{} is missing", log.display())), "{error}");
    assert!(error.contains("bring it back") && error.contains("restart the daemon"), "{error}");
    assert_eq!(array.volume(&name("b")).unwrap().health, Health::Ready);
    drop(array);
    assert!(!log.exists(), "nothing is made in its place");
    std::fs::rename(&away, &log).unwrap();
    assert_eq!(open(temporary.path()).volume(&name("a")).unwrap().health, Health::Ready);
}

#[test]
fn a_creation_of_a_landing_log_that_was_cut_behind_its_mark_is_finished() {
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    drop(array);
    let aside = log.with_extension("new");
    std::fs::rename(&log, &aside).unwrap();
    let array = open(temporary.path());
    assert_eq!(array.volume(&name("a")).unwrap().health, Health::Ready);
    assert!(log.is_file() && !aside.exists());
}

#[test]
fn a_landing_log_without_a_mark_is_marked_when_its_volume_opens() {
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    let header = log.with_file_name("header");
    let marked = std::fs::read(&header).unwrap();
    // As an older cleave has left it: the header of before the mark.
    array.delete_pair(&name("p")).unwrap();
    drop(array);
    let made = std::fs::read(temporary.path().join("volumes/b/header")).unwrap();
    assert_eq!((marked[19], made[19]), (3, 2));
    let volume = crate::volume::Volume::open_file(log.parent().unwrap()).unwrap();
    volume.mark_log(false).unwrap();
    drop(volume);
    assert_eq!(std::fs::read(&header).unwrap()[19], 2);
    let array = open(temporary.path());
    assert_eq!(array.volume(&name("a")).unwrap().health, Health::Ready);
    assert_eq!(std::fs::read(&header).unwrap(), marked);
}

#[test]
fn the_landing_log_counts_as_storage_of_its_volume() {
    use std::os::unix::fs::MetadataExt;
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    let blocks = std::fs::metadata(&log).unwrap().blocks();
    assert!(blocks > 0 && !log.with_file_name("data.00000").exists());
    assert_eq!(array.volume(&name("a")).unwrap().allocated_bytes, blocks * 512);
    assert_eq!(array.volume(&name("b")).unwrap().allocated_bytes, 0);
}

#[test]
fn a_volume_is_deleted_whole_while_its_landed_writes_are_brought_home() {
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    array.create_target(&target()).unwrap();
    for round in 0..4 {
        if round > 0 {
            volume(&array, "a", 1 << 20, StoreKind::File).unwrap();
            pair(&array, true).unwrap();
        }
        map(&array, "a", 0, &[], false);
        let host = Host::login(&array, HOST);
        host.ready(0);
        array.split_pair(&name("p")).unwrap();
        // Nothing has been written before: the first batch that comes home makes the segment and lists it in the header.
        (0..64).for_each(|lba| assert_eq!(host.write(0, lba * 3, 7), Status::Good));
        drop(host);
        array.unmap_lun(&unmap(0, None)).unwrap();
        array.wait_pair(&name("p"), State::Psus, PATIENCE).unwrap();
        array.delete_pair(&name("p")).unwrap();
        array.delete_volume(&name("a")).unwrap();
        let left = log.parent().unwrap();
        assert!(!left.exists(), "round {round}: {:?}", std::fs::read_dir(left).map(Iterator::count));
    }
}

/// A landing log on a device that fails.
#[derive(Debug)]
struct OnFaulty {
    store: FaultyStore,
    is_there: AtomicBool,
    /// The device cannot be opened.
    away: Arc<AtomicBool>,
}

impl Place for OnFaulty {
    fn find(&self) -> Result<Option<Arc<dyn crate::store::Store>>, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Io(std::io::Error::other("the device is away")));
        }
        let store = || Arc::new(self.store.reopen()) as Arc<dyn crate::store::Store>;
        Ok(self.is_there.load(Ordering::SeqCst).then(store))
    }

    fn make_aside(&self) -> Result<Arc<dyn crate::store::Store>, StoreError> {
        Ok(Arc::new(self.store.reopen()))
    }

    fn put_in_place(&self) -> Result<(), StoreError> {
        self.is_there.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_volume_whose_log_alone_has_failed_is_failed_until_the_log_is_open_again() {
    let temporary = tempfile::tempdir().unwrap();
    let array = open(temporary.path());
    volume(&array, "a", 1 << 20, StoreKind::Mem).unwrap();
    let (world, away) = (World::new(), Arc::new(AtomicBool::new(false)));
    let place = OnFaulty { store: world.store(0), is_there: AtomicBool::new(false), away: Arc::clone(&away) };
    let entry = array.catalog().volumes[&name("a")].clone();
    let home =
        Arc::new(crate::volume::Volume::create_memory(entry.seed.0, entry.block_size, entry.size).unwrap());
    let block = Arc::clone(&home) as Arc<dyn Block>;
    let landed = Arc::new(LandedVolume::open(block, entry.seed.0, Box::new(place), 8 << 20).unwrap());
    landed.prepare().unwrap();
    let unit = VolumeUnit::over(&name("a"), &entry, (Ok(home), None), Arc::clone(&landed), &array.threads);
    array.turn().publish(|next| drop(next.volumes.insert(name("a"), Arc::new(unit))));

    let land = |byte| landed.land(4096, &[byte; 512], Durability::Cached, Patience::Wait);
    land(1).unwrap();
    landed.flush().unwrap();
    land(2).unwrap();
    world.fail_after(0, Fault::Io);
    assert!(landed.flush().is_err());
    let failed = || {
        let shown = array.volume(&name("a")).unwrap();
        assert_eq!(shown.health, Health::Failed);
        shown.error.unwrap()
    };
    assert!(failed().contains("'cleave volume reinstate a'"), "{}", failed());
    // The store of the log answers again, and the log itself cannot be opened.
    away.store(true, Ordering::SeqCst);
    assert!(array.reinstate_volume(&name("a")).unwrap_err().why.contains("the device is away"));
    let says = "its landing log could not be opened again: I/O error: the device is away";
    assert!(failed().contains(says) && failed().contains("'cleave volume reinstate a'"), "{}", failed());
    assert!(matches!(land(3), Err(StoreError::Stopped)), "nothing lands in a log that nobody can rely on");

    away.store(false, Ordering::SeqCst);
    assert_eq!(array.reinstate_volume(&name("a")).unwrap().health, Health::Ready);
    let mut sector = [0; 512];
    landed.read(4096, &mut sector, Patience::Wait).unwrap();
    assert!([[1; 512], [2; 512]].contains(&sector), "what was flushed, or what came later");
    land(4).unwrap();
    landed.flush().unwrap();
    assert_eq!(array.reinstate_volume(&name("a")).unwrap_err().kind, Kind::Refused);
}

#[test]
fn a_damaged_log_keeps_a_stopped_volume_failed_after_its_home_is_reinstated() {
    let temporary = tempfile::tempdir().unwrap();
    let (array, log) = with_log(temporary.path());
    array.delete_pair(&name("p")).unwrap();
    drop(array);
    std::fs::write(log.with_file_name("stopped"), "writing landing back failed").unwrap();
    let array = open(temporary.path());
    let good = std::fs::read(&log).unwrap();
    std::fs::write(&log, &good[..4096]).unwrap();
    let refused = array.reinstate_volume(&name("a")).unwrap_err();
    assert!(refused.why.contains("the landing log cannot be used"), "{refused}");
    let shown = array.volume(&name("a")).unwrap();
    assert_eq!(shown.health, Health::Failed);
    assert!(shown.error.unwrap().contains("the landing log cannot be used"));
    std::fs::write(&log, good).unwrap();
    assert_eq!(array.reinstate_volume(&name("a")).unwrap().health, Health::Ready);
    assert!(!log.with_file_name("stopped").exists());
}
