//! Parses a CDB into a typed command.
//!
//! [`Command::parse`] takes a CDB that [`super::opcode::row`] has already checked: the CDB is long enough, and every
//! bit outside the row's usage map is zero. So the parsers here only read fields and refuse values; a reserved bit
//! never gets this far. A check that depends on the unit (capacity, limits, loaded medium) belongs to the device
//! server.

pub mod block;
pub mod primary;
pub mod stream;

use crate::sam::Cdb;
use crate::scsi::management;
use crate::scsi::opcode::{Access, Operation, ReadOnly, Row};
use crate::scsi::sense::Sense;
use crate::units::BlockSize;

/// Reads the fields of a CDB by byte offset. All offsets are constants into an array, so no read is out of bounds.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8; Cdb::MAX_LENGTH]);

impl Fields<'_> {
    fn byte(self, at: usize) -> u8 {
        self.0[at]
    }

    fn bit(self, at: usize, bit: u32) -> bool {
        self.0[at] >> bit & 1 == 1
    }

    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + i])
    }

    fn be16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    fn be24(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at)) >> 8
    }

    fn be32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    fn be64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }
}

/// One command with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    // Primary commands (SPC).
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense(primary::RequestSense),
    /// INQUIRY.
    Inquiry(primary::Inquiry),
    /// MODE SENSE(6) and (10).
    ModeSense(primary::ModeSense),
    /// MODE SELECT(6) and (10).
    ModeSelect(primary::ModeSelect),
    /// LOG SENSE.
    LogSense(primary::LogSense),
    /// RESERVE(6) and (10): reserves the whole unit for the nexus that asks.
    Reserve,
    /// RELEASE(6) and (10).
    Release,
    /// SEND DIAGNOSTIC: the default self-test, or nothing at all.
    SendDiagnostic,
    /// PREVENT ALLOW MEDIUM REMOVAL; `true` prevents.
    PreventAllowMediumRemoval(bool),
    /// REPORT LUNS.
    ReportLuns(primary::ReportLuns),
    /// REPORT SUPPORTED OPERATION CODES.
    ReportSupportedOperationCodes(primary::ReportSupportedOperationCodes),
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportSupportedTaskManagementFunctions(primary::ReportSupportedTaskManagementFunctions),
    /// A command of the copy manager.
    ThirdParty(primary::ThirdParty),
    /// MANAGEMENT PROTOCOL IN.
    ManagementIn(management::In),
    /// MANAGEMENT PROTOCOL OUT.
    ManagementOut(management::Out),

    // Block commands (SBC).
    /// READ(6), (10), (12) and (16).
    Read(block::BlockIo),
    /// WRITE(6), (10), (12) and (16).
    Write(block::BlockIo),
    /// WRITE AND VERIFY(10), (12) and (16).
    WriteAndVerify(block::VerifyIo),
    /// VERIFY(10), (12) and (16).
    Verify(block::VerifyIo),
    /// PRE-FETCH(10) and (16).
    PreFetch(block::Span),
    /// SYNCHRONIZE CACHE(10) and (16).
    SynchronizeCache(block::Span),
    /// WRITE SAME(10) and (16).
    WriteSame(block::WriteSame),
    /// UNMAP.
    Unmap(block::Unmap),
    /// COMPARE AND WRITE.
    CompareAndWrite(block::BlockIo),
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16(block::ReadCapacity16),
    /// GET LBA STATUS.
    GetLbaStatus(block::GetLbaStatus),
    /// START STOP UNIT.
    StartStopUnit(block::StartStopUnit),

    // Stream commands (SSC).
    /// READ(6) of a tape.
    TapeRead(stream::Transfer),
    /// WRITE(6) of a tape.
    TapeWrite(stream::Transfer),
    /// WRITE FILEMARKS(6).
    WriteFilemarks(stream::WriteFilemarks),
    /// SPACE(6) and (16).
    Space(stream::Space),
    /// LOCATE(10) and (16).
    Locate(stream::Locate),
    /// REWIND.
    Rewind(stream::Rewind),
    /// ERASE(6).
    Erase(stream::Erase),
    /// LOAD UNLOAD.
    LoadUnload(stream::LoadUnload),
    /// READ POSITION.
    ReadPosition(stream::ReadPosition),
    /// READ BLOCK LIMITS.
    ReadBlockLimits(stream::ReadBlockLimits),
    /// REPORT DENSITY SUPPORT.
    ReportDensitySupport(stream::ReportDensitySupport),
}

