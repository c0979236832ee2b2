//! What the kernel front says to the EXTENDED COPY commands that come over its devices.
//!
//! * **A copy that a dying daemon cut off.** After a kill the kernel sends the commands of a device again. A copy to a tape
//!   would then append to what it has written already. So of each drive the first copy that names it within [`REPETITION`]
//!   meets a unit attention, 29h/00h, and its initiator looks where the tape stands.
//! * **A copy that reaches nothing.** Over LIO a copy reaches what is listed alone. Its sender hears UNREACHABLE COPY TARGET,
//!   the same as for a unit that does not exist, so only the log can tell the operator what to do; it does not look up
//!   either what was named.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cleave::catalog::names::ObjectName;
use cleave::internal::array::front::CopyFront;
use cleave::scsi::opcode::DeviceType;
use cleave::scsi::sense::{Asc, Sense};
use parking_lot::Mutex;

/// How long after a device was taken over the kernel may still repeat what its last handler died over: far longer than it
/// does.
const REPETITION: Duration = Duration::from_secs(600);

/// What is said to the copies of one device.
#[derive(Debug)]
pub(crate) struct DeviceCopies {
    device: String,
    /// Until when the kernel may repeat a copy that was cut off. `None`: none was.
    repeats_until: Option<Instant>,
    /// Drives that a copy knows to have been reset.
    informed: Mutex<BTreeSet<ObjectName>>,
}

impl DeviceCopies {
    /// For the copies of `device`, whose last handler may have died over some of them if `interrupted`.
    pub(crate) fn new(device: String, interrupted: bool) -> Self {
        let repeats_until = interrupted.then(|| Instant::now() + REPETITION);
        Self { device, repeats_until, informed: Mutex::default() }
    }

    /// Whether a copy to `object` is to meet a unit attention at `now`.
    fn owes(&self, object: &ObjectName, device_type: DeviceType, now: impl FnOnce() -> Instant) -> bool {
        device_type != DeviceType::Disk
            && self.repeats_until.is_some_and(|until| now() < until)
            && !self.informed.lock().contains(object)
    }
}

impl CopyFront for DeviceCopies {
    fn owed(&self, object: &ObjectName, device_type: DeviceType) -> Option<Sense> {
        let reset = || Sense::unit_attention(Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED);
        self.owes(object, device_type, Instant::now).then(reset)
    }

    fn informed(&self, object: &ObjectName) {
        self.informed.lock().insert(object.clone());
    }

    fn unreached(&self, object: &ObjectName) {
        let device = &self.device;
        tracing::warn!(%object, %device, "an EXTENDED COPY that came over the kernel's device named a unit that it may not reach from {object}; if it is to, list that unit's object for {object} under [tcmu.copy_reach] in the configuration and restart the daemon");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    #[test]
    fn after_a_kill_a_copy_meets_the_attention_of_each_drive_until_one_knows_of_it() {
        let copies = DeviceCopies::new("user_0/a".into(), true);
        let sense = copies.owed(&name("tape0"), DeviceType::Tape).unwrap();
        assert_eq!(sense, Sense::unit_attention(Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED));
        assert_eq!(copies.owed(&name("tape0"), DeviceType::Tape), Some(sense.clone()), "until it is told");
        assert_eq!(
            copies.owed(&name("b"), DeviceType::Disk),
            None,
            "the kernel may repeat a disk's commands"
        );
        copies.informed(&name("tape0"));
        assert_eq!(copies.owed(&name("tape0"), DeviceType::Tape), None);
        assert_eq!(
            copies.owed(&name("tape1"), DeviceType::Tape),
            Some(sense),
            "another drive is another tape"
        );
    }

    #[test]
    fn a_drive_owes_nothing_when_the_kernel_repeats_nothing() {
        let copies = DeviceCopies::new("user_0/a".into(), false);
        assert_eq!(copies.owed(&name("tape0"), DeviceType::Tape), None, "nobody died");
        let began = Instant::now();
        let copies = DeviceCopies::new("user_0/a".into(), true);
        let owes = |later: Duration| copies.owes(&name("tape0"), DeviceType::Tape, || began + later);
        assert!(owes(REPETITION - Duration::from_millis(1)));
        assert!(!owes(REPETITION + Duration::from_secs(60)), "long ago");
    }
}
