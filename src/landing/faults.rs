//! Single faults and refusals, one by one.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::testing::{Home, bring_all, seen, shape, shared, stamped, stamps};
use super::{Landing, Outcome, SEGMENT};
use crate::store::faulty::{Fault, FaultyStore, Survival, World};
use crate::store::{Durability, MemStore, Patience, Stopped, Store, StoreError};
use crate::units::BlockSize;
use crate::volume::Write;

const SIZE: u64 = 4096;
const BLOCKS: u64 = 1024;
const LENGTH: u64 = BLOCKS * SIZE;
const LIMIT: u64 = 8 << 20;

struct Rig {
    world: World,
    log: FaultyStore,
    home: Home<FaultyStore>,
    landing: Landing,
}

impl Rig {
    fn new() -> Self {
        let world = World::new();
        let (log, home) = (world.store(0), Home(world.store(LENGTH), BlockSize::B4096));
        let landing = Landing::create(shared(log.reopen()), shape(BlockSize::B4096, LENGTH), LIMIT).unwrap();
        Self { world, log, home, landing }
    }

    fn land(&self, block: u64, count: u64, stamp: u64, patience: Patience) -> Result<Outcome, StoreError> {
        self.landing.land(block * SIZE, &stamped(stamp, count, SIZE), Durability::Cached, patience)
    }

    fn landed(&self, block: u64, count: u64, stamp: u64) {
        assert_eq!(self.land(block, count, stamp, Patience::Wait).unwrap(), Outcome::Landed);
    }

    fn try_open(&self) -> Result<Landing, StoreError> {
        Landing::open(shared(self.log.reopen()), shape(BlockSize::B4096, LENGTH), LIMIT)
    }

    fn kill(&mut self) {
        self.landing = self.try_open().unwrap();
    }

    fn seen(&self, block: u64) -> u64 {
        seen(&self.landing, &self.home, block, 1)[0]
    }

    fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.log.read(offset, &mut byte, Patience::Wait).unwrap();
        self.log.write(offset, &[byte[0] ^ 1], Durability::Stable, Patience::Wait).unwrap();
    }

    fn refusal(&self) -> String {
        match self.try_open() {
            Err(StoreError::Corrupt(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_write_that_fails_in_its_data_or_in_its_entry_has_not_landed_whatever_happens_then() {
    for calls in 0..2 {
        for fault in [Fault::Io, Fault::Shortage] {
            let mut rig = Rig::new();
            rig.landed(3, 1, 1);
            rig.landing.flush().unwrap();
            rig.world.fail_after(calls, fault);
            assert!(rig.land(3, 1, 2, Patience::Wait).is_err());
            assert_eq!(rig.seen(3), 1);
            rig.kill();
            assert_eq!(rig.seen(3), 1);
            rig.landed(4, 1, 3);
            rig.landing.flush().unwrap();
            rig.world.restart(Survival::Random, calls);
            rig.kill();
            assert_eq!((rig.seen(3), rig.seen(4)), (1, 3));
        }
    }
}

#[test]
fn a_write_in_several_segments_lands_whole_or_not_at_all() {
    for calls in 0..7 {
        let mut rig = Rig::new();
        rig.landed(0, 1, 1);
        rig.world.fail_after(calls, Fault::Io);
        // Room is left for 254 pages: segments begin, data in three parts, entries in three parts.
        assert_eq!(
            rig.land(0, 600, 2, Patience::Now).err().map(|error| error.to_string()),
            Some(StoreError::WouldBlock.to_string())
        );
        let landed = rig.land(0, 600, 2, Patience::Wait);
        assert!(landed.is_err(), "{calls}");
        assert_eq!((rig.seen(0), rig.seen(300), rig.seen(599)), (1, 0, 0), "{calls}");
        rig.kill();
        assert_eq!((rig.seen(0), rig.seen(300), rig.seen(599)), (1, 0, 0), "{calls}");
        rig.landed(0, 600, 3);
        rig.kill();
        assert_eq!((rig.seen(0), rig.seen(300), rig.seen(599)), (3, 3, 3), "{calls}");
    }
}

#[test]
fn a_full_device_is_full_only_if_something_can_be_brought_home() {
    let rig = Rig::new();
    rig.world.fail_after(0, Fault::NoSpace);
    assert!(matches!(rig.land(0, 1, 1, Patience::Wait), Err(StoreError::NoSpace)));
    rig.landed(0, 1, 1);
    for calls in 0..2 {
        rig.world.fail_after(calls, Fault::NoSpace);
        assert_eq!(rig.land(0, 1, 2, Patience::Wait).unwrap(), Outcome::Full);
        assert_eq!(rig.seen(0), 1);
    }
    rig.landed(0, 1, 3);
    assert_eq!(rig.seen(0), 3);
}

#[test]
fn the_limit_of_the_log_makes_it_full_until_something_has_come_home() {
    let rig = Rig::new();
    assert_eq!(rig.landing.limit(), 7 << 20);
    let mut landed = 0;
    while rig.land(landed % 4 * 255, 255, 7, Patience::Wait).unwrap() == Outcome::Landed {
        landed += 1;
    }
    assert_eq!((landed, rig.landing.used(), rig.log.length()), (7, 7 << 20, LIMIT));
    assert_eq!(rig.land(0, 1, 8, Patience::Now).unwrap(), Outcome::Full);
    let batch = rig.landing.oldest(2 << 20).unwrap().unwrap();
    assert!(batch.ranges().is_empty(), "superseded");
    batch.end().unwrap();
    assert_eq!(rig.landing.used(), 5 << 20);
    assert_eq!(rig.land(0, 1, 8, Patience::Now).unwrap(), Outcome::Landed);
    bring_all(&rig.landing, &rig.home);
    assert_eq!((rig.seen(0), rig.seen(1), rig.seen(1019), rig.landing.used()), (8, 7, 7, 0));
}

#[test]
fn what_a_write_that_may_be_lost_has_superseded_comes_home_too() {
    for flushed in [false, true] {
        let mut rig = Rig::new();
        rig.landed(0, 255, 1); // a whole segment
        rig.landing.flush().unwrap();
        rig.landed(0, 2, 2);
        rig.landed(1, 1, 3);
        if flushed {
            rig.landing.flush().unwrap();
        }
        let batch = rig.landing.oldest(SEGMENT).unwrap().unwrap();
        let first = if flushed { 2 } else { 0 };
        assert_eq!(batch.ranges(), std::slice::from_ref(&(first * SIZE..255 * SIZE)));
        batch.bring(&rig.home).unwrap();
        batch.end().unwrap();
        assert_eq!([0, 1, 2].map(|block| rig.seen(block)), [2, 3, 1]);
        rig.world.restart(Survival::Nothing, 0);
        rig.kill();
        let expected = if flushed { [2, 3, 1] } else { [1, 1, 1] };
        assert_eq!([0, 1, 2].map(|block| rig.seen(block)), expected);
    }
}

#[test]
fn a_block_that_was_written_twice_comes_home_as_it_was_last_and_zeros_bring_nothing_back() {
    let rig = Rig::new();
    rig.landed(0, 100, 1);
    rig.landed(50, 155, 2);
    rig.landed(60, 1, 3); // in the next segment
    let batch = rig.landing.oldest(SEGMENT).unwrap().unwrap();
    batch.bring(&rig.home).unwrap();
    batch.end().unwrap();
    let mut bytes = vec![0; (205 * SIZE) as usize];
    rig.home.0.read(0, &mut bytes, Patience::Wait).unwrap();
    let stamps = stamps(&bytes, SIZE);
    assert!(stamps[..50].iter().all(|stamp| *stamp == 1) && stamps[50..].iter().all(|stamp| *stamp == 2));

    let rig = Rig::new();
    rig.landed(0, 255, 1);
    rig.landed(300, 1, 2); // in the next segment
    assert_eq!(rig.landing.land_zeros(0..SIZE).unwrap(), Outcome::Landed);
    let batch = rig.landing.oldest(SEGMENT).unwrap().unwrap();
    assert_eq!(batch.ranges(), std::slice::from_ref(&(SIZE..255 * SIZE)));
}

#[test]
fn without_patience_nothing_waits_and_nothing_happens() {
    let rig = Rig::new();
    assert_eq!(rig.land(0, 1, 1, Patience::Now).unwrap(), Outcome::Landed, "a new segment is no wait");
    assert_eq!(rig.land(0, 1, 2, Patience::Now).unwrap(), Outcome::Landed);
    let data = stamped(3, 1, SIZE);
    let stable = rig.landing.land(0, &data, Durability::Stable, Patience::Now);
    assert!(matches!(stable, Err(StoreError::WouldBlock)));
    // An entry that failed without patience is removed by the first write that may wait.
    rig.world.fail_after(1, Fault::Io);
    assert!(matches!(rig.land(0, 1, 4, Patience::Now), Err(StoreError::Io(_))));
    assert!(matches!(rig.land(0, 1, 5, Patience::Now), Err(StoreError::WouldBlock)));
    rig.landed(1, 1, 5);
    assert_eq!(rig.land(2, 1, 6, Patience::Now).unwrap(), Outcome::Landed);
    assert_eq!((rig.seen(0), rig.seen(1), rig.seen(2)), (2, 5, 6));
}

#[test]
fn after_a_failed_flush_the_log_is_closed_until_it_is_opened_again() {
    let mut rig = Rig::new();
    let log = Arc::new(rig.log.reopen());
    rig.landing = Landing::open(log.clone(), shape(BlockSize::B4096, LENGTH), LIMIT).unwrap();
    rig.landed(0, 1, 1);
    rig.world.fail_after(0, Fault::Io);
    assert!(matches!(rig.landing.flush(), Err(StoreError::Io(_))));
    assert!(matches!(rig.land(0, 1, 2, Patience::Wait), Err(StoreError::Stopped)));
    assert!(matches!(rig.landing.flush(), Err(StoreError::Stopped)));
    assert!(matches!(rig.landing.oldest(0), Err(StoreError::Stopped)));
    assert_eq!(rig.seen(0), 1, "what the page cache has is seen");
    log.reinstate().unwrap();
    let mut buffer = vec![0; SIZE as usize];
    let read = rig.landing.read(&rig.home, 0, &mut buffer, Patience::Wait);
    assert!(matches!(read, Err(StoreError::Stopped)));
    rig.kill();
    assert!([0, 1].contains(&rig.seen(0)));
}

#[test]
fn a_flush_without_a_change_costs_nothing() {
    let rig = Rig::new();
    rig.landed(0, 1, 1);
    rig.landing.flush().unwrap();
    let calls = rig.world.calls();
    rig.landing.flush().unwrap();
    assert_eq!(rig.world.calls(), calls);
    rig.landed(0, 1, 2);
    assert_eq!(rig.world.calls(), calls + 2, "two writes: the data and the page with the entry");
}

/// Lands blocks with one stamp together; how many of them have landed.
fn land_together(rig: &Rig, blocks: &[u64], stamp: u64) -> usize {
    let data = stamped(stamp, 1, SIZE);
    let write = |block: &u64| Write { offset: block * SIZE, data: &data, done: false };
    let mut writes: Vec<_> = blocks.iter().map(write).collect();
    rig.landing.land_together(&mut writes.iter_mut().collect::<Vec<_>>());
    writes.iter().filter(|write| write.done).count()
}

#[test]
fn writes_that_land_together_cost_two_writes_of_the_log_and_have_their_order() {
    let mut rig = Rig::new();
    rig.landed(0, 1, 1);
    let calls = rig.world.calls();
    assert_eq!(land_together(&rig, &(0..32).collect::<Vec<_>>(), 2), 32);
    assert_eq!(rig.world.calls(), calls + 2);
    let data = [3, 4, 5].map(|stamp| stamped(stamp, 1, SIZE));
    let mut writes = [&data[0], &data[1], &data[2]].map(|data| Write { offset: SIZE, data, done: false });
    rig.landing.land_together(&mut writes.iter_mut().collect::<Vec<_>>());
    for _ in 0..2 {
        assert_eq!((rig.seen(0), rig.seen(1), rig.seen(31), rig.seen(32)), (2, 5, 2, 0));
        rig.kill();
    }
}

#[test]
fn a_group_that_fails_in_its_data_or_in_its_entries_has_not_landed() {
    for calls in 0..2 {
        for fault in [Fault::Io, Fault::NoSpace, Fault::Shortage] {
            let mut rig = Rig::new();
            rig.landed(3, 1, 1);
            rig.world.fail_after(calls, fault);
            assert_eq!(land_together(&rig, &[3, 4, 5], 2), 0);
            assert_eq!((rig.seen(3), rig.seen(4)), (1, 0));
            assert_eq!(
                land_together(&rig, &[7], 3),
                usize::from(calls == 0),
                "it may have to wait for a repair"
            );
            rig.landed(5, 1, 4);
            assert_eq!(land_together(&rig, &[7, 8], 3), 2);
            rig.landing.flush().unwrap();
            rig.world.restart(Survival::Nothing, calls);
            rig.kill();
            assert_eq!([3, 4, 5, 7, 8].map(|block| rig.seen(block)), [1, 0, 4, 3, 3]);
        }
    }
}

#[test]
fn a_group_goes_on_in_the_next_segment_as_far_as_there_is_room() {
    let mut rig = Rig::new();
    let blocks: Vec<u64> = (0..BLOCKS).collect();
    assert_eq!(land_together(&rig, &blocks, 1), BLOCKS as usize);
    assert_eq!(
        land_together(&rig, &blocks, 2),
        7 * 251 - BLOCKS as usize,
        "entries of the segments that are left"
    );
    rig.kill();
    assert_eq!((rig.seen(0), rig.seen(732), rig.seen(733), rig.seen(BLOCKS - 1)), (2, 2, 1, 1));
}

#[test]
fn a_batch_that_has_not_come_home_is_not_forgotten() {
    let mut rig = Rig::new();
    rig.landed(5, 2, 1);
    rig.landing.land_zeros(6 * SIZE..9 * SIZE).unwrap();
    let batch = rig.landing.oldest(0).unwrap().unwrap();
    assert_eq!(batch.ranges(), std::slice::from_ref(&(5 * SIZE..7 * SIZE)));
    assert!(matches!(batch.end(), Err(StoreError::ReadOnly(_))));
    rig.kill();
    assert_eq!((rig.seen(5), rig.seen(6), rig.seen(7)), (1, 0, 0));
    bring_all(&rig.landing, &rig.home);
    assert!(rig.landing.oldest(0).unwrap().is_none());
    assert!(rig.landing.is_empty());
    assert_eq!(rig.home.0.next_data(0).unwrap(), Some(5 * SIZE..6 * SIZE).map(|_| 16384..32768));
    rig.kill();
    assert!(rig.landing.is_empty());
    assert_eq!((rig.seen(5), rig.seen(6)), (1, 0));
}

#[test]
fn a_batch_brings_home_what_was_live_and_readers_see_the_later_write() {
    let rig = Rig::new();
    rig.landed(5, 1, 1);
    rig.landed(6, 1, 1);
    let batch = rig.landing.oldest(0).unwrap().unwrap();
    rig.landed(5, 1, 2);
    batch.bring(&rig.home).unwrap();
    assert_eq!(rig.seen(5), 2);
    batch.end().unwrap();
    assert_eq!((rig.seen(5), rig.seen(6)), (2, 1));
    assert!(rig.landing.touches(&(5 * SIZE..6 * SIZE)) && !rig.landing.touches(&(6 * SIZE..7 * SIZE)));
}

#[test]
fn damage_of_what_was_durable_is_told_and_nothing_is_written() {
    let mut rig = Rig::new();
    (0..4).for_each(|block| rig.landed(block, 1, 1));
    rig.landing.flush().unwrap();
    rig.landed(4, 1, 1); // says that the four are durable
    let data = |page: u64| SEGMENT + page * SIZE;
    // A fifth that is damaged was never durable as far as anybody has written down: the write is missing.
    rig.flip(data(5));
    rig.kill();
    assert_eq!((rig.seen(3), rig.seen(4)), (1, 0));
    rig.flip(data(3));
    let calls = rig.world.calls();
    assert!(rig.refusal().contains("entry 2 of segment 1 was durable and is damaged"), "{}", rig.refusal());
    assert_eq!(rig.world.calls(), calls);
    rig.flip(data(3));
    rig.flip(SEGMENT + 40);
    assert!(rig.refusal().contains("of 1 segments"), "{}", rig.refusal());
    rig.flip(SEGMENT + 40);
    rig.flip(10);
    assert!(rig.refusal().contains("superblock 0 is damaged"), "{}", rig.refusal());
    rig.flip(10);
    rig.kill();
    let other = Landing::open(shared(rig.log.reopen()), shape(BlockSize::B512, LENGTH), LIMIT);
    assert!(other.unwrap_err().to_string().contains("another block size"));
    rig.log.resize(0).unwrap();
    assert!(rig.refusal().contains("cut to 0 bytes"), "{}", rig.refusal());
}

#[test]
fn entries_of_a_segment_that_power_took_never_count_in_the_next_one_of_that_number() {
    let mut rig = Rig::new();
    (0..40).for_each(|block| rig.landed(block, 1, 1));
    // Of the first page only the second sector arrived, and all of the data.
    let mut second = [0; 512];
    rig.log.read(SEGMENT + 512, &mut second, Patience::Wait).unwrap();
    rig.log.write(SEGMENT, &[0; 512], Durability::Cached, Patience::Wait).unwrap();
    rig.kill();
    assert!(rig.landing.is_empty());
    rig.landed(0, 1, 2);
    // Of the first page only the first sector arrived.
    rig.log.write(SEGMENT + 512, &second, Durability::Cached, Patience::Wait).unwrap();
    rig.kill();
    assert_eq!((rig.seen(0), rig.seen(1), rig.seen(39)), (2, 0, 0));
    rig.kill();
    assert_eq!(seen(&rig.landing, &rig.home, 0, 2), [2, 0]);
}

/// A store on a file system that punches no holes: a discard writes zeros, and takes their time and their room.
#[derive(Debug)]
struct WithoutHoles(MemStore, AtomicU64);

impl Store for WithoutHoles {
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.read(offset, buffer, patience)
    }
    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.0.write(offset, data, durability, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
    fn discard(&self, _offset: u64, length: u64) -> Result<(), StoreError> {
        self.1.fetch_add(length, Ordering::SeqCst);
        Ok(())
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.next_data(offset)
    }
    fn allocated(&self) -> Result<u64, StoreError> {
        Ok(self.0.allocated()? + self.1.load(Ordering::SeqCst))
    }
    fn resize(&self, length: u64) -> Result<(), StoreError> {
        self.0.resize(length)
    }
    fn stopped(&self) -> Option<Stopped> {
        None
    }
    fn reinstate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_empty_log_gives_back_its_room_where_no_holes_can_be_punched() {
    let store = Arc::new(WithoutHoles(MemStore::new(0), AtomicU64::new(0)));
    let home = Home(MemStore::new(1 << 20), BlockSize::B4096);
    let landing = Landing::create(store.clone(), shape(BlockSize::B4096, 1 << 20), 100 << 20).unwrap();
    for stamp in 1..=70 {
        let data = stamped(stamp, 255, SIZE);
        assert_eq!(landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap(), Outcome::Landed);
    }
    bring_all(&landing, &home);
    assert!(store.allocated().unwrap() <= 65 << 20, "{}", store.allocated().unwrap());
    assert_eq!((store.length(), store.1.load(Ordering::SeqCst)), (100 << 20, 0));
    for stamp in 1..=90 {
        let data = stamped(stamp, 255, SIZE);
        assert_eq!(landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap(), Outcome::Landed);
    }
    assert_eq!(seen(&landing, &home, 254, 1), [90]);
}

#[test]
fn a_log_that_cannot_be_made_long_again_uses_what_it_has_until_it_can() {
    let world = World::new();
    let store = Arc::new(world.store(0));
    let home = Home(MemStore::new(1 << 20), BlockSize::B4096);
    let landing = Landing::create(store.clone(), shape(BlockSize::B4096, 1 << 20), 100 << 20).unwrap();
    let fill = || {
        let mut landed = 0;
        while landing.land(0, &stamped(1, 255, SIZE), Durability::Cached, Patience::Wait).unwrap()
            == Outcome::Landed
        {
            landed += 1;
        }
        landed
    };
    assert_eq!(fill(), 99);
    while landing.used() > 4 << 20 {
        landing.oldest(4 << 20).unwrap().unwrap().end().unwrap();
    }
    let last = landing.oldest(4 << 20).unwrap().unwrap();
    last.bring(&home).unwrap();
    world.fail_after(2, Fault::Io); // the superblock, the cut, and then
    last.end().unwrap();
    assert_eq!(store.length(), 65 << 20);
    assert_eq!(fill(), 64);
    world.fail_after(0, Fault::Io);
    landing.regain_room().unwrap_err();
    assert_eq!(fill(), 0, "nobody gets what may be missing");
    bring_all(&landing, &home);
    assert_eq!((store.length(), fill()), (100 << 20, 99));
}

#[test]
fn an_empty_log_gives_back_its_room_and_a_new_one_forgets_an_old_one() {
    let store = Arc::new(MemStore::new(0));
    let shape = shape(BlockSize::B4096, 1 << 20);
    let home = Home(MemStore::new(1 << 20), BlockSize::B4096);
    let landing = Landing::create(store.clone(), shape, 100 << 20).unwrap();
    let data = stamped(1, 255, SIZE);
    for _ in 0..70 {
        assert_eq!(landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap(), Outcome::Landed);
    }
    assert_eq!(landing.used(), 70 << 20);
    bring_all(&landing, &home);
    assert_eq!((landing.used(), store.length()), (0, 100 << 20), "its length is fixed");
    assert!(store.allocated().unwrap() <= 65 << 20, "{}", store.allocated().unwrap());
    for stamp in 2..70 {
        let data = stamped(stamp, 255, SIZE);
        assert_eq!(landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap(), Outcome::Landed);
    }
    assert_eq!(seen(&landing, &home, 254, 1), [69]);
    let anew = Landing::create(store.clone(), shape, 100 << 20).unwrap();
    assert!(anew.is_empty());
    anew.land(0, &stamped(9, 1, SIZE), Durability::Cached, Patience::Wait).unwrap();
    let again = Landing::open(store, shape, 100 << 20).unwrap();
    assert_eq!(seen(&again, &home, 0, 2), [9, 1]);
}

#[test]
fn a_log_in_which_nothing_lands_gives_back_most_of_its_room_and_none_with_something_does() {
    let store = Arc::new(MemStore::new(0));
    let shape = shape(BlockSize::B4096, 1 << 20);
    let home = Home(MemStore::new(1 << 20), BlockSize::B4096);
    let mut landing = Landing::create(store.clone(), shape, 40 << 20).unwrap();
    for round in 0..3_u64 {
        assert!(!landing.can_trim(), "it has what an idle log has, or less");
        for stamp in 1..=20 {
            let data = stamped(100 * round + stamp, 255, SIZE);
            assert_eq!(landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap(), Outcome::Landed);
        }
        assert!(!landing.can_trim());
        landing.trim();
        assert_eq!(seen(&landing, &home, 254, 1), [100 * round + 20], "nothing is lost");
        bring_all(&landing, &home);
        assert!(store.allocated().unwrap() > 20 << 20);
        if round == 1 {
            landing = Landing::open(store.clone(), shape, 40 << 20).unwrap();
        }
        assert!(landing.can_trim(), "after a restart, too");
        landing.trim();
        assert!(store.allocated().unwrap() <= 5 << 20, "{}", store.allocated().unwrap());
        assert_eq!((store.length(), landing.limit()), (40 << 20, 39 << 20));
        assert_eq!(seen(&landing, &home, 254, 1), [100 * round + 20]);
    }
    let mut landed = 0;
    let data = stamped(1, 255, SIZE);
    while landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap() == Outcome::Landed {
        landed += 1;
    }
    assert_eq!(landed, 39, "it has all of its slots");
}

#[test]
fn a_log_whose_trim_failed_has_all_of_its_slots_when_a_write_asks_for_room() {
    let world = World::new();
    let store = shared(world.store(0));
    let home = Home(MemStore::new(1 << 20), BlockSize::B4096);
    let landing = Landing::create(store.clone(), shape(BlockSize::B4096, 1 << 20), 40 << 20).unwrap();
    let data = stamped(1, 255, SIZE);
    let land = || landing.land(0, &data, Durability::Cached, Patience::Wait).unwrap();
    (0..20).for_each(|_| assert_eq!(land(), Outcome::Landed));
    bring_all(&landing, &home);
    world.fail_after(1, Fault::Io); // the cut, and then
    landing.trim();
    (0..4).for_each(|_| assert_eq!(land(), Outcome::Landed));
    assert_eq!(land(), Outcome::Full);
    landing.regain_room().unwrap();
    (4..39).for_each(|_| assert_eq!(land(), Outcome::Landed));
    assert_eq!((land(), store.length()), (Outcome::Full, 40 << 20));
}
