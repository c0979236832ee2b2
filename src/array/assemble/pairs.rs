//! The pairs in an assembly: puts a pair between its volumes and their hosts, and takes the pair down.
//!
//! While a pair is up, the hosts of both volumes are led to its sides. Pairs are taken
//! down before others are put up: one change of the catalog may move a volume from one pair to another, and the copy
//! of the former pair must not write any more when hosts write through the new one. The volumes and their units stay.
//!
//! A pair that no verb has made is opened from its records. **A pair with a missing volume** waits ([`WaitingPair`]):
//! nothing of the pair changes until a start finds both volumes; then the pair goes on. An existing primary is served.
//! **A pair whose records cannot be read now** waits too ([`UnrecordedPair`]). **A pair whose records cannot be relied
//! on** is broken for good: from then on the primary is written without a keep, so records that come back later would
//! describe an image that no longer exists. The primary is served alone, and the secondary is refused. This is one of
//! the [`Findings`](super::Findings), and durable before the first host is served.

use std::sync::{Arc, Weak};

use super::super::Array;
use super::super::failed::FailedBlock;
use super::super::notice::Notice;
use super::super::paired::{Held, PairUnit, Paired, WaitingPair};
use super::super::pairs::Opened;
use super::super::snapshot::Snapshot;
use super::super::unrecorded::{PairNote, UnrecordedPair};
use crate::catalog::PairEntry;
use crate::catalog::names::Name;
use crate::landing::Keeper;
use crate::pair::{Pair, Waiting};

impl Array {
    /// Puts up the pair `name`, which a verb has `made`, or which is opened. Returns why it is broken, if it is.
    pub(super) fn put_up_pair(
        &self,
        next: &mut Snapshot,
        name: &Name,
        made: Option<Arc<Pair>>,
    ) -> Option<String> {
        let entry = next.catalog.pairs[name].clone();
        let opened = match (made, &entry.broken) {
            (Some(pair), _) => Ok(Opened::Runs(pair)),
            (None, Some(why)) => Err(why.clone()),
            (None, None) => self.open_pair(next, name, &entry),
        };
        let (paired, broken) = match opened {
            Ok(Opened::Runs(pair)) => {
                let unit = self.watched(next.stand_between(name, &entry, pair));
                unit.note_restores_by(self.restore_note(&entry));
                if unit.pair.has_work() {
                    self.copier.start(&unit);
                }
                (Paired::Runs(unit), None)
            }
            Ok(Opened::Waits(waiting)) => {
                tracing::error!(pair = %name, why = %waiting.error(), "the pair waits");
                next.serve_without(name, &entry, &waiting);
                (Paired::Waits(Arc::new(waiting)), None)
            }
            Ok(Opened::Unrecorded(pair)) => {
                tracing::error!(pair = %name, why = %pair.error(), "the pair waits");
                let pair = Arc::new(pair);
                next.serve_unrecorded(name, &entry, &pair);
                next.refuse_unrestored(name, &entry, &self.restore_note(&entry));
                (Paired::Unrecorded(pair), None)
            }
            Err(why) => {
                next.refuse_secondary(
                    &entry,
                    &format!("the secondary of the broken pair {name} shows no instant"),
                );
                next.refuse_unrestored(name, &entry, &self.restore_note(&entry));
                let is_new = entry.broken.is_none();
                if is_new {
                    tracing::error!(pair = %name, %why, "the pair is broken: its secondary is refused");
                }
                (Paired::Broken, is_new.then_some(why))
            }
        };
        next.pairs.insert(name.clone(), paired);
        broken
    }

    /// The pair at run time. From now on its changes of state give notice.
    fn watched(&self, unit: Arc<PairUnit>) -> Arc<PairUnit> {
        let (watchers, of) = (self.watchers.clone(), unit.name.clone());
        unit.pair.watch(Box::new(move |state, error| {
            let (name, error) = (of.clone(), error.map(str::to_owned));
            watchers.tell(|| Notice::Pair { name, state, error });
        }));
        unit
    }
}

