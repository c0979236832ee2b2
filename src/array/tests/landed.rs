//! Volumes with a landing log: what becomes of them when a file is lost, damaged or moved, or a verb comes at the wrong moment.

use super::*;

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
