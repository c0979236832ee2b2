//! Standard INQUIRY data (SPC-4 6.5.2), built and read.

use nom::bytes::complete::take;
use nom::multi::count;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use crate::printable::ascii;
use crate::scsi::opcode::DeviceType;
use crate::wire::Put;

/// VENDOR IDENTIFICATION of this array.
pub(crate) const VENDOR: &str = "CLEAVE";
/// VERSION: SPC-4.
const SPC_4: u8 = 0x06;
/// Bytes of data that are sent: up to the end of the last reserved field.
const LENGTH: usize = 96;
const DESCRIPTORS: usize = 8;

/// PERIPHERAL QUALIFIER (SPC-4 table 144).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Qualifier {
    /// A logical unit is there.
    Connected = 0,
    /// The unit could be there but is not.
    NotConnected = 1,
    /// 010b, reserved.
    Reserved = 2,
    /// No logical unit can be there.
    Incapable = 3,
}

impl Qualifier {
    fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Connected,
            1 => Self::NotConnected,
            3 => Self::Incapable,
            _ => Self::Reserved,
        }
    }
}

/// Standard INQUIRY data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardInquiry {
    /// Whether a logical unit is connected.
    pub qualifier: Qualifier,
    /// PERIPHERAL DEVICE TYPE; 1Fh when unknown.
    pub device_type: u8,
    /// RMB.
    pub removable: bool,
    /// VERSION: 05h SPC-3, 06h SPC-4, ...
    pub version: u8,
    /// 3PC: a copy manager is behind this unit.
    pub third_party_copy: bool,
    /// PROTECT: protection information.
    pub protection: bool,
    /// MULTIP: several target ports.
    pub multiple_ports: bool,
    /// CMDQUE: task management model of SAM.
    pub command_queueing: bool,
    /// VENDOR IDENTIFICATION, without padding. In this and the next two fields, bytes that SPC-4 does not allow are
    /// shown as escapes.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, without padding.
    pub product: String,
    /// PRODUCT REVISION LEVEL, without padding.
    pub revision: String,
    /// Version descriptors that are not zero.
    pub descriptors: Vec<u16>,
}

impl StandardInquiry {
    /// The data of a logical unit of this array. The medium of a tape is removable.
    #[must_use]
    pub(crate) fn of(device: DeviceType, third_party_copy: bool, revision: &str) -> Self {
        // SAM-5, SPC-4, iSCSI, and the command set: SBC-3, SSC-4, SMC-3, SCC-2 (SPC-4 table 147, no version claimed).
        let (product, command_set) = match device {
            DeviceType::Disk => ("DISK", 0x04C0),
            DeviceType::Tape => ("TAPE", 0x0520),
            DeviceType::Changer => ("CHANGER", 0x0480),
            DeviceType::Controller => ("COMMAND", 0x01E0),
        };
        Self {
            qualifier: Qualifier::Connected,
            device_type: device.code(),
            removable: device == DeviceType::Tape,
            version: SPC_4,
            third_party_copy,
            protection: false,
            multiple_ports: true,
            command_queueing: true,
            vendor: VENDOR.to_owned(),
            product: product.to_owned(),
            revision: revision.to_owned(),
            descriptors: vec![0x00A0, 0x0460, command_set, 0x0960],
        }
    }

    /// The data for a LUN without a logical unit: 7Fh, no device type.
    #[must_use]
    pub(crate) fn missing(revision: &str) -> Self {
        Self {
            qualifier: Qualifier::Incapable,
            device_type: 0x1F,
            product: String::new(),
            removable: false,
            descriptors: vec![0x00A0, 0x0460, 0x0960],
            ..Self::of(DeviceType::Disk, false, revision)
        }
    }

    /// Appends the data, always whole. For the allocation length wrap `out` in [`crate::wire::Truncated`].
    pub(crate) fn emit(&self, out: &mut impl Put) {
        out.put_u8((self.qualifier as u8) << 5 | self.device_type & 0x1F);
        out.put_u8(u8::from(self.removable) << 7);
        out.put_u8(self.version);
        out.put_u8(0x12); // HISUP, RESPONSE DATA FORMAT 2
        out.put_u8((LENGTH - 5) as u8);
        out.put_u8(u8::from(self.third_party_copy) << 3 | u8::from(self.protection));
        out.put_u8(u8::from(self.multiple_ports) << 4);
        out.put_u8(u8::from(self.command_queueing) << 1);
        out.put_ascii(&self.vendor, 8);
        out.put_ascii(&self.product, 16);
        out.put_ascii(&self.revision, 4);
        out.put_zeros(22); // vendor specific, reserved
        for at in 0..DESCRIPTORS {
            out.put_u16(self.descriptors.get(at).copied().unwrap_or(0));
        }
        out.put_zeros(LENGTH - 74);
    }