impl Command {
    /// Parses `cdb`. `row` is the row that [`crate::scsi::opcode::row`] returned for it.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB with a pointer to the field at fault; SAVING PARAMETERS NOT SUPPORTED for saved values.
    pub fn parse(row: &Row, cdb: &Cdb) -> Result<Self, Sense> {
        use Operation as O;
        let fields = Fields(cdb.padded());
        let length = row.usage.len();
        Ok(match row.operation {
            O::Read6 | O::Read10 | O::Read12 | O::Read16 => Self::Read(block::BlockIo::parse(fields, length)),
            O::Write6 | O::Write10 | O::Write12 | O::Write16 => {
                Self::Write(block::BlockIo::parse(fields, length))
            }
            O::WriteAndVerify10 | O::WriteAndVerify12 | O::WriteAndVerify16 => {
                Self::WriteAndVerify(block::VerifyIo::parse_write(fields, length)?)
            }
            O::Verify10 | O::Verify12 | O::Verify16 => Self::Verify(block::VerifyIo::parse(fields, length)?),
            O::PreFetch10 | O::PreFetch16 => Self::PreFetch(block::Span::parse(fields, length)),
            O::SynchronizeCache10 | O::SynchronizeCache16 => {
                Self::SynchronizeCache(block::Span::parse(fields, length))
            }
            O::WriteSame10 | O::WriteSame16 => Self::WriteSame(block::WriteSame::parse(fields, length)),
            O::Unmap => Self::Unmap(block::Unmap { parameter_list_length: fields.be16(7) }),
            O::CompareAndWrite => Self::CompareAndWrite(block::BlockIo::parse_compare(fields)),
            O::ReadCapacity10 => block::check_capacity_address(u64::from(fields.be32(2)), fields.bit(8, 0))
                .map(|()| Self::ReadCapacity10)?,
            O::ReadCapacity16 => Self::ReadCapacity16(block::ReadCapacity16::parse(fields)?),
            O::GetLbaStatus => Self::GetLbaStatus(block::GetLbaStatus::parse(fields)),
            O::StartStopUnit => Self::StartStopUnit(block::StartStopUnit::parse(fields)?),

            O::TapeRead6 => Self::TapeRead(stream::Transfer::parse_read(fields)?),
            O::TapeWrite6 => Self::TapeWrite(stream::Transfer::parse(fields)),
            O::WriteFilemarks6 => Self::WriteFilemarks(stream::WriteFilemarks::parse(fields)),
            O::Space6 => Self::Space(stream::Space::parse6(fields)?),
            O::Space16 => Self::Space(stream::Space::parse16(fields)?),
            O::Locate10 => Self::Locate(stream::Locate::parse10(fields)?),
            O::Locate16 => Self::Locate(stream::Locate::parse16(fields)?),
            O::Rewind => Self::Rewind(stream::Rewind { immediate: fields.bit(1, 0) }),
            O::Erase6 => Self::Erase(stream::Erase { immediate: fields.bit(1, 1), long: fields.bit(1, 0) }),
            O::LoadUnload => Self::LoadUnload(stream::LoadUnload::parse(fields)?),
            O::ReadPositionShort | O::ReadPositionVendor | O::ReadPositionLong | O::ReadPositionExtended => {
                Self::ReadPosition(stream::ReadPosition::parse(row.operation, fields))
            }
            O::ReadBlockLimits => {
                Self::ReadBlockLimits(stream::ReadBlockLimits { maximum_object: fields.bit(1, 0) })
            }
            O::ReportDensitySupport => {
                Self::ReportDensitySupport(stream::ReportDensitySupport::parse(fields))
            }
            _ => Self::parse_primary(row.operation, fields)?,
        })
    }

