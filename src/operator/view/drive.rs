//! The documents about drives.

use super::drive_status::{StatusDeadline, fault};
use crate::array::cartridge_slot::CartridgeLocation;
use crate::array::show::{self, DriveState, Health};
use crate::array::{Array, KernelDevices, Snapshot};
use crate::catalog::DriveEntry;
use crate::catalog::names::{Barcode, Name};
use crate::operator::cause::{Cause, ObjectKind};
use crate::volume::Identity;

/// All drives.
#[must_use]
pub fn all(array: &Array) -> Vec<show::Drive> {
    let (now, devices, deadline) = (array.snapshot(), array.kernel_devices(), StatusDeadline::begin());
    let drives = now.catalog.drives.iter();
    drives.map(|(name, entry)| document(&now, &devices, &deadline, name, entry)).collect()
}

/// The drive `name`.
///
/// # Errors
/// There is none.
pub fn named(array: &Array, name: &Name) -> Result<show::Drive, Cause> {
    let now = array.snapshot();
    match now.catalog.drives.contains_key(name) {
        true => Ok(of(array, &now, name)),
        false => Err(Cause::not_found(ObjectKind::Drive, name)),
    }
}

/// The drive `name` in `now`, which has it.
pub(crate) fn of(array: &Array, now: &Snapshot, name: &Name) -> show::Drive {
    document(now, &array.kernel_devices(), &StatusDeadline::begin(), name, &now.catalog.drives[name])
}

fn document(
    now: &Snapshot,
    devices: &KernelDevices,
    deadline: &StatusDeadline,
    name: &Name,
    entry: &DriveEntry,
) -> show::Drive {
    let object = name.clone().into();
    let identity = Identity::from_seed(entry.seed.0);
    let (state, error) = match &entry.loaded {
        None => (DriveState::Empty, None),
        Some(barcode) => contents(now, deadline, name, barcode),
    };
    show::Drive {
        name: name.to_string(),
        cartridge: entry.loaded.as_ref().map(Barcode::to_string),
        state,
        naa: identity.naa_text(),
        serial: identity.serial(),
        health: if error.is_none() { Health::Ready } else { Health::Failed },
        error,
        luns: now.mappings(&object),
        kernel_devices: devices.get(&object).cloned().unwrap_or_default(),
        labels: entry.labels.clone(),
        description: entry.description.clone(),
    }
}

/// Whether the cartridge in a drive is threaded, and why it cannot be used, if so.
fn contents(
    now: &Snapshot,
    deadline: &StatusDeadline,
    name: &Name,
    barcode: &Barcode,
) -> (DriveState, Option<String>) {
    let failed = now.cartridges.get(barcode).and_then(|slot| {
        slot.inspect(|location| match location {
            CartridgeLocation::Failed(why) => Some(why.clone()),
            _ => None,
        })
    });
    let status = now.drives.get(name).and_then(|unit| deadline.status_of(&unit.drive));
    let threaded = status.as_ref().is_some_and(|status| status.threaded);
    let state = if threaded { DriveState::Loaded } else { DriveState::Unthreaded };
    (state, status.as_ref().and_then(fault).or(failed))
}
