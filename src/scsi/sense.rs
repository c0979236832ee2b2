//! Sense data (SPC-4 4.5): one value for the event, encoded in the format that the initiator chose.

use crate::wire::Put;

/// Sense key (SPC-4 table 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's names say it
pub enum Key {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    CopyAborted = 0xA,
    AbortedCommand = 0xB,
    VolumeOverflow = 0xD,
    Miscompare = 0xE,
    Completed = 0xF,
}

/// Additional sense code and qualifier, as the standard's number: high byte ASC, low byte ASCQ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asc(pub u16);

macro_rules! asc {
    ($($name:ident = $code:literal;)*) => {
        #[allow(missing_docs)] // T10's assignments by T10's names
        impl Asc {
            $(pub const $name: Self = Self($code);)*

            /// T10's name, if this array uses the code.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

asc! {
    NO_ADDITIONAL_SENSE_INFORMATION = 0x0000;
    FILEMARK_DETECTED = 0x0001;
    END_OF_PARTITION_MEDIUM_DETECTED = 0x0002;
    BEGINNING_OF_PARTITION_MEDIUM_DETECTED = 0x0004;
    END_OF_DATA_DETECTED = 0x0005;
    EXTENDED_COPY_INFORMATION_AVAILABLE = 0x0020;
    OPERATION_IN_PROGRESS = 0x0016;
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400;
    LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY = 0x0401;
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402;
    LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED = 0x0403;
    LOGICAL_UNIT_COMMUNICATION_FAILURE = 0x0800;
    UNREACHABLE_COPY_TARGET = 0x0804;
    WRITE_ERROR = 0x0C00;
    UNEXPECTED_UNSOLICITED_DATA = 0x0C0C;
    NOT_ENOUGH_UNSOLICITED_DATA = 0x0C0D;
    ERROR_DETECTED_BY_THIRD_PARTY_TEMPORARY_INITIATOR = 0x0D00;
    THIRD_PARTY_DEVICE_FAILURE = 0x0D01;
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0D02;
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0D03;
    COPY_TARGET_DEVICE_DATA_UNDERRUN = 0x0D04;
    COPY_TARGET_DEVICE_DATA_OVERRUN = 0x0D05;
    UNRECOVERED_READ_ERROR = 0x1100;
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00;
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00;
    INVALID_COMMAND_OPERATION_CODE = 0x2000;
    ACCESS_DENIED_NO_ACCESS_RIGHTS = 0x2002;
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100;
    INVALID_FIELD_IN_CDB = 0x2400;
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500;
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600;
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606;
    PARAMETER_VALUE_INVALID = 0x2602;
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607;
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608;
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609;
    UNEXPECTED_INEXACT_SEGMENT = 0x260A;
    INLINE_DATA_LENGTH_EXCEEDED = 0x260B;
    INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION = 0x260C;
    COPY_SEGMENT_GRANULARITY_VIOLATION = 0x260D;
    WRITE_PROTECTED = 0x2700;
    LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = 0x2702;
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707;
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800;
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900;
    POWER_ON_OCCURRED = 0x2901;
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903;
    I_T_NEXUS_LOSS_OCCURRED = 0x2907;
    MODE_PARAMETERS_CHANGED = 0x2A01;
    CAPACITY_DATA_HAS_CHANGED = 0x2A09;
    COMMAND_SEQUENCE_ERROR = 0x2C00;
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00;
    COMMANDS_CLEARED_BY_DEVICE_SERVER = 0x2F02;
    INCOMPATIBLE_MEDIUM_INSTALLED = 0x3000;
    CANNOT_READ_MEDIUM_UNKNOWN_FORMAT = 0x3001;
    CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT = 0x3002;
    MEDIUM_FORMAT_CORRUPTED = 0x3100;
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900;
    MEDIUM_NOT_PRESENT = 0x3A00;
    SEQUENTIAL_POSITIONING_ERROR = 0x3B00;
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E;
    INQUIRY_DATA_HAS_CHANGED = 0x3F03;
    INTERNAL_TARGET_FAILURE = 0x4400;
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705;
    OVERLAPPED_COMMANDS_ATTEMPTED = 0x4E00;
    WRITE_APPEND_ERROR = 0x5000;
    MEDIA_LOAD_OR_EJECT_FAILED = 0x5300;
    MEDIUM_REMOVAL_PREVENTED = 0x5302;
    SYSTEM_RESOURCE_FAILURE = 0x5500;
    INSUFFICIENT_RESOURCES = 0x5503;
    OPERATOR_MEDIUM_REMOVAL_REQUEST = 0x5A01;
}

impl std::fmt::Debug for Asc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02X}h/{:02X}h {}", self.0 >> 8, self.0 & 0xFF, self.name().unwrap_or("?"))
    }
}

