//! A store that fails as devices and power supplies do, for the tests of this crate and for simulators outside it.
//!
//! A [`World`] is one machine with any number of [`FaultyStore`]s: power fails for all of them at once. Each store
//! has two images. *Live* is what readers see: the page cache. *Stable* is what is on the device. Between the two,
//! each sector has a list of all contents since its last sync, oldest first. The kernel may have written any of them
//! back, so after a power loss each sector holds its stable content or any later one. This covers writes that are
//! lost, reordered, or torn at sector borders. A sector itself is never torn.
//!
//! A failed flush makes the unwritten contents *lost*. Readers still see them, as they see a clean page, and later
//! flushes skip them; only the device knows what it has. Dropping the cache ([`Store::reinstate`]) or a power loss
//! brings the device's content to light. Each handle knows only by itself that the store has stopped: a second
//! handle, like that of a restarted daemon, works on.
//!
//! Stores share bytes ([`Store::share`]) once the world [allows it](World::share). A fault hits such a call like any other.
//! A store that is not flushed must not be shared, and the test fails.
//!
//! The seed decides everything: the same calls with the same seed give the same bytes. Changes of length are stable
//! at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Durability, MemStore, Patience, Sharing, Stopped, Store, StoreError, StoreRun, check_range};

/// Bytes that a device writes as a whole or not at all.
const SECTOR: u64 = 512;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device fails; after a failed flush the store stops, as a file does.
    Io,
    /// The device has no room.
    NoSpace,
    /// The process is short of descriptors or memory; a flush fails as with [`Fault::Io`].
    Shortage,
    /// Power fails: this call and all later ones fail, in the whole world, until [`World::restart`].
    PowerLoss,
    /// The process is killed: the same until [`World::revive`], and the page cache loses nothing.
    Kill,
}

/// Which of the unsynced bytes are on the device after a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// The seed decides for each sector.
    Random,
}

#[derive(Debug, Default)]
struct Fate {
    /// Changing calls (writes, flushes, discards, resizes) before the one that fails, and its fault. 0: the next one
    /// fails.
    countdown: Option<(u64, Fault)>,
    dark: bool,
    calls: u64,
    restarts: u64,
    /// How many calls share something, before none can any more.
    shares: u64,
    /// Whether calls may share less than they were asked for.
    short: bool,
    shared: u64,
}

/// The machine to which the stores belong.
#[derive(Clone, Default)]
pub struct World {
    fate: Arc<Mutex<Fate>>,
    stores: Arc<Mutex<Vec<Arc<Shared>>>>,
}

/// A store in a [`World`].
pub struct FaultyStore {
    world: World,
    shared: Arc<Shared>,
    /// The life of the world in which this handle has stopped, counted from 1; 0 if it has not.
    stopped: AtomicU64,
}

struct Shared {
    live: MemStore,
    images: Mutex<Images>,
}

struct Images {
    stable: MemStore,
    /// For each sector that may differ from the device: its contents since the last sync, oldest first.
    unsynced: Contents,
    /// The same for sectors that a failed sync has given up.
    lost: Contents,
}

type Contents = BTreeMap<u64, Vec<[u8; SECTOR as usize]>>;

impl Images {
    /// A sync of these sectors has failed: the kernel now calls them clean.
    fn give_up(&mut self, sectors: Range<u64>) {
        let kept = self.unsynced.split_off(&sectors.start);
        for (sector, contents) in kept {
            let to = if sectors.contains(&sector) { &mut self.lost } else { &mut self.unsynced };
            to.entry(sector).or_default().extend(contents);
        }
    }

    /// Writes back all unsynced contents. Sectors without one stay lost.
    fn sync(&mut self) {
        for (sector, contents) in std::mem::take(&mut self.unsynced) {
            self.lost.remove(&sector);
            put(&self.stable, sector, contents.last().expect("a sector is noted with a content"));
        }
    }

    /// Ends the time before a sync: `kept` gets the number of unsynced contents of a sector and answers how many of
    /// them the device took, from 0 (none).
    fn settle(&mut self, mut kept: impl FnMut(usize) -> usize) {
        for (sector, contents) in std::mem::take(&mut self.unsynced) {
            self.lost.entry(sector).or_default().extend(contents);
        }
        for (sector, contents) in std::mem::take(&mut self.lost) {
            if let Some(last) = kept(contents.len()).checked_sub(1) {
                put(&self.stable, sector, &contents[last]);
            }
        }
    }
}

