//! THE table: one [`Row`] for each operation code and service action. The row drives the CDB length, the check of
//! reserved bits, the parser, REPORT SUPPORTED OPERATION CODES, the gate and the order of the task set, so these can
//! never disagree.
//!
//! REPORT SUPPORTED OPERATION CODES reports the usage map of a row, and the same map is enforced: a bit outside the
//! map must be zero. (SPC-4 4.3.3 lets a device server check this, and this one does.) The check also refuses NACA,
//! protection information and anchoring where this array does not have them. GROUP NUMBER is accepted and ignored: it
//! only says where statistics are collected, SBC-3 has no error for a number without a group, and libiscsi's test
//! tool sends one.

mod table;

use crate::sam::Cdb;
use crate::scsi::sense::{Asc, FieldPointer, Key, KeySpecific, Sense};

pub use table::Operation;

/// Peripheral device type (SPC-4 table 58) of the device servers in this array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeviceType {
    /// Direct access block device (SBC).
    Disk = 0x00,
    /// Sequential access device (SSC).
    Tape = 0x01,
    /// Media changer (SMC).
    Changer = 0x08,
    /// Storage array controller device (SCC): a command device.
    Controller = 0x0C,
}

impl DeviceType {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    const fn slot(self) -> usize {
        match self {
            Self::Disk => 0,
            Self::Tape => 1,
            Self::Changer => 2,
            Self::Controller => 3,
        }
    }
}

/// A set of device types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices(u8);

impl Devices {
    /// Disks only.
    pub const DISK: Self = Self(1 << DeviceType::Disk.slot());
    /// Tapes only.
    pub const TAPE: Self = Self(1 << DeviceType::Tape.slot());
    /// Disks and tapes.
    pub const DISK_AND_TAPE: Self = Self(Self::DISK.0 | Self::TAPE.0);
    /// Command devices only.
    pub const CONTROLLER: Self = Self(1 << DeviceType::Controller.slot());
    /// Disks, tapes and command devices: those with the default self-test.
    pub const WITH_SELF_TEST: Self = Self(Self::DISK_AND_TAPE.0 | Self::CONTROLLER.0);
    /// Every device type.
    pub const ALL: Self = Self(Self::WITH_SELF_TEST.0 | 1 << DeviceType::Changer.slot());

    /// Whether `device` belongs to the set.
    #[must_use]
    pub const fn contains(self, device: DeviceType) -> bool {
        self.0 >> device.slot() & 1 == 1
    }
}

/// The direction of a command's data, seen from the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// No data.
    None,
    /// To the initiator.
    In,
    /// From the initiator.
    Out,
}

/// What a command does to the medium and to the unit. Decides reservation conflicts (SPC-4 5.13, SPC-2 5.5) and write
/// protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Executed whichever reservation another nexus holds.
    Always,
    /// Touches neither medium nor parameters: conflicts with a RESERVE of another nexus (SPC-2), but with no
    /// persistent reservation.
    Status,
    /// Reads medium or parameters: conflicts with a RESERVE and with exclusive access of another nexus.
    Read,
    /// Changes the unit, not the medium: conflicts with every reservation of another nexus.
    Configure,
    /// Changes the medium: like [`Access::Configure`], and refused when the medium is write protected.
    Write,
}

/// Whether and how a read-only nexus may use a command. The law behind each row: nothing changes that another nexus
/// can see of the unit: not the medium, not its position, no mode parameter, no reservation, no PREVENT, no unit
/// attention condition, no task of another nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadOnly {
    /// Executed: the command changes nothing that another nexus can see.
    Allowed,
    /// Executed at the nexus's own position; the unit's position stays where it is.
    OwnPosition,
    /// Executed. The commands that it consists of are judged one by one, each by its own row.
    ByParts,
    /// A field of the CDB decides: [`Command::read_only`](crate::scsi::cdb::Command::read_only).
    ByField,
    /// Refused, because it would change the medium: DATA PROTECT, WRITE PROTECTED.
    WriteProtected,
    /// Refused, because it would change the unit for the other nexuses: ILLEGAL REQUEST, ACCESS DENIED - NO ACCESS
    /// RIGHTS (SPC-4 has this code for an initiator without the right). DATA PROTECT would be wrong, because it
    /// speaks of the medium.
    NoAccessRights,
}

/// How a command is ordered among the tasks of its task set, apart from its task attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// Waits for no other task, and no other task waits for it. A third-party copy is independent, because it issues
    /// commands that may come to its own logical unit: any order between the copy and these commands would be a
    /// deadlock.
    Independent,
    /// Runs at the same time as any other simple task.
    Concurrent,
    /// Waits for every older task and holds back every younger one.
    Serial,
}

