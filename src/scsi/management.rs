//! MANAGEMENT PROTOCOL IN and OUT (SPC-4 6.12, 6.13): the carrier of requests to the array through a command device.
//!
//! The commands are the standard's own for this purpose, and [`PROTOCOL`] is one of the codes that the standard leaves to
//! vendors. So no operation code of a vendor is needed, and an initiator that knows only the standard finds out by the
//! protocol [`INFORMATION`] what the device takes. One codec serves both ends: the array parses what the client emits, and
//! the client parses what the array emits. docs/IN-BAND.md has the bytes.
//!
//! A request has an *identifier*, which the initiator chooses (MANAGEMENT PROTOCOL SPECIFIC1, bytes 4 and 5 of both CDBs).
//! OUT carries the request; IN returns its state and, when it is done, its answer. Every limit is one constant here.

use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::scsi::sense::{Asc, Sense};
use crate::wire::Put;

/// MANAGEMENT PROTOCOL 00h: management protocol information, the list of the protocols.
pub const INFORMATION: u8 = 0x00;
/// MANAGEMENT PROTOCOL F0h, vendor specific: requests to a cleave array.
pub const PROTOCOL: u8 = 0xF0;

/// Operation code of MANAGEMENT PROTOCOL IN.
const MAINTENANCE_IN: u8 = 0xA3;
/// Operation code of MANAGEMENT PROTOCOL OUT.
const MAINTENANCE_OUT: u8 = 0xA4;
/// Service action of both.
const MANAGEMENT_PROTOCOL: u8 = 0x10;

/// FORMAT VERSION of requests and answers.
pub const VERSION: u8 = 0x01;
/// Bytes of a parameter list before the request.
pub const REQUEST_HEADER: u32 = 8;
/// Bytes of parameter data before the answer.
pub const ANSWER_HEADER: u32 = 16;
/// The longest request in bytes, without its header.
pub const MAX_REQUEST: u32 = 16 << 10;
/// The longest answer in bytes, without its header.
pub const MAX_ANSWER: u32 = 1 << 20;

/// What MANAGEMENT PROTOCOL IN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// The list of the protocols.
    Information {
        /// ALLOCATION LENGTH in bytes.
        allocation: u32,
    },
    /// The state of a request, and its answer.
    Request {
        /// The request.
        identifier: u16,
        /// ALLOCATION LENGTH in bytes.
        allocation: u32,
    },
}

impl In {
    /// The command with these fields.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB: there is no such protocol, or the list of the protocols is asked for with an identifier.
    pub(crate) fn parse(protocol: u8, identifier: u16, allocation: u32) -> Result<Self, Sense> {
        match (protocol, identifier) {
            (INFORMATION, 0) => Ok(Self::Information { allocation }),
            (INFORMATION, _) => Err(Sense::invalid_cdb_byte(4)),
            (PROTOCOL, identifier) => Ok(Self::Request { identifier, allocation }),
            _ => Err(Sense::invalid_cdb_byte(2)),
        }
    }

    /// The CDB of this command.
    #[must_use]
    pub fn cdb(self) -> [u8; 12] {
        match self {
            Self::Information { allocation } => cdb(MAINTENANCE_IN, INFORMATION, 0, allocation),
            Self::Request { identifier, allocation } => cdb(MAINTENANCE_IN, PROTOCOL, identifier, allocation),
        }
    }
}

/// MANAGEMENT PROTOCOL OUT: takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// The identifier that the request gets.
    pub identifier: u16,
    /// PARAMETER LIST LENGTH in bytes; zero is not an error.
    pub length: u32,
}

impl Out {
    /// The command with these fields.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB: there is no such protocol, or it takes nothing; or the list is longer than any request.
    pub(crate) fn parse(protocol: u8, identifier: u16, length: u32) -> Result<Self, Sense> {
        if protocol != PROTOCOL {
            return Err(Sense::invalid_cdb_byte(2));
        }
        if length > REQUEST_HEADER + MAX_REQUEST {
            return Err(Sense::invalid_cdb_byte(6));
        }
        Ok(Self { identifier, length })
    }

    /// The CDB of this command.
    #[must_use]
    pub fn cdb(self) -> [u8; 12] {
        cdb(MAINTENANCE_OUT, PROTOCOL, self.identifier, self.length)
    }
}

fn cdb(opcode: u8, protocol: u8, identifier: u16, length: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    (cdb[0], cdb[1], cdb[2]) = (opcode, MANAGEMENT_PROTOCOL, protocol);
    cdb[4..6].copy_from_slice(&identifier.to_be_bytes());
    cdb[6..10].copy_from_slice(&length.to_be_bytes());
    cdb
}

