//! Mode parameters: MODE SENSE and MODE SELECT (SSC-3 8.3).
//!
//! What an initiator can change: the block length, buffered mode, and D_SENSE of the control page. Every other field is
//! what the drive is, and a MODE SELECT that wants it otherwise is refused whole: compression is not asked for here
//! and then silently not done.

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u24};
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::report::DENSITY;
use super::{Drive, Medium};
use crate::lu::{Answer, Buffers, Refusal, Request};
use crate::scsi::cdb::primary::{ModeForm, ModeSelect, ModeSense, PageControl};
use crate::scsi::sense::{Asc, Format, Sense};
use crate::store::Patience;
use crate::wire::{Put, Truncated};

/// The mode parameters that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Length of the blocks of transfers with FIXED; zero: such transfers are refused.
    pub(super) block_length: u32,
    /// Buffered mode 1: GOOD before the block is on stable storage.
    pub(super) buffered: bool,
    descriptor_sense: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { block_length: 0, buffered: true, descriptor_sense: false }
    }
}

impl Parameters {
    pub(super) fn sense_format(self) -> Format {
        if self.descriptor_sense { Format::Descriptor } else { Format::Fixed }
    }
}

/// What the pages say about the cartridge.
#[derive(Clone, Copy, Debug, Default)]
struct Loaded {
    capacity: u64,
    worm: bool,
}

impl Loaded {
    fn of(medium: &Medium) -> Self {
        let cartridge = medium.cartridge.as_ref().filter(|_| medium.threaded);
        cartridge.map_or(Self::default(), |cartridge| Self {
            capacity: cartridge.label().capacity,
            worm: cartridge.label().worm,
        })
    }
}

/// PAGE CODE that asks for all pages.
const ALL_PAGES: u8 = 0x3F;
/// SUBPAGE CODE that asks for all subpages.
const ALL_SUBPAGES: u8 = 0xFF;
/// Vendor-specific, and empty: Linux st asks for it to get the header and the block descriptor.
const NO_PAGE: u8 = 0x00;

const CONTROL: u8 = 0x0A;
/// D_SENSE, in byte 2 of the control page.
const D_SENSE: u8 = 0x04;
/// MEDIUM PARTITION SIZE UNITS: 10^9 bytes.
const GIGABYTES: u8 = 9;

/// Every page but for its first two bytes, ascending by page code.
fn pages(parameters: Parameters, loaded: Loaded) -> [(u8, Vec<u8>); 8] {
    let page = |length: usize, fields: &[(usize, u8)]| {
        let mut body = vec![0; length];
        for (byte, value) in fields {
            body[byte - 2] = *value;
        }
        body
    };
    let d_sense = if parameters.descriptor_sense { D_SENSE } else { 0 };
    let gigabytes = u16::try_from(loaded.capacity / 1_000_000_000).unwrap_or(u16::MAX).to_be_bytes();
    let worm = u8::from(loaded.worm);
    [
        (0x01, page(0x0A, &[])), // read-write error recovery
        (0x02, page(0x0E, &[])), // disconnect-reconnect
        (CONTROL, page(0x0A, &[(2, d_sense), (8, 0xFF), (9, 0xFF)])), // busy timeout unlimited
        (0x0F, page(0x0E, &[])), // data compression: DCC, DCE zero
        (0x10, page(0x0E, &[(8, 0x40), (10, 0x18)])), // device configuration: LOIS; EEG, SEW
        (0x11, page(0x08, &[(5, 3), (6, GIGABYTES), (8, gigabytes[0]), (9, gigabytes[1])])), // partitions: one
        (0x1C, page(0x0A, &[(2, 0x08)])), // informational exceptions: DEXCPT
        (0x1D, page(0x1E, &[(2, worm), (4, worm), (5, 2 * worm)])), // medium configuration: WORMM
    ]
}

/// The bits of a page that MODE SELECT may change, by byte.
fn changeable(page: u8, byte: usize) -> u8 {
    if (page, byte) == (CONTROL, 2) { D_SENSE } else { 0 }
}

