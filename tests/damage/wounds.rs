//! The wounds of files in a data directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::random::Random;
use crate::tree::{CARTRIDGES, VOLUMES};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Catalog,
    /// The identity of the data directory.
    Identity,
    Lock,
    VolumeHeader,
    VolumeSegment,
    Landing,
    PairRecord,
    Cartridge,
    Position,
    /// A segment of the journal, on which no object depends.
    Journal,
    /// A directory of one object, or of all of a kind.
    Directory,
}

/// One wound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wound {
    /// One bit of one byte is flipped.
    Flip { offset: u64, bit: u8 },
    /// The file is cut to this length.
    Cut { length: u64 },
    /// The file is removed.
    Remove,
    /// A directory replaces the file.
    Directory,
    /// The file is emptied.
    Empty,
}

/// One wound of one file.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) file: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) wound: Wound,
}

/// The kind of a path in the tree; `None` for a file without contents.
fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    Some(match (parts.as_slice(), name) {
        (["data"], _) | (_, "admin.sock" | "catalog.json.new" | "header.new") => return None,
        (_, "catalog.json") => Kind::Catalog,
        (["data", "identity"], _) => Kind::Identity,
        (_, "lock") => Kind::Lock,
        (_, "header") => Kind::VolumeHeader,
        (_, "position") => Kind::Position,
        (_, "landing") => Kind::Landing,
        (["data", "journal", _], _) => Kind::Journal,
        (["data", "pairs", _, _], _) => Kind::PairRecord,
        (["data", "cartridges", _, _], name) if name.starts_with("data.") => Kind::Cartridge,
        (_, name) if name.starts_with("data.") && !name.ends_with(".new") => Kind::VolumeSegment,
        (["data", _] | ["data", _, _] | ["outside"], _) => Kind::Directory,
        _ => return None,
    })
}

/// The objects that a wound may affect: volumes and cartridges by name. All of them, if the wound affects the whole
/// array.
pub(crate) fn touched(file: &Path) -> Vec<&'static str> {
    let everything = || VOLUMES.iter().map(|(name, ..)| *name).chain(CARTRIDGES).collect();
    let of_pairs = |names: &[&str]| {
        let in_pair = |pair: &Option<&str>| pair.is_some_and(|pair| names.contains(&pair));
        VOLUMES.iter().filter(|(_, _, pair)| in_pair(pair)).map(|(name, ..)| *name).collect::<Vec<_>>()
    };
    let of_volume = |volume: &str| {
        let (name, _, pair) =
            VOLUMES.iter().find(|(name, ..)| *name == volume).expect("a volume of the tree");
        pair.map_or_else(|| vec![*name], |pair| of_pairs(&[pair]))
    };
    let parts: Vec<_> = file.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["outside", ..] => of_volume("outside"),
        ["data", "volumes", name, ..] => of_volume(name),
        ["data", "pairs", name, ..] => of_pairs(&[name]),
        ["data", "pairs"] => of_pairs(&["sp", "whole", "mirror"]),
        ["data", "cartridges", name, ..] => CARTRIDGES.into_iter().filter(|other| other == name).collect(),
        ["data", "cartridges"] => CARTRIDGES.to_vec(),
        _ => everything(),
    }
}

/// The offset of a byte with a meaning, mostly; bytes without a checksum are not flipped at all.
fn offset(kind: Kind, length: u64, random: &mut Random) -> u64 {
    let below = |limit: u64, random: &mut Random| random.within(0..limit.min(length) as usize) as u64;
    match (kind, random.within(0..20)) {
        // Two superblocks, the saved index, and the records (docs/FORMATS.md, Cartridge).
        (Kind::Cartridge, 0..3) => below(512, random),
        (Kind::Cartridge, 3..6) => 4096 + below(512, random),
        (Kind::Cartridge, 6..8) => 8192 + below(256, random),
        (Kind::Cartridge, _) => (8 << 20) + 8192 + below(620_000, random),
        // Header, suspension, closing, and the first frames of a log with room behind it (docs/FORMATS.md, Pair record).
        (Kind::PairRecord, 0..2) => below(64, random),
        (Kind::PairRecord, 2..4) => 4092 + below(40, random),
        (Kind::PairRecord, 4..6) => 8192 + below(32, random),
        (Kind::PairRecord, 6..18) => 12288 + below(800, random),
        // Two superblocks, and the first entries of the first slot (docs/FORMATS.md, Landing log).
        (Kind::Landing, 0..4) => below(512, random),
        (Kind::Landing, 4..8) => 4096 + below(512, random),
        (Kind::Landing, 8..14) => (1 << 20) + below(80 + 16 * 16, random),
        (Kind::Landing, 14..18) => (1 << 20) + 4096 + below(32 << 12, random),
        _ => below(length, random),
    }
}