    /// Parses the data that a target sent; `None` if there are fewer than the 36 bytes that every target sends.
    #[must_use]
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let (rest, mut this) = Self::parse_mandatory(data).ok()?;
        if let Ok((_, (_, descriptors))) =
            (take::<_, _, nom::error::Error<&[u8]>>(22usize), count(be_u16, DESCRIPTORS)).parse(rest)
        {
            this.descriptors = descriptors.into_iter().filter(|descriptor| *descriptor != 0).collect();
        }
        Some(this)
    }

    fn parse_mandatory(input: &[u8]) -> IResult<&[u8], Self> {
        let (rest, (peripheral, removable, version, _format, _length)) =
            (be_u8, be_u8, be_u8, be_u8, be_u8).parse(input)?;
        let (rest, (flags5, flags6, flags7)) = (be_u8, be_u8, be_u8).parse(rest)?;
        let (rest, (vendor, product, revision)) = (take(8usize), take(16usize), take(4usize)).parse(rest)?;
        let this = Self {
            qualifier: Qualifier::from_bits(peripheral >> 5),
            device_type: peripheral & 0x1F,
            removable: removable & 0x80 != 0,
            version,
            third_party_copy: flags5 & 0x08 != 0,
            protection: flags5 & 0x01 != 0,
            multiple_ports: flags6 & 0x10 != 0,
            command_queueing: flags7 & 0x02 != 0,
            vendor: ascii(vendor),
            product: ascii(product),
            revision: ascii(revision),
            descriptors: Vec::new(),
        };
        Ok((rest, this))
    }
}

/// The name of a PERIPHERAL DEVICE TYPE, as tools print it.
#[must_use]
pub(crate) fn device_type_name(device_type: u8) -> &'static str {
    match device_type {
        0x00 => "disk",
        0x01 => "tape",
        0x03 => "processor",
        0x05 => "cd/dvd",
        0x08 => "medium changer",
        0x0C => "storage array controller",
        0x0D => "enclosure",
        0x14 => "zoned disk",
        0x1E => "well known logical unit",
        0x1F => "no device",
        _ => "other device",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Truncated;

    fn emit(inquiry: &StandardInquiry) -> Vec<u8> {
        let mut out = Vec::new();
        inquiry.emit(&mut out);
        out
    }

    #[test]
    fn disk_data_byte_for_byte() {
        let mut expected = b"\x00\x00\x06\x12\x5B\x08\x10\x02CLEAVE  DISK            0.1 ".to_vec();
        expected.resize(58, 0);
        expected.extend([0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60]);
        expected.resize(96, 0);
        assert_eq!(emit(&StandardInquiry::of(DeviceType::Disk, true, "0.1")), expected);
    }

    #[test]
    fn tape_is_removable_and_names_its_command_set() {
        let data = emit(&StandardInquiry::of(DeviceType::Tape, true, "0.1"));
        assert_eq!(data[..2], [0x01, 0x80]);
        assert_eq!(data[16..32], *b"TAPE            ");
        assert_eq!(data[62..64], [0x05, 0x20]);
    }

    #[test]
    fn missing_unit_answers_7f() {
        assert_eq!(emit(&StandardInquiry::missing("0.1"))[0], 0x7F);
    }

    #[test]
    fn every_allocation_length_is_a_prefix_with_the_same_additional_length() {
        let inquiry = StandardInquiry::of(DeviceType::Disk, true, "0.1");
        let whole = emit(&inquiry);
        for allocation in (0..=255).chain([511, 512]) {
            let mut out = Vec::new();
            inquiry.emit(&mut Truncated::new(&mut out, allocation));
            assert_eq!(out, whole[..allocation.min(96)]);
        }
        assert_eq!(usize::from(whole[4]) + 5, whole.len());
    }

    #[test]
    fn short_data_of_old_targets_still_parses() {
        let data = emit(&StandardInquiry::of(DeviceType::Tape, false, "0.1"));
        assert_eq!(StandardInquiry::parse(&data[..35]), None);
        let parsed = StandardInquiry::parse(&data[..36]).unwrap();
        assert_eq!((parsed.vendor.as_str(), parsed.product.as_str()), ("CLEAVE", "TAPE"));
        assert!(parsed.descriptors.is_empty());
        let mut strange = data[..36].to_vec();
        strange[8..16].copy_from_slice(b"A\x1b[2J\x07\x9b ");
        assert_eq!(StandardInquiry::parse(&strange).unwrap().vendor, "A\\x1b[2J\\x07\\x9b");
    }

    proptest! {
        #[test]
        fn emitted_data_is_parsed_again(third_party_copy in any::<bool>(), revision in "[!-~]{0,4}") {
            for device in [DeviceType::Disk, DeviceType::Tape, DeviceType::Changer] {
                let inquiry = StandardInquiry::of(device, third_party_copy, &revision);
                prop_assert_eq!(StandardInquiry::parse(&emit(&inquiry)), Some(inquiry));
            }
        }

        #[test]
        fn any_data_parses_or_not_without_panic(data in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(StandardInquiry::parse(&data).is_some(), data.len() >= 36);
        }
    }
}