impl World {
    /// A world in which nothing fails yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new store of `length` zero bytes.
    #[must_use]
    pub fn store(&self, length: u64) -> FaultyStore {
        let images =
            Images { stable: MemStore::new(length), unsynced: Contents::new(), lost: Contents::new() };
        let shared = Arc::new(Shared { live: MemStore::new(length), images: Mutex::new(images) });
        self.stores.lock().push(Arc::clone(&shared));
        FaultyStore { world: self.clone(), shared, stopped: AtomicU64::new(0) }
    }

    /// The number of the present life, from 1: each power loss ends one.
    fn life(&self) -> u64 {
        self.fate.lock().restarts + 1
    }

    /// Makes a changing call fail by `fault`: the one after the next `calls` calls, in whichever store it comes.
    pub fn fail_after(&self, calls: u64, fault: Fault) {
        self.fate.lock().countdown = Some((calls, fault));
    }

    /// How many changing calls there have been. This is the number of moments at which a fault makes a difference.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.fate.lock().calls
    }

    /// The next `calls` calls share bytes. After that no two stores can. With `short`, many of them share a part of the run.
    pub fn share(&self, calls: u64, short: bool) {
        let mut fate = self.fate.lock();
        (fate.shares, fate.short) = (calls, short);
    }

    /// After how many more calls one fails, if one is to fail and has not.
    #[must_use]
    pub fn calls_left(&self) -> Option<u64> {
        self.fate.lock().countdown.map(|(left, _)| left)
    }

    /// How many bytes have been shared.
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.fate.lock().shared
    }

    /// How many bytes a call shares that is asked for `length`.
    fn share_of(&self, length: u64) -> u64 {
        let mut fate = self.fate.lock();
        if fate.shares == 0 {
            return 0;
        }
        fate.shares -= 1;
        let mut random = SplitMix(fate.calls);
        #[allow(clippy::cast_possible_truncation)] // a test's size
        let sectors = (length / SECTOR) as usize;
        if fate.short && random.below(2) == 0 { random.below(sectors + 1) as u64 * SECTOR } else { length }
    }

    /// The killed process is started again: every store shows what the page cache has, which a later power loss may take.
    /// Handles of the killed process are used no more.
    pub fn revive(&self) {
        let mut fate = self.fate.lock();
        (fate.dark, fate.countdown) = (false, None);
    }

    /// Whether power has failed, or the process is killed.
    #[must_use]
    pub fn power_has_failed(&self) -> bool {
        self.fate.lock().dark
    }

    /// Power fails, unless it has failed before, and comes back: every store now shows what its device kept. Existing
    /// handles go on with these contents, as if they had been opened anew.
    pub fn restart(&self, survival: Survival, seed: u64) {
        let mut random = SplitMix(seed);
        for shared in self.stores.lock().iter() {
            shared.restart(survival, &mut random);
        }
        let mut fate = self.fate.lock();
        (fate.dark, fate.countdown) = (false, None);
        fate.restarts += 1;
    }

    /// Counts a changing call, and returns the fault that hits it, if one does.
    fn turn(&self) -> Option<Fault> {
        let mut fate = self.fate.lock();
        if fate.dark {
            return Some(Fault::PowerLoss);
        }
        fate.calls += 1;
        let (left, fault) = fate.countdown?;
        if left > 0 {
            fate.countdown = Some((left - 1, fault));
            return None;
        }
        fate.countdown = None;
        fate.dark = matches!(fault, Fault::PowerLoss | Fault::Kill);
        Some(fault)
    }
}

impl Shared {
    fn restart(&self, survival: Survival, random: &mut SplitMix) {
        let mut images = self.images.lock();
        images.settle(|contents| match survival {
            Survival::Nothing => 0,
            Survival::Everything => contents,
            Survival::Random => random.below(contents + 1),
        });
        self.show(&images);
    }

    /// Lets readers see what the device has.
    fn show(&self, images: &Images) {
        self.live.discard(0, self.live.length()).expect("memory does not fail");
        copy(&images.stable, &self.live);
    }

    fn sector(&self, sector: u64) -> [u8; SECTOR as usize] {
        let mut content = [0; SECTOR as usize];
        let length = sector_length(&self.live, sector);
        self.live.read(sector * SECTOR, &mut content[..length], Patience::Wait).expect("within the store");
        content
    }