/// The part of the array that executes a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutedBy {
    /// The device server of the logical unit.
    Unit,
    /// The copy manager.
    CopyManager,
    /// Who takes the requests of command devices.
    Management,
}

/// One command of one or more device types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Operation code, byte 0.
    pub opcode: u8,
    /// Service action, byte 1 bits 4 to 0, where the operation code has service actions.
    pub service_action: Option<u8>,
    /// The command.
    pub operation: Operation,
    /// T10's name.
    pub name: &'static str,
    /// The device types that have the command.
    pub devices: Devices,
    /// CDB usage data (SPC-4 6.35.3): operation code and service action in their places, then a one for every bit
    /// that is evaluated. The usage data is as long as the CDB.
    pub usage: &'static [u8],
    /// The direction of its data.
    pub direction: Direction,
    /// Whether a pending unit attention condition is reported instead of executing the command.
    pub attention: bool,
    /// What the command does to medium and unit.
    pub access: Access,
    /// Whether and how a read-only nexus may use the command.
    pub read_only: ReadOnly,
    /// How the command is ordered in the task set.
    pub ordering: Ordering,
    /// The part of the array that executes the command.
    pub executed_by: ExecutedBy,
    /// Nominal and recommended timeout in seconds, as REPORT SUPPORTED OPERATION CODES reports them.
    pub timeout_s: (u32, u32),
}

impl Row {
    /// Refuses a CDB that is shorter than the command, or has a one outside the usage map.
    fn check(&self, cdb: &[u8]) -> Result<(), Sense> {
        let cdb = cdb.get(..self.usage.len()).ok_or_else(|| Sense::invalid_cdb_byte(cdb.len() as u16))?;
        for (at, (byte, usage)) in cdb.iter().zip(self.usage).enumerate().skip(1) {
            let mut evaluated = *usage;
            if at == 1 && self.service_action.is_some() {
                evaluated |= SERVICE_ACTION;
            }
            if at == 1 && self.operation == Operation::Inquiry {
                evaluated |= FORMER_LUN;
            }
            let stray = byte & !evaluated;
            if stray != 0 {
                return Err(Sense::invalid_cdb_bit(at as u16, stray.ilog2() as u8));
            }
        }
        Ok(())
    }
}

/// The bits of byte 1 that hold a service action.
const SERVICE_ACTION: u8 = 0x1F;
/// The bits of byte 1 that held the LUN until SCSI-2. Linux fills them in its first INQUIRY to a unit, while it does
/// not know the unit's version yet. If they were refused, a Linux host that meets another LUN before LUN 0 would see
/// no unit at all.
const FORMER_LUN: u8 = 0xE0;
const NO_ROW: u8 = u8::MAX;

/// For every device type and operation code, the index of its first row, or [`NO_ROW`]. Rows of one code are
/// neighbours.
static FIRST: [[u8; 256]; 4] = [
    first_rows(DeviceType::Disk),
    first_rows(DeviceType::Tape),
    first_rows(DeviceType::Changer),
    first_rows(DeviceType::Controller),
];

const fn first_rows(device: DeviceType) -> [u8; 256] {
    let mut first = [NO_ROW; 256];
    let mut at = table::ROWS.len();
    assert!(at < NO_ROW as usize);
    while at > 0 {
        at -= 1;
        let row = &table::ROWS[at];
        assert!(row.usage[0] == row.opcode && row.usage.len() <= Cdb::MAX_LENGTH);
        assert!(
            matches!(row.access, Access::Write) == matches!(row.read_only, ReadOnly::WriteProtected),
            "exactly what changes the medium is refused for write protection"
        );
        assert!(
            at == 0 || table::ROWS[at - 1].opcode <= row.opcode,
            "rows stand in the order of their codes"
        );
        if row.devices.contains(device) {
            first[row.opcode as usize] = at as u8;
        }
    }
    first
}

/// Finds the row of a command of `device`, and checks the CDB against the usage map.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE for an operation code that `device` does not have; INVALID FIELD IN CDB, with a
/// pointer, for an unknown service action, a CDB that is too short, or a one in a bit that is not evaluated.
pub fn row(device: DeviceType, cdb: &Cdb) -> Result<&'static Row, Sense> {
    let bytes = cdb.bytes();
    let first = FIRST[device.slot()][usize::from(bytes[0])];
    let candidates = table::ROWS.get(usize::from(first)..).unwrap_or_default();
    let Some(head) = candidates.first() else {
        // SPC-4 table 25: the field at fault is the operation code.
        let operation_code = KeySpecific::Cdb(FieldPointer { byte: 0, bit: None });
        return Err(Sense {
            key_specific: Some(operation_code),
            ..Sense::new(Key::IllegalRequest, Asc::INVALID_COMMAND_OPERATION_CODE)
        });
    };
    if head.service_action.is_none() {
        return head.check(bytes).map(|()| head);
    }
    let service_action = bytes.get(1).ok_or_else(|| Sense::invalid_cdb_byte(1))? & SERVICE_ACTION;
    let row = candidates
        .iter()
        .take_while(|row| row.opcode == head.opcode)
        .find(|row| row.devices.contains(device) && row.service_action == Some(service_action))
        .ok_or_else(|| Sense::invalid_cdb_bit(1, 4))?;
    row.check(bytes).map(|()| row)
}

