//! The verbs: the requests of people and scripts to a pair.
//!
//! Each verb asks the table first, then makes the new state durable ([`super::record`]), and only then flips the
//! state, with host writes held for the length of the flip. Between the two the pair is *armed*: after a crash the
//! new state is found, at the instant of the crash, which nobody can tell from the instant of the request. A state
//! whose append failed may be found after a restart all the same, so a failed append suspends the pair. There is one
//! exception: if there was no room for the append, and nothing of it is left, the pair stays as it was.
//!
//! A closed pair refuses each verb before anything is written: the next opening finds it as it was closed.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, RwLock};

use super::commit::{Failure, RECORD};
use super::format::{RecordStores, RelationState, Shape};
use super::record::Record;
use super::replay::Replayed;
use super::sets::Sets;
use super::state::{State, Transition, Verb};
use super::{
    Batches, Claims, Control, Decided, EXTENT, Epoch, Gate, Mode, Pair, PairError, Progress, SplitIdentity,
};
use crate::landing::LandedVolume;
use crate::store::StoreError;
use crate::volume::Block;

/// The times of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// From the request to the answer.
    pub(crate) elapsed: Duration,
    /// The longest time for which a host write was held.
    pub(crate) hold: Duration,
}

impl Pair {
    /// Defines the pair of `primary` and `secondary` in SMPL, with a new record in `record_stores`. `identity` is
    /// made once for the pair and names its record. Writes to this primary do not land: each waits until old data is
    /// kept.
    pub fn create(
        primary: Arc<dyn Block>,
        secondary: Arc<dyn Block>,
        record_stores: RecordStores,
        identity: [u8; 16],
    ) -> Result<Arc<Self>, PairError> {
        let primary = Arc::new(LandedVolume::without_log(primary));
        Self::create_landed(primary, secondary, record_stores, identity)
    }

    /// The same for a primary with a landing log.
    pub fn create_landed(
        primary: Arc<LandedVolume>,
        secondary: Arc<dyn Block>,
        record_stores: RecordStores,
        identity: [u8; 16],
    ) -> Result<Arc<Self>, PairError> {
        let shape = shape(&*primary, &*secondary, identity)?;
        let standing = RelationState { generation: 0, state: State::Smpl, clean: false, split_at: None };
        let record = Record::create(record_stores, shape, standing)?;
        let sets = Sets::new(shape.length.div_ceil(EXTENT));
        Ok(Self::with(primary, secondary, record, sets, None))
    }

    /// Opens a pair from its record. COPY and PAIR begin the copy anew unless they were closed in order. Nothing of this
    /// primary has landed, or lands, and the pair was never split together with others.
    pub fn open(
        primary: Arc<dyn Block>,
        secondary: Arc<dyn Block>,
        record_stores: RecordStores,
        identity: [u8; 16],
    ) -> Result<Arc<Self>, PairError> {
        let primary = Arc::new(LandedVolume::without_log(primary));
        Self::open_landed(primary, secondary, record_stores, identity)
    }

    /// The same for a primary with a landing log.
    pub fn open_landed(
        primary: Arc<LandedVolume>,
        secondary: Arc<dyn Block>,
        record_stores: RecordStores,
        identity: [u8; 16],
    ) -> Result<Arc<Self>, PairError> {
        Self::open_after(primary, secondary, record_stores, identity, &|_| Ok(false))
    }

