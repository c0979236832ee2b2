//! Any catalog file, also one whose first line vouches for it: refused, or encoded and read back as itself.
#![no_main]

use cleave::array::catalog::{decode, encode};
use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, data);
    let mut vouched =
        format!("{{\"cleave_catalog\":1,\"crc32c\":\"{crc:08x}\",\"bytes\":{}}}\n", data.len()).into_bytes();
    vouched.extend_from_slice(data);
    for file in [data, &vouched] {
        if let Ok(catalog) = decode(file) {
            assert_eq!(decode(&encode(&catalog)).as_ref(), Ok(&catalog));
        }
    }
});
