//! A volume and its landing log, as one medium.
//!
//! The volume's own bytes are its *home*. Hosts read through the log. A write goes straight home, unless it meets
//! something that has landed: then it lands too, because a write that went home would be hidden by the older one in
//! the log, and undone when that one is brought home. Only a [`Keeper`], which has an image of the volume, lets writes
//! land that would not have to.
//!
//! **Landed writes come home in steps** ([`LandedVolume::settle`]): a batch is taken from the log, the keeper keeps
//! what the batch overwrites, the batch is written home, home is flushed, and then the log forgets the batch. Without a
//! keeper nothing has to be kept. A keeper that is gone without a word ([`LandedVolume::release`]) still forbids: the
//! array is ending, and its images must be found whole.
//!
//! **The check before a write straight home races with nothing that matters.** What has landed when the check is made
//! is found. Another write of the same blocks that lands later was not answered when this write began, so either may
//! be the last one.
//!
//! **Where nothing has landed nothing lands**, as long as there is no image. So when everything is home and no write is under
//! way that had found something landed, the log stays empty: [`LandedVolume::at_home`] shuts such writes out for the last
//! step.
//!
//! The log is made when it is first needed ([`LandedVolume::prepare`]), and stays. A log whose store has stopped is read, and
//! takes nothing, until it is reinstated ([`LandedVolume::reinstate`]).

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::{Landing, Outcome, Shape};
use crate::store::{Durability, Patience, Stopped, Store, StoreError};
use crate::units::BlockSize;
use crate::volume::{Block, Write};

/// Bytes of the log that one step brings home.
pub(crate) const STEP: u64 = 4 << 20;

/// Where the log of a volume rests. A log is made aside, and is in its place when it is whole: a crash in between leaves
/// no log.
pub trait Place: Send + Sync + fmt::Debug {
    /// The store of the log that is in its place.
    ///
    /// # Errors
    /// When nobody can tell whether there is one, or it cannot be opened.
    fn find(&self) -> Result<Option<Arc<dyn Store>>, StoreError>;

    /// Makes a store aside, empty, whatever an earlier attempt has left there.
    ///
    /// # Errors
    /// When there is no room for one.
    fn make_aside(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// Puts what was made aside into its place, durably.
    ///
    /// # Errors
    /// It may be in its place after a restart, or not.
    fn put_in_place(&self) -> Result<(), StoreError>;
}

/// Keeps what landed writes overwrite when they come home.
pub trait Keeper: Send + Sync {
    /// Keeps the present bytes of `ranges` of the volume's home, which are in ascending order, wherever an image needs
    /// them. When this has returned without an error, they may be overwritten.
    ///
    /// # Errors
    /// Why they must stay. [`StoreError::NoSpace`] and [`StoreError::Shortage`] may be over later.
    fn keep(&self, ranges: &[Range<u64>]) -> Result<(), StoreError>;

    /// Home has failed, and may have lost earlier writes.
    fn lost(&self, error: &StoreError);
}

/// Who keeps.
enum Keeping {
    /// There is no image.
    Nobody,
    /// Without whom nothing comes home, even when the value is gone.
    By(Weak<dyn Keeper>),
}

/// The result of a step.
#[derive(Debug)]
pub enum Settled {
    /// Nothing has landed.
    Nothing,
    /// This many bytes of the log have come home, or were overwritten since.
    Home(u64),
    /// They must stay in the log for now; why.
    Stays(StoreError),
}

/// A volume with its landing log.
pub struct LandedVolume {
    home: Arc<dyn Block>,
    identity: [u8; 16],
    /// The most bytes of the log.
    limit: u64,
    place: Option<Box<dyn Place>>,
    log: RwLock<Option<Arc<Landing>>>,
    /// Whether there is a log: without one a command looks at nothing else.
    has_log: AtomicBool,
    /// Held while the log is made, or opened again.
    making: Mutex<()>,
    keeping: RwLock<Keeping>,
    /// Held for reading by a write that lands only where something has landed, for writing while everything is home.
    ashore: RwLock<()>,
    /// Is told when something has landed that nobody has been told of.
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    woken: AtomicBool,
}

impl LandedVolume {
    /// The volume `home`, nothing of which ever lands.
    #[must_use]
    pub fn without_log(home: Arc<dyn Block>) -> Self {
        Self {
            home,
            identity: [0; 16],
            limit: 0,
            place: None,
            log: RwLock::new(None),
            has_log: AtomicBool::new(false),
            making: Mutex::new(()),
            keeping: RwLock::new(Keeping::Nobody),
            ashore: RwLock::new(()),
            waker: OnceLock::new(),
            woken: AtomicBool::new(false),
        }
    }

