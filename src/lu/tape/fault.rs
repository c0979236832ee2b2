//! What the cartridge's failures are called in sense data: the one place where the two meet.
//!
//! A full cartridge and a full device under it are the same to an initiator: VOLUME OVERFLOW, nothing of the object
//! written, everything before it whole, and the next volume is what helps. A damaged object is a MEDIUM ERROR: it
//! concerns that object. A write that failed is a MEDIUM ERROR once, and then the drive answers HARDWARE ERROR to all
//! that needs the medium until the cartridge is loaded again: what was buffered is in doubt, and a host that retried
//! would write behind a hole.

use crate::lu::Refusal;
use crate::scsi::sense::{Asc, Key, Sense};
use crate::tape::TapeError;

/// WRITE PROTECTED, WORM MEDIUM OVERWRITE ATTEMPTED.
const WORM_OVERWRITE: Asc = Asc(0x300C);

/// Sense with INFORMATION (SSC-3 4.2.15).
pub(super) fn informed(key: Key, asc: Asc, information: u64) -> Sense {
    Sense { information: Some(information), ..Sense::new(key, asc) }
}

/// A read failed with `residual` bytes or blocks not read.
pub(super) fn reading(error: TapeError, residual: u64) -> Refusal {
    match common(error) {
        Ok(refusal) => refusal,
        Err(error) => {
            tracing::warn!(%error, "a tape read failed");
            informed(Key::MediumError, Asc::UNRECOVERED_READ_ERROR, residual).into()
        }
    }
}

/// A write failed with `residual` bytes, blocks or filemarks not written.
pub(super) fn writing(error: TapeError, residual: u64) -> Refusal {
    match common(error) {
        Ok(refusal) => refusal,
        Err(TapeError::EndOfMedium) => overflow(residual).into(),
        Err(TapeError::NoSpace) => {
            tracing::warn!("the device that holds the cartridge is full");
            overflow(residual).into()
        }
        Err(TapeError::Worm) => Sense::new(Key::DataProtect, WORM_OVERWRITE).into(),
        Err(error) => {
            tracing::error!(%error, "a tape write failed");
            informed(Key::MediumError, Asc::WRITE_ERROR, residual).into()
        }
    }
}

/// A motion failed.
pub(super) fn moving(error: TapeError) -> Refusal {
    match common(error) {
        Ok(refusal) => refusal,
        Err(error) => {
            tracing::warn!(%error, "the tape could not be positioned");
            Refusal::check(Key::MediumError, Asc::SEQUENTIAL_POSITIONING_ERROR)
        }
    }
}

/// The cartridge has stopped after a write error.
pub(super) fn stopped() -> Refusal {
    Refusal::check(Key::HardwareError, Asc::INTERNAL_TARGET_FAILURE)
}

fn overflow(residual: u64) -> Sense {
    Sense {
        end_of_medium: true,
        ..informed(Key::VolumeOverflow, Asc::END_OF_PARTITION_MEDIUM_DETECTED, residual)
    }
}

fn common(error: TapeError) -> Result<Refusal, TapeError> {
    match error {
        TapeError::WouldBlock => Ok(Refusal::NotNow),
        TapeError::Stopped => Ok(stopped()),
        error => Err(error),
    }
}
