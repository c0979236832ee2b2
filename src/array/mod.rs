//! The array: the composition root of the core and the one door into it.

pub mod access;
pub mod catalog;
pub mod data_dir;
pub mod error;
pub mod names;
