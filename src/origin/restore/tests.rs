//! What a restore does for its hosts, one promise at a time. The random machine of [`crate::origin`] has the rest.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Advance, Restore, Subject};
use crate::origin::EXTENT;
use crate::store::faulty::{Fault, FaultyStore, World};
use crate::store::{Durability, MemStore, Patience, Store, StoreError};
use crate::units::BlockSize;
use crate::volume::{Block, Write};

const LENGTH: u64 = 4 * EXTENT + 1024;

/// A medium that counts its flushes.
#[derive(Debug)]
struct Medium<S> {
    store: S,
    flushes: AtomicU64,
}

impl<S: Store> Block for Medium<S> {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }
    fn length(&self) -> u64 {
        LENGTH
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.store.read(offset, buffer, patience)
    }
    fn write(&self, at: u64, data: &[u8], how: Durability, patience: Patience) -> Result<(), StoreError> {
        self.store.write(at, data, how, patience)
    }
    fn gathers(&self) -> bool {
        true
    }
    fn write_together(&self, writes: &mut [Write<'_>]) {
        for write in writes {
            write.done =
                self.store.write(write.offset, write.data, Durability::Cached, Patience::Now).is_ok();
        }
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.store.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.store.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.store.next_data(offset)
    }
}

fn medium<S: Store>(store: S) -> Arc<Medium<S>> {
    Arc::new(Medium { store, flushes: AtomicU64::new(0) })
}

fn filled(byte: u8) -> MemStore {
    let store = MemStore::new(LENGTH);
    store.write(0, &vec![byte; LENGTH as usize], Durability::Cached, Patience::Wait).unwrap();
    store
}

const SUBJECT: Subject = Subject { identity: [5; 16], length: LENGTH, image: 3 };

/// A volume full of 1 that is to be restored from an image full of 2, of which `differs` are in R.
struct Rig {
    below: Arc<Medium<MemStore>>,
    image: Arc<Medium<MemStore>>,
    record: Arc<MemStore>,
    restore: Restore,
}

impl Rig {
    fn tracking() -> Self {
        let (below, image) = (medium(filled(1)), medium(filled(2)));
        let record = Arc::new(MemStore::new(0));
        let (shown, store) = (Arc::clone(&image), Arc::clone(&record));
        let restore = Restore::begin(SUBJECT, shown, Arc::clone(&below) as Arc<dyn Block>, store).unwrap();
        Self { below, image, record, restore }
    }

    fn of(extents: &[u64]) -> Self {
        let rig = Self::tracking();
        extents.iter().for_each(|extent| rig.restore.add(&(extent * EXTENT..extent * EXTENT + 1)));
        rig.restore.close_in();
        rig.restore.save().unwrap();
        rig.restore.flip();
        rig
    }

    fn reopened(&self) -> Restore {
        let (image, below) = (Arc::clone(&self.image), Arc::clone(&self.below));
        Restore::open(SUBJECT, image, below, Arc::clone(&self.record) as Arc<dyn Store>).unwrap()
    }
}

/// The runs of bytes of the same value.
fn runs(block: &dyn Block) -> Vec<(u64, u8)> {
    let mut bytes = vec![0; LENGTH as usize];
    block.read(0, &mut bytes, Patience::Wait).unwrap();
    bytes.chunk_by(|one, next| one == next).map(|run| (run.len() as u64, run[0])).collect()
}

fn write(block: &dyn Block, range: Range<u64>, byte: u8) -> Result<(), StoreError> {
    let data = vec![byte; (range.end - range.start) as usize];
    block.write(range.start, &data, Durability::Cached, Patience::Wait)
}

