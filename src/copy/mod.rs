//! The copy manager (SPC-4 5.17): third-party copies between logical units of this array.
//!
//! It has no way into a logical unit of its own. A [`Door`] resolves a CSCD descriptor *for the nexus that asks*, so
//! that nobody copies from or to what he is not mapped to, and an [`Endpoint`] takes plain commands that go through the same
//! gate, reservations and task set as everybody else's.
//!
//! ```text
//! parameter list ─ scsi::xcopy ─► survey ─► plan ─► run ─► sense
//!                  (pure)         (resolve, (pure)  (reader thread │ writer)
//!                                 capacity)             └─► lists: STATUS, FAILURE DETAILS, admin
//! ```

pub mod plan;

use std::sync::Arc;

use crate::lu::Outcome;
use crate::sam::{Cdb, Lun, NexusId};
use crate::scsi::opcode::DeviceType;
pub use crate::scsi::xcopy::list::Designator;

/// The way from a CSCD to a logical unit.
pub trait Door: Send + Sync {
    /// The logical unit that `designator` names, if `nexus`, which speaks to the array through the unit at `via`, is
    /// mapped to it. One designator of the unit's VPD page 83h has to be equal in code set, association, type and
    /// bytes. A unit that the nexus may not use and one that does not exist give the same answer.
    fn resolve(&self, nexus: NexusId, via: Lun, designator: &Designator) -> Option<Arc<dyn Endpoint>>;

    /// The logical unit at `via` itself.
    fn addressed(&self, nexus: NexusId, via: Lun) -> Option<Arc<dyn Endpoint>>;
}

/// A logical unit as the copy manager uses it, on behalf of one nexus and with that nexus' access.
pub trait Endpoint: Send + Sync {
    /// The object's name, for people.
    fn name(&self) -> String;

    /// PERIPHERAL DEVICE TYPE.
    fn device_type(&self) -> DeviceType;

    /// Runs one command to its end and blocks meanwhile. `data_in` is a buffer of any content to reuse; the outcome
    /// hands `data_out` back.
    fn perform(&self, cdb: Cdb, data_out: Vec<u8>, data_in: Vec<u8>) -> Outcome;

    /// Says that `count` blocks from `lba` are read next: a pair's secondary fetches what it does not hold yet. What
    /// fails here fails again, and is reported, in the READ.
    fn prefetch(&self, lba: u64, count: u32);
}
