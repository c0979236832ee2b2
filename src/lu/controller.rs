//! The command device: a device server of type 0Ch, storage array controller device, without a medium.
//!
//! The unit has only what SPC-4 demands of every type, and MODE SENSE of facts. What it is there for, MANAGEMENT PROTOCOL, is executed
//! by who takes the requests to the array ([`ExecutedBy::Management`](crate::scsi::opcode::ExecutedBy)).

use super::{Answer, Buffers, DeviceServer, Patience, Refusal, Request};
use crate::sam::NexusId;
use crate::scsi::cdb::Command;
use crate::scsi::cdb::primary::ModeSense;
use crate::scsi::mode::{BlockDescriptor, Parameters, pages};
use crate::scsi::opcode::DeviceType;
use crate::scsi::sense::{Asc, Format, Sense};
use crate::wire::Truncated;

/// The device server of one command device.
#[derive(Debug)]
pub(crate) struct CommandDevice {
    modes: Parameters,
}

impl CommandDevice {
    pub(crate) fn new() -> Self {
        Self { modes: Parameters::new(&pages::CONTROLLER) }
    }
}

impl DeviceServer for CommandDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Controller
    }

    fn execute(&self, request: &Request<'_>, data: &mut Buffers, _: Patience) -> Result<Answer, Refusal> {
        match request.command {
            Command::ModeSense(asked) => {
                // Without a medium there is no block descriptor.
                let none = BlockDescriptor::Disk { blocks: 0, length: 0 };
                let mut out = Truncated::new(data.data_in(), usize::from(asked.allocation));
                let asked = ModeSense { disable_block_descriptors: true, long_lba_accepted: false, ..asked };
                self.modes.sense(&asked, 0, none, &mut out)?;
                Ok(Answer::Good)
            }
            // The default self-test: the unit answers.
            Command::SendDiagnostic | Command::TestUnitReady => Ok(Answer::Good),
            _ => Err(Sense::illegal_request(Asc::INVALID_COMMAND_OPERATION_CODE).into()),
        }
    }

    fn sense_format(&self) -> Format {
        self.modes.sense_format()
    }

    fn vpd_pages(&self) -> &'static [u8] {
        &[]
    }

    fn vpd(&self, _: u8, _: &mut Vec<u8>) {}

    fn reset(&self) {}

    fn nexus_lost(&self, _: NexusId) {}
}
