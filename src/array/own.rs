//! Logical units that the program brings itself, beside those of the catalog: for a program that uses cleave as a library.
//!
//! Initiators reach such a unit like any other one: through the target that admits them, the gate, the task set and the
//! array's threads; and a copy finds it by its designators. The catalog knows nothing of it. So no list has the unit, no
//! pair is made of it, and it is gone when the program ends or its target is deleted. What the catalog maps at the same
//! LUN of the target, now or later, comes first.

use std::sync::Arc;

use super::Array;
use super::door::Visible;
use super::snapshot::Snapshot;
use super::units::logical_unit;
use crate::catalog::names::{IscsiName, Name};
use crate::catalog::{TargetEntry, rules};
use crate::lu::{Called, DeviceServer};
use crate::sam::Lun;

/// A logical unit of the program's own.
#[derive(Clone, Debug)]
pub struct OwnUnit {
    name: Name,
    seed: [u8; 16],
    server: Arc<dyn DeviceServer>,
    read_only: bool,
}

impl OwnUnit {
    /// A unit whose commands `server` executes. `name` is for log lines. From `seed` the names come by which initiators
    /// know the unit ([`Identity`](crate::volume::Identity)): draw it at random once, and keep it as long as the unit is
    /// the same to them.
    #[must_use]
    pub fn new(name: Name, seed: [u8; 16], server: Arc<dyn DeviceServer>) -> Self {
        Self { name, seed, server, read_only: false }
    }

    /// The same, which initiators may only read.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

/// Why a unit is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAttached {
    /// There is no such number.
    #[error("{0} is above the highest LUN, {max}", max = Lun::MAX_NUMBER)]
    LunTooHigh(u16),
    /// There is no such target.
    #[error("there is no target {0}")]
    NoTarget(IscsiName),
    /// The catalog, or another unit of the program's own, has that LUN.
    #[error("LUN {lun} of {target} is taken")]
    Taken {
        /// The target.
        target: IscsiName,
        /// The LUN.
        lun: u16,
    },
}

impl Array {
    /// Shows `unit` at `lun` of `target`, to every initiator that the target admits. When this returns, the sessions of
    /// these initiators with the target see the unit. A session keeps the unit only as long as the target admits its initiator.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    pub fn attach_unit(&self, target: &IscsiName, lun: u16, unit: OwnUnit) -> Result<(), NotAttached> {
        if lun > Lun::MAX_NUMBER {
            return Err(NotAttached::LunTooHigh(lun));
        }
        let mut turn = self.turn();
        let entry = turn.head().targets.get(target).ok_or_else(|| NotAttached::NoTarget(target.clone()))?;
        let place = (target.clone(), lun);
        if entry.maps.iter().any(|map| map.lun == lun) || self.snapshot().own.contains_key(&place) {
            return Err(NotAttached::Taken { target: target.clone(), lun });
        }
        let OwnUnit { name, seed, server, read_only } = unit;
        let unit = logical_unit(Called::from(name.as_str()), seed, server, &self.threads);
        let visible = Visible { lun, object: name.into(), unit, read_only };
        let now = turn.publish(|next| drop(next.own.insert(place, visible)));
        self.refresh(&now, &[target.clone()].into());
        Ok(())
    }

    /// Takes away the unit that [`Self::attach_unit`] has shown at `lun` of `target`: its tasks end, and no session reaches
    /// the unit any more. False if there is none.
    pub fn detach_unit(&self, target: &IscsiName, lun: u16) -> bool {
        let mut turn = self.turn();
        let place = (target.clone(), lun);
        let mut taken = None;
        let now = turn.publish(|next| taken = next.own.remove(&place));
        self.refresh(&now, &[target.clone()].into());
        taken.is_some()
    }
}

impl Snapshot {
    /// What the catalog lets `initiator` see at the target `iqn`, and what the program shows at the other LUNs, if the
    /// target admits the initiator; by rising LUN. A session may be older than the entry that no longer admits its initiator.
    pub(super) fn with_own(
        &self,
        iqn: &IscsiName,
        target: &TargetEntry,
        initiator: &IscsiName,
        mut seen: Vec<Visible>,
    ) -> Vec<Visible> {
        if self.own.is_empty() || !rules::admits(target, initiator) {
            return seen;
        }
        let here = self.own.range((iqn.clone(), 0)..=(iqn.clone(), u16::MAX)).map(|(_, own)| own);
        let free = here.filter(|own| seen.binary_search_by_key(&own.lun, |seen| seen.lun).is_err());
        let free: Vec<Visible> = free.cloned().collect();
        seen.extend(free);
        seen.sort_by_key(|seen| seen.lun);
        seen
    }
}
