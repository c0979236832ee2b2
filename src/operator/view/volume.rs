//! The documents about volumes.

use crate::array::show::{self, Health};
use crate::array::{Array, KernelDevices, Snapshot};
use crate::catalog::VolumeEntry;
use crate::catalog::names::Name;
use crate::operator::cause::{Cause, ObjectKind};
use crate::volume::Identity;

/// All volumes.
#[must_use]
pub fn all(array: &Array) -> Vec<show::Volume> {
    let (now, devices) = (array.snapshot(), array.kernel_devices());
    let volumes = now.catalog.volumes.iter();
    volumes.map(|(name, entry)| view(array, &now, &devices, name, entry)).collect()
}

/// The volume `name`.
///
/// # Errors
/// There is none.
pub fn named(array: &Array, name: &Name) -> Result<show::Volume, Cause> {
    let now = array.snapshot();
    match now.catalog.volumes.contains_key(name) {
        true => Ok(of(array, &now, name)),
        false => Err(Cause::not_found(ObjectKind::Volume, name)),
    }
}

/// The volume `name` in `now`, which has it.
pub(crate) fn of(array: &Array, now: &Snapshot, name: &Name) -> show::Volume {
    view(array, now, &array.kernel_devices(), name, &now.catalog.volumes[name])
}

/// The restore of the volume `name`.
#[allow(clippy::cast_precision_loss)] // a fraction for people
fn restoring(now: &Snapshot, name: &Name) -> Option<show::Restoring> {
    let snapshot = now.catalog.restores_from(name)?.to_string();
    let unit = now.volume_unit(name)?.restoring()?;
    let status = unit.status();
    let restored = status.total_bytes.saturating_sub(status.left_bytes);
    Some(show::Restoring {
        snapshot,
        pace: unit.pace(),
        restored_bytes: restored,
        total_bytes: status.total_bytes,
        progress: if status.total_bytes == 0 { 1.0 } else { restored as f64 / status.total_bytes as f64 },
        error: status.error,
    })
}

fn view(
    array: &Array,
    now: &Snapshot,
    devices: &KernelDevices,
    name: &Name,
    entry: &VolumeEntry,
) -> show::Volume {
    let unit = now.volume_unit(name);
    let object = name.clone().into();
    let identity = Identity::from_seed(entry.seed.0);
    let error = unit.and_then(|unit| unit.error(name));
    show::Volume {
        name: name.to_string(),
        size: entry.size,
        block_size: entry.block_size.bytes(),
        store: entry.store,
        path: array.volume_path(entry).map(|path| path.display().to_string()),
        allocated_bytes: unit.and_then(|unit| unit.allocated().ok()).unwrap_or(0),
        naa: identity.naa_text(),
        serial: identity.serial(),
        health: if error.is_none() { Health::Ready } else { Health::Failed },
        error,
        snapshots: now.catalog.snapshots_of(name).count(),
        snapshot_bytes: unit.and_then(|unit| unit.origin()).map_or(0, |origin| origin.status().bytes),
        snapshot_limit: entry.snapshot_limit,
        snapshot_policy: entry.snapshot_policy,
        restoring: restoring(now, name),
        pair: now.pair_of(name).map(Name::to_string),
        luns: now.mappings(&object),
        kernel_devices: devices.get(&object).cloned().unwrap_or_default(),
        labels: entry.labels.clone(),
        description: entry.description.clone(),
    }
}
