//! A medium that cannot be served: it stands behind the LUN of a volume whose files are damaged, foreign or missing.
//!
//! The LUN stays mapped, with its identity and capacity, and every access answers MEDIUM ERROR. So a host sees a
//! broken disk, and not that its disk has silently become another disk or none.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::VolumeEntry;
use crate::store::{Durability, Patience, StoreError};
use crate::units::BlockSize;
use crate::volume::Block;

/// The medium of a volume that cannot be served, or of an image of the volume.
pub(super) fn failed(of: &VolumeEntry, why: &str) -> Arc<dyn Block> {
    Arc::new(FailedBlock::new(of.block_size, of.size, why))
}

/// Blocks that cannot be read or written.
#[derive(Debug)]
pub(super) struct FailedBlock {
    block_size: BlockSize,
    length: u64,
    why: String,
}

impl FailedBlock {
    pub(super) fn new(block_size: BlockSize, length: u64, why: &str) -> Self {
        Self { block_size, length, why: why.to_owned() }
    }

    fn refuse<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::Corrupt(self.why.clone()))
    }
}

impl Block for FailedBlock {
    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, _offset: u64, _buffer: &mut [u8], _patience: Patience) -> Result<(), StoreError> {
        self.refuse()
    }

    fn write(&self, _: u64, _: &[u8], _: Durability, _: Patience) -> Result<(), StoreError> {
        self.refuse()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.refuse()
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<(), StoreError> {
        self.refuse()
    }

    fn next_data(&self, _offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.refuse()
    }
}
