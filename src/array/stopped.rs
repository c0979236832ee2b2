//! The sentences for an operator about a volume or cartridge that has stopped because a flush failed, and about the
//! verb that reinstates it.

use crate::catalog::names::{Barcode, Name};
use crate::store::Stopped;
use crate::units;

/// How a stopped object can be used.
const READABLE: &str = "can be read, takes no writes";

/// The sentence about a stopped object; `verb` reinstates it.
fn sentence(stopped: &Stopped, state: &str, verb: &str) -> String {
    let since = stopped.since.and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map(|since| format!(" at {}", units::time(since))).unwrap_or_default();
    format!(
        "{}{since}; it {state}, and may have lost what was written since its last flush; repair its device, then '{verb}'",
        stopped.why
    )
}

/// The sentence for a volume.
pub(crate) fn of_volume(name: &Name, stopped: &Stopped) -> String {
    sentence(stopped, READABLE, &format!("cleave volume reinstate {name}"))
}

/// The sentence for a cartridge. `failed`: a write has failed since it was opened.
pub(crate) fn of_cartridge(barcode: &Barcode, stopped: &Stopped, failed: bool) -> String {
    let state = if failed { "refuses reads too, because a write to it has failed" } else { READABLE };
    sentence(stopped, state, &format!("cleave cartridge reinstate {barcode}"))
}
