//! The volume under an origin, as of an image.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::landing::{Keeper, LandedVolume, Outcome};
use crate::store::{Patience, StoreError};
use crate::volume::Block;

/// The volume with its landing log.
#[derive(Debug)]
pub(super) struct Below(Arc<LandedVolume>);

impl Below {
    pub(super) fn new(volume: Arc<LandedVolume>) -> Self {
        Self(volume)
    }

    pub(super) fn volume(&self) -> &LandedVolume {
        &self.0
    }

    pub(super) fn home(&self) -> &dyn Block {
        self.0.home()
    }

    /// What lands from now on belongs to the interval `number`.
    pub(super) fn begin_interval(&self, _: u64) -> Result<Outcome, StoreError> {
        Ok(Outcome::Landed)
    }

    /// Home, and over it what landed before image `number`.
    pub(super) fn read_as_of(
        &self,
        _: u64,
        offset: u64,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.0.home().read(offset, buffer, patience)
    }

    pub(super) fn next_data_as_of(&self, _: u64, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.home().next_data(offset)
    }

    /// The first bytes at or after `offset` that landed in the intervals `numbers` and are still in the log.
    pub(super) fn next_landed(&self, _: Range<u64>, _: u64) -> Option<Range<u64>> {
        None
    }

    pub(super) fn keep_by(&self, keeper: Weak<dyn Keeper>) {
        self.0.keep_by(keeper);
    }

    pub(super) fn release_from(&self, keeper: &Weak<dyn Keeper>) {
        self.0.release_from(keeper);
    }
}
