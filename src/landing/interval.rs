//! Intervals: the time from one image of the volume to the next.
//!
//! The owner of the images numbers them, ascending. A landed write belongs to the interval with the number of the youngest
//! image when it landed, 0 if there was none. So image `n` is home, when all intervals before `n` are there, and over it
//! what is still in the log of those intervals; interval `n` and the later ones are not in it. Each interval supersedes
//! its own writes only ([`super::map`]), and comes home as a whole before the next one ([`super::batch`]).
//!
//! An interval begins with a new segment, which has its number in the header, so nothing is written here. A crash finds
//! the interval by what has landed in it; if nothing has, there is nothing to tell apart.

use super::Outcome;
use super::format::COUNT_MAX;
use super::log::{Landing, Log};
use crate::store::StoreError;

/// The most intervals that may have writes in a log. Each costs a look-up of a reader.
pub(super) const INTERVALS: usize = 8;

impl Landing {
    /// What lands from now on belongs to the interval `number`; no I/O. Numbers that are not above the present one change
    /// nothing: an interval has the number of the youngest image of its time, or a higher one of an image that is gone.
    /// [`Outcome::Full`]: too many intervals have writes in the log, and nothing has changed; bring some home.
    ///
    /// A write that is under way belongs to the earlier interval or to the later one.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] if no log can count so far.
    pub fn begin_interval(&self, number: u64) -> Result<Outcome, StoreError> {
        self.begin(number, INTERVALS)
    }

    /// The same without a bound. The bound is there for the time of look-ups alone.
    ///
    /// # Errors
    /// As [`Landing::begin_interval`].
    pub(super) fn resume_interval(&self, number: u64) -> Result<(), StoreError> {
        self.begin(number, usize::MAX).map(drop)
    }

    fn begin(&self, number: u64, most: usize) -> Result<Outcome, StoreError> {
        if number > COUNT_MAX {
            return Err(StoreError::OutOfRange { offset: number, length: 0, store: COUNT_MAX });
        }
        let mut log = self.log.lock();
        if number <= log.interval {
            return Ok(Outcome::Landed);
        }
        if log.intervals() >= most {
            return Ok(Outcome::Full);
        }
        log.seal();
        log.interval = number;
        Ok(Outcome::Landed)
    }

    /// Whether another interval can begin: others than the caller only make room for it.
    #[must_use]
    pub fn can_begin(&self) -> bool {
        self.log.lock().intervals() < INTERVALS
    }

    /// The interval to which belongs what lands now.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.log.lock().interval
    }

    /// Whether anything of an earlier interval than the present one may be in the log still.
    #[must_use]
    pub(super) fn has_earlier(&self) -> bool {
        let log = self.log.lock();
        log.segments.front().is_some_and(|oldest| oldest.interval < log.interval) && !self.is_empty()
    }
}

impl Log {
    /// How many intervals have segments.
    fn intervals(&self) -> usize {
        let (mut count, mut at) = (0, 0);
        while let Some(segment) = self.segments.get(at) {
            at = self.segments.partition_point(|other| other.interval <= segment.interval);
            count += 1;
        }
        count
    }
}