impl Drive {
    pub(super) fn mode_sense(
        &self,
        request: &Request<'_>,
        command: ModeSense,
        buffers: &mut Buffers,
        patience: Patience,
    ) -> Result<Answer, Refusal> {
        let loaded = Loaded::of(&*self.medium(patience)?);
        let parameters = match command.control {
            PageControl::Default => Parameters::default(),
            PageControl::Current | PageControl::Changeable => self.settings.lock().parameters,
        };
        let mut body = Vec::new();
        if !command.disable_block_descriptors {
            body.put_u8(DENSITY);
            body.put_u24(0); // all blocks
            body.put_u8(0);
            body.put_u24(parameters.block_length);
        }
        let descriptor_length = body.len();
        emit_pages(command, parameters, loaded, &mut body)?;
        let mut out = Truncated::new(buffers.data_in(), usize::from(command.allocation));
        let device_specific = u8::from(request.read_only()) << 7 | u8::from(parameters.buffered) << 4;
        match command.form {
            ModeForm::Six => {
                out.put_u8((body.len() + 3) as u8);
                out.put_u8(0); // medium type: default
                out.put_u8(device_specific);
                out.put_u8(descriptor_length as u8);
            }
            ModeForm::Ten => {
                out.put_u16((body.len() + 6) as u16);
                out.put_u8(0);
                out.put_u8(device_specific);
                out.put_u16(0);
                out.put_u16(descriptor_length as u16);
            }
        }
        out.put_slice(&body);
        Ok(Answer::Good)
    }

    pub(super) fn mode_select(
        &self,
        request: &Request<'_>,
        command: ModeSelect,
        buffers: &mut Buffers,
    ) -> Result<Answer, Refusal> {
        buffers.wanted_out = u64::from(command.length);
        if command.length == 0 {
            return Ok(Answer::Good);
        }
        let too_short = || Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR);
        let list = buffers.data_out.get(..usize::from(command.length)).ok_or_else(too_short)?;
        let mut settings = self.settings.lock();
        let changed = select(settings.parameters, command, list)?;
        if changed != settings.parameters {
            settings.parameters = changed;
            drop(settings);
            request.attention_to_others(Asc::MODE_PARAMETERS_CHANGED);
        }
        Ok(Answer::Good)
    }
}

fn emit_pages(
    command: ModeSense,
    parameters: Parameters,
    loaded: Loaded,
    out: &mut Vec<u8>,
) -> Result<(), Sense> {
    let all_pages = command.page == ALL_PAGES;
    if command.subpage != 0 && command.subpage != ALL_SUBPAGES {
        return Err(Sense::invalid_cdb_byte(3));
    }
    let mut found = all_pages || command.page == NO_PAGE;
    for (code, body) in pages(parameters, loaded) {
        if all_pages || code == command.page {
            found = true;
            out.put_u8(code);
            out.put_u8(body.len() as u8);
            for (at, value) in body.iter().enumerate() {
                out.put_u8(match command.control {
                    PageControl::Changeable => changeable(code, at + 2),
                    PageControl::Current | PageControl::Default => *value,
                });
            }
        }
    }
    if found { Ok(()) } else { Err(Sense::invalid_cdb_bit(2, 5)) }
}

/// A mode parameter header.
struct Header {
    medium_type: u8,
    device_specific: u8,
    descriptor_length: u16,
}

fn header(form: ModeForm, input: &[u8]) -> IResult<&[u8], Header> {
    let (rest, (medium_type, device_specific, descriptor_length)) = match form {
        ModeForm::Six => preceded(be_u8, (be_u8, be_u8, be_u8.map(u16::from))).parse(input)?,
        ModeForm::Ten => preceded(be_u16, (be_u8, be_u8, preceded(be_u16, be_u16))).parse(input)?,
    };
    Ok((rest, Header { medium_type, device_specific, descriptor_length }))
}

