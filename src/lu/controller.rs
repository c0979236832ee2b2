//! The command device: a device server of type 0Ch, storage array controller device, without a medium.
//!
//! The unit has what SPC-4 demands of every type, and the default self-test. What it is there for, MANAGEMENT PROTOCOL, is executed
//! by who takes the requests to the array ([`ExecutedBy::Management`](crate::scsi::opcode::ExecutedBy)).

use super::{Answer, Buffers, DeviceServer, Patience, Refusal, Request};
use crate::sam::NexusId;
use crate::scsi::cdb::Command;
use crate::scsi::opcode::DeviceType;
use crate::scsi::sense::{Asc, Format, Sense};

/// The device server of one command device.
#[derive(Debug)]
pub(crate) struct CommandDevice;

impl DeviceServer for CommandDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Controller
    }

    fn execute(&self, request: &Request<'_>, _: &mut Buffers, _: Patience) -> Result<Answer, Refusal> {
        match request.command {
            // The default self-test: the unit answers.
            Command::SendDiagnostic | Command::TestUnitReady => Ok(Answer::Good),
            _ => Err(Sense::illegal_request(Asc::INVALID_COMMAND_OPERATION_CODE).into()),
        }
    }

    fn sense_format(&self) -> Format {
        Format::Fixed
    }

    fn vpd_pages(&self) -> &'static [u8] {
        &[]
    }

    fn vpd(&self, _: u8, _: &mut Vec<u8>) {}

    fn reset(&self) {}

    fn nexus_lost(&self, _: NexusId) {}
}