/// T10's name of the command in `cdb` for a unit of `device`, for people. The fields of the CDB need not be valid.
#[must_use]
pub(crate) fn name(device: DeviceType, cdb: &Cdb) -> &'static str {
    let action = cdb.padded()[1] & SERVICE_ACTION;
    rows(device)
        .find(|row| row.opcode == cdb.opcode() && row.service_action.is_none_or(|own| own == action))
        .map_or("a command that the unit does not have", |row| row.name)
}

/// Whether the command moves blocks between a host and a disk: READ and WRITE of (10), (12) and (16) bytes. A unit of
/// unknown type: of a tape only READ(16) and WRITE(16) are among them.
#[must_use]
pub(crate) fn moves_blocks(cdb: &Cdb) -> bool {
    matches!(cdb.opcode(), 0x28 | 0x2a | 0x88 | 0x8a | 0xa8 | 0xaa)
}

/// The name of a command, for a unit of unknown type.
#[must_use]
pub(crate) fn any_name(cdb: &Cdb) -> &'static str {
    let action = cdb.padded()[1] & SERVICE_ACTION;
    let is = |row: &&Row| row.opcode == cdb.opcode() && row.service_action.is_none_or(|own| own == action);
    table::ROWS.iter().find(is).map_or("a command", |row| row.name)
}

/// Every command of `device`, in the order of operation codes and service actions.
pub(crate) fn rows(device: DeviceType) -> impl Iterator<Item = &'static Row> {
    table::ROWS.iter().filter(move |row| row.devices.contains(device))
}

#[cfg(test)]
mod tests {
    const EVERY: [DeviceType; 4] =
        [DeviceType::Disk, DeviceType::Tape, DeviceType::Changer, DeviceType::Controller];

    use proptest::prelude::*;

    use super::*;
    use crate::scsi::sense::Format;

    fn find(device: DeviceType, cdb: &[u8]) -> Result<Operation, Vec<u8>> {
        row(device, &Cdb::new(cdb).unwrap())
            .map(|row| row.operation)
            .map_err(|sense| sense.encode(Format::Fixed)[2..].to_vec())
    }

    /// Fixed sense data from byte 2 on: ILLEGAL REQUEST, `asc`, sense-key specific bytes `specific`.
    fn illegal(asc: u16, specific: [u8; 3]) -> Result<Operation, Vec<u8>> {
        let [high, low] = asc.to_be_bytes();
        let [a, b, c] = specific;
        Err(vec![5, 0, 0, 0, 0, 10, 0, 0, 0, 0, high, low, 0, a, b, c])
    }

