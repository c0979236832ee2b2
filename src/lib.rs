//! A SAN array in user space: iSCSI disks and tape, pairs that are split at one instant, and third-party copy from disk to
//! tape.
//!
//! The program `cleave` is one use of this crate, the daemon with its control commands. Here is what the daemon is made of,
//! for programs that want an array inside themselves: a test suite that needs a real SCSI disk, another store under the
//! catalog, another medium under a logical unit, another front beside iSCSI.
//!
//! # The smallest array
//!
//! ```
//! use std::time::Duration;
//!
//! use cleave::verbs::{lun, target, volume};
//! use cleave::{IscsiName, Operator, Options, Portal, Who};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data_dir = tempfile::tempdir()?;
//! let operator = Operator::open(data_dir.path(), &Options::default(), ())?;
//!
//! let iqn: IscsiName = "iqn.2026-11.com.example:test".parse()?;
//! operator.run(&Who::Daemon, volume::Create::new("disk".parse()?, 64 << 20).in_memory())?;
//! operator.run(&Who::Daemon, target::Create::new(iqn.clone()))?;
//! operator.run(&Who::Daemon, lun::Map::new("disk".parse()?, iqn.clone(), 0))?;
//!
//! let portal = Portal::bind(operator.array(), "127.0.0.1:0")?;
//! let url = portal.url(&iqn, 0); // for qemu-img, iscsi-ls, open-iscsi, or this crate's initiator
//! assert!(url.ends_with("/iqn.2026-11.com.example:test/0"));
//!
//! assert!(portal.shutdown(Duration::from_secs(10)), "all is answered and flushed");
//! # Ok(())
//! # }
//! ```
//!
//! Three examples run as tests: `examples/in_process.rs` writes and reads a block of this array, `examples/own_store.rs`
//! keeps the catalog in a table of another program, and `examples/own_unit.rs` serves a disk that a formula makes.
//!
//! # The rooms
//!
//! A room uses only lower floors, along the edges of docs/ARCHITECTURE.md, and the test `house` holds it. From the top:
//!
//! | room | what it has | for whom |
//! |---|---|---|
//! | [`operator`] | [`Operator`], which changes an array; its verbs as values ([`verbs`]), why one was not done ([`Cause`]), [the array as a file](operator::apply), [what lasts](operator::operations), [lists](operator::view) | whoever has an array |
//! | [`array`](mod@array) | [`Array`], which serves: sessions, lists, [units of the program's own](array::own), [notices](array::notice) | whoever has an array, and other fronts |
//! | [`portal`] | [`Portal`] and [`PortalGroup`](portal::PortalGroup): iSCSI over TCP | whoever serves initiators |
//! | [`initiator`] | [`Initiator`]: reaches any target, and does what `mt`, `dd` and a copy manager do | tests and tools |
//! | [`catalog`] | which objects there are and who sees what; [where that rests](catalog::store) | another store for the catalog |
//! | [`lu`] | [`DeviceServer`](lu::DeviceServer), and the [disk](lu::disk), which is one; [`Task`](lu::Task) and its [`Reply`](lu::Reply) | another unit, another front |
//! | [`volume`], [`store`] | [`Block`](volume::Block), a medium; [`Store`](store::Store), bytes at offsets | another medium |
//! | [`tape`] | the cartridge format and SIMH `.tap` | tools for cartridges |
//! | [`scsi`] | the opcode table, parsed CDBs, sense data | another unit, another front |
//! | [`sam`], [`units`] | the nouns of SAM-5, checked sizes | everybody |
//!
//! Of a room only that is public which its users need. The other rooms are the crate's own. A hidden module, `internal`,
//! lends some of their items to this package's programs and tests: it is no interface, and changes with any commit.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `net` (default) | [`portal`] and [`initiator`], and with them tokio |
//! | `admin` (default) | the daemon: its API, its control commands, its journal |
//!
//! Without features the crate has no async, no sockets and no runtime: an array, its operator, and what serves commands on
//! the caller's threads.
//!
//! # What is promised
//!
//! * **Durability.** A flush, FUA, a filemark, a verb and a split are answered when they are on stable storage, whichever
//!   process wrote the data. After an I/O error a store takes no more writes until an operator has it reinstated, and says
//!   so. At any crash the catalog is the one before a verb or the one after it.
//! * **Answers.** A command is answered exactly once. It is executed with all its data, or not at all.
//! * **Memory.** What initiators can make an array use has a ceiling ([`Options::memory`]), and each of them a share of it.
//! * **Two failures.** An `Err` is a broken conversation or store, and a CHECK CONDITION is an answer. A
//!   panic is a defect; the crate has no `unsafe` but for SG_IO.
//!
//! # What stays
//!
//! Versions follow semantic versioning, and before 1.0 a minor version may change this interface: match enumerations of it
//! with a last arm for what may come. The program's commands, its JSON and the persistent formats (docs/FORMATS.md)
//! are held to more: a data directory of an older version opens.

// What a feature alone uses is idle without it. The build with all features, which is the one that is linted, finds what
// nobody uses.
#![cfg_attr(not(feature = "admin"), allow(dead_code, unused_imports, unreachable_pub))]

pub(crate) mod memory;
pub(crate) mod printable;
pub mod sam;
pub(crate) mod share;
pub mod units;
pub(crate) mod wire;

pub mod store;

pub mod volume;

pub mod tape;

pub mod scsi;

pub(crate) mod iscsi;

pub mod lu;

pub(crate) mod landing;

pub(crate) mod origin;

pub(crate) mod pair;

pub(crate) mod copy;

pub mod catalog;

pub(crate) mod journal;

pub mod array;

pub mod operator;

#[cfg(feature = "net")]
pub mod initiator;

#[cfg(feature = "net")]
pub mod portal;

#[cfg(feature = "admin")]
pub(crate) mod admin;

#[doc(hidden)]
pub mod internal;

pub use array::{Array, Options};
pub use catalog::names::{Barcode, IscsiName, Name};
#[cfg(feature = "net")]
pub use initiator::Initiator;
pub use operator::{Cause, Operator, Refusal, Verb, Who, verbs};
#[cfg(feature = "net")]
pub use portal::Portal;