/// Where in the list the medium type and the descriptor length are, and where the header ends.
fn places(form: ModeForm) -> (u16, u16, u16) {
    match form {
        ModeForm::Six => (1, 3, 4),
        ModeForm::Ten => (2, 6, 8),
    }
}

/// What the parameters become; nothing is changed unless all of the list is acceptable.
fn select(parameters: Parameters, command: ModeSelect, list: &[u8]) -> Result<Parameters, Sense> {
    let cut = |_| Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR);
    let (rest, header) = header(command.form, list).map_err(cut)?;
    let (medium_type_at, descriptor_length_at, header_end) = places(command.form);
    let mut selected = parameters;
    if header.medium_type != 0 {
        return Err(Sense::invalid_parameter_byte(medium_type_at));
    }
    // WP is not looked at; buffered modes above 1 and a speed do not exist here.
    selected.buffered = match header.device_specific & 0x7F {
        0x00 => false,
        0x10 => true,
        _ => return Err(Sense::invalid_parameter_bit(medium_type_at + 1, 6)),
    };
    let rest = match header.descriptor_length {
        0 => rest,
        8 => {
            let (rest, block_length) = block_descriptor(rest).map_err(cut)?;
            selected.block_length =
                block_length.map_err(|byte| Sense::invalid_parameter_byte(header_end + byte))?;
            rest
        }
        _ => return Err(Sense::invalid_parameter_byte(descriptor_length_at)),
    };
    if !rest.is_empty() && !command.page_format {
        return Err(Sense::invalid_cdb_bit(1, 4));
    }
    select_pages(selected, list.len() - rest.len(), rest)
}

/// The block length, or the byte of the descriptor that is at fault.
fn block_descriptor(input: &[u8]) -> IResult<&[u8], Result<u32, u16>> {
    const NO_CHANGE: u8 = 0x7F;
    let (rest, (density, blocks, reserved, length)) = (be_u8, be_u24, be_u8, be_u24).parse(input)?;
    let result = match (density, blocks, reserved) {
        (0 | DENSITY | NO_CHANGE, 0, 0) => Ok(length),
        (0 | DENSITY | NO_CHANGE, 0, _) => Err(4),
        (0 | DENSITY | NO_CHANGE, ..) => Err(1),
        _ => Err(0),
    };
    Ok((rest, result))
}

/// Applies pages that start at byte `from` of the parameter list.
fn select_pages(mut selected: Parameters, mut from: usize, mut list: &[u8]) -> Result<Parameters, Sense> {
    while !list.is_empty() {
        let (rest, (code, body)) =
            page(list).map_err(|_| Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR))?;
        let current = pages(selected, Loaded::default()).into_iter().find(|(known, _)| *known == code);
        let (_, current) = current.ok_or_else(|| Sense::invalid_parameter_byte(from as u16))?;
        if current.len() != body.len() {
            return Err(Sense::invalid_parameter_byte(from as u16 + 1));
        }
        for (at, (new, old)) in body.iter().zip(&current).enumerate() {
            if describes_medium(code, at + 2) {
                continue;
            }
            let refused = (new ^ old) & !changeable(code, at + 2);
            if refused != 0 {
                let byte = (from + 2 + at) as u16;
                return Err(Sense::invalid_parameter_bit(byte, refused.ilog2() as u8));
            }
        }
        if code == CONTROL {
            selected.descriptor_sense = body[0] & D_SENSE != 0;
        }
        from += 2 + body.len();
        list = rest;
    }
    Ok(selected)
}

/// Whether a byte tells what the cartridge is: it is ignored in MODE SELECT.
fn describes_medium(page: u8, byte: usize) -> bool {
    matches!((page, byte), (0x11, 8 | 9) | (0x1D, 2 | 4 | 5))
}

/// One page in page_0 format: its code and what follows its length.
fn page(input: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    let (rest, (code, length)) = (be_u8, be_u8).parse(input)?;
    let (rest, body) = take(length).parse(rest)?;
    Ok((rest, (code, body)))
}
