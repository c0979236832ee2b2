//! MODE SENSE and MODE SELECT: one set of parameters for all nexuses.
//!
//! What every command looks at (the sense format, software write protection) is kept in flags beside the parameters,
//! so that no command but these two takes the lock.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Disk;
use crate::lu::{Answer, Buffers, Refusal, Request};
use crate::scsi::cdb::primary::{ModeSelect, ModeSense};
use crate::scsi::mode::{BlockDescriptor, DPO_AND_FUA, Parameters, WRITE_PROTECTED, pages};
use crate::scsi::sense::{Asc, Format};
use crate::wire::Truncated;

/// The mode parameters of a disk.
#[derive(Debug)]
pub(super) struct Modes {
    parameters: Mutex<Parameters>,
    descriptor_sense: AtomicBool,
    write_protected: AtomicBool,
}

impl Modes {
    pub(super) fn new() -> Self {
        let this = Self {
            parameters: Mutex::new(Parameters::new(&pages::DISK)),
            descriptor_sense: AtomicBool::new(false),
            write_protected: AtomicBool::new(false),
        };
        this.publish(&this.parameters.lock());
        this
    }

    /// Back to the defaults.
    pub(super) fn reset(&self) {
        let mut parameters = self.parameters.lock();
        parameters.reset();
        self.publish(&parameters);
    }

    pub(super) fn sense_format(&self) -> Format {
        if self.descriptor_sense.load(Ordering::Acquire) { Format::Descriptor } else { Format::Fixed }
    }

    /// SWP.
    pub(super) fn write_protected(&self) -> bool {
        self.write_protected.load(Ordering::Acquire)
    }

    fn publish(&self, parameters: &Parameters) {
        self.descriptor_sense.store(parameters.sense_format() == Format::Descriptor, Ordering::Release);
        self.write_protected.store(parameters.software_write_protected(), Ordering::Release);
    }
}

impl Disk {
    pub(super) fn mode_sense(
        &self,
        asked: ModeSense,
        request: &Request<'_>,
        data: &mut Buffers,
    ) -> Result<Answer, Refusal> {
        let protected = request.read_only() || self.modes.write_protected();
        let device_specific = DPO_AND_FUA | if protected { WRITE_PROTECTED } else { 0 };
        let descriptor = BlockDescriptor::Disk { blocks: self.capacity(), length: self.block_size().bytes() };
        let mut out = Truncated::new(data.data_in(), usize::from(asked.allocation));
        self.modes.parameters.lock().sense(&asked, device_specific, descriptor, &mut out)?;
        Ok(Answer::Good)
    }

    /// MODE SELECT: all of the list, or nothing. The other nexuses hear of a change (SPC-4 6.10).
    pub(super) fn mode_select(
        &self,
        select: ModeSelect,
        request: &Request<'_>,
        data: &mut Buffers,
    ) -> Result<Answer, Refusal> {
        data.wanted_out = u64::from(select.length);
        let changed = {
            let mut parameters = self.modes.parameters.lock();
            let selection = parameters.select(&select, &data.data_out)?;
            selection.disk(self.capacity(), self.block_size().bytes())?;
            let changed = parameters.apply(selection);
            self.modes.publish(&parameters);
            changed
        };
        if changed {
            request.attention_to_others(Asc::MODE_PARAMETERS_CHANGED);
        }
        Ok(Answer::Good)
    }
}
