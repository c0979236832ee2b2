//! The commands that every logical unit answers in the same way: INQUIRY, REQUEST SENSE, the REPORT commands, RESERVE
//! and RELEASE.

use super::attention::Attention;
use super::server::{Answer, Buffers, Refusal, Request};
use super::unit::{LogicalUnit, LunInventory};
use crate::sam::{Nexus, Status};
use crate::scsi::cdb::Command;
use crate::scsi::cdb::primary::{Inquiry, LunSelection, ReportLuns};
use crate::scsi::designator::Designator;
use crate::scsi::inquiry::StandardInquiry;
use crate::scsi::opcode::DeviceType;
use crate::scsi::sense::{Asc, Format, Key, Sense};
use crate::scsi::{report, vpd, xcopy};
use crate::wire::{Put, Truncated};

/// PRODUCT REVISION LEVEL: the version of this program.
pub(super) const REVISION: &str =
    concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// The VPD pages of every unit, in ascending order. The pages of the command sets come behind them.
const PAGES: [u8; 5] = [
    vpd::SUPPORTED_PAGES,
    vpd::UNIT_SERIAL_NUMBER,
    vpd::DEVICE_IDENTIFICATION,
    vpd::EXTENDED_INQUIRY,
    vpd::THIRD_PARTY_COPY,
];

/// Whether the copy manager is behind units of this type. A command device has no data to copy.
fn copies(device: DeviceType) -> bool {
    device != DeviceType::Controller
}

/// Executes the command; `None` if it is none of these.
pub(super) fn execute(
    unit: &LogicalUnit,
    request: &Request<'_>,
    data: &mut Buffers,
) -> Option<Result<Answer, Refusal>> {
    let way = request.nexus;
    Some(match request.command {
        Command::Inquiry(inquiry) => self::inquiry(unit, inquiry, way.nexus(), data.data_in()),
        Command::RequestSense(request) => {
            let sense = pending(way.attention());
            request_sense(&sense, request.format, request.allocation, data.data_in());
            Ok(Answer::Good)
        }
        Command::ReportLuns(report) => {
            way.clear(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
            report_luns(way.inventory(), report, data.data_in());
            Ok(Answer::Good)
        }
        Command::ReportSupportedOperationCodes(asked) => {
            let mut out = Truncated::new(data.data_in(), asked.allocation as usize);
            let device = unit.server().device_type();
            match report::operation_codes(device, asked.options, asked.timeouts, &mut out) {
                Ok(()) => Ok(Answer::Good),
                Err(sense) => Err(sense.into()),
            }
        }
        Command::ReportSupportedTaskManagementFunctions(asked) => {
            let mut out = Truncated::new(data.data_in(), asked.allocation as usize);
            report::task_management_functions(asked.extended, &mut out);
            Ok(Answer::Good)
        }
        Command::Reserve => {
            let reserved = unit.reservations().reserve(way.reserves_as());
            reserved.then_some(Answer::Good).ok_or(Refusal::Status(Status::ReservationConflict))
        }
        Command::Release => {
            unit.reservations().release(way.reserves_as());
            Ok(Answer::Good)
        }
        _ => return None,
    })
}

/// The answer to REQUEST SENSE: the oldest unit attention condition, which is cleared by this, or nothing.
fn pending(attention: &Attention) -> Sense {
    attention
        .take()
        .map_or_else(|| Sense::new(Key::NoSense, Asc::NO_ADDITIONAL_SENSE_INFORMATION), Sense::unit_attention)
}

/// Appends the data of REQUEST SENSE.
pub(super) fn request_sense(sense: &Sense, format: Format, allocation: u8, out: &mut Vec<u8>) {
    Truncated::new(out, usize::from(allocation)).put_slice(&sense.encode(format));
}

/// Appends the data of REPORT LUNS, and clears pending REPORTED LUNS DATA HAS CHANGED conditions (SPC-4 6.33). This
/// array has no well-known logical units.
pub(super) fn report_luns(inventory: &dyn LunInventory, report: ReportLuns, out: &mut Vec<u8>) {
    inventory.reported();
    let luns = match report.select {
        LunSelection::Ordinary | LunSelection::All => inventory.luns(),
        LunSelection::WellKnown => Vec::new(),
    };
    report::luns(&luns, &mut Truncated::new(out, report.allocation as usize));
}

fn inquiry(
    unit: &LogicalUnit,
    inquiry: Inquiry,
    nexus: &Nexus,
    out: &mut Vec<u8>,
) -> Result<Answer, Refusal> {
    let device = unit.server().device_type();
    let mut out = Truncated::new(out, usize::from(inquiry.allocation));
    match inquiry.page {
        None => StandardInquiry::of(device, copies(device), REVISION).emit(&mut out),
        Some(page) => {
            let body = page_body(unit, page, nexus).ok_or_else(|| Sense::invalid_cdb_byte(2))?;
            vpd::emit(device, page, &body, &mut out);
        }
    }
    Ok(Answer::Good)
}

fn page_body(unit: &LogicalUnit, page: u8, nexus: &Nexus) -> Option<Vec<u8>> {
    let server = unit.server();
    let mut body = Vec::new();
    match page {
        vpd::SUPPORTED_PAGES => {
            let copies = copies(server.device_type());
            body.extend(PAGES.iter().filter(|page| copies || **page != vpd::THIRD_PARTY_COPY));
            body.extend(server.vpd_pages());
        }
        vpd::UNIT_SERIAL_NUMBER => body.extend(unit.identity().serial().into_bytes()),
        vpd::DEVICE_IDENTIFICATION => {
            // The designators of the unit come first and are the same on every path. Those of the port follow, unless
            // the transport hides the port together with the initiator.
            let port = &nexus.port;
            let path =
                [Designator::relative_port(port), Designator::port_name(port), Designator::device_name(port)];
            let path = path.iter().filter(|_| nexus.initiator.is_some());
            unit.designators().iter().chain(path).for_each(|designator| designator.emit(&mut body));
        }
        vpd::EXTENDED_INQUIRY => vpd::extended_inquiry(server.device_type() == DeviceType::Disk, &mut body),
        vpd::THIRD_PARTY_COPY if copies(server.device_type()) => {
            body = xcopy::results::third_party_copy_vpd()
        }
        page if server.vpd_pages().contains(&page) => server.vpd(page, &mut body),
        _ => return None,
    }
    Some(body)
}
