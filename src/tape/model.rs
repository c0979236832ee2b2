//! Compares the cartridge with a naive model, a vector of objects and a number. Runs random tape programs in which
//! processes are killed, power fails at any call of the store, and any part of the unsynced sectors is lost.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{Cartridge, Label, MIN_CAPACITY, Object, Space, Spaced, Stop, TapeError};
use crate::store::faulty::{Fault, FaultyStore, Survival, World};
use crate::store::{Durability, MemStore, Patience, Stopped, Store, StoreError};

pub(super) fn label() -> Label {
    Label {
        identity: *b"an identity of a",
        barcode: "TEST01".parse().unwrap(),
        capacity: MIN_CAPACITY,
        worm: false,
    }
}

/// One process's handle on a store. Writes of an earlier process are in the cache. A flush through a handle without
/// writes does nothing, so nobody may rely on it for the writes of another process.
#[derive(Debug)]
pub(super) struct Handle {
    store: FaultyStore,
    changed: AtomicBool,
}

impl Handle {
    /// The handle of a process that opens `store`. Dropping the handle kills the process.
    pub(super) fn open(store: &FaultyStore) -> Arc<dyn Store> {
        Arc::new(Self { store: store.reopen(), changed: AtomicBool::new(false) })
    }
}

impl Store for Handle {
    fn length(&self) -> u64 {
        self.store.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.store.read(offset, buffer, patience)
    }
    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.changed.fetch_or(durability != Durability::Stable, Ordering::AcqRel);
        self.store.write(offset, data, durability, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        if self.changed.load(Ordering::Acquire) { self.store.flush() } else { Ok(()) }
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.changed.store(true, Ordering::Release);
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

/// A blank cartridge in memory.
pub(super) fn blank() -> Cartridge {
    let store = MemStore::new(Label::store_length(MIN_CAPACITY).unwrap());
    Cartridge::create(Arc::new(store), label()).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Block(Vec<u8>),
    Mark,
}

/// The naive tape.
#[derive(Clone, Debug, Default)]
struct Model {
    things: Vec<Thing>,
    at: usize,
    /// How many objects no crash may lose.
    synced: usize,
}

impl Model {
    fn append(&mut self, thing: Thing) {
        self.cut();
        self.things.push(thing);
        self.at += 1;
    }

    fn cut(&mut self) {
        self.things.truncate(self.at);
        self.synced = self.synced.min(self.at);
    }

    fn files(&self, upto: usize) -> u64 {
        self.things[..upto].iter().filter(|thing| **thing == Thing::Mark).count() as u64
    }

    /// Spaces one object at a time, like a tape without an index.
    fn space(&mut self, space: Space) -> Spaced {
        let (count, counts): (i64, fn(&Thing) -> bool) = match space {
            Space::EndOfData => {
                self.at = self.things.len();
                return Spaced { stop: Stop::Done, residual: 0 };
            }
            Space::Blocks(count) => (count, |_| true),
            Space::Filemarks(count) | Space::SequentialFilemarks(count) => {
                (count, |thing| *thing == Thing::Mark)
            }
        };
        let sequential = matches!(space, Space::SequentialFilemarks(_));
        let mut left = count.unsigned_abs();
        while left > 0 {
            let next = if count > 0 { self.things.get(self.at) } else { self.things[..self.at].last() };
            let Some(next) = next.cloned() else {
                let stop = if count > 0 { Stop::EndOfData } else { Stop::Beginning };
                let residual = if sequential { count.unsigned_abs() } else { left };
                return Spaced { stop, residual };
            };
            self.at = if count > 0 { self.at + 1 } else { self.at - 1 };
            if matches!(space, Space::Blocks(_)) && next == Thing::Mark {
                return Spaced { stop: Stop::Filemark, residual: left };
            }
            if counts(&next) {
                left -= 1;
            } else if sequential {
                left = count.unsigned_abs();
            }
        }
        Spaced { stop: Stop::Done, residual: 0 }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        fill: u8,
        length: usize,
    },
    Marks {
        count: u32,
        sync: bool,
    },
    Read {
        buffer: usize,
    },
    Space(Space),
    LocateObject(u64),
    LocateFile(u64),
    Rewind,
    Erase,
    Sync,
    /// The process dies, and another one opens the contents of the cache.
    Kill,
    /// Power fails; `seed` decides what survives.
    Crash(u64),
    /// Power fails at one of the next calls of the store.
    CrashSoon {
        calls: u64,
        seed: u64,
    },
    /// The device refuses one of the next calls of the store.
    RefuseSoon(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![1usize..200, 400usize..700, Just(64), Just(5000)];
    let count = prop_oneof![-3i64..4, Just(i64::MAX), Just(i64::MIN), -40i64..40];
    let space = (0..4, count).prop_map(|(code, count)| match code {
        0 => Space::Blocks(count),
        1 => Space::Filemarks(count),
        2 => Space::SequentialFilemarks(count),
        _ => Space::EndOfData,
    });
    prop_oneof![
        12 => (any::<u8>(), length).prop_map(|(fill, length)| Step::Write { fill, length }),
        4 => (0u32..4, any::<bool>()).prop_map(|(count, sync)| Step::Marks { count, sync }),
        6 => prop_oneof![Just(8192usize), 1usize..600].prop_map(|buffer| Step::Read { buffer }),
        4 => space.prop_map(Step::Space),
        2 => prop_oneof![0u64..40, Just(u64::MAX)].prop_map(Step::LocateObject),
        1 => (0u64..8).prop_map(Step::LocateFile),
        1 => Just(Step::Rewind),
        1 => Just(Step::Erase),
        1 => Just(Step::Sync),
        2 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => (0u64..12, any::<u64>()).prop_map(|(calls, seed)| Step::CrashSoon { calls, seed }),
        1 => (0u64..12).prop_map(Step::RefuseSoon),
    ]
}

struct Bench {
    world: World,
    store: FaultyStore,
    cartridge: Cartridge,
    model: Model,
    /// Former contents of the tape, before a refused call, as long as they may come back.
    shadows: Vec<Vec<Thing>>,
    seed: u64,
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        let store = world.store(Label::store_length(MIN_CAPACITY).unwrap());
        let cartridge = Cartridge::create(Handle::open(&store), label()).unwrap();
        Self { world, store, cartridge, model: Model::default(), shadows: Vec::new(), seed: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match self.attempt(step) {
            Ok(()) => {}
            Err(error) if self.world.power_has_failed() => {
                prop_assert!(matches!(error, TapeError::Write(_) | TapeError::Read(_) | TapeError::Stopped));
                return self.crash(self.seed, step);
            }
            Err(TapeError::Write(_)) => return self.refused(step),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        prop_assert_eq!(self.cartridge.position().object, self.model.at as u64);
        prop_assert_eq!(self.cartridge.position().files, self.model.files(self.model.at));
        prop_assert_eq!(self.cartridge.end().object, self.model.things.len() as u64);
        if matches!(step, Step::Sync | Step::Erase | Step::Marks { sync: true, .. }) {
            self.shadows.clear();
        }
        Ok(())
    }

    fn attempt(&mut self, step: &Step) -> Result<(), TapeError> {
        let (tape, model) = (&mut self.cartridge, &mut self.model);
        match *step {
            Step::Write { fill, length } => {
                let data: Vec<u8> = (0..length).map(|i| fill.wrapping_add(i as u8)).collect();
                tape.append_block(&data, Patience::Wait)?;
                model.append(Thing::Block(data));
            }
            Step::Marks { count, sync } => {
                tape.append_filemarks(count)?;
                (0..count).for_each(|_| model.append(Thing::Mark));
                if sync {
                    tape.sync()?;
                    model.synced = model.things.len();
                }
            }
            Step::Read { buffer } => {
                let mut into = vec![0xA5; buffer];
                let object = tape.read(&mut into, Patience::Wait)?;
                match model.things.get(model.at) {
                    None => assert_eq!(object, Object::EndOfData),
                    Some(Thing::Mark) => assert_eq!(object, Object::Filemark),
                    Some(Thing::Block(data)) => {
                        assert_eq!(object, Object::Block(data.len() as u32));
                        let kept = buffer.min(data.len());
                        assert_eq!(into[..kept], data[..kept]);
                        assert!(into[kept..].iter().all(|byte| *byte == 0xA5));
                    }
                }
                model.at = (model.at + 1).min(model.things.len());
            }
            Step::Space(space) => assert_eq!(tape.space(space)?, model.space(space), "{space:?}"),
            Step::LocateObject(object) => {
                assert_eq!(tape.locate_object(object)?, object <= model.things.len() as u64);
                model.at = usize::try_from(object).unwrap_or(usize::MAX).min(model.things.len());
            }
            Step::LocateFile(file) => {
                let start = (0..=model.things.len()).find(|at| model.files(*at) == file);
                assert_eq!(tape.locate_file(file)?, start.is_some());
                model.at = start.unwrap_or(model.things.len());
            }
            Step::Rewind => {
                tape.rewind();
                model.at = 0;
            }
            Step::Erase => {
                tape.erase()?;
                model.cut();
                model.synced = model.at;
            }
            Step::Sync => {
                tape.sync()?;
                model.synced = model.things.len();
            }
            Step::Kill => {
                self.cartridge = Cartridge::open(Handle::open(&self.store)).expect("a whole cartridge opens");
                model.at = 0;
            }
            Step::Crash(seed) => {
                self.world.fail_after(0, Fault::PowerLoss);
                self.seed = seed;
                tape.append_block(b"lost in the dark", Patience::Wait)?;
                unreachable!("power is out");
            }
            Step::RefuseSoon(calls) => self.world.fail_after(calls, Fault::Io),
            Step::CrashSoon { calls, seed } => {
                self.world.fail_after(calls, Fault::PowerLoss);
                self.seed = seed;
            }
        }
        Ok(())
    }

    /// After a restart the tape is a prefix of the model that ends no earlier than the last sync. Any part of the
    /// step in which power failed may have happened.
    fn crash(&mut self, seed: u64, during: &Step) -> Result<(), TestCaseError> {
        self.world.restart(Survival::Random, seed);
        let (found, _) = self.open_after(during)?;
        // Recovery found these records on the device: from now on no crash may lose them.
        self.model = Model { synced: found.len(), things: found, at: 0 };
        self.shadows.clear();
        Ok(())
    }

    /// The device refused a call, and the cartridge stopped. The next process sees the contents of the cache; what
    /// the device has shows only after a power loss.
    fn refused(&mut self, during: &Step) -> Result<(), TestCaseError> {
        prop_assert!(self.cartridge.stopped());
        let shadow = self.model.clone();
        let (found, least) = self.open_after(during)?;
        self.model = Model { synced: least.min(found.len()), things: found, at: 0 };
        // The refused overwrite may come back until something is promised again.
        self.shadows.push(shadow.things);
        Ok(())
    }

    /// The objects that the next process finds, and how many of them are promised.
    fn open_after(&mut self, during: &Step) -> Result<(Vec<Thing>, usize), TestCaseError> {
        let opened = Cartridge::open(Handle::open(&self.store));
        self.cartridge = opened.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(self.cartridge.missing().is_empty(), "{}", self.cartridge.missing());
        let found = contents(&mut self.cartridge);
        let mut widest = self.model.clone();
        let mut least = widest.synced;
        match during {
            Step::Write { fill, length } => {
                least = least.min(widest.at);
                let data = (0..*length).map(|i| fill.wrapping_add(i as u8)).collect();
                widest.append(Thing::Block(data));
            }
            Step::Marks { count, .. } if *count > 0 => {
                least = least.min(widest.at);
                (0..*count).for_each(|_| widest.append(Thing::Mark));
            }
            Step::Crash(_) => {
                least = least.min(widest.at);
                widest.append(Thing::Block(b"lost in the dark".to_vec()));
            }
            Step::Erase => least = least.min(widest.at),
            _ => {}
        }
        prop_assert!(found.len() >= least, "{} objects survived of {least} synced", found.len());
        let old = self.model.things.starts_with(&found)
            || self.shadows.iter().any(|shadow| shadow.starts_with(&found));
        prop_assert!(old || widest.things.starts_with(&found), "the tape was never like that: {found:?}");
        prop_assert!(self.cartridge.verify(&mut |_, _| true).unwrap().damaged == 0);
        Ok((found, least))
    }
}

fn contents(tape: &mut Cartridge) -> Vec<Thing> {
    tape.rewind();
    let mut found = Vec::new();
    let mut buffer = vec![0; 8192];
    loop {
        found.push(match tape.read(&mut buffer, Patience::Wait).unwrap() {
            Object::EndOfData => break,
            Object::Filemark => Thing::Mark,
            Object::Block(length) => Thing::Block(buffer[..length as usize].to_vec()),
        });
    }
    tape.rewind();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_tape_programs_agree_with_a_vector(steps in prop::collection::vec(step(), 1..80)) {
        let mut bench = Bench::new();
        for step in &steps {
            bench.step(step)?;
        }
        bench.world.restart(Survival::Everything, 0);
    }

    #[test]
    fn arbitrary_bytes_never_open_as_records(
        junk in prop::collection::vec(any::<u8>(), 1..2000),
        at in 0u64..4000,
    ) {
        let store = Arc::new(MemStore::new(Label::store_length(MIN_CAPACITY).unwrap()));
        let mut tape = Cartridge::create(Arc::clone(&store) as Arc<dyn Store>, label()).unwrap();
        tape.append_block(b"kept", Patience::Wait).unwrap();
        tape.sync().unwrap();
        let behind = tape.end().offset + at;
        store.write(behind, &junk, Durability::Cached, Patience::Wait).unwrap();
        let mut tape = Cartridge::open(store).unwrap();
        prop_assert_eq!(contents(&mut tape), vec![Thing::Block(b"kept".to_vec())]);
    }
}
