//! The secondary of a pair as the source of an EXTENDED COPY: what the pair's attributes say happens before the first read.
//!
//! **Split on copy.** A pair in PAIR is split first, so that one command takes the image and saves it. In any other state the
//! copy reads what the secondary shows. The split is the quick one: in PAIR the secondary is whole, so it costs one flush of
//! the record and one moment in which hosts' writes are held. It waits, as `pair split` does, for nobody but the deletion of
//! the pair. If the copy fails later, the pair stays split.
//!
//! **Copy policy** `wait`. The copy waits while a copy fills the secondary, and can be aborted meanwhile. In COPY that makes
//! of the secondary a mirror, which split on copy splits then.
//!
//! A split that fails is the answer of the source: the copy ends as for any other failure of a unit, THIRD PARTY DEVICE
//! FAILURE with this sense data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::paired::PairUnit;
use super::snapshot::Secondary;
use super::{Array, OPERATOR};
use crate::catalog::{CopyPolicy, PairEntry};
use crate::copy::Unready;
use crate::pair::{PairError, State, as_recorded};
use crate::sam::Status;
use crate::scsi::sense::{Asc, Format, Forwarded, Key, Sense};
use crate::store::StoreError;

/// How often a copy that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

impl Array {
    /// Makes of a secondary what a copy of `initiator` is to read.
    pub(super) fn begin_copy_of(
        &self,
        secondary: &Secondary,
        initiator: &str,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Unready> {
        let Secondary { pair: unit, entry, .. } = secondary;
        if entry.copy_policy == CopyPolicy::Wait {
            while !unit.pair.wait_filled(LOOK) {
                if stop() {
                    return Err(Unready::Cancelled);
                }
            }
        }
        if entry.split_on_copy { self.split_for_copy(unit, entry, initiator) } else { Ok(()) }
    }

    fn split_for_copy(
        &self,
        unit: &Arc<PairUnit>,
        entry: &PairEntry,
        initiator: &str,
    ) -> Result<(), Unready> {
        // A pair that has been deleted has nothing to split; its volumes are what they are.
        let Some(held) = unit.hold() else { return Ok(()) };
        if unit.pair.state() != State::Pair {
            return Ok(());
        }
        if self.refuse_stopping().is_err() {
            return Err(busy());
        }
        let now = self.snapshot();
        if now.stopped_of([&entry.primary, &entry.secondary]).is_some() {
            return Err(refused(Key::HardwareError, Asc::INTERNAL_TARGET_FAILURE));
        }
        if now.catalog.restores_from(&entry.primary).is_some() {
            return Err(busy()); // the primary is not whole yet
        }
        let began = Instant::now();
        let split = unit.pair.quick_split(as_recorded(Timestamp::now()), &|| began.elapsed());
        drop(held);
        let pair = &unit.name;
        let split = split.map_err(|error| {
            tracing::error!(target: OPERATOR, %pair, initiator, %error, "a copy could not split the pair");
            answer_for(&error)
        })?;
        self.copy_behind(unit); // what was written before the split is made durable
        let elapsed = began.elapsed();
        tracing::info!(target: OPERATOR, %pair, initiator, ?elapsed, hold = ?split.hold, "split on copy");
        Ok(())
    }
}

fn refused(key: Key, asc: Asc) -> Unready {
    let sense = Sense::new(key, asc).encode(Format::Fixed);
    Unready::Refused(Forwarded { status: Status::CheckCondition.code(), sense })
}

fn busy() -> Unready {
    Unready::Refused(Forwarded { status: Status::Busy.code(), sense: Vec::new() })
}

/// The answer of a secondary whose pair cannot be split because of `error`.
fn answer_for(error: &PairError) -> Unready {
    match error {
        // An error has suspended the pair meanwhile: an operator is needed.
        PairError::Refused { .. } | PairError::Unequal => {
            refused(Key::NotReady, Asc::LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED)
        }
        PairError::Closed => busy(),
        PairError::Store(error) => match error {
            StoreError::Shortage(_) | StoreError::WouldBlock => busy(),
            StoreError::NoSpace => refused(Key::DataProtect, Asc::SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
            _ => refused(Key::HardwareError, Asc::INTERNAL_TARGET_FAILURE),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_why_a_pair_is_not_split_is_an_answer_of_the_source() {
        let code = |error: PairError| match answer_for(&error) {
            Unready::Refused(Forwarded { status: 0x02, sense }) => {
                (sense[2] & 0xF, u16::from_be_bytes([sense[12], sense[13]]))
            }
            Unready::Refused(Forwarded { status: 0x08, sense }) if sense.is_empty() => (0, 0),
            other => panic!("{other:?}"),
        };
        let broken = || std::io::Error::other("device");
        assert_eq!(code(PairError::Refused { state: State::Psue, why: "suspended" }), (0x2, 0x0403));
        assert_eq!(code(PairError::Closed), (0, 0));
        assert_eq!(code(StoreError::Shortage(broken()).into()), (0, 0));
        assert_eq!(code(StoreError::NoSpace.into()), (0x7, 0x2707));
        assert_eq!(code(StoreError::Io(broken()).into()), (0x4, 0x4400));
        assert_eq!(code(StoreError::Stopped.into()), (0x4, 0x4400));
    }
}
