//! Blocks: what a disk LU stands on. A plain volume is a [`Block`], and so is each side of a pair, so the device
//! server cannot tell them apart.
//!
//! Offsets and lengths are bytes and multiples of the block size (the LU has already checked the range against the
//! capacity; an implementation checks again and answers [`StoreError::OutOfRange`]). Rules for durability, zeros and
//! patience are those of [`crate::store`].

mod switch;

use std::fmt;
use std::ops::Range;

pub use switch::{Held, Switch};

use crate::store::{Durability, Patience, StoreError};
use crate::units::BlockSize;

/// A medium of logical blocks.
pub trait Block: Send + Sync + fmt::Debug {
    /// Logical block length.
    fn block_size(&self) -> BlockSize;

    /// Capacity in bytes, a multiple of the block size.
    fn length(&self) -> u64;

    /// Fills `buffer` from byte `offset`.
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError>;

    /// Writes `data` at byte `offset`.
    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError>;

    /// Makes every write that has returned durable. May wait.
    fn flush(&self) -> Result<(), StoreError>;

    /// Deallocates the range: it reads as zeros. May wait.
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError>;

    /// The first run at or after `offset` that may hold data; `None` when the rest reads as zeros. May wait.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError>;
}
