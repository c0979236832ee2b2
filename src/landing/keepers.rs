//! Those who have images of a volume, and what they need before home changes.
//!
//! Nothing overwrites home before every keeper has kept what it needs. Landed writes are kept for when they come home, a
//! batch at a time. A write or discard that goes straight home asks first ([`Keeper::needs`]), within the volume's gate,
//! and no image is taken meanwhile: so an answer "no" holds until the write has ended. A keeper that is gone without
//! a word needs everything, and keeps nothing: the array is ending, and its images must be found whole.
//!
//! Whoever asks the keepers takes their list and asks without the lock. Meanwhile the owner of a keeper may let go of it,
//! and then the last one to do so is here; the end of a keeper removes it from the list, which needs the lock.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::store::StoreError;

/// Keeps what would be overwritten at a volume's home.
///
/// `keep` and `needs` are called within the volume's gate, too, and by several threads at once. So who closes the gate
/// must not hold anything that they wait for.
pub trait Keeper: Send + Sync {
    /// Keeps the present bytes of `ranges` of the volume's home, which ascend, wherever an image needs them, before a
    /// write of `interval` overwrites them. Whatever landed in earlier intervals is at home already, as far as it is
    /// in these ranges or beside them. When this has returned without an error, they may be overwritten.
    ///
    /// # Errors
    /// Why they must stay. [`StoreError::NoSpace`] and [`StoreError::Shortage`] may be over later.
    fn keep(&self, interval: u64, ranges: &[Range<u64>]) -> Result<(), StoreError>;

    /// Whether a host's write to `range` that went straight home now would overwrite something that is not kept. Each
    /// host's write asks this. Never waits for a device.
    fn needs(&self, range: &Range<u64>) -> bool;

    /// Home has failed, and may have lost earlier writes.
    fn lost(&self, error: &StoreError);

    /// The volume or its log could not be flushed, and may have lost answered writes that images have from there. Whoever
    /// flushes may hold locks of its own keeper, so only keepers of others' images do something.
    fn unflushed(&self, _error: &StoreError) {}

    /// Hosts cannot go on, because this keeper could not keep what they overwrite, with `error`. Returns whether the
    /// keeper has given something up, so that another attempt is worth while. It is called without the gate and
    /// without any lock of the landing log's.
    fn give_way(&self, _error: &StoreError) -> bool {
        false
    }
}

/// A keeper that could not keep, and why.
pub(super) struct Refusal {
    pub(super) keeper: Arc<dyn Keeper>,
    pub(super) error: StoreError,
}

impl Refusal {
    pub(super) fn into_error(self) -> StoreError {
        self.error
    }

    /// The error for those who write the volume's home and have nothing to do with its images: whatever a keeper lacks may
    /// be there later, and says nothing about the volume itself.
    pub(super) fn for_others(&self) -> StoreError {
        match &self.error {
            StoreError::NoSpace => StoreError::NoSpace,
            StoreError::Shortage(why) => StoreError::Shortage(io::Error::other(why.to_string())),
            error => StoreError::Shortage(io::Error::other(format!(
                "what images of the volume show could not be kept: {error}"
            ))),
        }
    }

    /// The keeper gives way.
    ///
    /// # Errors
    /// The keeper's, if it does not.
    pub(super) fn resolve(self) -> Result<(), StoreError> {
        if self.keeper.give_way(&self.error) { Ok(()) } else { Err(self.error) }
    }
}

/// The keepers of a volume.
#[derive(Default)]
pub(super) struct Keepers {
    all: RwLock<Arc<[Weak<dyn Keeper>]>>,
    /// How many there are: without any a write looks at nothing else.
    count: AtomicUsize,
    /// A refusal that a write has met within the gate, until somebody without the gate has time for it.
    refused: Mutex<Option<Refusal>>,
}

impl Keepers {
    /// `keeper` keeps, too, from now on. Once is enough.
    pub(super) fn add(&self, keeper: Weak<dyn Keeper>) {
        let mut all = self.all.write();
        if !all.iter().any(|other| Weak::ptr_eq(other, &keeper)) {
            *all = all.iter().cloned().chain([keeper]).collect();
        }
        self.count.store(all.len(), Ordering::SeqCst);
    }

    /// `keeper` needs nothing any more.
    pub(super) fn remove(&self, keeper: &Weak<dyn Keeper>) {
        let mut all = self.all.write();
        *all = all.iter().filter(|other| !Weak::ptr_eq(other, keeper)).cloned().collect();
        self.count.store(all.len(), Ordering::SeqCst);
    }

    fn list(&self) -> Arc<[Weak<dyn Keeper>]> {
        Arc::clone(&self.all.read())
    }

    /// All keepers; `None` if one is gone without a word.
    pub(super) fn all(&self) -> Option<Vec<Arc<dyn Keeper>>> {
        self.list().iter().map(Weak::upgrade).collect()
    }

    /// Whether something of `range` is to be kept before it is overwritten at home.
    pub(super) fn need(&self, range: &Range<u64>) -> bool {
        let needs = |keeper: &Weak<dyn Keeper>| keeper.upgrade().is_none_or(|keeper| keeper.needs(range));
        self.count.load(Ordering::SeqCst) > 0 && self.list().iter().any(needs)
    }

    /// Makes those keep that need something of `range`, before a write of `interval` goes straight home.
    ///
    /// # Errors
    /// A keeper is gone: a shortage, because the volume itself has not failed.
    pub(super) fn keep(&self, interval: u64, range: &Range<u64>) -> Result<Kept, StoreError> {
        let gone =
            || StoreError::Shortage(io::Error::other("who keeps for its images is gone: the array ends"));
        for keeper in self.all().ok_or_else(gone)? {
            if keeper.needs(range)
                && let Err(error) = keeper.keep(interval, std::slice::from_ref(range))
            {
                let _former = self.refused.lock().replace(Refusal { keeper, error });
                return Ok(Kept::Refused);
            }
        }
        Ok(Kept::All)
    }

    /// Tells all keepers that the volume could not be flushed.
    pub(super) fn unflushed(&self, error: &StoreError) {
        self.list().iter().filter_map(Weak::upgrade).for_each(|keeper| keeper.unflushed(error));
    }

    /// The refusal that a write has met, for the first who asks.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refused.lock().take()
    }
}

/// Whether what is overwritten has been kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    /// A keeper could not; [`Keepers::refusal`] says who.
    Refused,
}
