//! What waits to be sent: header bytes, and the data buffers that stand between them, ready for one vectored write.
//!
//! Headers, padding, digests and short data share one byte queue; longer data stays in the buffer that the command
//! filled and is never copied. Buffers that have been sent go to the [`Pool`], from which the next command takes its
//! own, so a busy connection allocates nothing. Both are bounded.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use super::bhs::Bhs;
use super::framer::{Digests, digest};
use crate::wire::pad4;

/// Data up to this length is copied behind its header: cheaper than an entry of its own in the vectored write.
const INLINE_MAX: usize = 512;
/// Sent bytes are cut off the byte queue when there are this many and it has not run empty by itself.
const COMPACT_AT: usize = 64 * 1024;

/// Buffers to be used again.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Most buffers that are kept.
    pub const MAX_BUFFERS: usize = 256;
    /// Most bytes that are kept.
    pub const MAX_BYTES: usize = 8 << 20;

    /// An empty buffer, with an allocation if one is at hand.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps an allocation for later, if there is room for it.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && self.free.len() < Self::MAX_BUFFERS && self.bytes + capacity <= Self::MAX_BYTES {
            buffer.clear();
            self.bytes += capacity;
            self.free.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Piece {
    /// This many bytes of the byte queue.
    Inline(usize),
    /// This part of the first buffer that no earlier piece is the last of.
    Data { range: Range<usize>, last: bool },
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Output {
    inline: Vec<u8>,
    inline_sent: usize,
    pieces: VecDeque<Piece>,
    buffers: VecDeque<Vec<u8>>,
    queued: usize,
    digests: Digests,
    /// Where sent buffers go.
    pub pool: Pool,
}

impl Output {
    /// Uses these digests from the next PDU on.
    pub fn negotiated(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Bytes that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Queues a PDU whose data segment is `parts` one after the other; they are copied.
    pub fn push(&mut self, bhs: &Bhs, parts: &[&[u8]]) {
        let start = self.inline.len();
        self.put_header(bhs);
        let length: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert_eq!(length, bhs.data_length());
        if length > 0 {
            let data = self.inline.len();
            parts.iter().for_each(|part| self.inline.extend_from_slice(part));
            self.inline.resize(data + pad4(length), 0);
            if self.digests.data {
                let digest = digest(&[&self.inline[data..]]);
                self.inline.extend_from_slice(&digest);
            }
        }
        self.count_inline(start);
    }

    /// Queues PDUs whose data segments are these parts of `buffer`, in order; the buffer is not copied unless short.
    pub fn push_parts(&mut self, buffer: Vec<u8>, pdus: impl Iterator<Item = (Bhs, Range<usize>)>) {
        if buffer.len() <= INLINE_MAX {
            pdus.for_each(|(bhs, range)| self.push(&bhs, &[&buffer[range]]));
            return self.pool.give(buffer);
        }
        let mut last_piece = None;
        for (bhs, range) in pdus {
            let start = self.inline.len();
            self.put_header(&bhs);
            self.count_inline(start);
            last_piece = Some(self.pieces.len());
            self.queued += range.len();
            self.pieces.push_back(Piece::Data { range: range.clone(), last: false });
            let start = self.inline.len();
            let padding = &[0; 3][..pad4(range.len()) - range.len()];
            self.inline.extend_from_slice(padding);
            if self.digests.data {
                let digest = digest(&[&buffer[range], padding]);
                self.inline.extend_from_slice(&digest);
            }
            self.count_inline(start);
        }
        match last_piece.and_then(|at| self.pieces.get_mut(at)) {
            Some(Piece::Data { last, .. }) => {
                *last = true;
                self.buffers.push_back(buffer);
            }
            _ => self.pool.give(buffer),
        }
    }

    fn put_header(&mut self, bhs: &Bhs) {
        debug_assert_eq!(bhs.ahs_length(), 0);
        self.inline.extend_from_slice(&bhs.0);
        if self.digests.header {
            let digest = digest(&[&bhs.0]);
            self.inline.extend_from_slice(&digest);
        }
    }

    fn count_inline(&mut self, start: usize) {
        let added = self.inline.len() - start;
        self.queued += added;
        match self.pieces.back_mut() {
            _ if added == 0 => {}
            Some(Piece::Inline(length)) => *length += added,
            _ => self.pieces.push_back(Piece::Inline(added)),
        }
    }

    /// Points `slices` at what is to be sent next and tells how many of them are used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut inline, mut buffer, mut used) = (self.inline_sent, 0, 0);
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = match piece {
                Piece::Inline(length) => {
                    inline += length;
                    IoSlice::new(&self.inline[inline - length..inline])
                }
                Piece::Data { range, last } => {
                    buffer += usize::from(*last);
                    IoSlice::new(&self.buffers[buffer - usize::from(*last)][range.clone()])
                }
            };
            used += 1;
        }
        used
    }

    /// The first `count` bytes of the queue have been sent.
    pub fn sent(&mut self, count: usize) {
        let mut left = count.min(self.queued);
        self.queued -= left;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let (taken, done) = match piece {
                Piece::Inline(length) => {
                    let taken = left.min(*length);
                    *length -= taken;
                    self.inline_sent += taken;
                    (taken, *length == 0)
                }
                Piece::Data { range, .. } => {
                    let taken = left.min(range.len());
                    range.start += taken;
                    (taken, range.start >= range.end)
                }
            };
            left -= taken;
            if done
                && let Some(Piece::Data { last: true, .. }) = self.pieces.pop_front()
                && let Some(buffer) = self.buffers.pop_front()
            {
                self.pool.give(buffer);
            }
        }
        if self.inline_sent == self.inline.len() {
            self.inline.clear();
            self.inline_sent = 0;
        } else if self.inline_sent >= COMPACT_AT {
            self.inline.drain(..self.inline_sent);
            self.inline_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iscsi::bhs::Opcode;
    use crate::iscsi::framer::Framer;

    fn bhs(length: usize) -> Bhs {
        let mut bhs = Bhs([0xA5; 48]);
        bhs.reset(Opcode::DATA_IN, false, length as u32);
        bhs
    }

    fn drain(output: &mut Output, step: usize, max_slices: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        while output.queued() > 0 {
            let mut slices = vec![IoSlice::new(&[]); max_slices];
            let used = output.slices(&mut slices);
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = step.min(bytes.len());
            wire.extend(&bytes[..count]);
            output.sent(count);
        }
        wire
    }

    #[test]
    fn long_data_is_not_copied_and_its_buffer_comes_back() {
        let mut output = Output::default();
        let buffer = vec![7; 4096];
        let address = buffer.as_ptr();
        output.push_parts(buffer, [(bhs(4096), 0..4096)].into_iter());
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.slices(&mut slices), 2);
        assert_eq!((slices[0].len(), slices[1].as_ptr()), (48, address));
        output.sent(48 + 4096);
        let back = output.pool.take();
        assert_eq!(back.as_ptr(), address);
    }

    #[test]
    fn a_buffer_that_no_pdu_points_into_comes_back_at_once() {
        let mut output = Output::default();
        output.push_parts(vec![7; 4096], std::iter::empty());
        assert_eq!((output.queued(), output.pool.take().capacity()), (0, 4096));
    }

    #[test]
    fn the_pool_is_bounded_in_bytes() {
        let mut pool = Pool::default();
        (0..100).for_each(|_| pool.give(Vec::with_capacity(1 << 20)));
        assert_eq!(pool.free.len(), Pool::MAX_BYTES >> 20);
        pool.give(Vec::with_capacity(Pool::MAX_BYTES + 1));
        assert!(pool.bytes <= Pool::MAX_BYTES);
    }

    proptest! {
        #[test]
        fn what_is_queued_is_what_a_framer_reads(
            sizes in prop::collection::vec((1usize..3000, any::<bool>()), 1..12), step in 1usize..5000,
            max_slices in 1usize..9, header: bool, data: bool,
        ) {
            let digests = Digests { header, data };
            let (mut output, mut framer) = (Output::default(), Framer::new());
            output.negotiated(digests);
            framer.negotiated(8192, digests);
            for (size, whole) in &sizes {
                let buffer = vec![*size as u8; *size];
                if *whole {
                    output.push(&bhs(*size), &[&buffer[..size / 2], &buffer[size / 2..]]);
                } else {
                    let half = size / 2;
                    output.push_parts(buffer, [(bhs(half), 0..half), (bhs(size - half), half..*size)].into_iter());
                }
            }
            let wire = drain(&mut output, step, max_slices);
            prop_assert!(output.buffers.is_empty() && output.inline.is_empty());
            let mut rest = &wire[..];
            let mut seen = 0;
            while !rest.is_empty() {
                let count = framer.space().len().min(rest.len());
                framer.space()[..count].copy_from_slice(&rest[..count]);
                framer.filled(count);
                rest = &rest[count..];
                while let Some(frame) = framer.next().unwrap() {
                    prop_assert!(frame.data_intact);
                    seen += frame.data.len();
                }
            }
            prop_assert_eq!(seen, sizes.iter().map(|(size, _)| size).sum::<usize>());
        }
    }
}
