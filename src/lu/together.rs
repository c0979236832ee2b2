//! Writes that a front has received together, and that are started together.
//!
//! Where several writes cost less together than one by one ([`DeviceServer::gathers`](super::DeviceServer::gathers)), a
//! front that has more commands in hand does not start an admitted write at once. It keeps the [`Work`] here, and starts
//! all of them before it does anything else: before another command is admitted that is no such write, before anything
//! else is handled, and before it waits. For the task set and for other threads these tasks run; this thread has only
//! not come to them yet. So nothing that others see differs from a slower thread:
//!
//! * A task is kept only for as long as this thread takes the commands behind it, at most [`MOST`], from its memory.
//! * They are started in the order in which they came. A write that overlaps an earlier one is not in one group with it, so
//!   the order within a group shows nowhere.
//! * An abort that comes between admission and start is seen at the start, as for any task.
//! * Each work is still the duty to end its task. A write of a group that fails is started by itself and tells
//!   its own error.

use super::work::Work;
use crate::sam::Attribute;

use super::Task;

/// The most writes that are started together.
const MOST: usize = 32;

/// WRITE(6), WRITE(10), WRITE(12), WRITE(16).
const WRITES: [u8; 4] = [0x0A, 0x2A, 0xAA, 0x8A];

/// Writes to one unit that have been admitted and not started.
#[derive(Debug, Default)]
pub(crate) struct Together(Vec<Work>);

impl Together {
    /// Before `task` is admitted: starts what is kept, unless `task` may be kept, too. So no task is held in the task set
    /// by one that is kept here.
    pub(crate) fn before(&mut self, task: &Task) {
        if task.attribute != Attribute::Simple || !WRITES.contains(&task.cdb.opcode()) {
            self.start();
        }
    }

    /// Keeps `work`, or starts it after all that is kept.
    pub(crate) fn take(&mut self, work: Work) {
        if !work.may_gather() {
            self.start();
            return work.begin();
        }
        if self.0.first().is_some_and(|first| !work.has_unit_of(first)) {
            self.start();
        }
        self.0.push(work);
        if self.0.len() == MOST {
            self.start();
        }
    }

    /// Starts what is kept.
    pub(crate) fn start(&mut self) {
        if !self.0.is_empty() {
            // Taken out first: a panic must not find the works here again.
            let mut works = std::mem::take(&mut self.0);
            Work::start_together(&mut works);
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.start();
    }
}