    /// The volume `home` of this identity, with the log of at most `limit` bytes that was made in `place` earlier.
    ///
    /// # Errors
    /// When there may be a log that cannot be read: the volume must not be served without it.
    pub fn open(
        home: Arc<dyn Block>,
        identity: [u8; 16],
        place: Box<dyn Place>,
        limit: u64,
    ) -> Result<Self, StoreError> {
        let this = Self { identity, limit, ..Self::without_log(home) };
        this.find(&*place)?;
        Ok(Self { place: Some(place), ..this })
    }

    /// Opens the log that is in its place, if there is one.
    fn find(&self, place: &dyn Place) -> Result<(), StoreError> {
        if let Some(store) = place.find()? {
            *self.log.write() = Some(Arc::new(Landing::open(store, self.shape(), self.limit)?));
            self.has_log.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn log(&self) -> Option<Arc<Landing>> {
        if self.has_log.load(Ordering::Acquire) { self.log.read().clone() } else { None }
    }

    /// Why the log takes no writes, if its store has stopped.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.log()?.stopped()
    }

    /// Opens the log again, whose store has been reinstated or can be: what is found is what the device has.
    ///
    /// # Errors
    /// When the device still fails, or the log cannot be read any more.
    pub fn reinstate(&self) -> Result<(), StoreError> {
        let _making = self.making.lock();
        let (Some(log), Some(place)) = (self.log(), &self.place) else { return Ok(()) };
        log.reinstate()?;
        self.find(&**place)
    }

    fn shape(&self) -> Shape {
        Shape { identity: self.identity, length: self.home.length(), block_size: self.home.block_size() }
    }

    /// The volume's own bytes, without what has landed.
    #[must_use]
    pub fn home(&self) -> &dyn Block {
        &*self.home
    }

    /// Makes the log, if it is not there.
    ///
    /// # Errors
    /// When it cannot be made. Nothing lands then.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let Some(place) = &self.place else { return Ok(()) };
        let _making = self.making.lock();
        if self.log().is_none() {
            Landing::create(place.make_aside()?, self.shape(), self.limit)?;
            place.put_in_place()?;
            self.find(&**place)?;
        }
        Ok(())
    }

    /// The log, if something has landed.
    fn landed(&self) -> Option<Arc<Landing>> {
        self.log().filter(|log| !log.is_empty())
    }

    /// Whether nothing has landed.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.landed().is_none()
    }

    /// Whether anything of `range` has landed.
    #[must_use]
    pub fn touches(&self, range: &Range<u64>) -> bool {
        self.landed().is_some_and(|log| log.touches(range))
    }

    /// The part of the log that is used, 0.0 to 1.0.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a rough figure
    pub fn fill(&self) -> f64 {
        self.landed().map_or(0.0, |log| log.used() as f64 / self.limit.max(1) as f64)
    }

    /// Lets `keeper` keep what landed writes overwrite.
    pub fn keep_by(&self, keeper: Weak<dyn Keeper>) {
        *self.keeping.write() = Keeping::By(keeper);
    }

    /// There is no image any more.
    pub fn release(&self) {
        *self.keeping.write() = Keeping::Nobody;
    }