/// The parameter list that carries `request`.
#[must_use]
pub fn emit_request(request: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(REQUEST_HEADER as usize + request.len());
    out.put_u8(VERSION);
    out.put_zeros(3);
    out.put_u32(request.len() as u32);
    out.put_slice(request);
    out
}

/// The request in a parameter list, of which the CDB announced `length` bytes.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list that ends too early; INVALID FIELD IN PARAMETER LIST, with a pointer, for another
/// version, a one in a reserved field, or a length that is not that of the request.
pub fn parse_request(list: &[u8], length: u32) -> Result<&[u8], Sense> {
    let ends_early = || Sense::illegal_request(Asc::PARAMETER_LIST_LENGTH_ERROR);
    let list = list.get(..length as usize).ok_or_else(ends_early)?;
    let fields: IResult<&[u8], (u8, [u8; 3], u32)> =
        (be_u8, (be_u8, be_u8, be_u8).map(<[u8; 3]>::from), be_u32).parse(list);
    let (request, (version, reserved, announced)) = fields.map_err(|_| ends_early())?;
    if version != VERSION {
        return Err(Sense::invalid_parameter_byte(0));
    }
    if let Some(at) = reserved.iter().position(|byte| *byte != 0) {
        return Err(Sense::invalid_parameter_byte(1 + at as u16));
    }
    if announced as usize != request.len() {
        return Err(Sense::invalid_parameter_byte(4));
    }
    Ok(request)
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It is being done.
    InProgress = 0x01,
    /// It is done.
    Done = 0x02,
    /// It was not done.
    Refused = 0x03,
}

impl State {
    fn from_code(code: u8) -> Option<Self> {
        [Self::InProgress, Self::Done, Self::Refused].into_iter().find(|state| *state as u8 == code)
    }
}

/// The parameter data about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub identifier: u16,
    /// How far it is.
    pub state: State,
    /// The exit code of a control command with this answer.
    pub exit_code: u8,
    /// The answer, as far as there was room for it: a JSON document; none yet while the request is in progress.
    pub document: Vec<u8>,
    /// The length of the whole document.
    pub length: u32,
}

/// Appends the parameter data about a request, always whole. For the allocation length wrap `out` in
/// [`crate::wire::Truncated`].
pub(crate) fn emit_answer(identifier: u16, state: State, exit_code: u8, document: &[u8], out: &mut impl Put) {
    let length = document.len() as u32;
    out.put_u32(ANSWER_HEADER - 4 + length);
    out.put_u8(VERSION);
    out.put_u8(state as u8);
    out.put_u8(exit_code);
    out.put_u8(0);
    out.put_u16(identifier);
    out.put_u16(0);
    out.put_u32(length);
    out.put_slice(document);
}

/// The parameter data that an array sent; `None` if it is none of this version.
#[must_use]
pub fn parse_answer(data: &[u8]) -> Option<Answer> {
    type Fields = (u32, u8, u8, u8, u8, u16, u16, u32);
    let fields: IResult<&[u8], Fields> =
        (be_u32, be_u8, be_u8, be_u8, be_u8, be_u16, be_u16, be_u32).parse(data);
    let (rest, (_, version, state, exit_code, _, identifier, _, length)) = fields.ok()?;
    if version != VERSION || length > MAX_ANSWER {
        return None;
    }
    let document = rest[..rest.len().min(length as usize)].to_vec();
    Some(Answer { identifier, state: State::from_code(state)?, exit_code, document, length })
}

