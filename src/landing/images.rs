//! A volume with images against a naive oracle of whole copies: hosts write and discard, images come and go, the log is
//! brought home, made anew, full or without room, and the keeper has no room.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::testing::{At, Home, IDENTITY, KEPT, Naive, random, shape, shared, stamped, stamps};
use super::{HomeOf, Keeper, LandedVolume, Landing, Outcome, SEGMENT, Settled};
use crate::store::{Durability, MemStore, Patience, Stopped, Store, StoreError};
use crate::units::BlockSize;
use crate::volume::Block;

const SIZE: u64 = 4096;
const BLOCKS: u64 = 40;
/// Four segments, so that it is full soon, or many, so that it gets many intervals.
const LIMIT: u64 = 5 << 20;
const LIMIT_OF_MANY: u64 = 32 << 20;

/// A store that has no room when it is told so.
struct Roomless {
    store: MemStore,
    full: AtomicBool,
}

impl fmt::Debug for Roomless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Store for Roomless {
    fn length(&self) -> u64 {
        self.store.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.store.read(offset, buffer, patience)
    }
    fn write(&self, at: u64, data: &[u8], how: Durability, patience: Patience) -> Result<(), StoreError> {
        // What was written once has its room: superblocks, and first pages.
        let new = at >= 1 << 20 && at % (1 << 20) >= SIZE;
        if new && self.full.load(Ordering::SeqCst) {
            return Err(StoreError::NoSpace);
        }
        self.store.write(at, data, how, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.store.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.store.next_data(offset)
    }
    fn allocated(&self) -> Result<u64, StoreError> {
        self.store.allocated()
    }
    fn resize(&self, length: u64) -> Result<(), StoreError> {
        self.store.resize(length)
    }
    fn stopped(&self) -> Option<Stopped> {
        self.store.stopped()
    }
    fn reinstate(&self) -> Result<(), StoreError> {
        self.store.reinstate()
    }
}

/// How often something of interest happened.
#[derive(Debug, Default)]
struct Seen {
    landed: u64,
    straight: u64,
    refused: u64,
    crowded: u64,
    given: u64,
    stays: u64,
}

struct Model {
    home: Arc<Home<MemStore>>,
    log: Arc<Roomless>,
    made: Arc<AtomicBool>,
    keeper: Arc<Naive>,
    volume: Arc<LandedVolume>,
    /// The stamp of each block.
    present: Vec<u64>,
    /// The same, as it was when each image was taken.
    images: BTreeMap<u64, Vec<u64>>,
    number: u64,
    stamp: u64,
    seed: u64,
    /// The log has many intervals: it is large, and nobody brings it home in time.
    many: bool,
    seen: Seen,
}

impl Model {
    fn new(seed: u64) -> Self {
        let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
        let log = Arc::new(Roomless { store: MemStore::new(0), full: AtomicBool::new(false) });
        let (made, keeper) =
            (Arc::new(AtomicBool::new(false)), Naive::new(Arc::clone(&home) as Arc<dyn Block>));
        let many = seed % 4 == 1;
        let volume = Self::open(&home, &log, &made, many);
        let mut this = Self {
            home,
            log,
            made,
            keeper,
            volume,
            present: vec![0; BLOCKS as usize],
            images: BTreeMap::new(),
            number: 0,
            stamp: 0,
            seed,
            many,
            seen: Seen::default(),
        };
        this.keep();
        if !seed.is_multiple_of(5) {
            this.volume.prepare().unwrap();
        }
        this
    }

    fn open(
        home: &Arc<Home<MemStore>>,
        log: &Arc<Roomless>,
        made: &Arc<AtomicBool>,
        many: bool,
    ) -> Arc<LandedVolume> {
        let limit = if many { LIMIT_OF_MANY } else { LIMIT };
        let place = Box::new(At(Arc::clone(log) as Arc<dyn Store>, Arc::clone(made)));
        let home = Arc::clone(home) as Arc<dyn Block>;
        Arc::new(LandedVolume::open(home, IDENTITY, place, limit).unwrap())
    }