/// The field of the request that is at fault (SPC-4 4.5.2.4.2), with offsets into the CDB or the parameter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// The byte, from zero.
    pub byte: u16,
    /// The most significant bit of the field (7 to 0), when one byte holds several.
    pub bit: Option<u8>,
}

/// Sense-key specific information (SPC-4 4.5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpecific {
    /// ILLEGAL REQUEST: a field of the CDB.
    Cdb(FieldPointer),
    /// ILLEGAL REQUEST: a field of the parameter list.
    ParameterList(FieldPointer),
    /// COPY ABORTED: a field relative to the segment descriptor (SD one).
    Segment(FieldPointer),
    /// COPY ABORTED: a field relative to the parameter list (SD zero).
    CopyList(FieldPointer),
    /// NO SENSE or NOT READY: progress in 65536ths.
    Progress(u16),
}

impl KeySpecific {
    fn bytes(self) -> [u8; 3] {
        let pointer = |flag: u8, field: FieldPointer| {
            let bit = field.bit.map_or(0, |bit| 0x08 | bit);
            let [high, low] = field.byte.to_be_bytes();
            [0x80 | flag | bit, high, low]
        };
        match self {
            Self::Cdb(field) => pointer(0x40, field),
            Self::ParameterList(field) | Self::CopyList(field) => pointer(0, field),
            Self::Segment(field) => pointer(0x20, field),
            Self::Progress(done) => {
                let [high, low] = done.to_be_bytes();
                [0x80, high, low]
            }
        }
    }
}

/// What a CSCD answered to the copy manager: its status byte and its sense data, never altered (SPC-4 6.4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forwarded {
    /// SCSI status byte of the failed command.
    pub status: u8,
    /// The sense data of the failed command, as received.
    pub sense: Vec<u8>,
}

/// The explanation of one CHECK CONDITION.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Sense key.
    pub key: Key,
    /// Additional sense code and qualifier.
    pub asc: Asc,
    /// INFORMATION; VALID is one exactly when this is `Some`. Two's complement where the command set says so.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION.
    pub command_specific: Option<u64>,
    /// Sense-key specific information.
    pub key_specific: Option<KeySpecific>,
    /// FILEMARK (stream commands).
    pub filemark: bool,
    /// EOM (stream commands).
    pub end_of_medium: bool,
    /// ILI (stream and block commands).
    pub incorrect_length: bool,
    /// COPY ABORTED: the segment that failed, from zero.
    pub segment: Option<u16>,
    /// COPY ABORTED: what the copy source answered.
    pub source: Option<Forwarded>,
    /// COPY ABORTED: what the copy destination answered.
    pub destination: Option<Forwarded>,
}

/// Sense data format (SPC-4 4.5.1), chosen by D_SENSE of the control mode page or DESC of REQUEST SENSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Response code 70h.
    #[default]
    Fixed,
    /// Response code 72h.
    Descriptor,
}

/// The longest sense data that this array sends (SPC-4 4.5.3: 252 bytes).
pub(crate) const MAX_LENGTH: usize = 252;

