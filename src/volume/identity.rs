//! The names by which initiators know a logical unit. All are derived from one seed that is drawn once and never
//! reused.
//!
//! The project has no OUI, so the only legal NAA is the locally assigned one (SPC-4 7.8.6.6.4, NAA field 3h), which
//! has room for 60 bits. The UUID designator (SPC-5) carries nearly the whole seed.

use std::fmt::Write as _;

/// The names of one logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    seed: [u8; 16],
}

impl Identity {
    /// The identity with 128 random bits as its seed. The caller draws the bits and keeps them.
    #[must_use]
    pub(crate) const fn from_seed(seed: [u8; 16]) -> Self {
        Self { seed }
    }

    /// NAA designator: 3h in the first four bits, then the last 60 bits of the seed.
    #[must_use]
    pub(crate) fn naa(&self) -> [u8; 8] {
        let [.., a, b, c, d, e, f, g, h] = self.seed;
        [0x30 | a & 0x0F, b, c, d, e, f, g, h]
    }

    /// The NAA as people and udev write it: 16 lower-case hexadecimal digits.
    #[must_use]
    pub(crate) fn naa_text(&self) -> String {
        hexadecimal(&self.naa())
    }

    /// UUID of version 4, variant 10b (RFC 9562 5.4): the seed with those six bits set.
    #[must_use]
    pub(crate) fn uuid(&self) -> [u8; 16] {
        let mut uuid = self.seed;
        uuid[6] = 0x40 | uuid[6] & 0x0F;
        uuid[8] = 0x80 | uuid[8] & 0x3F;
        uuid
    }

    /// The UUID as people write it: hexadecimal digits in five groups.
    #[must_use]
    pub(crate) fn uuid_text(&self) -> String {
        let digits = hexadecimal(&self.uuid());
        let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
        groups.join("-")
    }

    /// Serial number of VPD page 80h: the NAA in upper case, so that an operator can match the two by eye.
    #[must_use]
    pub(crate) fn serial(&self) -> String {
        self.naa_text().to_ascii_uppercase()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_bits_that_the_standards_fix() {
        let identity = Identity::from_seed([0xFF; 16]);
        assert_eq!(identity.naa(), [0x3F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!((identity.uuid()[6], identity.uuid()[8]), (0x4F, 0xBF));
        assert_eq!(identity.uuid_text(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let identity = Identity::from_seed([0; 16]);
        assert_eq!(identity.naa_text(), "3000000000000000");
        assert_eq!((identity.uuid()[6], identity.uuid()[8]), (0x40, 0x80));
    }

    #[test]
    fn the_serial_is_the_naa_in_capitals() {
        let identity = Identity::from_seed(*b"01234567\x9A\xBC\xDE\xF0\x12\x34\x56\x78");
        assert_eq!(identity.serial(), "3ABCDEF012345678");
    }
}