    /// Records the present contents of the sectors in the range, as unsynced or as stable.
    fn note(&self, offset: u64, length: u64, durability: Durability) {
        let mut images = self.images.lock();
        for sector in offset / SECTOR..(offset + length).div_ceil(SECTOR) {
            let content = self.sector(sector);
            match durability {
                Durability::Cached | Durability::Passing => {
                    images.unsynced.entry(sector).or_default().push(content)
                }
                Durability::Stable => {
                    images.unsynced.remove(&sector);
                    images.lost.remove(&sector);
                    put(&images.stable, sector, &content);
                }
            }
        }
    }
}

fn sector_length(image: &MemStore, sector: u64) -> usize {
    usize::try_from((image.length() - sector * SECTOR).min(SECTOR)).expect("at most a sector")
}

fn put(image: &MemStore, sector: u64, content: &[u8; SECTOR as usize]) {
    if sector * SECTOR < image.length() {
        let content = &content[..sector_length(image, sector)];
        image.write(sector * SECTOR, content, Durability::Cached, Patience::Wait).expect("within the store");
    }
}

fn copy(from: &MemStore, to: &MemStore) {
    let mut at = 0;
    while let Some(run) = from.next_data(at).expect("memory does not fail") {
        let mut bytes = vec![0; usize::try_from(run.end - run.start).expect("a test's size")];
        from.read(run.start, &mut bytes, Patience::Wait).expect("within the store");
        to.write(run.start, &bytes, Durability::Cached, Patience::Wait).expect("of one length");
        at = run.end;
    }
}

impl FaultyStore {
    /// A second handle on the same bytes, like that of a restarted daemon.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self { world: self.world.clone(), shared: Arc::clone(&self.shared), stopped: AtomicU64::new(0) }
    }

    fn is_flushed(&self, range: &Range<u64>) -> bool {
        let sectors = range.start / SECTOR..range.end.div_ceil(SECTOR);
        self.shared.images.lock().unsynced.range(sectors).next().is_none()
    }

    fn turn(&self, flushing: bool) -> Result<(), StoreError> {
        if self.stopped().is_some() {
            return Err(StoreError::Stopped);
        }
        match self.world.turn() {
            None => Ok(()),
            Some(Fault::NoSpace) if !flushing => Err(StoreError::NoSpace),
            Some(Fault::Shortage) if !flushing => Err(StoreError::Shortage(std::io::Error::other(FAILED))),
            Some(Fault::PowerLoss | Fault::Kill) => Err(power_is_out()),
            Some(Fault::Io | Fault::NoSpace | Fault::Shortage) => {
                if flushing {
                    self.stopped.store(self.world.life(), Ordering::Release);
                }
                Err(StoreError::Io(std::io::Error::other(FAILED)))
            }
        }
    }
}

const FAILED: &str = "the device failed, as the test wanted";

fn power_is_out() -> StoreError {
    StoreError::Io(std::io::Error::other("power is out"))
}