impl Sense {
    /// Sense data with a key and a code only.
    #[must_use]
    pub fn new(key: Key, asc: Asc) -> Self {
        Self {
            key,
            asc,
            information: None,
            command_specific: None,
            key_specific: None,
            filemark: false,
            end_of_medium: false,
            incorrect_length: false,
            segment: None,
            source: None,
            destination: None,
        }
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN CDB at `byte`.
    #[must_use]
    pub fn invalid_cdb_byte(byte: u16) -> Self {
        Self::invalid_cdb(FieldPointer { byte, bit: None })
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN CDB at bit `bit` of `byte`.
    #[must_use]
    pub fn invalid_cdb_bit(byte: u16, bit: u8) -> Self {
        Self::invalid_cdb(FieldPointer { byte, bit: Some(bit) })
    }

    fn invalid_cdb(field: FieldPointer) -> Self {
        let key_specific = Some(KeySpecific::Cdb(field));
        Self { key_specific, ..Self::new(Key::IllegalRequest, Asc::INVALID_FIELD_IN_CDB) }
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST at `byte`.
    #[must_use]
    pub fn invalid_parameter_byte(byte: u16) -> Self {
        Self::invalid_parameter(FieldPointer { byte, bit: None })
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST at bit `bit` of `byte`.
    #[must_use]
    pub fn invalid_parameter_bit(byte: u16, bit: u8) -> Self {
        Self::invalid_parameter(FieldPointer { byte, bit: Some(bit) })
    }

    fn invalid_parameter(field: FieldPointer) -> Self {
        let key_specific = Some(KeySpecific::ParameterList(field));
        Self { key_specific, ..Self::new(Key::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST) }
    }

    /// ILLEGAL REQUEST with another code and no pointer.
    #[must_use]
    pub fn illegal_request(asc: Asc) -> Self {
        Self::new(Key::IllegalRequest, asc)
    }

    /// UNIT ATTENTION.
    #[must_use]
    pub fn unit_attention(asc: Asc) -> Self {
        Self::new(Key::UnitAttention, asc)
    }

    /// The sense data on the wire, at most [`MAX_LENGTH`] bytes.
    #[must_use]
    pub fn encode(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Fixed => self.encode_fixed(),
            Format::Descriptor => self.encode_descriptor(),
        }
    }

    fn stream_bits(&self) -> u8 {
        u8::from(self.filemark) << 7
            | u8::from(self.end_of_medium) << 6
            | u8::from(self.incorrect_length) << 5
    }

    /// INFORMATION as 32 bits, if it fits; sign-extended values do.
    fn information_32(&self) -> Option<u32> {
        let value = self.information?;
        let low = value as u32;
        (u64::from(low) == value || i64::from(low as i32) as u64 == value).then_some(low)
    }

    fn encode_fixed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(18);
        let information = self.information_32();
        out.put_u8(u8::from(information.is_some()) << 7 | 0x70);
        out.put_u8(0);
        out.put_u8(self.stream_bits() | self.key as u8);
        out.put_u32(information.unwrap_or(0));
        out.put_u8(0); // additional length, set below
        out.put_u32(self.command_specific.map_or(0, |value| value as u32));
        out.put_u16(self.asc.0);
        out.put_u8(0);
        out.put_slice(&self.key_specific.map_or([0; 3], KeySpecific::bytes));
        if let Some(segment) = self.segment {
            out[10..12].copy_from_slice(&segment.to_be_bytes());
        }
        // Forwarded sense in the fixed format may not be altered, so sense that does not fit is left out (SPC-4
        // 6.4.4).
        for (pointer_at, forwarded) in [(8, &self.source), (9, &self.destination)] {
            if let Some(forwarded) = forwarded
                && out.len() + 1 + forwarded.sense.len() <= MAX_LENGTH
            {
                out[pointer_at] = out.len() as u8;
                out.put_u8(forwarded.status);
                out.put_slice(&forwarded.sense);
            }
        }
        out[7] = (out.len() - 8) as u8;
        out
    }

    fn encode_descriptor(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.put_slice(&[0x72, self.key as u8, (self.asc.0 >> 8) as u8, self.asc.0 as u8, 0, 0, 0, 0]);
        if let Some(information) = self.information {
            out.put_slice(&[0x00, 0x0A, 0x80, 0]);
            out.put_u64(information);
        }
        if self.command_specific.is_some() || self.segment.is_some() {
            let segment = u64::from(self.segment.unwrap_or(0)) << 32; // bytes 2 and 3 of the eight
            out.put_slice(&[0x01, 0x0A, 0, 0]);
            out.put_u64(self.command_specific.unwrap_or(segment));
        }
        if let Some(specific) = self.key_specific {
            out.put_slice(&[0x02, 0x06, 0, 0]);
            out.put_slice(&specific.bytes());
            out.put_u8(0);
        }
        if self.stream_bits() != 0 {
            out.put_slice(&[0x04, 0x02, 0, self.stream_bits()]);
        }
        // Forwarded sense may be cut but not altered otherwise (SPC-4 4.5.2.7). When the first one has taken all the
        // room, the second one is left out with its header.
        for (source, forwarded) in [(1, &self.source), (2, &self.destination)] {
            if let Some(forwarded) = forwarded
                && let Some(room) = MAX_LENGTH.checked_sub(out.len() + 4)
            {
                let kept = forwarded.sense.len().min(room);
                let truncated = u8::from(kept < forwarded.sense.len()) << 7;
                out.put_slice(&[0x0C, (kept + 2) as u8, truncated | source, forwarded.status]);
                out.put_slice(&forwarded.sense[..kept]);
            }
        }
        out[7] = (out.len() - 8) as u8;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_invalid_field_in_cdb_points_at_byte_and_bit() {
        assert_eq!(
            Sense::invalid_cdb_bit(1, 3).encode(Format::Fixed),
            [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xCB, 0, 1]
        );
    }

    #[test]
    fn fixed_short_tape_read_carries_ili_and_negative_information() {
        let sense = Sense {
            incorrect_length: true,
            information: Some(-512i64 as u64),
            ..Sense::new(Key::NoSense, Asc::NO_ADDITIONAL_SENSE_INFORMATION)
        };
        assert_eq!(sense.encode(Format::Fixed)[..8], [0xF0, 0, 0x20, 0xFF, 0xFF, 0xFE, 0x00, 10]);
    }

    #[test]
    fn information_wider_than_32_bits_is_not_valid_in_fixed_format() {
        let sense = Sense { information: Some(1 << 40), ..Sense::new(Key::Miscompare, Asc(0x1D00)) };
        assert_eq!(sense.encode(Format::Fixed)[..7], [0x70, 0, 0x0E, 0, 0, 0, 0]);
        assert_eq!(sense.encode(Format::Descriptor)[8..20], [0, 0x0A, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn copy_aborted_points_at_segment_and_forwards_the_status() {
        let sense = Sense {
            segment: Some(0x0102),
            destination: Some(Forwarded { status: 2, sense: vec![0x70, 0, 7] }),
            ..Sense::new(Key::CopyAborted, Asc::THIRD_PARTY_DEVICE_FAILURE)
        };
        let fixed = sense.encode(Format::Fixed);
        assert_eq!(fixed[7..12], [14, 0, 18, 1, 2]);
        assert_eq!(fixed[18..], [2, 0x70, 0, 7]);
    }

    #[test]
    fn descriptor_format_carries_field_pointer_stream_bits_and_whole_forwarded_sense() {
        assert_eq!(
            Sense::invalid_parameter_bit(0x0102, 5).encode(Format::Descriptor),
            [0x72, 5, 0x26, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0x8D, 1, 2, 0]
        );
        let filemark = Sense {
            filemark: true,
            information: Some(3),
            ..Sense::new(Key::NoSense, Asc::FILEMARK_DETECTED)
        };
        assert_eq!(
            filemark.encode(Format::Descriptor),
            [0x72, 0, 0, 1, 0, 0, 0, 16, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 2, 0, 0x80]
        );
        let copy = Sense {
            segment: Some(0x0102),
            source: Some(Forwarded { status: 2, sense: vec![0x70, 0, 3, 9, 9] }),
            ..Sense::new(Key::CopyAborted, Asc::THIRD_PARTY_DEVICE_FAILURE)
        };
        assert_eq!(
            copy.encode(Format::Descriptor),
            [
                0x72, 0x0A, 0x0D, 1, 0, 0, 0, 21, 1, 10, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x0C, 7, 1, 2, 0x70,
                0, 3, 9, 9
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn sense_data_never_exceeds_what_page_86h_announces(source in 0usize..300, destination in 0usize..300) {
            let forwarded = |length| Some(Forwarded { status: 2, sense: vec![0xA5; length] });
            let sense = Sense {
                information: Some(1),
                segment: Some(1),
                key_specific: Some(KeySpecific::Segment(FieldPointer { byte: 1, bit: None })),
                source: forwarded(source),
                destination: forwarded(destination),
                ..Sense::new(Key::CopyAborted, Asc::THIRD_PARTY_DEVICE_FAILURE)
            };
            for format in [Format::Fixed, Format::Descriptor] {
                let bytes = sense.encode(format);
                proptest::prop_assert!(bytes.len() <= MAX_LENGTH);
                proptest::prop_assert_eq!(usize::from(bytes[7]) + 8, bytes.len());
            }
        }
    }
}