    /// The same for a pair that may have been split together with others; `decided` says which of these splits count.
    pub(crate) fn open_after(
        primary: Arc<LandedVolume>,
        secondary: Arc<dyn Block>,
        record_stores: RecordStores,
        identity: [u8; 16],
        decided: Decided<'_>,
    ) -> Result<Arc<Self>, PairError> {
        let shape = shape(&*primary, &*secondary, identity)?;
        let extents = shape.length.div_ceil(EXTENT);
        let (mut record, mut replayed) = Record::open(record_stores, shape, extents, decided)?;
        if matches!(replayed.standing.state, State::Copy | State::Pair) && !primary.is_home() {
            // Nothing lands while a relation starts as a mirror, so no daemon leaves one like this.
            primary.settle_all()?;
            replayed.standing.clean = false;
        }
        replayed.go_on();
        let Replayed { standing, sets, mut suspended, .. } = replayed;
        if let Err(error) = record.resume(standing, sets.as_ref())
            && suspended.is_none()
        {
            // Otherwise the primary would not be served at all.
            let why = format!("its record could not be written when the pair was opened: {error}");
            record.suspend(&why)?;
            suspended = Some(why);
        }
        Ok(Self::with(primary, secondary, record, sets, suspended))
    }

    fn with(
        primary: Arc<LandedVolume>,
        secondary: Arc<dyn Block>,
        record: Record,
        sets: Sets,
        error: Option<String>,
    ) -> Arc<Self> {
        let standing = record.standing();
        let state = if error.is_some() { State::Psue } else { standing.state };
        let pair = Arc::new_cyclic(|itself| Self {
            itself: itself.clone(),
            length: primary.length(),
            primary,
            secondary,
            verbs: Mutex::new(()),
            gate: Gate::default(),
            epoch: AtomicU64::new(Epoch(0).next(Mode::of(state)).0),
            control: Mutex::new(Control {
                state,
                split_at: standing.split_at,
                error,
                armed: false,
                waits: None,
            }),
            changed: Condvar::new(),
            record: Mutex::new(record),
            held: RwLock::new(sets.held),
            primary_changed: RwLock::new(sets.changed),
            secondary_written: RwLock::new(sets.written),
            claims: Claims::default(),
            batches: Batches::default(),
            copier: Mutex::new(0),
            keeping: Mutex::new(()),
            watcher: OnceLock::new(),
        });
        if pair.mode() != Mode::Apart {
            pair.become_keeper();
        }
        pair.prepare_log();
        pair
    }

    /// Refuses a verb of a pair that has been closed. The caller has `verbs`, so the pair is not closed meanwhile.
    pub(super) fn refuse_closed(&self) -> Result<(), PairError> {
        if self.mode() == Mode::Closed { Err(PairError::Closed) } else { Ok(()) }
    }

    /// Starts the initial copy.
    pub(crate) fn start_copy(&self) -> Result<(), PairError> {
        let _verb = self.verbs.lock();
        self.refuse_closed()?;
        let _straight = self.bring_home(Verb::StartCopy)?;
        let Some((from, next)) = self.arm(Verb::StartCopy, None)? else { return Ok(()) };
        let _gate = self.gate.close();
        self.flip(from, next, None)
    }

    /// Splits at this instant, whose time is `now`. `clock` returns the time since any fixed moment.
    pub fn quick_split(&self, now: Timestamp, clock: &dyn Fn() -> Duration) -> Result<Split, PairError> {
        let began = clock();
        let _verb = self.verbs.lock();
        self.refuse_closed()?;
        let _straight = self.bring_home(Verb::QuickSplit)?;
        let Some((from, next)) = self.arm(Verb::QuickSplit, Some(now))? else {
            return Ok(Split { elapsed: clock().saturating_sub(began), hold: Duration::ZERO });
        };
        let closing = clock();
        let gate = self.gate.close();
        let flipped = self.flip(from, next, Some(now));
        drop(gate);
        let ended = clock();
        flipped?;
        Ok(Split { elapsed: ended.saturating_sub(began), hold: ended.saturating_sub(closing) })
    }