impl Store for FaultyStore {
    fn length(&self) -> u64 {
        self.shared.live.length()
    }

    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        if self.world.power_has_failed() {
            return Err(power_is_out());
        }
        self.shared.live.read(offset, buffer, patience)
    }

    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        check_range(offset, data.len() as u64, self.length())?;
        if (durability, patience) == (Durability::Stable, Patience::Now) {
            return Err(StoreError::WouldBlock);
        }
        if self.world.power_has_failed() {
            return Err(power_is_out());
        }
        let turn = self.turn(durability == Durability::Stable);
        if matches!(turn, Err(StoreError::Stopped | StoreError::NoSpace | StoreError::Shortage(_))) {
            return turn;
        }
        // When power or the device fails in a call, any part of the call may have reached the device.
        let durability = if turn.is_ok() { durability } else { Durability::Cached };
        self.shared.live.write(offset, data, Durability::Cached, Patience::Wait)?;
        self.shared.note(offset, data.len() as u64, durability);
        if self.stopped().is_some() {
            let sectors = offset / SECTOR..(offset + data.len() as u64).div_ceil(SECTOR);
            self.shared.images.lock().give_up(sectors);
        }
        turn
    }

    fn flush(&self) -> Result<(), StoreError> {
        let stopped = self.stopped().is_some();
        let turn = self.turn(true);
        let mut images = self.shared.images.lock();
        match turn {
            Ok(()) => images.sync(),
            Err(_) if !stopped && self.stopped().is_some() => images.give_up(0..u64::MAX),
            Err(_) => {}
        }
        turn
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        check_range(offset, length, self.length())?;
        self.turn(false)?;
        self.shared.live.discard(offset, length)?;
        self.shared.note(offset, length, Durability::Cached);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        if self.world.power_has_failed() {
            return Err(power_is_out());
        }
        self.shared.live.next_data(offset)
    }

    fn offer(&self, range: Range<u64>, taker: &mut dyn FnMut(StoreRun<'_>) -> u64) -> u64 {
        let length = range.end.saturating_sub(range.start);
        if check_range(range.start, length, self.length()).is_err() || self.stopped().is_some() {
            return 0;
        }
        let before = self.world.shared();
        let taken = taker(StoreRun { store: self, offset: range.start, length });
        assert!(self.world.shared() == before || self.is_flushed(&range), "what was not flushed was shared");
        taken
    }

    fn shares(&self, _: u64, _: StoreRun<'_>, _: Sharing) -> bool {
        self.world.fate.lock().shares > 0
    }

    fn share(&self, offset: u64, run: StoreRun<'_>) -> u64 {
        let length = self.world.share_of(run.length);
        if length == 0 || check_range(offset, length, self.length()).is_err() {
            return 0;
        }
        let turn = self.turn(false);
        // A failed call may have changed a part.
        let changed = if turn.is_ok() { length } else { length / SECTOR / 2 * SECTOR };
        let mut bytes = vec![0; usize::try_from(changed).expect("a test's size")];
        let is_read = run.store.read(run.offset, &mut bytes, Patience::Wait).is_ok();
        if self.stopped().is_some() || !(is_read || turn.is_err()) {
            return 0;
        }
        self.shared.live.write(offset, &bytes, Durability::Cached, Patience::Wait).expect("within the store");
        self.shared.note(offset, changed, Durability::Cached);
        if turn.is_err() {
            return 0;
        }
        self.world.fate.lock().shared += length;
        length
    }

    fn allocated(&self) -> Result<u64, StoreError> {
        self.shared.live.allocated()
    }

    fn resize(&self, length: u64) -> Result<(), StoreError> {
        self.turn(false)?;
        let mut images = self.shared.images.lock();
        let images = &mut *images;
        for pending in [&mut images.unsynced, &mut images.lost] {
            pending.split_off(&length.div_ceil(SECTOR));
            if let Some(contents) = pending.get_mut(&(length / SECTOR)) {
                let keep = usize::try_from(length % SECTOR).expect("less than a sector");
                contents.iter_mut().for_each(|content| content[keep..].fill(0));
            }
        }
        images.stable.resize(length)?;
        self.shared.live.resize(length)
    }

    fn stopped(&self) -> Option<Stopped> {
        let stopped = self.stopped.load(Ordering::Acquire) == self.world.life();
        stopped.then(|| Stopped { why: FAILED.to_owned(), since: None })
    }

    fn reinstate(&self) -> Result<(), StoreError> {
        match self.world.turn() {
            None => {}
            Some(Fault::PowerLoss | Fault::Kill) => return Err(power_is_out()),
            Some(Fault::Io | Fault::NoSpace | Fault::Shortage) => {
                return Err(StoreError::Io(std::io::Error::other(FAILED)));
            }
        }
        let mut images = self.shared.images.lock();
        images.sync();
        let mut random = SplitMix(self.world.calls());
        images.settle(|contents| random.below(contents + 1));
        self.shared.show(&images);
        self.stopped.store(0, Ordering::Release);
        Ok(())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("World").field(&self.fate.lock()).finish()
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("length", &self.length()).finish_non_exhaustive()
    }
}