/// `count` wounds of `files` below `root`: first each file once in every way except a flip, then random ones.
pub(crate) fn cases(root: &Path, files: &[PathBuf], count: usize, random: &mut Random) -> Vec<Case> {
    let mut by_kind: BTreeMap<Kind, Vec<&PathBuf>> = BTreeMap::new();
    for file in files {
        if let Some(kind) = kind(file) {
            by_kind.entry(kind).or_default().push(file);
        }
    }
    let mut cases = Vec::new();
    for (kind, files) in &by_kind {
        for file in files {
            let wounds: &[Wound] = match kind {
                Kind::Directory => &[Wound::Remove],
                _ => &[Wound::Remove, Wound::Directory, Wound::Empty],
            };
            cases.extend(wounds.iter().map(|wound| Case {
                file: (*file).clone(),
                kind: *kind,
                wound: wound.clone(),
            }));
        }
    }
    let kinds = [
        (Kind::PairRecord, 14),
        (Kind::Cartridge, 14),
        (Kind::VolumeHeader, 4),
        (Kind::Catalog, 4),
        (Kind::Identity, 1),
        (Kind::Position, 3),
        (Kind::Journal, 2),
        (Kind::VolumeSegment, 3),
        (Kind::Landing, 6),
    ];
    let drawn: Vec<_> = kinds.iter().flat_map(|(kind, weight)| vec![*kind; *weight]).collect();
    while cases.len() < count {
        let kind = *random.of(&drawn);
        let mut file = (*random.of(&by_kind[&kind])).clone();
        if kind == Kind::PairRecord && random.one_in(2) {
            // The record with the most entries.
            file = Path::new("data/pairs/sp").join(file.file_name().expect("a file"));
        }
        let length = fs::metadata(root.join(&file)).expect("it is there").len();
        let cut = kind == Kind::VolumeSegment || random.one_in(5);
        let wound = match cut {
            _ if length == 0 => continue,
            true => Wound::Cut { length: offset(kind, length, random).min(length - 1) },
            false => {
                let offset = offset(kind, length, random).min(length - 1);
                Wound::Flip { offset, bit: random.within(0..8) as u8 }
            }
        };
        cases.push(Case { file, kind, wound });
    }
    cases.truncate(count);
    cases
}

impl Case {
    /// Wounds the file below `place`.
    pub(crate) fn strike(&self, place: &Path) {
        let path = place.join(&self.file);
        let remove = || match path.is_dir() {
            true => fs::remove_dir_all(&path).expect("it can be removed"),
            false => fs::remove_file(&path).expect("it can be removed"),
        };
        match self.wound {
            Wound::Flip { offset, bit } => {
                let file = OpenOptions::new().read(true).write(true).open(&path).expect("it can be opened");
                let mut byte = [0];
                file.read_exact_at(&mut byte, offset).expect("within the file");
                file.write_all_at(&[byte[0] ^ 1 << bit], offset).expect("it can be written");
            }
            Wound::Cut { length } => {
                let file = OpenOptions::new().write(true).open(&path).expect("it can be opened");
                file.set_len(length).expect("it can be cut");
            }
            Wound::Remove => remove(),
            Wound::Directory => {
                remove();
                fs::create_dir(&path).expect("a directory");
            }
            Wound::Empty => drop(File::create(&path).expect("it can be emptied")),
        }
    }

    /// Whether the wound is unchanged, so that no refused file was written over. `kept` has the files before the
    /// wound.
    pub(crate) fn is_open(&self, place: &Path, kept: &Path) -> bool {
        let path = place.join(&self.file);
        match self.wound {
            Wound::Flip { offset, bit } => {
                let byte = |path: &Path| {
                    let mut byte = [0];
                    File::open(path).and_then(|file| file.read_exact_at(&mut byte, offset)).map(|()| byte[0])
                };
                let before = byte(&kept.join(&self.file)).expect("it was there");
                byte(&path).is_ok_and(|now| now == before ^ 1 << bit)
            }
            Wound::Cut { length } => fs::metadata(&path).is_ok_and(|file| file.len() == length),
            Wound::Remove => path.symlink_metadata().is_err(),
            Wound::Directory => fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()),
            Wound::Empty => fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0),
        }
    }
}
