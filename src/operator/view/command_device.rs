//! The documents about command devices.

use crate::array::{Array, Snapshot, show};
use crate::catalog::CommandDeviceEntry;
use crate::catalog::names::Name;
use crate::operator::cause::{Cause, ObjectKind};
use crate::volume::Identity;

/// All command devices.
#[must_use]
pub fn all(array: &Array) -> Vec<show::CommandDevice> {
    let now = array.snapshot();
    now.catalog.command_devices.iter().map(|(name, entry)| view(&now, name, entry)).collect()
}

/// The command device `name`.
///
/// # Errors
/// There is none.
pub fn named(array: &Array, name: &Name) -> Result<show::CommandDevice, Cause> {
    of(&array.snapshot(), name)
}

/// The command device `name` in `now`.
pub(crate) fn of(now: &Snapshot, name: &Name) -> Result<show::CommandDevice, Cause> {
    let entry = now.catalog.command_devices.get(name);
    entry.map(|entry| view(now, name, entry)).ok_or_else(|| Cause::not_found(ObjectKind::CommandDevice, name))
}

fn view(now: &Snapshot, name: &Name, entry: &CommandDeviceEntry) -> show::CommandDevice {
    let identity = Identity::from_seed(entry.seed.0);
    show::CommandDevice {
        name: name.to_string(),
        grants: entry.grants.iter().map(Name::to_string).collect(),
        naa: identity.naa_text(),
        serial: identity.serial(),
        luns: now.mappings(&name.clone().into()),
        labels: entry.labels.clone(),
        description: entry.description.clone(),
    }
}