    fn parse_primary(operation: Operation, fields: Fields<'_>) -> Result<Self, Sense> {
        use Operation as O;
        Ok(match operation {
            O::RequestSense => Self::RequestSense(primary::RequestSense::parse(fields)),
            O::Inquiry => Self::Inquiry(primary::Inquiry::parse(fields)?),
            O::ModeSense6 => Self::ModeSense(primary::ModeSense::parse6(fields)?),
            O::ModeSense10 => Self::ModeSense(primary::ModeSense::parse10(fields)?),
            O::ModeSelect6 => Self::ModeSelect(primary::ModeSelect::parse6(fields)),
            O::ModeSelect10 => Self::ModeSelect(primary::ModeSelect::parse10(fields)),
            O::LogSense => Self::LogSense(primary::LogSense::parse(fields)),
            O::Reserve6 | O::Reserve10 => Self::Reserve,
            O::Release6 | O::Release10 => Self::Release,
            O::SendDiagnostic => Self::SendDiagnostic,
            O::PreventAllowMediumRemoval => Self::PreventAllowMediumRemoval(primary::parse_prevent(fields)?),
            O::ReportLuns => Self::ReportLuns(primary::ReportLuns::parse(fields)?),
            O::ReportSupportedOperationCodes => {
                Self::ReportSupportedOperationCodes(primary::ReportSupportedOperationCodes::parse(fields)?)
            }
            O::ReportSupportedTaskManagementFunctions => Self::ReportSupportedTaskManagementFunctions(
                primary::ReportSupportedTaskManagementFunctions::parse(fields)?,
            ),
            O::ExtendedCopyLid1 => {
                Self::ThirdParty(primary::ThirdParty::ExtendedCopyLid1 { length: fields.be32(10) })
            }
            O::ReceiveCopyStatusLid1 => Self::ThirdParty(primary::ThirdParty::StatusLid1 {
                list_id: fields.byte(2),
                allocation: fields.be32(10),
            }),
            O::ReceiveCopyOperatingParameters => {
                Self::ThirdParty(primary::ThirdParty::OperatingParameters { allocation: fields.be32(10) })
            }
            O::ReceiveCopyFailureDetailsLid1 => Self::ThirdParty(primary::ThirdParty::FailureDetailsLid1 {
                list_id: fields.byte(2),
                allocation: fields.be32(10),
            }),
            O::ManagementProtocolIn => {
                Self::ManagementIn(management::In::parse(fields.byte(2), fields.be16(4), fields.be32(6))?)
            }
            O::ManagementProtocolOut => {
                Self::ManagementOut(management::Out::parse(fields.byte(2), fields.be16(4), fields.be32(6))?)
            }
            // TEST UNIT READY: every other operation has an arm here or in `parse`.
            _ => Self::TestUnitReady,
        })
    }

    /// What this command does to medium and unit: the row's access, except where the parameters make the command
    /// harmless (allowing medium removal, starting the unit, writing no filemarks).
    #[must_use]
    pub fn access(&self, row: &Row) -> Access {
        match self {
            Self::PreventAllowMediumRemoval(false) => Access::Always,
            Self::StartStopUnit(unit) if unit.start && unit.power_condition.is_none() => Access::Always,
            Self::WriteFilemarks(marks) if marks.count == 0 => Access::Configure,
            _ => row.access,
        }
    }

    /// What this command may do for a read-only nexus: the row's entry, except where a field of the CDB decides.
    /// Allowing medium removal only takes back a PREVENT of this nexus, and a read-only nexus has none.
    #[must_use]
    pub(crate) fn read_only(&self, row: &Row) -> ReadOnly {
        match self {
            Self::PreventAllowMediumRemoval(false) => ReadOnly::Allowed,
            Self::PreventAllowMediumRemoval(true) => ReadOnly::NoAccessRights,
            _ => row.read_only,
        }
    }

