//! READ CAPACITY: what the medium is.

use super::Disk;
use crate::lu::{Answer, Buffers};
use crate::wire::{Put, Truncated};

/// LBPME and LBPRZ (SBC-3 table 65): thin, and a deallocated block reads as zeros.
const THIN_READS_ZEROS: u16 = 0xC000;

/// Length of the parameter data of READ CAPACITY(16).
const CAPACITY_16_LENGTH: usize = 32;

impl Disk {
    /// READ CAPACITY(10): a last block that needs more than 32 bits is FFFFFFFFh.
    pub(super) fn read_capacity_10(&self, data: &mut Buffers) -> Answer {
        let last = self.capacity().saturating_sub(1);
        let out = data.data_in();
        out.put_u32(u32::try_from(last).unwrap_or(u32::MAX));
        out.put_u32(self.block_size().bytes());
        Answer::Good
    }

    /// READ CAPACITY(16).
    pub(super) fn read_capacity_16(&self, allocation: u32, data: &mut Buffers) -> Answer {
        let last = self.capacity().saturating_sub(1);
        let block = self.block_size().bytes();
        let mut out = Truncated::new(data.data_in(), allocation as usize);
        out.put_u64(last);
        out.put_u32(block);
        out.put_u16(0); // no protection information; one logical block is one physical block
        out.put_u16(THIN_READS_ZEROS);
        out.put_zeros(CAPACITY_16_LENGTH - 16);
        Answer::Good
    }
}