#[test]
fn the_volume_shows_the_image_at_once_and_is_it_after_the_steps() {
    let rig = Rig::of(&[1, 3, 4]);
    let shown = [(EXTENT, 1), (EXTENT, 2), (EXTENT, 1), (EXTENT + 1024, 2)];
    assert_eq!(runs(&rig.restore), shown);
    assert_eq!(runs(&*rig.below), [(LENGTH, 1)], "nothing is copied yet");
    assert_eq!(rig.restore.status().left_bytes, 3 * EXTENT);
    let mut steps = 0;
    loop {
        steps += 1;
        match rig.restore.step(1) {
            Advance::Restored { bytes } => assert!(bytes > 0),
            Advance::Whole => break,
            other => panic!("{other:?}"),
        }
        assert_eq!(runs(&rig.restore), shown);
        assert_eq!(runs(&rig.reopened()), shown, "what has left the record is restored");
    }
    assert_eq!(steps, 4, "one extent at a time");
    assert_eq!(runs(&*rig.below), shown);
    assert_eq!(rig.restore.status().left_bytes, 0);
}

#[test]
fn a_write_to_a_part_of_an_extent_restores_the_rest_first_and_one_of_a_whole_reads_nothing() {
    let rig = Rig::of(&[0, 1, 2]);
    let restore = &rig.restore;
    let data = [7; 512];
    let now = restore.write(EXTENT + 512, &data, Durability::Cached, Patience::Now);
    assert!(matches!(now, Err(StoreError::WouldBlock)));
    restore.write(EXTENT + 512, &data, Durability::Cached, Patience::Wait).unwrap();
    let part = [(512, 2), (512, 7), (EXTENT - 1024, 2)];
    assert_eq!(&runs(&*rig.below)[1..4], part);
    assert_eq!(rig.below.flushes.load(Ordering::SeqCst), 1, "it is flushed before it leaves the record");
    assert_eq!(rig.reopened().extents_left(), [0, 2]);
    restore.write(EXTENT, &data, Durability::Cached, Patience::Now).unwrap();
    // The rest of extents 0 and 2 comes from the image, and of extent 1 nothing.
    write(restore, EXTENT - 512..2 * EXTENT + 512, 9).unwrap();
    assert_eq!(
        runs(&*rig.below),
        [(EXTENT - 512, 2), (EXTENT + 1024, 9), (EXTENT - 512, 2), (EXTENT + 1024, 1)]
    );
    assert!(restore.extents_left().is_empty());
    let rig = Rig::of(&[0, 1]);
    write(&rig.restore, 0..2 * EXTENT, 9).unwrap();
    assert_eq!(runs(&*rig.below), [(2 * EXTENT, 9), (2 * EXTENT + 1024, 1)]);
}

#[test]
fn a_discard_of_whole_extents_leaves_holes_and_holes_of_the_image_become_holes() {
    let rig = Rig::of(&[0, 1, 2, 3]);
    rig.restore.discard(512, 2 * EXTENT - 512).unwrap();
    assert_eq!(rig.restore.extents_left(), [2, 3]);
    assert_eq!(runs(&rig.restore)[..2], [(512, 2), (2 * EXTENT - 512, 0)]);
    assert_eq!(rig.restore.next_data(EXTENT).unwrap(), Some(2 * EXTENT..4 * EXTENT));
    rig.image.discard(2 * EXTENT, 2 * EXTENT).unwrap();
    assert_eq!(rig.restore.next_data(EXTENT).unwrap(), Some(4 * EXTENT..LENGTH));
    let hole = 2 * EXTENT / 16; // of a hole a part counts
    assert!(matches!(rig.restore.step(u64::MAX), Advance::Restored { bytes } if bytes == hole));
    assert!(matches!(rig.restore.step(u64::MAX), Advance::Whole));
    assert_eq!(rig.below.next_data(EXTENT).unwrap(), Some(4 * EXTENT..LENGTH));
}