    #[test]
    fn one_code_is_another_command_on_another_device() {
        let cdb = [0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(find(DeviceType::Disk, &cdb), Ok(Operation::PreFetch10));
        assert_eq!(find(DeviceType::Tape, &cdb), Ok(Operation::ReadPositionShort));
        assert_eq!(find(DeviceType::Tape, &[0x28; 10]), illegal(0x2000, [0xC0, 0, 0]));
    }

    #[test]
    fn unknown_operation_code_points_at_byte_0() {
        assert_eq!(find(DeviceType::Disk, &[0xC1; 16]), illegal(0x2000, [0xC0, 0, 0]));
        assert_eq!(find(DeviceType::Changer, &[0x08; 6]), illegal(0x2000, [0xC0, 0, 0]));
    }

    #[test]
    fn unknown_service_action_points_at_byte_1_bit_4() {
        let mut cdb = [0; 16];
        cdb[..2].copy_from_slice(&[0x9E, 0x1F]);
        assert_eq!(find(DeviceType::Disk, &cdb), illegal(0x2400, [0xCC, 0, 1]));
        cdb[1] = 0x12;
        assert_eq!(find(DeviceType::Disk, &cdb), Ok(Operation::GetLbaStatus));
    }

    #[test]
    fn reserved_bits_are_refused_with_byte_and_bit() {
        let read10 = |byte: usize, value: u8| {
            let mut cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
            cdb[byte] = value;
            find(DeviceType::Disk, &cdb)
        };
        assert_eq!(read10(1, 0x18), Ok(Operation::Read10), "DPO and FUA");
        assert_eq!(read10(1, 0x20), illegal(0x2400, [0xCD, 0, 1]), "RDPROTECT");
        assert_eq!(read10(6, 0x1F), Ok(Operation::Read10), "GROUP NUMBER");
        assert_eq!(read10(6, 0x20), illegal(0x2400, [0xCD, 0, 6]), "reserved above GROUP NUMBER");
        assert_eq!(read10(9, 0x04), illegal(0x2400, [0xCA, 0, 9]), "NACA");
    }

    #[test]
    fn an_inquiry_may_name_its_lun_as_scsi_2_did() {
        for lun in 1..8 {
            assert_eq!(find(DeviceType::Disk, &[0x12, lun << 5, 0, 0, 36, 0]), Ok(Operation::Inquiry));
        }
        assert_eq!(find(DeviceType::Disk, &[0x12, 0x10, 0, 0, 36, 0]), illegal(0x2400, [0xCC, 0, 1]));
        assert_eq!(find(DeviceType::Disk, &[0, 0x20, 0, 0, 0, 0]), illegal(0x2400, [0xCD, 0, 1]));
    }

    #[test]
    fn service_action_bits_do_not_hide_the_reserved_bits_beside_them() {
        let mut cdb = [0; 16];
        cdb[..2].copy_from_slice(&[0x9E, 0x90]);
        assert_eq!(find(DeviceType::Disk, &cdb), illegal(0x2400, [0xCF, 0, 1]));
    }

    #[test]
    fn short_cdb_points_behind_its_end() {
        assert_eq!(find(DeviceType::Disk, &[0x28, 0, 0, 0, 0, 0]), illegal(0x2400, [0xC0, 0, 6]));
        assert_eq!(find(DeviceType::Disk, &[0x9E]), illegal(0x2400, [0xC0, 0, 1]));
    }

    #[test]
    fn usage_carries_code_and_service_action_and_its_length_fits_the_group() {
        for row in table::ROWS {
            assert_eq!(row.usage[0], row.opcode, "{}", row.name);
            if let Some(service_action) = row.service_action {
                assert_eq!(row.usage[1] & SERVICE_ACTION, service_action, "{}", row.name);
            }
            let length = match row.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                5 => 12,
                _ => panic!("{} has no fixed length", row.name),
            };
            assert_eq!(row.usage.len(), length, "{}", row.name);
            assert_eq!(row.usage[length - 1], 0, "{}: no CONTROL bit is evaluated", row.name);
            assert!(row.timeout_s.0 <= row.timeout_s.1, "{}", row.name);
        }
    }

    #[test]
    fn a_code_has_service_actions_in_all_its_rows_of_a_device_or_in_none() {
        for device in EVERY {
            for a in rows(device) {
                let same: Vec<_> = rows(device).filter(|b| b.opcode == a.opcode).collect();
                assert!(same.len() == 1 || same.iter().all(|b| b.service_action.is_some()), "{}", a.name);
                assert_eq!(
                    same.iter().filter(|b| b.service_action == a.service_action).count(),
                    1,
                    "{}",
                    a.name
                );
            }
        }
    }

    #[test]
    fn the_bare_form_of_every_row_finds_the_row() {
        for device in EVERY {
            for expected in rows(device) {
                let mut cdb = vec![0; expected.usage.len()];
                cdb[0] = expected.opcode;
                cdb[1] = expected.service_action.unwrap_or(0);
                assert_eq!(row(device, &Cdb::new(&cdb).unwrap()), Ok(expected));
            }
        }
    }

    #[test]
    fn only_three_commands_pass_by_a_unit_attention() {
        let silent: Vec<_> =
            rows(DeviceType::Disk).filter(|row| !row.attention).map(|row| row.name).collect();
        assert_eq!(silent, ["REQUEST SENSE", "INQUIRY", "REPORT LUNS"]);
    }

    proptest! {
        #[test]
        fn any_cdb_is_refused_or_lies_within_its_usage_map(
            bytes in proptest::collection::vec(any::<u8>(), 1..=Cdb::MAX_LENGTH),
            device in proptest::sample::select(&EVERY[..]),
        ) {
            match row(device, &Cdb::new(&bytes).unwrap()) {
                Ok(row) => {
                    prop_assert_eq!(row.opcode, bytes[0]);
                    prop_assert!(row.devices.contains(device));
                    prop_assert!(bytes.len() >= row.usage.len());
                    for (byte, usage) in bytes.iter().zip(row.usage).skip(2) {
                        prop_assert_eq!(byte & !usage, 0);
                    }
                }
                Err(sense) => prop_assert_eq!(sense.key, Key::IllegalRequest),
            }
        }
    }
}
