//! READ, WRITE, COMPARE AND WRITE, PRE-FETCH and SYNCHRONIZE CACHE.

use super::walk::Walk;
use super::{Disk, fault, may_sleep};
use crate::lu::{Answer, Buffers, Executed, GatheredWrite, Refusal, Request};
use crate::scsi::cdb::Command;
use crate::scsi::cdb::block::{BlockIo, Span, StartStopUnit};
use crate::scsi::limits::MAX_PREFETCH;
use crate::scsi::sense::{Asc, Key, Sense};
use crate::store::{Durability, Patience};
use crate::units::{BlockRange, BlockSize};
use crate::volume::{Mark, Write};

impl Disk {
    pub(super) fn read(
        &self,
        io: BlockIo,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range(io.lba, u64::from(io.count))?;
        let (offset, length) = (range.offset(self.block_size()), range.length(self.block_size()));
        if length == 0 {
            return Ok(Answer::Good);
        }
        let _shared = self.guard.shared(offset, length, patience)?;
        if io.force_unit_access {
            // The read must come from the medium (SBC-3 5.11), so a newer version in the cache must be written first.
            may_sleep(patience)?;
            self.block.flush().map_err(|error| fault::writing(&self.object, error))?;
        }
        // Blocks for which the initiator has no room are not read.
        let buffer = data.data_in_of(length as usize, self.block_size().bytes() as usize);
        if !buffer.is_empty() {
            self.block.read(offset, buffer, patience).map_err(|error| fault::reading(&self.object, error))?;
        }
        Ok(Answer::Good)
    }

    /// WRITE. `written`: [`Disk::write_gathered`] has written the data, and it must be durable before the answer.
    pub(super) fn write(
        &self,
        io: BlockIo,
        written: Option<Mark>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range(io.lba, u64::from(io.count))?;
        data.wanted_out = range.length(self.block_size());
        let came = arrived(range, self.block_size(), &data.data_out);
        if came.is_empty() {
            return Ok(Answer::Good);
        }
        if let Some(mark) = written {
            may_sleep(patience)?;
            let flushed = self.block.flush_together(mark);
            flushed.map_err(|error| fault::writing(&self.object, error))?;
            return Ok(Answer::Good);
        }
        let offset = range.offset(self.block_size());
        let _shared = self.guard.shared(offset, came.len() as u64, patience)?;
        let durability = self.modes.durability(io.force_unit_access); // asked under the guard: see modes
        self.block
            .write(offset, came, durability, patience)
            .map_err(|error| fault::writing(&self.object, error))?;
        Ok(Answer::Good)
    }