    /// How many bytes of data-out the CDB announces, on a disk with `block` sized blocks. A tape WRITE with FIXED
    /// counts blocks whose length only the mode parameters know; it is not counted here.
    #[must_use]
    pub fn data_out_length(&self, block: BlockSize) -> u64 {
        let blocks = |count: u32| u64::from(count) << block.shift();
        match self {
            Self::Write(io) => blocks(io.count),
            Self::CompareAndWrite(io) => blocks(io.count) * 2,
            Self::WriteAndVerify(io) => blocks(io.count),
            Self::Verify(io) => match io.check {
                block::ByteCheck::Medium => 0,
                block::ByteCheck::Compare => blocks(io.count),
                block::ByteCheck::CompareOne => blocks(io.count.min(1)),
            },
            Self::WriteSame(same) => blocks(u32::from(!same.no_data_out)),
            Self::Unmap(unmap) => u64::from(unmap.parameter_list_length),
            Self::ModeSelect(select) => u64::from(select.length),
            Self::ThirdParty(primary::ThirdParty::ExtendedCopyLid1 { length }) => u64::from(*length),
            Self::ManagementOut(out) => u64::from(out.length),
            Self::TapeWrite(transfer) if !transfer.fixed => u64::from(transfer.length),
            _ => 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::scsi::opcode::{self, DeviceType};
    use crate::scsi::sense::{Format, Key};

    /// The command that the device server of `device` gets from `cdb`.
    pub(crate) fn parse(device: DeviceType, cdb: &[u8]) -> Result<Command, Sense> {
        let cdb = Cdb::new(cdb).unwrap();
        Command::parse(opcode::row(device, &cdb)?, &cdb)
    }

    /// The sense-key specific bytes of an INVALID FIELD IN CDB.
    pub(crate) fn pointer(result: Result<Command, Sense>) -> [u8; 3] {
        let sense = result.unwrap_err();
        assert_eq!((sense.key, sense.asc.0), (Key::IllegalRequest, 0x2400));
        sense.encode(Format::Fixed)[15..18].try_into().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::parse;
    use super::*;
    use crate::scsi::opcode::{self, DeviceType, Direction};

    #[test]
    fn every_row_has_a_parser_of_its_own() {
        for device in [DeviceType::Disk, DeviceType::Tape, DeviceType::Changer, DeviceType::Controller] {
            for row in opcode::rows(device) {
                let mut cdb = vec![0; row.usage.len()];
                cdb[0] = row.opcode;
                cdb[1] = row.service_action.unwrap_or(0);
                if matches!(row.opcode, 0xA0 | 0xA3) {
                    cdb[9] = 0x10; // the shortest legal allocation length
                }
                if row.opcode == 0xA4 {
                    cdb[2] = 0xF0; // the only management protocol that takes anything
                }
                let command = parse(device, &cdb).unwrap();
                assert_eq!(
                    command == Command::TestUnitReady,
                    row.operation == Operation::TestUnitReady,
                    "{}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn harmless_parameters_lower_the_access() {
        let access = |device, cdb: &[u8]| {
            let cdb = Cdb::new(cdb).unwrap();
            let row = opcode::row(device, &cdb).unwrap();
            Command::parse(row, &cdb).unwrap().access(row)
        };
        assert_eq!(access(DeviceType::Tape, &[0x1E, 0, 0, 0, 0, 0]), Access::Always);
        assert_eq!(access(DeviceType::Tape, &[0x1E, 0, 0, 0, 1, 0]), Access::Configure);
        assert_eq!(access(DeviceType::Tape, &[0x10, 0, 0, 0, 0, 0]), Access::Configure);
        assert_eq!(access(DeviceType::Tape, &[0x10, 0, 0, 0, 1, 0]), Access::Write);
        assert_eq!(access(DeviceType::Disk, &[0x1B, 0, 0, 0, 1, 0]), Access::Always);
        assert_eq!(access(DeviceType::Disk, &[0x1B, 0, 0, 0, 0, 0]), Access::Configure);
    }

    proptest! {
        #[test]
        fn any_cdb_parses_or_is_refused_and_announces_data_only_in_its_direction(
            bytes in proptest::collection::vec(any::<u8>(), 1..=Cdb::MAX_LENGTH),
            known in any::<proptest::sample::Index>(),
            device in prop_oneof![Just(DeviceType::Disk), Just(DeviceType::Tape), Just(DeviceType::Changer), Just(DeviceType::Controller)],
        ) {
            // Random opcodes rarely exist. So take an opcode of the table, and keep the random fields within its
            // usage map.
            let rows: Vec<_> = opcode::rows(device).collect();
            let row = rows[known.index(rows.len())];
            let mut cdb: Vec<u8> = row.usage.to_vec();
            for (at, byte) in cdb.iter_mut().enumerate().skip(1 + usize::from(row.service_action.is_some())) {
                *byte &= bytes.get(at).copied().unwrap_or(0);
            }
            let cdb = Cdb::new(&cdb).unwrap();
            prop_assert_eq!(opcode::row(device, &cdb), Ok(row));
            if let Ok(command) = Command::parse(row, &cdb) {
                let out = command.data_out_length(BlockSize::B4096);
                prop_assert!(out == 0 || row.direction == Direction::Out);
            }
            let _ = parse(device, &bytes);
        }
    }
}
