//! What somebody sees who looks at the array: its objects as documents. No view takes a turn, so none waits for a verb; and
//! none waits long for a command ([`drive_status`]).

pub mod cartridge;
pub mod command_device;
pub mod drive;
mod drive_status;
pub mod group;
pub mod lun;
pub mod pair;
pub mod session;
pub mod snapshot;
pub mod target;
pub mod token;
pub mod volume;

use crate::array::{Array, show};

/// The whole array; `portals` are the front's addresses.
#[must_use]
pub fn status(array: &Array, portals: Vec<String>) -> show::Status {
    show::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: array.data_dir().display().to_string(),
        error: array.displaced().map(|displaced| displaced.to_string()),
        started_at: array.started_at(),
        portals,
        volumes: volume::all(array),
        targets: target::all(array),
        luns: lun::all(array),
        pairs: pair::all(array),
        groups: group::all(array),
        snapshots: snapshot::all(array),
        cartridges: cartridge::all(array),
        drives: drive::all(array),
        command_devices: command_device::all(array),
        sessions: array.session_list(),
        copies: array.copies(),
    }
}