    /// The same, if `keeper` is the one that keeps.
    pub(crate) fn release_from(&self, keeper: &Weak<dyn Keeper>) {
        let mut keeping = self.keeping.write();
        if matches!(&*keeping, Keeping::By(other) if Weak::ptr_eq(other, keeper)) {
            *keeping = Keeping::Nobody;
        }
    }

    /// Calls `waker` when something has landed, also before this call, and then not before [`LandedVolume::rest`] allows the
    /// next call. Only the first waker counts. It must not block.
    pub fn wake_by(&self, waker: Box<dyn Fn() + Send + Sync>) {
        let _ = self.waker.set(waker);
        if !self.is_home() {
            self.wake();
        }
    }

    /// Who was woken has found nothing to do. Returns whether something has landed since.
    #[must_use]
    pub fn rest(&self) -> bool {
        self.woken.store(false, Ordering::SeqCst);
        !self.is_home() && !self.woken.swap(true, Ordering::SeqCst)
    }

    fn wake(&self) {
        if !self.woken.load(Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
            && !self.woken.swap(true, Ordering::SeqCst)
        {
            waker();
        }
    }

    /// Lands a write, whether it has to or not; `None` if there is no log.
    ///
    /// # Errors
    /// Those of [`Landing::land`].
    pub(crate) fn land(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<Option<Outcome>, StoreError> {
        let Some(log) = self.log() else { return Ok(None) };
        let outcome = log.land(offset, data, durability, patience)?;
        self.wake();
        Ok(Some(outcome))
    }

    /// Lands `writes` together, whether they have to or not, as far as that is possible without waiting.
    pub(crate) fn land_together(&self, writes: &mut [&mut Write<'_>]) {
        if !writes.is_empty()
            && let Some(log) = self.log()
        {
            log.land_together(writes);
            self.wake();
        }
    }

    /// Writes to the volume, as far as possible straight home. [`Outcome::Full`]: the log must have room first, and
    /// nothing has happened.
    ///
    /// # Errors
    /// Those of home and of the log.
    pub(crate) fn try_write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<Outcome, StoreError> {
        let home = || self.home.write(offset, data, durability, patience).map(|()| Outcome::Landed);
        let Some(log) = self.log() else { return home() };
        let _ashore = self.go_ashore(patience)?;
        if !log.touches(&(offset..offset + data.len() as u64)) {
            return home();
        }
        let outcome = log.land(offset, data, durability, patience)?;
        self.wake();
        Ok(outcome)
    }

    fn go_ashore(&self, patience: Patience) -> Result<RwLockReadGuard<'_, ()>, StoreError> {
        match patience {
            Patience::Now => self.ashore.try_read().ok_or(StoreError::WouldBlock),
            Patience::Wait => Ok(self.ashore.read()),
        }
    }

    /// Discards a range of the volume: what has landed of it is followed by zeros in the log, then home is discarded.
    ///
    /// # Errors
    /// Those of home and of the log.
    pub(crate) fn try_discard(&self, range: &Range<u64>) -> Result<Outcome, StoreError> {
        let _ashore = self.go_ashore(Patience::Wait)?;
        if let Some(log) = self.landed() {
            let outcome = log.land_zeros(range.clone())?;
            self.wake();
            if outcome == Outcome::Full {
                return Ok(Outcome::Full);
            }
        }
        self.home.discard(range.start, range.end - range.start).map(|()| Outcome::Landed)
    }

    /// Brings home about `budget` bytes of the log.
    ///
    /// # Errors
    /// Those of home and of the log. What has landed stays in the log.
    pub fn settle(&self, budget: u64) -> Result<Settled, StoreError> {
        self.settle_unless(budget, None)
    }

    fn settle_unless(&self, budget: u64, ended: Option<u64>) -> Result<Settled, StoreError> {
        let log = self.log().filter(|log| log.used() > 0);
        let Some(log) = log else { return Ok(Settled::Nothing) };
        let before = log.used();
        let Some(batch) = log.oldest_unless(budget, ended)? else { return Ok(Settled::Nothing) };
        let keeper = match &*self.keeping.read() {
            Keeping::Nobody => None,
            Keeping::By(keeper) => match keeper.upgrade() {
                Some(keeper) => Some(keeper),
                None => return Ok(Settled::Stays(StoreError::Stopped)),
            },
        };
        if let Some(keeper) = &keeper
            && let Err(error) = keeper.keep(batch.ranges())
        {
            return Ok(Settled::Stays(error));
        }
        if let Err(error) = batch.bring(&*self.home) {
            keeper.into_iter().for_each(|keeper| keeper.lost(&error));
            return Err(error);
        }
        batch.end()?;
        Ok(Settled::Home(before.saturating_sub(log.used())))
    }

    /// Brings everything home. Comes to an end only while nobody lands anything.
    ///
    /// # Errors
    /// Those of [`LandedVolume::settle`], and why a part must stay in the log.
    pub fn settle_all(&self) -> Result<(), StoreError> {
        while !self.is_home() {
            if let Settled::Stays(error) = self.settle(STEP)? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Brings everything home and then does `work`, while nothing lands in the log of a volume without an image. Hosts go
    /// on while most of it comes home, and wait for the rest and for `work`.
    ///
    /// # Errors
    /// Those of [`LandedVolume::settle_all`].
    pub(crate) fn at_home<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let Some(log) = self.log() else { return Ok(work()) };
        // What lands meanwhile are blocks that had landed before: one more time through the log is enough.
        let mut left = (log.used() / STEP + 1) * 2;
        while log.used() > STEP && left > 0 {
            if let Settled::Stays(error) = self.settle(STEP)? {
                return Err(error);
            }
            left -= 1;
        }
        let _ashore = self.ashore.write();
        self.settle_all()?;
        Ok(work())
    }

    /// Makes room in a full log, unless somebody else has just made some.
    ///
    /// # Errors
    /// Those of [`LandedVolume::settle`].
    pub(crate) fn make_room(&self) -> Result<Settled, StoreError> {
        let ended = self.log().map(|log| log.ended());
        self.settle_unless(STEP, ended)
    }

    /// The same, where nobody decides about an image.
    fn make_room_or_fail(&self) -> Result<(), StoreError> {
        match self.make_room()? {
            Settled::Nothing | Settled::Home(_) => Ok(()),
            Settled::Stays(error) => Err(error),
        }
    }
}

impl Block for LandedVolume {
    fn block_size(&self) -> BlockSize {
        self.home.block_size()
    }

    fn length(&self) -> u64 {
        self.home.length()
    }

    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        match self.landed() {
            Some(log) => log.read(&*self.home, offset, buffer, patience),
            None => self.home.read(offset, buffer, patience),
        }
    }

    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        while let Outcome::Full = self.try_write(offset, data, durability, patience)? {
            if patience == Patience::Now {
                return Err(StoreError::WouldBlock);
            }
            self.make_room_or_fail()?;
        }
        Ok(())
    }

    fn gathers(&self) -> bool {
        !self.is_home()
    }

    /// Those that meet something that has landed.
    fn write_together(&self, writes: &mut [Write<'_>]) {
        let Some(log) = self.landed() else { return };
        let Ok(_ashore) = self.go_ashore(Patience::Now) else { return };
        let meets = |write: &&mut Write<'_>| {
            let end = write.offset.saturating_add(write.data.len() as u64);
            !write.done && end <= self.length() && log.touches(&(write.offset..end))
        };
        let mut meeting: Vec<_> = writes.iter_mut().filter(meets).collect();
        self.land_together(&mut meeting);
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.log().map_or(Ok(()), |log| log.flush())?;
        self.home.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(length);
        while let Outcome::Full = self.try_discard(&range)? {
            self.make_room_or_fail()?;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        match self.landed() {
            Some(log) => log.next_data(&*self.home, offset),
            None => self.home.next_data(offset),
        }
    }
}

impl fmt::Debug for LandedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LandedVolume")
            .field("home", &self.home)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
