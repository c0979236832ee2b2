//! The names that operators give: parsed once at the door, safe as a file name ever after.
//!
//! A [`Name`] becomes a directory below the data directory, so its alphabet has no separator, no leading dot and no
//! control character. An [`Iqn`] is kept in lower case, the form in which RFC 7143 4.2.7.2 compares names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::tape::Barcode;

/// Targets and other objects named by a bare word get this prefix.
pub const IQN_PREFIX: &str = "iqn.2026-11.internal.cleave:";

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Name of a volume, drive or pair: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

text_type!(Name);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LENGTH: usize = 64;
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !(letters && first && text.len() <= Self::MAX_LENGTH) {
            return Err(format!(
                "'{}' is not a name: use 1 to {} letters, digits, '.', '_' or '-', a letter or digit first",
                text.escape_default(),
                Self::MAX_LENGTH
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// iSCSI node name of a target or an initiator (RFC 7143 4.2.7), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Iqn(String);

text_type!(Iqn);

impl Iqn {
    /// The longest node name, in bytes (RFC 7143 4.2.7.1).
    pub const MAX_LENGTH: usize = 223;

    /// The node name that `text` means: itself if it is one, else [`IQN_PREFIX`] and `text`.
    pub fn or_default_authority(text: &str) -> Result<Self, String> {
        if ["iqn.", "eui.", "naa."].iter().any(|kind| text.to_ascii_lowercase().starts_with(kind)) {
            text.parse()
        } else {
            format!("{IQN_PREFIX}{text}").parse()
        }
    }
}

impl FromStr for Iqn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let letters = lower.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-".contains(&b));
        let formed = match lower.split_at_checked(4) {
            Some(("iqn.", rest)) => is_dated_authority(rest),
            Some(("eui.", rest)) => rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()),
            Some(("naa.", rest)) => {
                matches!(rest.len(), 16 | 32) && rest.bytes().all(|b| b.is_ascii_hexdigit())
            }
            _ => false,
        };
        if !(letters && formed && lower.len() <= Self::MAX_LENGTH) {
            return Err(format!(
                "'{}' is not an iSCSI name: write iqn.YYYY-MM.reversed.domain[:text], eui. or naa., \
                 at most {} of a-z 0-9 . : -",
                text.escape_default(),
                Self::MAX_LENGTH
            ));
        }
        Ok(Self(lower))
    }
}

/// `YYYY-MM.authority[:text]`, what stands behind `iqn.` (RFC 7143 4.2.7.4).
fn is_dated_authority(rest: &str) -> bool {
    let Some((date, authority)) = rest.split_once('.') else { return false };
    let dated = match date.split_once('-') {
        Some((year, month)) => {
            year.len() == 4
                && year.bytes().all(|b| b.is_ascii_digit())
                && month.len() == 2
                && matches!(month.parse(), Ok(1..=12))
        }
        None => false,
    };
    dated && authority.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["a", "db-01", "A.b_c", "0"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", "-x", "a/b", "a b", "ä", "a\0", long.as_str()] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn barcodes_are_upper_case_and_fit_a_volume_tag() {
        assert!("DEMO01L8".parse::<Barcode>().is_ok());
        for bad in ["", "demo01", "A B", "A-1", &"A".repeat(33)] {
            assert!(bad.parse::<Barcode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn iscsi_names_are_parsed_and_lowered() {
        let iqn = "IQN.2026-11.Internal.Cleave:Demo".parse::<Iqn>().unwrap();
        assert_eq!(iqn.as_str(), "iqn.2026-11.internal.cleave:demo");
        assert!("eui.0123456789abcdef".parse::<Iqn>().is_ok());
        for bad in [
            "demo",
            "iqn.2026-13.a",
            "iqn.26-01.a",
            "iqn.2026-01.",
            "iqn.2026-01.a b",
            "iqn.2026-01",
            "eui.0",
        ] {
            assert!(bad.parse::<Iqn>().is_err(), "{bad:?}");
        }
        assert_eq!(Iqn::or_default_authority("x").unwrap().as_str(), "iqn.2026-11.internal.cleave:x");
        assert!(Iqn::or_default_authority("a/b").is_err());
    }
}