    /// One of the volumes may have lost written data. A running relation would then mirror or show data that nobody
    /// can vouch for, so it is suspended. In SMPL and PSUS each side is a volume of its own, and nothing happens.
    ///
    /// # Errors
    /// [`PairError::Refused`] when the suspension could not be recorded and a restart would show the image all the
    /// same. [`PairError::Closed`] when the pair is closed.
    pub(crate) fn lose(&self, reason: &str) -> Result<(), PairError> {
        let _verb = self.verbs.lock();
        self.refuse_closed()?;
        if matches!(self.mode(), Mode::Mirror | Mode::Split) {
            self.suspend(reason);
        }
        match self.mode() {
            Mode::Sealed => {
                Err(PairError::Refused { state: State::Psue, why: "its suspension could not be recorded" })
            }
            _ => Ok(()),
        }
    }

    /// Ends the relation: both volumes stay as they are, and the pair is in SMPL. To remove the pair for good, take
    /// it from the catalog first; then a suspended pair whose record is broken can be deleted as well.
    pub(crate) fn delete(&self) -> Result<(), PairError> {
        let _verb = self.verbs.lock();
        self.refuse_closed()?;
        let _copier = self.copier.lock();
        let _keeping = self.keeping.lock();
        {
            let mut control = self.control.lock();
            if admit(control.state, Verb::Delete)?.is_none() {
                return Ok(());
            }
            let mut record = self.record.lock();
            let standing = RelationState { state: State::Smpl, split_at: None, ..record.standing() };
            if let Err(error) = record.restart(standing) {
                if control.state != State::Psue {
                    return Err(error.into());
                }
                tracing::warn!(parent: record.span(), %error, "the record of a deleted pair could not be written");
            }
            control.armed = true;
        }
        let _gate = self.gate.close();
        let mut control = self.control.lock();
        (control.armed, control.split_at, control.error) = (false, None, None);
        for set in [&self.held, &self.primary_changed, &self.secondary_written] {
            set.write().clear();
        }
        self.batches.reset();
        self.enter(&mut control, State::Smpl, Mode::Apart);
        Ok(())
    }

    /// Ends the relation of a pair that the catalog does not have any more, whatever becomes of the record, which nobody reads
    /// again. When this returns, no copy writes to the secondary.
    pub(crate) fn give_up(&self) {
        let error = match self.delete() {
            Ok(()) | Err(PairError::Closed) => return, // a closed pair copies nothing
            Err(error) => error,
        };
        tracing::warn!(parent: self.record.lock().span(), %error, "a deleted pair does not end in order");
        // A suspended pair ends without its record.
        self.suspend("it is deleted, and its record could not be written");
        if let Err(error) = self.delete() {
            tracing::error!(parent: self.record.lock().span(), %error, "a deleted pair did not end");
        }
    }

    /// Ends the service in order: flushes both sides, and records that a mirror is still one at the next opening.
    pub(crate) fn close(&self) -> Result<(), PairError> {
        let _verb = self.verbs.lock();
        let _copier = self.copier.lock();
        let _gate = self.gate.close();
        let mut control = self.control.lock();
        let flushed = self.primary.flush().and_then(|()| self.secondary.flush());
        let state = control.state;
        self.enter(&mut control, state, Mode::Closed);
        flushed?;
        if state != State::Psue {
            self.record.lock().close()?;
        }
        Ok(())
    }

    /// Makes the state to which `verb` leads durable; `None` when the pair is in that state already.
    fn arm(&self, verb: Verb, split_at: Option<Timestamp>) -> Result<Option<(State, State)>, PairError> {
        let (appended, certain) = {
            let mut control = self.control.lock();
            let from = control.state;
            let Some(state) = admit(from, verb)? else { return Ok(None) };
            control.armed = true;
            let mut record = self.record.lock();
            let last = record.standing().generation;
            let generation = if from == State::Smpl { last + 1 } else { last };
            let standing = RelationState { generation, state, clean: false, split_at };
            let appended = record.append_standing(standing).map(|()| (from, state));
            if appended.is_ok() && state.may_be_split() {
                self.assume_changes();
            }
            control.armed = appended.is_ok() || !record.is_certain();
            (appended, record.is_certain())
        };
        match appended {
            Ok(states) => Ok(Some(states)),
            // There was no room for the new state, so a restart finds the old one.
            Err(error @ (StoreError::NoSpace | StoreError::Shortage(_))) if certain => Err(error.into()),
            Err(error) => {
                self.suspend(&format!("a new state could not be recorded: {error}"));
                self.control.lock().armed = false;
                Err(error.into())
            }
        }
    }