/// A small generator of random numbers, so that a seed gives the same numbers everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Oracle, operations};
    use proptest::prelude::*;

    fn first(store: &FaultyStore) -> u8 {
        let mut byte = [0];
        store.read(0, &mut byte, Patience::Wait).unwrap();
        byte[0]
    }

    fn write(store: &FaultyStore, byte: u8, durability: Durability) -> Result<(), StoreError> {
        store.write(0, &[byte; 512], durability, Patience::Wait)
    }

    #[test]
    fn only_synced_bytes_are_sure_to_survive() {
        let world = World::new();
        let store = world.store(4096);
        write(&store, 1, Durability::Cached).unwrap();
        store.flush().unwrap();
        write(&store, 2, Durability::Cached).unwrap();
        assert_eq!(first(&store), 2);
        world.restart(Survival::Nothing, 0);
        assert_eq!(first(&store), 1);
        write(&store, 3, Durability::Stable).unwrap();
        world.restart(Survival::Nothing, 0);
        assert_eq!(first(&store.reopen()), 3);
    }

    #[test]
    fn a_sector_survives_as_any_of_its_contents_since_the_last_sync() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let world = World::new();
            let store = world.store(4096);
            (1..=3).for_each(|byte| write(&store, byte, Durability::Cached).unwrap());
            world.restart(Survival::Random, seed);
            seen.insert(first(&store));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_stable_write_is_not_undone_by_an_older_cached_one() {
        let world = World::new();
        let store = world.store(4096);
        write(&store, 1, Durability::Cached).unwrap();
        write(&store, 2, Durability::Stable).unwrap();
        world.restart(Survival::Everything, 0);
        assert_eq!(first(&store), 2);
    }

    #[test]
    fn power_fails_for_all_stores_of_the_world_at_once() {
        let world = World::new();
        let (one, other) = (world.store(4096), world.store(4096));
        world.fail_after(1, Fault::PowerLoss);
        write(&one, 1, Durability::Cached).unwrap();
        assert!(write(&other, 1, Durability::Cached).is_err());
        assert!(world.power_has_failed());
        assert!(one.flush().is_err() && one.read(0, &mut [0], Patience::Wait).is_err());
        world.restart(Survival::Everything, 0);
        assert_eq!((first(&one), first(&other)), (1, 1), "the failing write may have arrived");
        assert_eq!(world.calls(), 2);
    }

    #[test]
    fn a_kill_takes_nothing_and_a_power_loss_after_it_what_nobody_has_synced() {
        let world = World::new();
        let store = world.store(4096);
        write(&store, 1, Durability::Stable).unwrap();
        world.fail_after(1, Fault::Kill);
        write(&store, 2, Durability::Cached).unwrap();
        assert!(store.flush().is_err() && write(&store, 3, Durability::Cached).is_err());
        for synced in [false, true] {
            world.revive();
            let store = store.reopen();
            assert_eq!(first(&store), if synced { 1 } else { 2 });
            if synced {
                write(&store, 4, Durability::Cached).unwrap();
                store.flush().unwrap();
            }
            world.restart(Survival::Nothing, 0);
            assert_eq!(first(&store), if synced { 4 } else { 1 });
        }
    }

    #[test]
    fn nothing_is_written_while_power_is_out() {
        let world = World::new();
        let store = world.store(4096);
        world.fail_after(0, Fault::PowerLoss);
        assert!(write(&store, 1, Durability::Cached).is_err());
        assert!(write(&store, 2, Durability::Stable).is_err());
        world.restart(Survival::Everything, 0);
        assert_eq!(first(&store), 1);
    }

    #[test]
    fn a_failed_flush_stops_the_store_and_a_full_device_does_not() {
        let world = World::new();
        let store = world.store(4096);
        world.fail_after(0, Fault::NoSpace);
        assert!(matches!(write(&store, 1, Durability::Cached), Err(StoreError::NoSpace)));
        write(&store, 1, Durability::Cached).unwrap();
        world.fail_after(0, Fault::Io);
        assert!(matches!(store.flush(), Err(StoreError::Io(_))));
        assert!(matches!(write(&store, 2, Durability::Cached), Err(StoreError::Stopped)));
        assert!(matches!(store.flush(), Err(StoreError::Stopped)));
    }

    #[test]
    fn bytes_lost_by_a_failed_flush_are_seen_until_the_cache_is_dropped_and_never_written_back() {
        let mut seen = std::collections::BTreeSet::new();
        for calls in 0..32 {
            let world = World::new();
            let store = world.store(4096);
            (0..calls).for_each(|_| store.flush().unwrap());
            write(&store, 1, Durability::Stable).unwrap();
            write(&store, 2, Durability::Cached).unwrap();
            world.fail_after(0, Fault::Io);
            store.flush().unwrap_err();
            let next = store.reopen();
            next.flush().unwrap();
            assert_eq!(first(&next), 2, "as if nothing had happened");
            next.reinstate().unwrap();
            seen.insert(first(&next));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn without_faults_it_behaves_like_a_plain_vector(operations in operations(20_000)) {
            Oracle::new(20_000).check(&World::new().store(20_000), &operations)?;
        }

        #[test]
        fn a_flushed_store_survives_any_power_loss(operations in operations(20_000), seed: u64) {
            let world = World::new();
            let store = world.store(20_000);
            Oracle::new(20_000).check(&store, &operations)?;
            store.flush().unwrap();
            let mut before = vec![0; usize::try_from(store.length()).unwrap()];
            store.read(0, &mut before, Patience::Wait).unwrap();
            world.restart(Survival::Random, seed);
            let mut after = vec![1; before.len()];
            store.read(0, &mut after, Patience::Wait).unwrap();
            prop_assert!(before == after);
        }
    }
}
