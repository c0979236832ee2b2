//! `cleave`: the daemon and its control commands.

fn main() {}
