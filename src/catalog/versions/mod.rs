//! The bytes of a catalog: a first line with the version and a checksum, and a body in the form of that version.
//!
//! The program writes [`VERSION`] and reads every version since the first. Each older version has types of its own,
//! which later changes of the program leave alone. Its catalog is brought up one version after another. `fixtures`
//! has a file of each version.

mod version_1;
mod version_2;
mod version_3;
mod version_4;
mod version_5;
mod version_6;

use serde::{Deserialize, Serialize};

use super::Catalog;

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 7;

/// The largest catalog that is read, in bytes: it bounds the memory that a damaged file can make the daemon allocate.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// Why bytes are refused as a catalog.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// They do not begin as a catalog does.
    #[error("this is not a cleave catalog")]
    Foreign,
    /// A newer program wrote them, as this version.
    #[error("it has version {0}, and this program reads up to version {VERSION}")]
    Newer(u32),
    /// They have been changed since they were written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    cleave_catalog: u32,
    crc32c: String,
    bytes: u64,
}

/// The part of the first line that is the same in all versions.
#[derive(Deserialize)]
struct Preamble {
    cleave_catalog: u32,
}

/// The bytes of `catalog`.
///
/// # Panics
/// Never: every part of a catalog has a JSON form.
#[must_use]
pub fn encode(catalog: &Catalog) -> Vec<u8> {
    let mut body = serde_json::to_vec_pretty(catalog).expect("a catalog has a JSON form");
    body.push(b'\n');
    let header = Header {
        cleave_catalog: VERSION,
        crc32c: format!("{:08x}", crc32c(&body)),
        bytes: body.len() as u64,
    };
    let mut out = serde_json::to_vec(&header).expect("a header has a JSON form");
    out.push(b'\n');
    out.append(&mut body);
    out
}

/// The bytes of `catalog`. The error says that they are more than [`MAX_BYTES`], which a reader would refuse.
pub(crate) fn encode_within_bounds(catalog: &Catalog) -> Result<Vec<u8>, String> {
    let bytes = encode(catalog);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("the catalog would have {} bytes, more than {MAX_BYTES}", bytes.len()));
    }
    Ok(bytes)
}

/// The catalog that `bytes` hold.
pub fn decode(bytes: &[u8]) -> Result<Catalog, CatalogError> {
    let line = bytes.iter().position(|byte| *byte == b'\n').ok_or(CatalogError::Foreign)?;
    let (line, body) = (&bytes[..line], &bytes[line + 1..]);
    if !line.starts_with(b"{") {
        return Err(CatalogError::Foreign);
    }
    let preamble: Preamble = serde_json::from_slice(line).map_err(|_| CatalogError::Foreign)?;
    if preamble.cleave_catalog > VERSION {
        return Err(CatalogError::Newer(preamble.cleave_catalog));
    }
    let damaged = |what: String| CatalogError::Damaged(what);
    let header: Header = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
    if header.cleave_catalog == 0 {
        return Err(damaged("version 0 does not exist".to_owned()));
    }
    if header.bytes != body.len() as u64 {
        return Err(damaged(format!("{} bytes follow the first line, not {}", body.len(), header.bytes)));
    }
    if header.crc32c != format!("{:08x}", crc32c(body)) {
        return Err(damaged("its checksum does not fit its contents".to_owned()));
    }
    let catalog = read(header.cleave_catalog, body).map_err(|error| damaged(error.to_string()))?;
    catalog.check().map_err(damaged)?;
    if let Some(newer) = catalog.revisions().find(|revision| *revision > catalog.revision) {
        return Err(damaged(format!(
            "an object is of revision {newer}, and the catalog of {}",
            catalog.revision
        )));
    }
    Ok(catalog)
}

/// The catalog in a body of `version`.
fn read(version: u32, body: &[u8]) -> serde_json::Result<Catalog> {
    let version_6: version_6::Catalog = match version {
        1 => of_version_2(serde_json::from_slice::<version_1::Catalog>(body)?.into()).into(),
        2 => of_version_2(serde_json::from_slice(body)?).into(),
        3 => of_version_4(serde_json::from_slice::<version_3::Catalog>(body)?.into()).into(),
        4 => of_version_4(serde_json::from_slice(body)?).into(),
        5 => serde_json::from_slice::<version_5::Catalog>(body)?.into(),
        6 => serde_json::from_slice(body)?,
        _ => return serde_json::from_slice(body),
    };
    let mut catalog = Catalog::from(version_6);
    if version == 1 {
        catalog.keep_what_is_owned();
    }
    Ok(catalog)
}

fn of_version_2(old: version_2::Catalog) -> version_5::Catalog {
    of_version_4(version_3::Catalog::from(old).into())
}

fn of_version_4(old: version_4::Catalog) -> version_5::Catalog {
    old.into()
}

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
