//! iSCSI (RFC 7143) without I/O: bytes in, events out; answers in, bytes out.
//!
//! The room knows sessions, sequence numbers and data transfer, and carries a CDB, a status byte and a sense blob whose
//! meaning is none of its business. It reads no clock, owns no socket and starts no thread: time is an argument.
//! The PDU codecs parse and emit both directions, so that target and initiator share them.

pub mod bhs;
pub mod client;
pub mod connection;
pub mod framer;
pub mod keys;
pub mod login;
pub mod output;
pub mod pdu;
pub mod sequence;
pub mod text;
pub mod transfer;
