//! A front's part in the copies of its sessions.

use std::fmt;

use crate::catalog::names::ObjectName;
use crate::scsi::opcode::DeviceType;
use crate::scsi::sense::Sense;

/// The messages between a front and the copies of its session. A front without this part leaves each copy to the
/// units that the copy names. All methods are called on the copy's thread.
pub trait CopyFront: fmt::Debug + Send + Sync {
    /// Sense data with which each command of a copy to `object` ends as CHECK CONDITION, instead of the unit's
    /// answer. `None`: the command goes to the unit.
    fn owed(&self, object: &ObjectName, device_type: DeviceType) -> Option<Sense>;

    /// A copy that has got the sense data owed for `object` has asked all its units for their identity.
    fn informed(&self, object: &ObjectName);

    /// A copy that was sent to `object` named a unit that does not exist or is not one of the session's.
    fn unreached(&self, object: &ObjectName);
}