    fn keep(&mut self) {
        let keeper: Weak<Naive> = Arc::downgrade(&self.keeper);
        self.volume.keep_by(keeper);
    }

    fn below(&mut self, bound: u64) -> u64 {
        random(&mut self.seed) % bound
    }

    fn blocks(&mut self) -> Range<u64> {
        let start = self.below(BLOCKS);
        start..(start + 1 + self.below(6)).min(BLOCKS)
    }

    /// Images that the keeper has given up are gone.
    fn look_for_gone(&mut self) {
        let living = self.keeper.images.lock();
        let before = self.images.len();
        self.images.retain(|number, _| living.contains_key(number));
        self.seen.given += (before - self.images.len()) as u64;
    }

    fn set(&mut self, blocks: Range<u64>, stamp: u64) {
        self.present[blocks.start as usize..blocks.end as usize].fill(stamp);
    }

    fn write(&mut self, patience: Patience) {
        let blocks = self.blocks();
        self.stamp += 1;
        let data = stamped(self.stamp, blocks.end - blocks.start, SIZE);
        let durability = match patience {
            Patience::Wait if self.below(5) == 0 => Durability::Stable,
            _ => Durability::Cached,
        };
        let keeps = self.keeper.keeps.load(Ordering::SeqCst);
        match self.volume.write(blocks.start * SIZE, &data, durability, patience) {
            Ok(()) if self.volume.touches(&(blocks.start * SIZE..blocks.end * SIZE)) => self.seen.landed += 1,
            Ok(()) => {
                self.seen.straight += u64::from(self.keeper.keeps.load(Ordering::SeqCst) > keeps);
            }
            Err(StoreError::WouldBlock) => {
                assert_eq!(patience, Patience::Now);
                return;
            }
            Err(StoreError::NoSpace) => {
                let reasons = [&self.keeper.full, &self.log.full];
                assert!(reasons.iter().any(|full| full.load(Ordering::SeqCst)));
                self.seen.refused += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        }
        self.set(blocks, self.stamp);
    }

    fn discard(&mut self) {
        let blocks = self.blocks();
        match self.volume.discard(blocks.start * SIZE, (blocks.end - blocks.start) * SIZE) {
            Ok(()) => self.set(blocks, 0),
            Err(StoreError::NoSpace) => {
                // Some of it may read as zeros.
                let there = stamps_of(&self.volume);
                for block in blocks {
                    let (now, before) = (there[block as usize], &mut self.present[block as usize]);
                    assert!(now == 0 || now == *before);
                    *before = now;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn take(&mut self) {
        let shut = self.volume.gate().close();
        let number = self.number + 1 + self.stamp % 3;
        if self.volume.begin_interval(number).unwrap() == Outcome::Full {
            drop(shut);
            self.seen.crowded += 1;
            self.settle();
            return;
        }
        assert_eq!(self.volume.interval(), number);
        self.number = number;
        self.keeper.take(number);
        self.images.insert(number, self.present.clone());
    }

    fn forget(&mut self) {
        let count = self.images.len() as u64;
        if count > 0 {
            let gone = self.below(count) as usize;
            let number = *self.images.keys().nth(gone).unwrap();
            self.images.remove(&number);
            self.keeper.images.lock().remove(&number);
        }
    }

    fn settle(&mut self) {
        let budget = self.below(3) << 20;
        match self.volume.settle(budget).unwrap() {
            Settled::Stays(StoreError::NoSpace) => {
                assert!(self.keeper.full.load(Ordering::SeqCst));
                self.seen.stays += 1;
            }
            Settled::Stays(error) => panic!("{error}"),
            Settled::Nothing | Settled::Home(_) => {}
        }
    }

    /// Hosts write while nothing is to land.
    fn stay_home(&mut self) {
        let volume = Arc::clone(&self.volume);
        match volume.stay_home() {
            Ok(_straight) => {
                for _ in 0..3 {
                    self.write(Patience::Wait);
                    self.discard();
                    assert!(volume.is_home());
                }
            }
            Err(StoreError::NoSpace) => assert!(self.keeper.full.load(Ordering::SeqCst)),
            Err(error) => panic!("{error}"),
        }
    }

    /// The daemon is killed, and comes back.
    fn reopen(&mut self) {
        self.volume = Self::open(&self.home, &self.log, &self.made, self.many);
        self.keep();
        let youngest = self.images.keys().next_back().copied().unwrap_or_default();
        assert_eq!(self.volume.begin_interval(youngest).unwrap(), Outcome::Landed);
        if self.below(3) == 0 {
            self.volume.prepare().unwrap();
        }
    }

    fn toggle(&mut self) {
        let flags = [&self.keeper.full, &self.keeper.gives_way, &self.log.full];
        let flag = flags[(random(&mut self.seed) % 3) as usize];
        flag.store(!flag.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn step(&mut self) {
        match self.below(30) {
            0..10 => self.write(Patience::Wait),
            10..14 => self.write(Patience::Now),
            14..16 => self.discard(),
            16..20 => self.take(),
            20..22 => self.forget(),
            22..25 if self.many => self.write(Patience::Now),
            22..25 => self.settle(),
            25 => self.reopen(),
            26..29 if self.many => self.take(),
            26 | 27 => self.toggle(),
            28 => self.stay_home(),
            _ => self.volume.flush().unwrap(),
        }
        self.look_for_gone();
    }

    fn check(&self, what: &str) {
        assert_eq!(stamps_of(&self.volume), self.present, "{what}");
        for (number, image) in &self.images {
            let bytes = self.keeper.image(&self.volume, *number);
            assert_eq!(&stamps(&bytes, SIZE), image, "{what}: image {number}");
        }
    }
}

fn stamps_of(volume: &LandedVolume) -> Vec<u64> {
    let mut bytes = vec![0xa5; (BLOCKS * SIZE) as usize];
    volume.read(0, &mut bytes, Patience::Wait).unwrap();
    stamps(&bytes, SIZE)
}

#[test]
fn every_image_is_a_copy_of_the_volume_at_its_instant() {
    let mut seen = Seen::default();
    for seed in 0..80 {
        let mut model = Model::new(seed);
        for number in 0..150 {
            model.step();
            model.check(&format!("seed {seed}, step {number}"));
        }
        seen.landed += model.seen.landed;
        seen.straight += model.seen.straight;
        seen.refused += model.seen.refused;
        seen.crowded += model.seen.crowded;
        seen.given += model.seen.given;
        seen.stays += model.seen.stays;
    }
    let all = [seen.landed, seen.straight, seen.refused, seen.crowded, seen.given, seen.stays];
    assert!(all.iter().all(|count| *count > 10), "the test proves too little: {seen:?}");
}

#[test]
fn a_log_has_at_most_so_many_intervals_and_finds_them_again() {
    let (store, home) = (Arc::new(MemStore::new(0)), Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let shape = shape(BlockSize::B4096, BLOCKS * SIZE);
    let limit = 32 << 20;
    let mut landing = Landing::create(store.clone(), shape, limit).unwrap();
    let land = |landing: &Landing, stamp| {
        landing.land(0, &stamped(stamp, 1, SIZE), Durability::Cached, Patience::Wait).unwrap()
    };
    // An interval in which nothing lands takes no room.
    (1..100).for_each(|number| assert_eq!(landing.begin_interval(number).unwrap(), Outcome::Landed));
    for number in 100..108 {
        assert_eq!(landing.begin_interval(number).unwrap(), Outcome::Landed);
        assert_eq!(land(&landing, number), Outcome::Landed);
    }
    for opened in [false, true] {
        if opened {
            landing = Landing::open(store.clone(), shape, limit).unwrap();
        }
        assert_eq!((landing.interval(), landing.has_earlier()), (107, true));
        assert_eq!(landing.begin_interval(108).unwrap(), Outcome::Full);
        assert_eq!(landing.begin_interval(107).unwrap(), Outcome::Landed);
        assert_eq!(landing.begin_interval(5).unwrap(), Outcome::Landed, "an older number changes nothing");
        assert_eq!(landing.interval(), 107);
        let as_of = |number| {
            let mut bytes = vec![0; SIZE as usize];
            landing.read_as_of(number, &home, 0, &mut bytes, Patience::Wait).unwrap();
            stamps(&bytes, SIZE)[0]
        };
        assert_eq!((as_of(100), as_of(101), as_of(107), as_of(108)), (0, 100, 106, 107));
        assert_eq!(landing.next_data_as_of(100, &home, 0).unwrap(), None);
        assert_eq!(landing.next_data_as_of(101, &home, 0).unwrap(), Some(0..SIZE));
    }
    // A batch has one interval, however much it may bring.
    for number in 100..108 {
        let batch = landing.oldest(u64::MAX).unwrap().unwrap();
        assert_eq!((batch.interval(), batch.ranges().len()), (number, 1));
        batch.bring(&home).unwrap();
        batch.end().unwrap();
        let mut bytes = vec![0; SIZE as usize];
        home.read(0, &mut bytes, Patience::Wait).unwrap();
        assert_eq!(bytes, stamped(number, 1, SIZE));
        assert_eq!(landing.begin_interval(200 + number).unwrap(), Outcome::Landed);
    }
    assert!(landing.is_empty() && !landing.has_earlier());
    assert!(matches!(landing.begin_interval(u64::MAX), Err(StoreError::OutOfRange { .. })));
}

/// A keeper whose owner lets go of it while it is asked, and which leaves the volume with a word.
struct Leaving {
    itself: Weak<Self>,
    volume: Weak<LandedVolume>,
    owner: Arc<parking_lot::Mutex<Option<Arc<Self>>>>,
}

impl Leaving {
    fn of(volume: &Arc<LandedVolume>) -> Weak<Self> {
        let owner = Arc::new(parking_lot::Mutex::new(None));
        let this = Arc::new_cyclic(|itself: &Weak<Self>| Self {
            itself: itself.clone(),
            volume: Arc::downgrade(volume),
            owner: Arc::clone(&owner),
        });
        let itself = this.itself.clone();
        *owner.lock() = Some(this);
        itself
    }
}

impl Keeper for Leaving {
    fn keep(&self, _: u64, _: &[Range<u64>]) -> Result<(), StoreError> {
        Ok(())
    }
    fn needs(&self, _: &Range<u64>) -> bool {
        let _owned = self.owner.lock().take();
        false
    }
    fn lost(&self, _: &StoreError) {}
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(volume) = self.volume.upgrade() {
            volume.release_from(&(self.itself.clone() as Weak<dyn Keeper>));
        }
    }
}

#[test]
fn who_asks_a_keeper_may_be_the_last_one_to_let_go_of_it() {
    let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let place = At(shared(MemStore::new(0)), Arc::new(AtomicBool::new(false)));
    let volume = Arc::new(LandedVolume::open(home, IDENTITY, Box::new(place), LIMIT).unwrap());
    let keeper = Leaving::of(&volume);
    volume.keep_by(keeper.clone());
    let (ended, ends) = std::sync::mpsc::channel();
    let writes = Arc::clone(&volume);
    std::thread::spawn(move || {
        writes.write(0, &stamped(1, 1, SIZE), Durability::Cached, Patience::Wait).unwrap();
        ended.send(()).unwrap();
    });
    ends.recv_timeout(std::time::Duration::from_secs(60)).expect("the keeper waits for who asks it");
    assert!(keeper.upgrade().is_none());
    let blocks = stamps_of(&volume);
    assert_eq!((blocks[0], blocks[1]), (1, 0));
}

#[test]
fn a_keeper_that_has_stopped_is_no_failure_of_the_home() {
    let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let place = At(shared(MemStore::new(0)), Arc::new(AtomicBool::new(false)));
    let volume = Arc::new(LandedVolume::open(home.clone(), IDENTITY, Box::new(place), LIMIT).unwrap());
    let keeper = Naive::new(home);
    let weak = Arc::downgrade(&keeper) as Weak<dyn Keeper>;
    volume.keep_by(Weak::clone(&weak));
    assert_eq!(volume.begin_interval(1).unwrap(), Outcome::Landed);
    keeper.take(1);
    let others = HomeOf::new(Arc::clone(&volume));
    let write =
        |block: u64| others.write(block * SIZE, &stamped(1, 1, SIZE), Durability::Cached, Patience::Wait);
    keeper.stopped.store(true, Ordering::SeqCst);
    let refused = write(0);
    assert!(matches!(refused, Err(StoreError::Shortage(_))), "{refused:?}");
    let discarded = others.discard(0, SIZE);
    assert!(matches!(discarded, Err(StoreError::Shortage(_))), "{discarded:?}");
    assert!(!others.make_room(), "it does not give way");
    assert_eq!(keeper.images.lock().len(), 1);
    // A refusal is resolved once, and not after it was forgotten.
    keeper.gives_way.store(true, Ordering::SeqCst);
    assert!(!others.make_room());
    write(0).unwrap_err();
    others.forget_refusal();
    assert!(!others.make_room());
    write(0).unwrap_err();
    assert!(others.make_room() && keeper.images.lock().is_empty());
    write(0).unwrap();
    keeper.take(1);
    drop(keeper);
    let gone = write(5);
    assert!(matches!(gone, Err(StoreError::Shortage(_))), "{gone:?}");
}

#[test]
fn hosts_are_held_from_the_first_refusal_until_a_batch_comes_home() {
    let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let place = At(shared(MemStore::new(0)), Arc::new(AtomicBool::new(false)));
    let volume = LandedVolume::open(home.clone(), IDENTITY, Box::new(place), LIMIT).unwrap();
    let keeper = Naive::new(home);
    volume.keep_by(Arc::downgrade(&keeper) as Weak<dyn Keeper>);
    volume.prepare().unwrap();
    assert_eq!(volume.begin_interval(1).unwrap(), Outcome::Landed);
    keeper.take(1);
    keeper.full.store(true, Ordering::SeqCst);
    let data = stamped(1, 1, SIZE);
    let write = |patience| volume.write(0, &data, Durability::Cached, patience);
    while write(Patience::Now).is_ok() {
        assert_eq!(volume.held(), None);
    }
    assert_eq!(volume.held(), None, "who must not wait has not asked for room");
    assert!(matches!(write(Patience::Wait), Err(StoreError::NoSpace)));
    assert!(volume.held().is_some_and(|why| why.contains("no space")));
    assert!(matches!(write(Patience::Wait), Err(StoreError::NoSpace)));
    assert_eq!(volume.holds().count, 1, "one hold, however many writes it refuses");
    keeper.full.store(false, Ordering::SeqCst);
    assert!(volume.held().is_some(), "nobody knows yet");
    assert!(matches!(volume.settle(1).unwrap(), Settled::Home(_)));
    assert_eq!(volume.held(), None);
    let holds = volume.holds();
    assert!(
        holds.count == 1 && holds.why.contains("no space"),
        "it is counted when it is over, too: {holds:?}"
    );
}

#[test]
fn a_keeper_without_room_is_asked_for_no_more_than_it_must_keep() {
    let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let place = At(shared(MemStore::new(0)), Arc::new(AtomicBool::new(false)));
    let volume = LandedVolume::open(home.clone(), IDENTITY, Box::new(place), LIMIT).unwrap();
    let keeper = Naive::new(home.clone());
    volume.keep_by(Arc::downgrade(&keeper) as Weak<dyn Keeper>);
    volume.prepare().unwrap();
    assert_eq!(volume.begin_interval(1).unwrap(), Outcome::Landed);
    keeper.take(1);
    let write = |block: u64, stamp: u64| {
        volume.write(block * SIZE, &stamped(stamp, 1, SIZE), Durability::Cached, Patience::Now).unwrap();
    };
    let (kept, other) = (0, BLOCKS - 1);
    write(other, 1);
    (2..252).for_each(|stamp| write(kept, stamp)); // the segment is full
    write(other, 252);
    assert_eq!(volume.log().unwrap().used(), 2 * SEGMENT);
    keeper.keep(1, std::slice::from_ref(&(0..SIZE))).unwrap();
    keeper.full.store(true, Ordering::SeqCst);
    assert!(matches!(volume.settle(1).unwrap(), Settled::Home(_)));
    let stamp_of = |block: &dyn Block, number: u64| {
        let mut bytes = vec![0; SIZE as usize];
        block.read(number * SIZE, &mut bytes, Patience::Wait).unwrap();
        stamps(&bytes, SIZE)[0]
    };
    assert_eq!([kept, other].map(|number| stamp_of(&*home, number)), [251, 0]);
    assert_eq!([kept, other].map(|number| stamp_of(&volume, number)), [251, 252]);
    assert!(
        matches!(volume.settle(1).unwrap(), Settled::Stays(StoreError::NoSpace)),
        "that one has to be kept"
    );
}

#[test]
fn a_keeper_that_is_gone_without_a_word_forbids_and_one_that_is_released_does_not() {
    let home = Arc::new(Home(MemStore::new(BLOCKS * SIZE), BlockSize::B4096));
    let place = At(shared(MemStore::new(0)), Arc::new(AtomicBool::new(false)));
    let volume = LandedVolume::open(home.clone(), IDENTITY, Box::new(place), LIMIT).unwrap();
    let keepers = [(); 2].map(|()| Naive::new(home.clone()));
    let weak = keepers.each_ref().map(|keeper| Arc::downgrade(keeper) as Weak<dyn Keeper>);
    weak.iter().for_each(|keeper| volume.keep_by(Weak::clone(keeper)));
    assert_eq!(volume.begin_interval(1).unwrap(), Outcome::Landed);
    keepers.iter().for_each(|keeper| keeper.take(1));
    let data = stamped(1, 1, SIZE);
    let write = |block: u64, patience| volume.write(block * SIZE, &data, Durability::Cached, patience);
    assert!(matches!(write(0, Patience::Now), Err(StoreError::WouldBlock)), "there is no log");
    write(0, Patience::Wait).unwrap();
    let kept = |keeper: &Naive| keeper.keeps.load(Ordering::SeqCst);
    assert_eq!(keepers.each_ref().map(|keeper| kept(keeper)), [1, 1], "each has kept the extent");
    volume.prepare().unwrap();
    write(1, Patience::Now).unwrap();
    assert!(volume.is_home(), "what both have kept is written straight home");
    write(KEPT / SIZE, Patience::Now).unwrap();
    assert!(!volume.is_home());
    let [first, second] = keepers;
    drop(first);
    assert!(matches!(volume.settle(u64::MAX).unwrap(), Settled::Stays(StoreError::Stopped)));
    write(0, Patience::Wait).unwrap();
    assert!(volume.touches(&(0..SIZE)), "nobody knows what has been kept");
    volume.release_from(&weak[0]);
    volume.settle_all().unwrap();
    assert_eq!(kept(&second), 2);
    volume.release_from(&weak[1]);
    second.images.lock().clear();
    write(9, Patience::Now).unwrap();
    assert!(volume.is_home(), "nobody needs anything");
}
