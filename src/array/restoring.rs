//! A restore at run time, for those who look and for the copier. [`restore`](super::restore) begins and ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Array;
use super::copier::{Background, NO_PACE_REST, NO_ROOM_REST, STEP, paced};
use crate::catalog::names::Name;
use crate::catalog::transaction::Transaction;
use crate::catalog::{Catalog, Pace, RestoreEntry, Seed};
use crate::origin::{Advance, Origin, OriginError, Restore, RestoreStatus};
use crate::volume::Switch;

/// How often what hosts have changed meanwhile is made durable before the restore closes in, at most.
const ROUNDS: usize = 8;

/// How long the end of a restore waits for its turn, and how long it rests when a verb has that.
const PATIENCE: Duration = Duration::from_millis(200);

/// The rest after a step that found all that is left in the hands of hosts.
const SHORT: Duration = Duration::from_millis(1);

/// A restore that runs.
pub(crate) struct RestoreUnit {
    array: Weak<Array>,
    /// The identity of the volume, whose name may change.
    volume: Seed,
    /// The number of the image.
    pub(crate) image: u64,
    pub(super) restore: Arc<Restore>,
    /// The image, which is another one when the pool has been opened anew.
    pub(super) shown: Arc<Switch>,
    pace: Mutex<Pace>,
    /// The volume shows the image.
    pub(super) has_begun: AtomicBool,
    /// The copier has it no more.
    pub(super) is_over: AtomicBool,
    /// A store has failed, or the image is broken, so that the last step restored nothing.
    has_failed: AtomicBool,
    /// The last step restored nothing.
    stands: AtomicBool,
}

impl RestoreUnit {
    pub(super) fn new(
        array: Weak<Array>,
        volume: Seed,
        entry: &RestoreEntry,
        restore: Restore,
        shown: Arc<Switch>,
    ) -> Arc<Self> {
        Arc::new(Self {
            array,
            volume,
            image: entry.image,
            has_failed: AtomicBool::new(restore.status().error.is_some()),
            restore: Arc::new(restore),
            shown,
            pace: Mutex::new(entry.pace),
            has_begun: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            stands: AtomicBool::new(false),
        })
    }

    /// How far it is.
    pub(crate) fn status(&self) -> RestoreStatus {
        self.restore.status()
    }

    /// The pace of the copy behind. `automatic` is `medium` here.
    pub(crate) fn pace(&self) -> Pace {
        *self.pace.lock()
    }

    /// Sets the pace, from the next step on.
    pub(super) fn set_pace(&self, pace: Pace) {
        *self.pace.lock() = pace;
    }

    /// Why the volume `name` does not work: not all of it can be restored.
    pub(super) fn failure(&self, name: &Name) -> Option<String> {
        let error = self.status().error.filter(|_| self.has_failed.load(Ordering::Acquire))?;
        Some(format!(
            "its restore stands still: {error}; what is not restored is refused, or read from the snapshot; when the cause is \
             gone, the restore goes on; 'cleave volume restore {name} --give-up' serves the volume part old, part restored"
        ))
    }

    /// Makes the record of what differs, durably, while hosts go on. When this returns, hosts wait who write elsewhere.
    pub(crate) fn record(&self, origin: &Origin) -> Result<(), OriginError> {
        self.restore.flush_image()?;
        let mut at = 0;
        while let Some(range) = origin.changed(self.image, None, at)? {
            self.restore.add(&range);
            at = range.end;
        }
        for _ in 0..ROUNDS {
            if self.restore.save()? == 0 {
                break;
            }
        }
        self.restore.close_in();
        self.restore.save()?;
        Ok(())
    }

    /// All is restored: the catalog says it, in a turn, and the volume is used without the restore again.
    fn complete(&self) -> Option<Duration> {
        let array = self.array.upgrade().filter(|array| !array.is_stopping())?;
        let Some(mut turn) = array.turn_until(Instant::now() + PATIENCE) else { return Some(PATIENCE) };
        if self.is_over.load(Ordering::Acquire) {
            return None;
        }
        let mut after = Catalog::clone(turn.head());
        let mut volumes = after.volumes.iter_mut().filter(|(_, volume)| volume.seed == self.volume);
        let (name, volume) = volumes.next()?;
        let name = name.clone();
        volume.restoring = None;
        let transaction = Transaction::between(turn.head(), &after);
        if let Err(error) = turn.commit(&transaction) {
            tracing::warn!(volume = %name, %error, "it is restored, but the catalog could not be told");
            return Some(NO_ROOM_REST);
        }
        turn.assemble();
        None
    }
}

impl Background for RestoreUnit {
    fn step(&self) -> Option<Duration> {
        if self.is_over.load(Ordering::Acquire) {
            return None;
        }
        let array = self.array.upgrade()?;
        if self.restore.record_has_stopped()
            && let Err(error) = array.renew_record(self.volume, self)
        {
            tracing::warn!(volume = %self.volume, %error, "the record of a restore takes no writes");
            return Some(NO_ROOM_REST);
        }
        let step = || self.restore.step(STEP);
        let pace = if self.status().left_bytes > 0 { self.pace() } else { Pace::Fast };
        let paced = paced(Some(array.copier.governor()), pace, step);
        drop(array);
        let Some((advance, rest)) = paced else { return Some(NO_PACE_REST) };
        if matches!(advance, Advance::Idle) {
            return None; // it is over, or lost
        }
        let why = match &advance {
            Advance::NoRoom(error) | Advance::Failed(error) => Some(error.to_string()),
            Advance::Idle | Advance::Restored { .. } | Advance::Whole => None,
        };
        self.has_failed.store(matches!(advance, Advance::Failed(_)), Ordering::Release);
        if self.stands.swap(why.is_some(), Ordering::AcqRel) != why.is_some() {
            let volume = self.volume;
            match why {
                Some(why) => tracing::warn!(%volume, %why, "a restore stands still"),
                None => tracing::info!(%volume, "a restore goes on"),
            }
        }
        match advance {
            Advance::Idle => None,
            Advance::Restored { bytes: 0 } => Some(SHORT.max(rest)),
            Advance::Restored { .. } => Some(rest),
            Advance::Whole => self.complete(),
            Advance::NoRoom(_) | Advance::Failed(_) => Some(NO_ROOM_REST),
        }
    }
}