#[test]
fn a_write_with_fua_and_a_flush_make_the_record_durable_too() {
    let world = World::new();
    let (home, store) = (world.store(LENGTH), world.store(0));
    let (below, image) = (medium(home.reopen()), medium(filled(2)));
    let restore = Restore::begin(SUBJECT, Arc::clone(&image) as _, below, Arc::new(store.reopen())).unwrap();
    restore.add(&(0..LENGTH));
    restore.close_in();
    restore.save().unwrap();
    restore.flip();
    let found = |home: &FaultyStore, store: &FaultyStore| {
        world.restart(crate::store::faulty::Survival::Nothing, 1);
        let below = medium(home.reopen());
        let image = Arc::clone(&image);
        Restore::open(SUBJECT, image, below, Arc::new(store.reopen())).unwrap()
    };
    write(&restore, 0..512, 7).unwrap();
    let data = [8; 512];
    let now = restore.write(512, &data, Durability::Stable, Patience::Now);
    assert!(matches!(now, Err(StoreError::WouldBlock)), "the record would have to be flushed");
    restore.write(512, &data, Durability::Stable, Patience::Wait).unwrap();
    let restore = found(&home, &store);
    assert_eq!(runs(&restore)[..2], [(512, 7), (512, 8)], "the first write was flushed before it left R");
    write(&restore, EXTENT..EXTENT + 512, 9).unwrap();
    let restore = found(&home, &store);
    assert_eq!(restore.extents_left(), [1, 2, 3, 4], "nobody had flushed the record");
    write(&restore, EXTENT..EXTENT + 512, 9).unwrap();
    restore.flush().unwrap();
    assert_eq!(found(&home, &store).extents_left(), [2, 3, 4]);
}

#[test]
fn while_it_is_tracking_writes_go_on_and_are_taken_back() {
    let rig = Rig::tracking();
    rig.restore.add(&(0..1));
    write(&rig.restore, 0..512, 6).unwrap();
    write(&rig.restore, EXTENT..EXTENT + 512, 6).unwrap();
    assert_eq!(rig.restore.save().unwrap(), 1, "extent 0 is known");
    let mut writes = [Write { offset: 2 * EXTENT, data: &[6; 512], done: false }];
    rig.restore.write_together(&mut writes);
    assert!(writes[0].done);
    assert_eq!(runs(&rig.restore).len(), 6, "the volume shows all of them");
    std::thread::scope(|scope| {
        let restore = &rig.restore;
        restore.close_in();
        let (answered, answers) = channel();
        scope.spawn(move || {
            write(restore, 3 * EXTENT..3 * EXTENT + 512, 6).unwrap();
            answered.send(()).unwrap();
        });
        let now = restore.write(3 * EXTENT, &[6; 512], Durability::Cached, Patience::Now);
        assert!(matches!(now, Err(StoreError::WouldBlock)), "it is not in R yet");
        write(restore, 512..1024, 6).unwrap();
        assert!(answers.recv_timeout(Duration::from_millis(20)).is_err());
        assert_eq!(restore.save().unwrap(), 1);
        restore.flip();
        answers.recv_timeout(Duration::from_secs(60)).unwrap();
    });
    assert_eq!(
        runs(&rig.restore),
        [(3 * EXTENT, 2), (512, 6), (EXTENT + 512, 1)],
        "what came before is taken back, and what waited came after"
    );
}

#[test]
fn a_beginning_that_is_given_up_lets_those_who_wait_go_on() {
    let rig = Rig::tracking();
    std::thread::scope(|scope| {
        let restore = &rig.restore;
        restore.close_in();
        let waits = scope.spawn(move || write(restore, 0..512, 6));
        restore.end();
        waits.join().unwrap().unwrap();
    });
    assert_eq!(runs(&rig.restore), [(512, 6), (LENGTH - 512, 1)]);
    assert!(matches!(rig.restore.step(1), Advance::Idle));
}

#[test]
fn writes_together_pass_only_where_nothing_is_to_be_restored() {
    let rig = Rig::of(&[1]);
    assert!(rig.restore.gathers());
    let one = |offset| Write { offset, data: &[6; 512], done: false };
    let mut writes = [one(0), one(EXTENT)];
    rig.restore.write_together(&mut writes);
    assert!(writes.iter().all(|write| !write.done));
    let mut writes = [one(0), one(2 * EXTENT)];
    rig.restore.write_together(&mut writes);
    assert!(writes.iter().all(|write| write.done));
    let mut beyond = [one(LENGTH)];
    rig.restore.write_together(&mut beyond);
    assert!(!beyond[0].done);
}

