//! The home of a volume of which nothing lands, as a medium.
//!
//! A pair in COPY, PAIR or RCPY brings everything of its primary home first, and lets nothing land. It writes to the home
//! itself. Others may have images of the volume all the same: what they need is kept before each write.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{LandedVolume, Outcome};
use crate::store::{Durability, Patience, StoreError};
use crate::units::BlockSize;
use crate::volume::Block;

/// The home of a volume. A write is [`StoreError::NoSpace`], and changes nothing, if a keeper has no room for what the write
/// overwrites.
pub(crate) struct HomeOf(Arc<LandedVolume>);

impl HomeOf {
    pub(crate) fn new(volume: Arc<LandedVolume>) -> Self {
        Self(volume)
    }

    /// A refusal goes to the caller, and to nobody else: there may be room when the next one asks.
    fn ask_for_room(&self, outcome: Outcome) -> Result<(), StoreError> {
        match outcome {
            Outcome::Landed => Ok(()),
            Outcome::Full => Err(self.0.refusal()),
        }
    }
}

impl Block for HomeOf {
    fn block_size(&self) -> BlockSize {
        self.0.home().block_size()
    }

    fn length(&self) -> u64 {
        self.0.home().length()
    }

    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.home().read(offset, buffer, patience)
    }

    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        if patience == Patience::Now {
            return Err(StoreError::WouldBlock);
        }
        self.0.try_write_home(offset, data, durability).and_then(|outcome| self.ask_for_room(outcome))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.home().flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.0.try_discard(&(offset..offset + length)).and_then(|outcome| self.ask_for_room(outcome))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.home().next_data(offset)
    }
}

impl fmt::Debug for HomeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "home of {:?}", self.0)
    }
}
