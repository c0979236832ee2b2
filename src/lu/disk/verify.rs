//! VERIFY and WRITE AND VERIFY.

use super::read_write::{arrived, first_difference, miscompare};
use super::{Disk, STEP, check_cancelled, fault, may_sleep};
use crate::lu::{Answer, Buffers, Refusal, Request};
use crate::scsi::cdb::block::{ByteCheck, VerifyIo};
use crate::scsi::sense::{Asc, Sense};
use crate::store::{Durability, Patience};
use crate::units::BlockRange;

impl Disk {
    pub(super) fn verify(
        &self,
        io: VerifyIo,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range(io.lba, u64::from(io.count))?;
        let size = self.block_size();
        if range.length(size) > STEP {
            may_sleep(patience)?;
        }
        match io.check {
            ByteCheck::Medium => self.verify_medium(range, request, data, patience),
            ByteCheck::Compare => {
                data.wanted_out = range.length(size);
                let came = arrived(range, size, &data.data_out).len();
                self.compare(range, came, request, data, patience)
            }
            ByteCheck::CompareOne => {
                let block = if io.count == 0 { 0 } else { size.bytes() as usize };
                data.wanted_out = block as u64;
                if data.data_out.len() < block {
                    return Err(Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
                }
                self.compare_one(range, request, data, patience)
            }
        }
    }

    /// WRITE AND VERIFY: the blocks are on stable storage, and read back (BYTCHK 01b: equal), before it answers.
    pub(super) fn write_and_verify(
        &self,
        io: VerifyIo,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range(io.lba, u64::from(io.count))?;
        data.wanted_out = range.length(self.block_size());
        let came = arrived(range, self.block_size(), &data.data_out);
        if came.is_empty() {
            return Ok(Answer::Good);
        }
        may_sleep(patience)?;
        let (offset, length) = (range.offset(self.block_size()), came.len());
        // A write of another command between ours and the comparison would look like a fault of the medium.
        let _alone = self.guard.exclusive(offset, length as u64, patience)?;
        self.block.write(offset, came, Durability::Stable, patience).map_err(fault::writing)?;
        let written = BlockRange::within(
            range.lba(),
            length as u64 >> self.block_size().shift(),
            range.lba() + range.count(),
        )
        .unwrap_or(range);
        match io.check {
            ByteCheck::Medium => self.verify_medium(written, request, data, patience),
            ByteCheck::Compare | ByteCheck::CompareOne => {
                self.compare_held(written, length, request, data, patience)
            }
        }
    }

    /// That the medium can be read.
    fn verify_medium(
        &self,
        range: BlockRange,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let (_, scratch) = data.data_out_and_scratch();
        for (offset, length) in self.steps(range) {
            check_cancelled(request)?;
            scratch.resize(length, 0);
            self.block.read(offset, scratch, patience).map_err(fault::reading)?;
        }
        Ok(Answer::Good)
    }

    /// That the medium holds the first `came` bytes of the data-out.
    fn compare(
        &self,
        range: BlockRange,
        came: usize,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let _shared = self.guard.shared(range.offset(self.block_size()), came as u64, patience)?;
        self.compare_held(range, came, request, data, patience)
    }

    fn compare_held(
        &self,
        range: BlockRange,
        came: usize,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let (sent, scratch) = data.data_out_and_scratch();
        let base = range.offset(self.block_size());
        for (offset, length) in self.steps(range) {
            let done = (offset - base) as usize;
            let length = length.min(came.saturating_sub(done));
            if length == 0 {
                break;
            }
            check_cancelled(request)?;
            scratch.resize(length, 0);
            self.block.read(offset, scratch, patience).map_err(fault::reading)?;
            if let Some(difference) = first_difference(&sent[done..done + length], scratch) {
                return Err(miscompare(done + difference).into());
            }
        }
        Ok(Answer::Good)
    }

    /// That every block of the medium is the one block of the data-out.
    fn compare_one(
        &self,
        range: BlockRange,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let block = self.block_size().bytes() as usize;
        let (sent, scratch) = data.data_out_and_scratch();
        for (offset, length) in self.steps(range) {
            check_cancelled(request)?;
            scratch.resize(length, 0);
            self.block.read(offset, scratch, patience).map_err(fault::reading)?;
            let difference =
                scratch.chunks(block).find_map(|medium| first_difference(&sent[..block], medium));
            if let Some(difference) = difference {
                return Err(miscompare(difference).into());
            }
        }
        Ok(Answer::Good)
    }
}