#[test]
fn an_error_leaves_the_extents_as_they_were_and_the_next_step_goes_on() {
    let world = World::new();
    let home = world.store(LENGTH);
    let (below, image) = (medium(home.reopen()), medium(filled(2)));
    let record = Arc::new(MemStore::new(0));
    let restore = Restore::begin(SUBJECT, image, below, record).unwrap();
    restore.add(&(0..LENGTH));
    restore.close_in();
    restore.save().unwrap();
    restore.flip();
    for fault in [Fault::NoSpace, Fault::Shortage] {
        world.fail_after(0, fault);
        assert!(matches!(restore.step(EXTENT), Advance::NoRoom(_)));
        assert!(restore.status().error.is_some());
        assert_eq!(runs(&restore), [(LENGTH, 2)]);
    }
    world.fail_after(0, Fault::Io);
    assert!(matches!(restore.step(EXTENT), Advance::Failed(_)));
    world.fail_after(1, Fault::NoSpace);
    write(&restore, 512..1024, 7).unwrap_err();
    assert_eq!((runs(&restore), restore.extents_left().len()), (vec![(LENGTH, 2)], 5));
    while !matches!(restore.step(EXTENT), Advance::Whole) {}
    assert_eq!((runs(&restore), restore.status().error), (vec![(LENGTH, 2)], None));
}

#[test]
fn a_restore_without_a_record_refuses_everything_until_it_ends() {
    let below = medium(filled(1));
    let store = Arc::new(MemStore::new(0));
    let restore = Restore::lost(SUBJECT, below, store, "it is gone".to_owned());
    let mut bytes = [0; 512];
    let is_refused = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::Corrupt(why)) if why == "it is gone");
    assert!(is_refused(restore.read(0, &mut bytes, Patience::Wait)));
    assert!(is_refused(write(&restore, 0..512, 3)) && is_refused(restore.discard(0, 512)));
    assert!(is_refused(restore.next_data(0).map(drop)));
    assert!(matches!(restore.step(1), Advance::Idle));
    let status = restore.status();
    assert_eq!((status.left_bytes, status.error.as_deref()), (LENGTH, Some("it is gone")));
    restore.end();
    assert_eq!(runs(&*restore.below()), [(LENGTH, 1)]);
}

#[test]
fn the_medium_below_can_be_exchanged() {
    let rig = Rig::of(&[0]);
    let other = medium(filled(4));
    rig.restore.exchange(|_| Arc::clone(&other) as Arc<dyn Block>);
    assert_eq!(runs(&rig.restore), [(EXTENT, 2), (LENGTH - EXTENT, 4)]);
    while !matches!(rig.restore.step(1), Advance::Whole) {}
    assert_eq!(runs(&*other), [(EXTENT, 2), (LENGTH - EXTENT, 4)]);
    assert_eq!(runs(&*rig.below), [(LENGTH, 1)]);
}

#[test]
fn hosts_and_steps_at_once_lose_nothing() {
    let rig = Rig::of(&[0, 1, 2, 3, 4]);
    let restore = &rig.restore;
    std::thread::scope(|scope| {
        let steps = scope.spawn(|| while !matches!(restore.step(EXTENT), Advance::Whole) {});
        for host in 0..4u64 {
            scope.spawn(move || {
                for sector in 0..32 {
                    let at = (sector % 4) * EXTENT + (host * 32 + sector / 4) * 512;
                    write(restore, at..at + 512, 10 + host as u8).unwrap();
                    let mut found = [0; 512];
                    restore.read(at, &mut found, Patience::Wait).unwrap();
                    assert_eq!(found, [10 + host as u8; 512]);
                }
            });
        }
        steps.join().unwrap();
    });
    for extent in 0..4 {
        for sector in 0..EXTENT / 512 {
            let mut found = [0; 512];
            rig.below.read(extent * EXTENT + sector * 512, &mut found, Patience::Wait).unwrap();
            let written = sector / 32 < 4 && sector % 32 < 8;
            let expected = if written { 10 + (sector / 32) as u8 } else { 2 };
            assert_eq!(found, [expected; 512], "extent {extent}, sector {sector}");
        }
    }
}