/// Appends the list of the protocols (SUPPORTED MANAGEMENT PROTOCOL LIST).
pub(crate) fn emit_information(out: &mut impl Put) {
    out.put_zeros(6);
    out.put_u16(2);
    out.put_slice(&[INFORMATION, PROTOCOL]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::cdb::Command;
    use crate::scsi::cdb::testing::{parse, pointer};
    use crate::scsi::opcode::DeviceType;
    use crate::scsi::sense::Format;
    use crate::wire::Truncated;

    #[test]
    fn the_bytes_of_both_cdbs() {
        let out = [0xA4, 0x10, 0xF0, 0, 0x12, 0x34, 0, 0, 0, 0x20, 0, 0];
        assert_eq!(Out { identifier: 0x1234, length: 32 }.cdb(), out);
        let command = parse(DeviceType::Controller, &out).unwrap();
        assert_eq!(command, Command::ManagementOut(Out { identifier: 0x1234, length: 32 }));
        let asked = [0xA3, 0x10, 0xF0, 0, 0x12, 0x34, 0, 0x10, 0, 0x10, 0, 0];
        let request = In::Request { identifier: 0x1234, allocation: 0x10_0010 };
        assert_eq!(request.cdb(), asked);
        assert_eq!(parse(DeviceType::Controller, &asked), Ok(Command::ManagementIn(request)));
        let list = [0xA3, 0x10, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0];
        let information = In::Information { allocation: 10 };
        assert_eq!(information.cdb(), list);
        assert_eq!(parse(DeviceType::Controller, &list), Ok(Command::ManagementIn(information)));
    }

    #[test]
    fn a_bad_field_of_a_cdb_is_pointed_at() {
        let refused = |at: usize, value: u8, out: bool| {
            let mut cdb = [if out { 0xA4 } else { 0xA3 }, 0x10, 0xF0, 0, 0, 1, 0, 0, 0, 8, 0, 0];
            cdb[at] = value;
            pointer(parse(DeviceType::Controller, &cdb))
        };
        for out in [false, true] {
            assert_eq!(refused(1, 0x11, out), [0xCC, 0, 1], "another service action");
            assert_eq!(refused(2, 0xF1, out), [0xC0, 0, 2], "another protocol");
            assert_eq!(refused(3, 1, out)[1..], [0, 3], "a reserved byte");
            assert_eq!(refused(10, 1, out)[1..], [0, 10], "a reserved byte");
        }
        assert_eq!(refused(2, 0, true), [0xC0, 0, 2], "the list of the protocols takes nothing");
        assert_eq!(refused(2, 0, false), [0xC0, 0, 4], "and has no identifier");
        assert_eq!(refused(7, 1, true), [0xC0, 0, 6], "64 KiB are too long");
    }

    #[test]
    fn the_bytes_of_a_request() {
        let list = [1, 0, 0, 0, 0, 0, 0, 2, b'{', b'}'];
        assert_eq!(emit_request(b"{}"), list);
        assert_eq!(parse_request(&list, 10), Ok(&b"{}"[..]));
        assert_eq!(
            parse_request(&[&list[..], b"more"].concat(), 10),
            Ok(&b"{}"[..]),
            "what the CDB announces"
        );
        let sense = |list: &[u8]| {
            let sense = parse_request(list, list.len() as u32).unwrap_err().encode(Format::Fixed);
            (sense[2], sense[12], sense[13], [sense[15], sense[16], sense[17]])
        };
        assert_eq!(sense(&list[..7]), (5, 0x1A, 0, [0; 3]));
        assert_eq!(parse_request(&list[..9], 10).unwrap_err().asc, Asc::PARAMETER_LIST_LENGTH_ERROR);
        for (at, value, byte) in [(0, 2, 0), (1, 1, 1), (2, 1, 2), (3, 0x80, 3), (7, 1, 4), (4, 1, 4)] {
            let mut bad = list;
            bad[at] = value;
            assert_eq!(sense(&bad), (5, 0x26, 0, [0x80, 0, byte]), "byte {at}");
        }
    }

    #[test]
    fn the_bytes_of_an_answer() {
        let mut out = Vec::new();
        emit_answer(0x1234, State::Refused, 4, b"{\"a\":1}", &mut out);
        let expected = [&[0, 0, 0, 19, 1, 3, 4, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 7][..], b"{\"a\":1}"].concat();
        assert_eq!(out, expected);
        let answer = |document: &[u8]| Answer {
            identifier: 0x1234,
            state: State::Refused,
            exit_code: 4,
            document: document.to_vec(),
            length: 7,
        };
        assert_eq!(parse_answer(&out), Some(answer(b"{\"a\":1}")));
        let mut cut = Vec::new();
        emit_answer(0x1234, State::Refused, 4, b"{\"a\":1}", &mut Truncated::new(&mut cut, 18));
        assert_eq!(parse_answer(&cut), Some(answer(b"{\"")));
        for (at, value) in [(4, 2), (5, 0), (5, 4), (12, 1)] {
            let mut bad = expected.clone();
            bad[at] = value;
            assert_eq!(parse_answer(&bad), None, "byte {at}");
        }
        let mut information = Vec::new();
        emit_information(&mut information);
        assert_eq!(information, [0, 0, 0, 0, 0, 0, 0, 2, 0x00, 0xF0]);
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(list in proptest::collection::vec(any::<u8>(), 0..64), length in 0..80_u32) {
            if let Ok(request) = parse_request(&list, length) {
                prop_assert_eq!(emit_request(request), &list[..length as usize]);
            }
            let _ = parse_answer(&list);
        }
    }
}