impl Snapshot {
    /// Puts a pair between its volumes and their hosts.
    fn stand_between(&self, name: &Name, entry: &PairEntry, pair: Arc<Pair>) -> Arc<PairUnit> {
        self.volumes[&entry.primary].lead_to(|_| pair.primary_side());
        self.volumes[&entry.secondary].lead_to(|_| pair.secondary_side());
        Arc::new(PairUnit::new(name, entry, pair))
    }

    /// Serves the existing volumes of a waiting pair, as far as possible.
    fn serve_without(&self, name: &Name, entry: &PairEntry, waiting: &WaitingPair) {
        let [primary, secondary] =
            [&entry.primary, &entry.secondary].map(|name| self.failure_of(name).is_none());
        if primary && !waiting.waiting.primary_is_whole() {
            let why = format!("the primary of pair {name} is being restored: {}", waiting.error());
            self.refuse(&entry.primary, &why);
        } else if primary {
            let unit = &self.volumes[&entry.primary];
            let keeper: Weak<Waiting> = Arc::downgrade(&waiting.waiting);
            unit.landed.keep_by(keeper);
            unit.lead_to(|primary| waiting.waiting.guarded(Arc::clone(primary)));
        }
        if secondary && waiting.is_apart() {
            let unit = &self.volumes[&entry.secondary];
            unit.lead_to(|secondary| waiting.waiting.guarded(Arc::clone(secondary)));
        } else if secondary {
            self.refuse_secondary(entry, &format!("the secondary of pair {name}: {}", waiting.error()));
        }
    }

    /// Serves the primary of a pair without a record, if it exists, and refuses the secondary.
    fn serve_unrecorded(&self, name: &Name, entry: &PairEntry, pair: &Arc<UnrecordedPair>) {
        if self.failure_of(&entry.primary).is_none() {
            let unit = &self.volumes[&entry.primary];
            let keeper: Weak<UnrecordedPair> = Arc::downgrade(pair);
            unit.landed.keep_by(keeper);
            unit.lead_to(|primary| pair.guarded(Arc::clone(primary)));
        }
        if self.failure_of(&entry.secondary).is_none() {
            self.refuse_secondary(entry, &format!("the secondary of pair {name}: {}", pair.error()));
        }
    }

    /// Serves the primary of a pair without a record as failed, if it was being restored, or nobody can tell.
    fn refuse_unrestored(&self, name: &Name, entry: &PairEntry, note: &PairNote) {
        if note.is_there().unwrap_or(true) {
            let why = format!(
                "pair {name} was restoring the volume when its record was lost, so the volume may be part old, part restored"
            );
            tracing::error!(pair = %name, %why, "the primary is refused");
            self.refuse(&entry.primary, &why);
        }
    }

    /// Serves the secondary of a pair as failed.
    fn refuse_secondary(&self, entry: &PairEntry, why: &str) {
        self.refuse(&entry.secondary, why);
    }

    /// Serves a volume as failed.
    fn refuse(&self, volume: &Name, why: &str) {
        let entry = &self.catalog.volumes[volume];
        let failed = Arc::new(FailedBlock::new(entry.block_size, entry.size, why));
        self.volumes[volume].lead_to(|_| failed);
    }

    /// Takes down the pair `name`, and serves its volumes directly. `held`: a verb has held the pair since it checked
    /// that the pair can go.
    pub(super) fn take_down_pair(&self, name: &Name, held: Option<Held>) {
        let entry = &self.catalog.pairs[name];
        let held = held.or_else(|| self.running(name)?.hold());
        if let Some(unit) = self.running(name) {
            unit.pair.give_up();
        }
        if let Some(held) = held {
            held.remove();
        }
        let [primary, secondary] = self.plain_sides(entry);
        match &self.pairs[name] {
            Paired::Runs(unit) => unit.pair.release_primary(),
            Paired::Waits(waiting) => {
                let keeper: Weak<Waiting> = Arc::downgrade(&waiting.waiting);
                primary.release_from(&(keeper as Weak<dyn Keeper>));
            }
            Paired::Unrecorded(pair) => {
                let keeper: Weak<UnrecordedPair> = Arc::downgrade(pair);
                primary.release_from(&(keeper as Weak<dyn Keeper>));
            }
            Paired::Broken => {}
        }
        self.volumes[&entry.primary].lead_to(|_| primary);
        self.volumes[&entry.secondary].lead_to(|_| secondary);
    }
}
