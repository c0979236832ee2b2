//! What a drive tells about itself and its cartridge: READ BLOCK LIMITS, REPORT DENSITY SUPPORT, LOG SENSE, VPD B0h.

use super::{Drive, Medium};
use crate::lu::{Answer, Buffers, Refusal};
use crate::scsi::cdb::primary::LogSense;
use crate::scsi::cdb::stream::{ReadBlockLimits, ReportDensitySupport};
use crate::scsi::sense::Sense;
use crate::scsi::ssc::{self, BlockLengths, Density};
use crate::store::Patience;
use crate::tape::{Cartridge, MAX_BLOCK, MAX_CAPACITY};
use crate::wire::{Put, Truncated};

/// Density code of every cartridge: the one that software knows as LTO-8.
pub(super) const DENSITY: u8 = 0x5E;

/// VPD page of sequential-access device capabilities (SSC-3 8.4.2).
pub(super) const SEQUENTIAL_ACCESS_CAPABILITIES: u8 = 0xB0;

/// WORM cartridges are understood.
const WORM: u8 = 0x01;

pub(super) fn sequential_access_capabilities(out: &mut impl Put) {
    out.put_u8(WORM);
    out.put_u8(0);
}

pub(super) fn block_limits(command: ReadBlockLimits, out: &mut Vec<u8>) -> Answer {
    if command.maximum_object {
        ssc::maximum_object(u64::MAX, out);
    } else {
        BlockLengths { maximum: MAX_BLOCK, minimum: 1 }.emit(out);
    }
    Answer::Good
}

impl Drive {
    pub(super) fn density_support(
        &self,
        command: ReportDensitySupport,
        buffers: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        if command.medium_type {
            return Err(Sense::invalid_cdb_bit(1, 1).into());
        }
        let capacity =
            if command.media { self.medium(patience)?.ready()?.label().capacity } else { MAX_CAPACITY };
        let density = Density {
            code: DENSITY,
            writable: true,
            default: true,
            capacity_mb: u32::try_from(capacity / 1_000_000).unwrap_or(u32::MAX),
            organization: "CLEAVE",
            name: "IMAGE-1",
            description: "Cartridge image",
        };
        let mut out = Truncated::new(buffers.data_in(), usize::from(command.allocation));
        ssc::density_support(&[density], &mut out);
        Ok(Answer::Good)
    }

    pub(super) fn log_sense(
        &self,
        command: LogSense,
        buffers: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        if command.subpage != 0 {
            return Err(Sense::invalid_cdb_byte(3).into());
        }
        let medium = self.medium(patience)?;
        let parameters = log_page(command.page, &medium).ok_or_else(|| Sense::invalid_cdb_bit(2, 5))?;
        let beyond = parameters.last().is_none_or(|last| last.code < command.pointer);
        if command.pointer != 0 && beyond {
            return Err(Sense::invalid_cdb_byte(5).into());
        }
        let mut body = Vec::new();
        if command.page == 0 {
            body.extend(LOG_PAGES);
        }
        for parameter in parameters.iter().filter(|parameter| parameter.code >= command.pointer) {
            body.put_u16(parameter.code);
            body.put_u8(BINARY_LIST);
            body.put_u8(parameter.width);
            body.put_slice(&parameter.value.to_be_bytes()[8 - usize::from(parameter.width)..]);
        }
        let mut out = Truncated::new(buffers.data_in(), usize::from(command.allocation));
        out.put_u8(command.page);
        out.put_u8(0);
        out.put_u16(body.len() as u16);
        out.put_slice(&body);
        Ok(Answer::Good)
    }
}

const SUPPORTED_PAGES: u8 = 0x00;
const SEQUENTIAL_ACCESS: u8 = 0x0C;
const TAPE_ALERT: u8 = 0x2E;
const TAPE_CAPACITY: u8 = 0x31;
const LOG_PAGES: [u8; 4] = [SUPPORTED_PAGES, SEQUENTIAL_ACCESS, TAPE_ALERT, TAPE_CAPACITY];

/// FORMAT AND LINKING 11b: a binary list parameter.
const BINARY_LIST: u8 = 0x03;

/// How many TapeAlert flags there are (SSC-3 annex A).
const TAPE_ALERT_FLAGS: u16 = 64;

/// A write failed and the cartridge has to be loaded again: "hard error" and "media".
const ALERTS_OF_A_STOPPED_CARTRIDGE: [u16; 2] = [0x03, 0x04];

struct Parameter {
    code: u16,
    /// Bytes of the value, at most 8.
    width: u8,
    value: u64,
}

/// The parameters of a page, ascending by code; `None` for a page that does not exist.
fn log_page(page: u8, medium: &Medium) -> Option<Vec<Parameter>> {
    let cartridge = medium.cartridge.as_ref().filter(|_| medium.threaded);
    let counters = medium.counters;
    Some(match page {
        SUPPORTED_PAGES => Vec::new(),
        SEQUENTIAL_ACCESS => {
            // Written and read: at the interface and at the medium, which are one without compression.
            let values = [counters.written, counters.written, counters.read, counters.read];
            let counter = |(code, value)| Parameter { code, width: 8, value };
            let mut page: Vec<_> = (0..).zip(values).map(counter).collect();
            page.push(Parameter { code: 0x8000, width: 1, value: 0 }); // cleaning is never requested
            page
        }
        TAPE_ALERT => {
            let stopped = medium.cartridge.as_ref().is_some_and(Cartridge::stopped);
            let set = |code: u16| stopped && ALERTS_OF_A_STOPPED_CARTRIDGE.contains(&code);
            (1..=TAPE_ALERT_FLAGS)
                .map(|code| Parameter { code, width: 1, value: u64::from(set(code)) })
                .collect()
        }
        TAPE_CAPACITY => {
            let mebibytes = |bytes: u64| (bytes >> 20).min(u64::from(u32::MAX));
            let maximum = cartridge.map_or(0, |cartridge| cartridge.label().capacity);
            let remaining = cartridge.map_or(0, |cartridge| maximum.saturating_sub(cartridge.used()));
            // Partition 0 and the absent partition 1: remaining, then maximum.
            let values = [mebibytes(remaining), 0, mebibytes(maximum), 0];
            (1..).zip(values).map(|(code, value)| Parameter { code, width: 4, value }).collect()
        }
        _ => return None,
    })
}
