//! The mode pages of disks, tapes and command devices: for each page the bytes behind the page header, and the bits that may be
//! changed. Comments number the bytes as the standard does, from the page header on.

use super::Page;

/// Read-write error recovery page.
pub(crate) const ERROR_RECOVERY: u8 = 0x01;
/// Caching page.
pub(crate) const CACHING: u8 = 0x08;
/// Control page; subpage 01h is the control extension page.
pub(crate) const CONTROL: u8 = 0x0A;
/// Data compression page.
pub(crate) const DATA_COMPRESSION: u8 = 0x0F;
/// Device configuration page.
pub(crate) const DEVICE_CONFIGURATION: u8 = 0x10;
/// Medium partition page.
pub(crate) const MEDIUM_PARTITION: u8 = 0x11;
/// Power condition page.
pub(crate) const POWER_CONDITION: u8 = 0x1A;
/// Informational exceptions control page.
pub(crate) const INFORMATIONAL_EXCEPTIONS: u8 = 0x1C;
/// Medium configuration page.
pub(crate) const MEDIUM_CONFIGURATION: u8 = 0x1D;

/// D_SENSE, byte 2 of the control page.
pub(super) const D_SENSE: u8 = 0x04;
/// SWP, byte 4 of the control page.
pub(super) const SWP: u8 = 0x08;
/// DCE, byte 2 of the data compression page.
pub(super) const DCE: u8 = 0x80;
/// SELECT DATA COMPRESSION ALGORITHM, byte 14 of the device configuration page: 0 none, 1 the default one.
pub(super) const DEFAULT_ALGORITHM: u8 = 0x01;
/// WORMM, byte 2 of the medium configuration page.
pub(crate) const WORM_MODE: u8 = 0x01;

/// GLTSD, byte 2 of the control page: log parameters are not saved.
const GLTSD: u8 = 0x02;
/// QUEUE ALGORITHM MODIFIER 1, byte 3 of the control page: simple tasks may be reordered.
const UNRESTRICTED_REORDERING: u8 = 0x10;
/// WCE, byte 2 of the caching page.
pub(super) const WCE: u8 = 0x04;
/// DEXCPT, byte 2 of the informational exceptions control page: none is reported.
const DEXCPT: u8 = 0x08;
/// DCC, byte 2 of the data compression page: DCE may be set.
const DCC: u8 = 0x40;
/// DDE, byte 3: the drive decompresses data that is compressed.
const DDE: u8 = 0x80;
/// LOIS, byte 8 of the device configuration page: positions are logical object identifiers.
const LOIS: u8 = 0x40;
/// EEG and SEW, byte 10: end of data is written, and early warning makes the buffer stable.
const EEG_AND_SEW: u8 = 0x18;
/// MEDIUM FORMAT RECOGNITION, byte 5 of the medium partition page: formats and partitions are recognised.
const RECOGNISED: u8 = 0x03;

const fn fixed(page: u8, subpage: u8, default: &'static [u8], none: &'static [u8]) -> Page {
    Page { page, subpage, default, changeable: none }
}

const INFORMATIONAL_EXCEPTIONS_PAGE: Page =
    fixed(INFORMATIONAL_EXCEPTIONS, 0, &[DEXCPT, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 10]);

/// The pages of a disk. WCE is one until an initiator sets it to zero; then every write is stable before it is
/// answered.
pub(crate) static DISK: [Page; 6] = [
    fixed(ERROR_RECOVERY, 0, &[0; 10], &[0; 10]),
    Page {
        page: CACHING,
        subpage: 0,
        default: &[WCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        changeable: &[WCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    Page {
        page: CONTROL,
        subpage: 0,
        default: &[GLTSD, UNRESTRICTED_REORDERING, 0, 0, 0, 0, 0, 0, 0, 0],
        changeable: &[D_SENSE, 0, SWP, 0, 0, 0, 0, 0, 0, 0],
    },
    fixed(CONTROL, 0x01, &[0; 28], &[0; 28]),
    fixed(POWER_CONDITION, 0, &[0; 38], &[0; 38]),
    INFORMATIONAL_EXCEPTIONS_PAGE,
];

/// The pages of a tape drive: one partition; WORMM follows the cartridge. Compression can be switched on and off, as
/// `mt compression` and backup programs want, on the data compression page or on the device configuration page; the
/// two always agree ([`super::Parameters::apply`]). The switch does not change the stored bytes: SSC leaves it to the
/// drive how much it compresses, and this drive stores data as it is.
pub(crate) static TAPE: [Page; 7] = [
    fixed(ERROR_RECOVERY, 0, &[0; 10], &[0; 10]),
    Page {
        page: CONTROL,
        subpage: 0,
        default: &[GLTSD, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        changeable: &[D_SENSE, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    Page {
        page: DATA_COMPRESSION,
        subpage: 0,
        default: &[DCC, DDE, 0, 0, 0, DEFAULT_ALGORITHM, 0, 0, 0, DEFAULT_ALGORITHM, 0, 0, 0, 0],
        changeable: &[DCE, 0, 0, 0, 0, DEFAULT_ALGORITHM, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    Page {
        page: DEVICE_CONFIGURATION,
        subpage: 0,
        default: &[0, 0, 0, 0, 0, 0, LOIS, 0, EEG_AND_SEW, 0, 0, 0, 0, 0],
        changeable: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, DEFAULT_ALGORITHM, 0],
    },
    fixed(MEDIUM_PARTITION, 0, &[0, 0, 0, RECOGNISED, 0, 0], &[0; 6]),
    INFORMATIONAL_EXCEPTIONS_PAGE,
    fixed(MEDIUM_CONFIGURATION, 0, &[0; 30], &[0; 30]),
];