    /// Those of `gathered`, from the first one on, that need nothing but their data on the medium and do not overlap. With
    /// the first other one the group ends, so that it and what comes behind it have their places in the order. Those that must
    /// be stable are flushed in a step of their own, which many of them share.
    pub(super) fn write_gathered(&self, gathered: &mut [GatheredWrite<'_>]) {
        if self.modes.write_protected() {
            return;
        }
        let (mut guards, mut writes) = (Vec::new(), Vec::<Write<'_>>::with_capacity(gathered.len()));
        let mut wanted = Vec::with_capacity(gathered.len());
        let before = self.block.together_mark();
        for write in &*gathered {
            let Command::Write(io) = write.command else { break };
            let Ok(range) = self.range(io.lba, u64::from(io.count)) else { break };
            let came = arrived(range, self.block_size(), &write.buffers.data_out);
            let offset = range.offset(self.block_size());
            let end = offset + came.len() as u64;
            let overlaps =
                |other: &Write<'_>| other.offset < end && offset < other.offset + other.data.len() as u64;
            if came.is_empty()
                || self.limits().check(write.row, write.command).is_err()
                || writes.iter().any(overlaps)
            {
                break;
            }
            let Ok(guard) = self.guard.shared(offset, came.len() as u64, Patience::Now) else { break };
            guards.push(guard);
            let durability = self.modes.durability(io.force_unit_access);
            if durability == Durability::Stable && before.is_none() {
                break;
            }
            wanted.push((durability, range.length(self.block_size())));
            writes.push(Write { offset, data: came, done: false });
        }
        self.block.write_together(&mut writes);
        // A mark of another life is not about these writes. Without one they are flushed with all that comes before the flush.
        let mark = before.map(|before| {
            let after = self.block.together_mark().filter(|after| after.life == before.life);
            after.unwrap_or(Mark { changes: u64::MAX, ..before })
        });
        let done: Vec<bool> = writes.iter().map(|write| write.done).collect();
        for ((write, done), (durability, wanted)) in gathered.iter_mut().zip(done).zip(wanted) {
            write.buffers.wanted_out = wanted;
            write.executed = match (durability, mark) {
                _ if !done => Executed::No,
                (Durability::Cached | Durability::Passing, _) => Executed::Good,
                (Durability::Stable, Some(mark)) => Executed::Written(mark),
                (Durability::Stable, None) => Executed::No,
            };
        }
    }

    /// COMPARE AND WRITE (SBC-3 5.3): no other command comes between the comparison and the write, and readers see
    /// the blocks before or after the write, never in between.
    pub(super) fn compare_and_write(
        &self,
        io: BlockIo,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range(io.lba, u64::from(io.count))?;
        let (offset, length) = (range.offset(self.block_size()), range.length(self.block_size()));
        data.wanted_out = 2 * length;
        if length == 0 && data.data_out.is_empty() {
            return Ok(Answer::Good);
        }
        if length == 0 {
            // SBC-3 5.2 allows zero blocks, but data for 256 blocks came: the count did not fit its byte. GOOD would
            // claim that these blocks were compared and written.
            return Err(Sense::invalid_cdb_byte(13).into());
        }
        let (sent, medium) = data.data_out_and_scratch();
        if sent.len() as u64 != 2 * length {
            return Err(Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
        }
        let (expected, new) = sent.split_at(length as usize);
        medium.resize(length as usize, 0);
        let _alone = self.guard.exclusive(offset, length, patience)?;
        self.block.read(offset, medium, patience).map_err(|error| fault::reading(&self.object, error))?;
        if let Some(difference) = first_difference(expected, medium) {
            return Err(miscompare(difference).into());
        }
        let durability = self.modes.durability(io.force_unit_access);
        self.block
            .write(offset, new, durability, patience)
            .map_err(|error| fault::writing(&self.object, error))?;
        Ok(Answer::Good)
    }

    /// PRE-FETCH: reads the blocks, so that the store has them in its cache. The command is a hint, so without a
    /// count it reads as many blocks as the longest one with a count. It answers GOOD and not CONDITION MET, because
    /// the store does not promise to keep the blocks.
    pub(super) fn prefetch(
        &self,
        span: Span,
        request: &Request<'_>,
        data: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let range = self.range_to_end(span.lba, span.count)?;
        may_sleep(patience)?;
        let (_, scratch) = data.data_out_and_scratch();
        let walk = Walk { from: 0, most: MAX_PREFETCH };
        match self.walk(range, walk, (request, patience), scratch, |_, _| Ok(())) {
            Ok(()) | Err(Refusal::Unfinished(_)) => Ok(Answer::Good),
            Err(refusal) => Err(refusal),
        }
    }

    /// SYNCHRONIZE CACHE. Makes the whole cache stable, also with IMMED: an earlier answer would promise nothing of
    /// value.
    pub(super) fn synchronize(&self, span: Span, patience: Patience) -> Result<Answer, Refusal> {
        self.range_to_end(span.lba, span.count)?;
        may_sleep(patience)?;
        self.block.flush().map_err(|error| fault::writing(&self.object, error))?;
        Ok(Answer::Good)
    }

    /// START STOP UNIT. Nothing spins, so the unit is always started. Stopping makes the cache stable, because the
    /// host is about to turn the power off. There is no medium to eject and there are no power conditions.
    pub(super) fn start_stop(&self, unit: StartStopUnit, patience: Patience) -> Result<Answer, Refusal> {
        if unit.power_condition.is_some() {
            return Err(Sense::invalid_cdb_bit(4, 7).into());
        }
        if unit.load_eject {
            return Err(Sense::invalid_cdb_bit(4, 1).into());
        }
        if !unit.start && !unit.no_flush {
            may_sleep(patience)?;
            self.block.flush().map_err(|error| fault::writing(&self.object, error))?;
        }
        Ok(Answer::Good)
    }
}

/// The whole blocks of `range` that `sent` covers.
pub(super) fn arrived(range: BlockRange, size: BlockSize, sent: &[u8]) -> &[u8] {
    let came = (sent.len() as u64).min(range.length(size)) >> size.shift() << size.shift();
    &sent[..came as usize]
}

pub(super) fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None; // the common case, as fast as memory
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// MISCOMPARE. INFORMATION is the offset in the data-out of the first byte that differs.
pub(super) fn miscompare(difference: usize) -> Sense {
    Sense {
        information: Some(difference as u64),
        ..Sense::new(Key::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION)
    }
}