    /// Counts every extent as changed and as written. The record of a split says so; it must not be written anew with less.
    pub(super) fn assume_changes(&self) {
        self.primary_changed.write().insert_all();
        self.secondary_written.write().insert_all();
    }

    /// Puts the armed state into effect, with the gate closed, unless an error came between.
    fn flip(&self, from: State, next: State, split_at: Option<Timestamp>) -> Result<(), PairError> {
        if from == State::Smpl {
            self.finish_bringing_home()?;
        }
        let mut control = self.control.lock();
        control.armed = false;
        admit_again(control.state, from)?;
        self.put_into_effect(&mut control, from, next, split_at);
        Ok(())
    }

    /// Changes from the state `from` to `next`, which is durable. The gate is closed.
    pub(super) fn put_into_effect(
        &self,
        control: &mut Control,
        from: State,
        next: State,
        split_at: Option<Timestamp>,
    ) {
        if from == State::Smpl {
            self.held.write().clear();
        }
        (control.armed, control.split_at) = (false, split_at);
        self.enter(control, next, Mode::of(next));
    }

    /// The split of several pairs whose decision a restart needs to find the present state of this pair.
    pub(crate) fn relies_on(&self) -> Option<SplitIdentity> {
        self.record.lock().relies_on()
    }

    /// The secondary holds everything: COPY becomes PAIR, PSUS(SP) becomes PSUS, unless a verb comes in between.
    pub(super) fn become_whole(&self) -> Result<Progress, Failure> {
        let mut control = self.control.lock();
        let Some(next) = control.state.when_whole().filter(|_| !control.armed) else {
            return Ok(Progress::Idle);
        };
        let mut record = self.record.lock();
        let standing = RelationState { state: next, ..record.standing() };
        match record.append_standing(standing) {
            Ok(()) => {
                self.enter(&mut control, next, Mode::of(next));
                Ok(Progress::Whole)
            }
            Err(StoreError::NoSpace | StoreError::Shortage(_)) if !record.is_certain() => {
                Err(Failure::Broken("the end of the copy may have been recorded, or not".to_owned()))
            }
            Err(error) => Err(Failure::new(RECORD, "the end of the copy could not be recorded", &error)),
        }
    }
}

/// The state to which `verb` leads from `state`; `None` when that is `state` itself.
pub(super) fn admit(state: State, verb: Verb) -> Result<Option<State>, PairError> {
    match state.transition(verb) {
        Transition::Accepted(next) => Ok(Some(next)),
        Transition::NoEffect => Ok(None),
        Transition::Refused(why) => Err(PairError::Refused { state, why }),
    }
}

/// Checks that the pair is still in the state in which it was armed. Only an error can have changed it.
pub(super) fn admit_again(state: State, from: State) -> Result<(), PairError> {
    if state == from {
        return Ok(());
    }
    Err(PairError::Refused { state, why: "it was suspended by an error meanwhile; pair show says which" })
}

/// The shape that the record of these volumes must have.
fn shape(primary: &dyn Block, secondary: &dyn Block, identity: [u8; 16]) -> Result<Shape, PairError> {
    if primary.length() != secondary.length() || primary.block_size() != secondary.block_size() {
        return Err(PairError::Unequal);
    }
    #[allow(clippy::cast_possible_truncation)] // a small constant
    let extent = EXTENT as u32;
    Ok(Shape { identity, length: primary.length(), extent })
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us, writes held {} us", self.elapsed.as_micros(), self.hold.as_micros())
    }
}
