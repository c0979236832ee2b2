//! The resync and the restore of one pair or of the pairs of a group.
//!
//! The pairs of a group have no instant in common here: each begins for itself, one after the other, in the order of
//! their names. All are looked at before the first one begins, so a state that does not allow it refuses all of them, and
//! nothing is done. An error that only the beginning itself finds (no room in a record) ends the request between two pairs. The
//! same request again is then right: a pair that has begun stays as it is, and the others begin.

use std::sync::Arc;

use super::split::{Which, not_found, refusal, refuse_restored_pairs};
use crate::array::{OPERATOR, PairUnit, show};
use crate::catalog::names::Name;
use crate::operator::act::Asked;
use crate::operator::cause::Cause;
use crate::operator::view;
use crate::pair::Verb as Request;

/// Makes the sides of each of the pairs equal again: the secondary as the primary is, or with `restore` the primary as
/// the secondary is. Shows each pair as it is right after it has begun.
pub(super) fn each(asked: &Asked<'_>, which: &Which<'_>, restore: bool) -> Result<show::Resync, Cause> {
    let array = asked.array;
    let turn = asked.on.hold(array)?;
    let now = array.snapshot();
    let units = which.units(&now)?;
    let held = units.iter().map(|(name, unit)| unit.hold().ok_or_else(|| not_found(name)));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    array.refuse_stopping()?;
    refuse_restored_pairs(&now, &units)?;
    let request = if restore { Request::Restore } else { Request::Resync };
    for (name, unit) in &units {
        unit.pair.look(request).map_err(|error| refusal(name, &error))?;
    }
    let mut begun = Vec::new();
    let result = units.iter().try_for_each(|(name, unit): &(&Name, &Arc<PairUnit>)| {
        let done = if restore { unit.restore() } else { unit.pair.resync() };
        done.map_err(|error| refusal(name, &error))?;
        let shown = view::pair::of(&now, name)?;
        tracing::info!(target: OPERATOR, pair = %name, restore, state = shown.state, "resync");
        begun.push(shown);
        Ok(())
    });
    drop((held, turn));
    units.iter().for_each(|(_, unit)| array.copy_behind(unit));
    result.map(|()| show::Resync { pairs: begun })
}
