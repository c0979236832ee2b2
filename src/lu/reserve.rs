//! Reservations: SPC-2's RESERVE and RELEASE, which hosts without COMPARE AND WRITE still use.
//!
//! One nexus holds the logical unit, or none does. The hot path asks [`Reservations::conflicts`]: one atomic load.
//! Neither a logical unit reset nor the loss of the holder's nexus leaves the reservation standing (SPC-2 5.5.1).
//! PERSISTENT RESERVE, when it comes, is a table beside the holder and answers through the same question.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sam::NexusId;
use crate::scsi::opcode::Access;

const NOBODY: u64 = u64::MAX;

/// Who holds the logical unit.
#[derive(Debug)]
pub(super) struct Reservations {
    holder: AtomicU64,
}

impl Reservations {
    pub(super) fn new() -> Self {
        Self { holder: AtomicU64::new(NOBODY) }
    }

    /// Whether a command of class `access` from `nexus` ends with RESERVATION CONFLICT.
    pub(super) fn conflicts(&self, nexus: NexusId, access: Access) -> bool {
        let holder = self.holder.load(Ordering::Acquire);
        holder != NOBODY && holder != nexus.0 && access != Access::Always
    }

    /// RESERVE: false if another nexus holds the logical unit.
    pub(super) fn reserve(&self, nexus: NexusId) -> bool {
        match self.holder.compare_exchange(NOBODY, nexus.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(holder) => holder == nexus.0,
        }
    }

    /// RELEASE, and what the loss of a nexus does. Without effect unless `nexus` is the holder.
    pub(super) fn release(&self, nexus: NexusId) {
        let _ = self.holder.compare_exchange(nexus.0, NOBODY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What a logical unit reset does.
    pub(super) fn reset(&self) {
        self.holder.store(NOBODY, Ordering::Release);
    }
}
