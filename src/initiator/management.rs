//! Requests to an array through its command device: MANAGEMENT PROTOCOL OUT and IN.
//!
//! OUT carries the request, and IN is asked until the request is no longer in progress. The array keeps the answer for the I_T
//! nexus. Through a device node other programs of this machine share the nexus, so an identifier that is in use is not taken.

use std::time::{Duration, Instant};

use super::{CommandResult, InitiatorError, Transport, good, unit};
use crate::sam::Status;
use crate::scsi::management::{ANSWER_HEADER, In, MAX_ANSWER, Out, emit_request, parse_answer};
pub use crate::scsi::management::{Answer, MAX_REQUEST, State};
use crate::scsi::received::Received;

/// PERIPHERAL DEVICE TYPE of a command device.
const CONTROLLER: u8 = 0x0C;
/// How many bytes of an answer are asked for at first.
const FIRST: u32 = 64 << 10;
/// How many identifiers are tried that other programs may have in use.
const TRIES: u16 = 16;
/// The wait before the request is asked about again: it doubles from the first to the last.
const WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// How often a request is sent again that the array has no room for, and the wait before that.
const BUSY: (u32, Duration) = (20, Duration::from_millis(250));

/// The longest time until a request has been done. A verb waits for its turn, and some flush much data.
const LIMIT: Duration = Duration::from_secs(3600);
/// INVALID FIELD IN CDB: of IN, that nobody knows the request any more.
const UNKNOWN: u16 = 0x2400;
/// What nobody can say of a request whose answer cannot be had.
const LOST: &str = "the array has taken the request, and its answer cannot be had: look whether it is done";

/// How many unit attentions are passed over. A command that reports one has done nothing.
const ATTENTIONS: usize = 8;
const UNIT_ATTENTION: u8 = 0x06;

/// OPERATION IN PROGRESS: a request with this identifier is being done.
const OPERATION_IN_PROGRESS: u16 = 0x0016;
/// How OUT ends for a request that was taken and refused: INVALID FIELD IN PARAMETER LIST, PARAMETER VALUE INVALID, COMMAND
/// SEQUENCE ERROR, INTERNAL TARGET FAILURE.
const REFUSALS: [u16; 4] = [0x2600, 0x2602, 0x2C00, 0x4400];

/// Has the array at `transport` do `request`, and waits for the answer. `first` is the first identifier that is tried.
///
/// # Errors
/// The unit is no command device, or the array did not take the request, or the transport is broken.
pub fn ask(transport: &dyn Transport, first: u16, request: &[u8]) -> Result<Answer, InitiatorError> {
    if request.len() > MAX_REQUEST as usize {
        let why = format!("the request has {} bytes, and at most {MAX_REQUEST} are taken", request.len());
        return Err(InitiatorError::Argument(why));
    }
    let list = emit_request(request);
    let mut identifier = first;
    let (mut tries, mut busy) = (1, 0);
    loop {
        let out = Out { identifier, length: list.len() as u32 };
        let answer = passing_over(|| transport.command(&out.cdb(), list.clone(), 0))?;
        let asc = Received::parse(&answer.sense).map(|sense| sense.asc);
        match asc.filter(|_| answer.status == Status::CheckCondition.code()) {
            Some(asc) if REFUSALS.contains(&asc) => break,
            Some(OPERATION_IN_PROGRESS) if tries < TRIES => {
                (identifier, tries) = (identifier.wrapping_add(1), tries + 1);
                continue;
            }
            _ => {}
        }
        if [Status::Busy, Status::TaskSetFull].iter().any(|status| answer.status == status.code())
            && busy < BUSY.0
        {
            busy += 1;
            std::thread::sleep(BUSY.1);
            continue;
        }
        good("MANAGEMENT PROTOCOL OUT", answer)?;
        break;
    }
    let (mut wait, began) = (WAITS.0, Instant::now());
    loop {
        let answer = tell(transport, identifier)?;
        if answer.state != State::InProgress {
            return Ok(answer);
        }
        if began.elapsed() >= LIMIT {
            return Err(InitiatorError::Impossible(LOST.to_owned()));
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(WAITS.1);
    }
}

/// The answer to a command that is sent again as long as it only reports unit attentions.
fn passing_over(
    send: impl Fn() -> Result<CommandResult, InitiatorError>,
) -> Result<CommandResult, InitiatorError> {
    let mut answer = send()?;
    for _ in 0..ATTENTIONS {
        let sense = Received::parse(&answer.sense).filter(|_| answer.status == Status::CheckCondition.code());
        if sense.is_none_or(|sense| sense.key != UNIT_ATTENTION) {
            break;
        }
        answer = send()?;
    }
    Ok(answer)
}

/// The state of a request and, when it is done, its whole answer.
fn tell(transport: &dyn Transport, identifier: u16) -> Result<Answer, InitiatorError> {
    const WHAT: &str = "MANAGEMENT PROTOCOL IN";
    let mut allocation = ANSWER_HEADER + FIRST;
    for _ in 0..2 {
        let asked = In::Request { identifier, allocation };
        let answer = passing_over(|| transport.command(&asked.cdb(), Vec::new(), allocation))?;
        let asc = Received::parse(&answer.sense).map(|sense| sense.asc);
        if answer.status == Status::CheckCondition.code() && asc == Some(UNKNOWN) {
            return Err(InitiatorError::Impossible(LOST.to_owned()));
        }
        let data = good(WHAT, answer)?;
        let answer = parse_answer(&data).filter(|answer| answer.identifier == identifier);
        let answer = answer.ok_or(InitiatorError::Unreadable(WHAT))?;
        if answer.document.len() as u32 == answer.length {
            return Ok(answer);
        }
        allocation = ANSWER_HEADER + answer.length.min(MAX_ANSWER);
    }
    Err(InitiatorError::Unreadable(WHAT)) // it says another length each time
}

/// Refuses a unit that is no command device of such an array.
///
/// # Errors
/// It is none, or does not say what it is.
pub fn check(transport: &dyn Transport) -> Result<(), InitiatorError> {
    let found = unit::inquiry(transport)?;
    if found.device_type != CONTROLLER {
        return Err(InitiatorError::Impossible(format!(
            "{} is no command device: 'cleave luns' tells which unit is what, and 'cleave command-device create' makes one at the array",
            transport.unit_address()
        )));
    }
    Ok(())
}
