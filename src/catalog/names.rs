//! The names of objects, as operators give them. They are parsed once where they come in, and are safe as file names
//! from then on.
//!
//! A [`Name`] becomes a directory below the data directory, so its alphabet has no separator, no leading dot and no
//! control character. Targets and initiators have an [`IscsiName`]. A snapshot has an [`ImageName`]: `@` is in no [`Name`],
//! so the name of a snapshot is never taken for that of a volume or drive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sam::NotAnIscsiName;

pub use crate::sam::IscsiName;
pub use crate::tape::Barcode;

/// Targets and other objects named by a bare word get this prefix.
pub(crate) const IQN_PREFIX: &str = "iqn.2026-11.internal.cleave:";

/// Name of a volume, drive or pair: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LENGTH: usize = 64;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name, shortened if necessary, followed by `-` and `suffix`. `None` if the suffix does not fit into a
    /// name.
    #[must_use]
    pub(super) fn with_suffix(&self, suffix: &str) -> Option<Self> {
        let room = Self::MAX_LENGTH.checked_sub(suffix.len() + 1)?;
        let kept = &self.0[..room.min(self.0.len())];
        format!("{kept}-{suffix}").parse().ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
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

/// What stands between the name of a volume and that of its image.
const AT: char = '@';

/// Name of an image of a volume: `VOLUME@NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    /// The volume.
    pub volume: Name,
    /// The name that the image has among those of the volume.
    pub image: Name,
}

impl ImageName {
    /// The lowest name that an image of `volume` can have.
    #[must_use]
    pub(crate) fn lowest_of(volume: &Name) -> Self {
        // A name begins with a letter or digit, and '0' is the lowest of these.
        Self { volume: volume.clone(), image: Name("0".to_owned()) }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{AT}{}", self.volume, self.image)
    }
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, image) = text.split_once(AT).ok_or_else(|| {
            format!("'{}' is not the name of a snapshot: write VOLUME{AT}NAME", text.escape_default())
        })?;
        Ok(Self { volume: volume.parse()?, image: image.parse()? })
    }
}

impl TryFrom<String> for ImageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.to_string()
    }
}

/// Name of what a LUN or a kernel device shows: a volume, a drive, or an image of a volume (`VOLUME@NAME`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObjectName {
    /// A volume or drive. They share one namespace.
    Whole(Name),
    /// An image of a volume.
    Image(ImageName),
}

impl ObjectName {
    /// What people read where there is no object of this name: why not, and what to do.
    #[must_use]
    pub fn not_there(&self) -> (String, &'static str) {
        match self {
            Self::Whole(name) => (
                format!("there is no volume or drive {name}"),
                "see 'cleave volume list' and 'cleave drive list'",
            ),
            Self::Image(name) => {
                (format!("there is no snapshot {name}"), "see 'cleave volume snapshot list'")
            }
        }
    }

    /// The name of a volume or drive, if it is one.
    #[must_use]
    pub fn whole(&self) -> Option<&Name> {
        match self {
            Self::Whole(name) => Some(name),
            Self::Image(_) => None,
        }
    }

    /// The name of an image, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Whole(_) => None,
            Self::Image(name) => Some(name),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(name) => name.fmt(f),
            Self::Image(name) => name.fmt(f),
        }
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains(AT) {
            true => text.parse().map(Self::Image),
            false => text.parse().map(Self::Whole),
        }
    }
}

impl TryFrom<String> for ObjectName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}

impl From<Name> for ObjectName {
    fn from(name: Name) -> Self {
        Self::Whole(name)
    }
}

impl From<ImageName> for ObjectName {
    fn from(name: ImageName) -> Self {
        Self::Image(name)
    }
}

impl PartialEq<Name> for ObjectName {
    fn eq(&self, other: &Name) -> bool {
        self.whole() == Some(other)
    }
}

/// The iSCSI name that an operator's `text` stands for: `text` itself if it begins as an iSCSI name does, else
/// [`IQN_PREFIX`] followed by `text`.
///
/// # Errors
/// The result is not an iSCSI name.
pub(crate) fn node_name(text: &str) -> Result<IscsiName, NotAnIscsiName> {
    if IscsiName::begins(text) { text.parse() } else { format!("{IQN_PREFIX}{text}").parse() }
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
    fn what_a_lun_shows_is_a_volume_a_drive_or_an_image_and_is_told_apart_once() {
        let object = |text: &str| text.parse::<ObjectName>();
        assert_eq!(object("db").unwrap().whole().unwrap().as_str(), "db");
        let image = object("db@noon").unwrap().image().unwrap().clone();
        assert_eq!((image.volume.as_str(), image.image.as_str()), ("db", "noon"));
        assert_eq!(
            (image.to_string(), object("db@noon").unwrap().to_string()),
            ("db@noon".into(), "db@noon".into())
        );
        assert_eq!(object("db").unwrap(), "db".parse::<Name>().unwrap());
        for bad in ["", "@", "db@", "@noon", "db@noon@night", "db@-x", "d b@noon"] {
            assert!(object(bad).is_err() && bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        assert!("db".parse::<ImageName>().is_err(), "a volume is no image");
        let db: Name = "db".parse().unwrap();
        for other in ["db@0", "db@A", "db@noon", "db@00"] {
            assert!(ImageName::lowest_of(&db) <= other.parse().unwrap(), "{other}");
        }
        assert!("d@z".parse::<ImageName>().unwrap() < ImageName::lowest_of(&db));
    }

    #[test]
    fn barcodes_are_upper_case_and_fit_a_volume_tag() {
        assert!("DEMO01L8".parse::<Barcode>().is_ok());
        for bad in ["", "demo01", "A B", "A-1", &"A".repeat(33)] {
            assert!(bad.parse::<Barcode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bare_word_gets_the_default_authority() {
        assert_eq!(node_name("x").unwrap().as_str(), "iqn.2026-11.internal.cleave:x");
        assert_eq!(node_name("X.Y").unwrap().as_str(), "iqn.2026-11.internal.cleave:x.y");
        assert_eq!(node_name("EUI.0123456789ABCDEF").unwrap().as_str(), "eui.0123456789abcdef");
        assert!(node_name("a/b").is_err() && node_name("eui.0").is_err() && node_name("\u{212A}").is_err());
    }
}
