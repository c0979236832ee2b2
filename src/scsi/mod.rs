//! Pure codecs of SPC, SBC and SSC: bytes to typed commands and back. No I/O, no state, no clock.

pub mod cdb;
pub(crate) mod designator;
pub(crate) mod inquiry;
pub(crate) mod limits;
pub(crate) mod log;
pub mod management;
pub(crate) mod mode;
pub mod opcode;
pub(crate) mod received;
pub(crate) mod report;
pub(crate) mod sbc;
pub mod sense;
pub(crate) mod ssc;
pub(crate) mod unmap;
pub(crate) mod vpd;
pub(crate) mod xcopy;
