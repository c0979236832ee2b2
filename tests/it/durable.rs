//! The power fails under an array that the test itself opens.
//!
//! On ext4 a sync of one file or directory may make the names of all files stable. A daemon syncs its journal at every change, and
//! the catalog whenever it reads that, so a sync that the array owes for other files would not be missed. Here is no journal, and
//! the catalog rests elsewhere. The data directory is the root of the file system, so that its parent is none of that. A killed
//! daemon is played by the files that it leaves: what it had synced is stable, and the rest is in the page cache only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cleave::array::Options;
use cleave::catalog::store::{Blob, BlobStore};
use cleave::operator::verbs::{lun, pair, target, volume};
use cleave::operator::{Operator, Who, view};
use cleave::portal::Portal;
use cleave::{IscsiName, Name};

use crate::power::{Device, Kind, shut_down};
use crate::raw::{Raw, cdb16};

const TARGET: &str = "iqn.2026-11.internal.cleave:durable";
const MIB: u64 = 1 << 20;

/// One block of eight sectors.
const BLOCK: usize = 4096;

/// Writes a file that is stable before it gets its name. The name is not stable.
fn replace(directory: &Path, name: &str, bytes: &[u8]) {
    let new = directory.join("new");
    let mut file = File::create(&new).expect("a file");
    file.write_all(bytes).and_then(|()| file.sync_all()).expect("its bytes");
    fs::rename(new, directory.join(name)).expect("its name");
}

/// A catalog on another machine.
#[derive(Clone, Debug, Default)]
struct Elsewhere {
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
    /// Where an ext4 is mounted the power of which fails when the catalog is told the identity of the data directory.
    fails: Option<PathBuf>,
}

impl Elsewhere {
    fn bytes(&self) -> Option<Vec<u8>> {
        self.bytes.lock().expect("nobody panics").clone()
    }

    fn knows_the_directory(&self) -> bool {
        self.bytes().is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains("\"data_dir\": \""))
    }

    fn try_open(&self, device: &Device) -> Result<Arc<Operator>, String> {
        let data = device.mount_point();
        let catalog = BlobStore::open(self.clone(), &data.join("volumes")).expect("a catalog");
        let opened = Operator::open_on(Box::new(catalog), &data, &Options::default(), ());
        opened.map_err(|refusal| refusal.to_string())
    }

    fn open(&self, device: &Device) -> Arc<Operator> {
        self.try_open(device).unwrap_or_else(|refusal| panic!("{refusal}"))
    }
}

impl Blob for Elsewhere {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let knew = self.knows_the_directory();
        *self.bytes.lock().expect("nobody panics") = Some(bytes.to_vec());
        if let Some(mount_point) = self.fails.as_ref().filter(|_| !knew && self.knows_the_directory()) {
            shut_down(mount_point);
        }
        Ok(())
    }
}

/// Otherwise the array of the catalog would be refused its own directory.
#[test]
fn the_identity_is_stable_before_the_catalog_is_told() {
    const OF_THE_KILLED: &str = "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a\n";
    for killed in [false, true] {
        let Some(device) = Device::new(Kind::Ext4, "the identity of a data directory") else { return };
        let data = device.mount_point();
        if killed {
            replace(&data, "identity", OF_THE_KILLED.as_bytes());
        }
        let catalog = Elsewhere { fails: Some(data.clone()), ..Elsewhere::default() };
        drop(catalog.try_open(&device)); // without power it may go on or not
        assert!(catalog.knows_the_directory());
        device.lose_power();
        if let Err(refusal) = catalog.try_open(&device) {
            panic!("killed before: {killed}: {refusal}");
        }
        let identity = fs::read_to_string(data.join("identity")).expect("it is there");
        assert_eq!(identity == OF_THE_KILLED, killed, "{identity}");
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// An array with the volume `a` (LUN 0), the first block of which is written. If `external` is given, the files of `a` are there,
/// and not on the device. All of it is stable.
fn array(device: &Device, catalog: &Elsewhere, external: Option<PathBuf>) -> Arc<Operator> {
    let operator = catalog.open(device);
    let target: IscsiName = TARGET.parse().expect("a name");
    let create = volume::Create { path: external, ..volume::Create::new(name("a"), 2 * MIB) };
    operator.run(&Who::Daemon, create).expect("a volume");
    operator.run(&Who::Daemon, target::Create::new(target.clone())).expect("a target");
    operator.run(&Who::Daemon, lun::Map::new(name("a").into(), target, 0)).expect("a LUN");
    with_host(&operator, |raw| assert_eq!(write_stable(raw, 0, 1), 0));
    device.write_back();
    operator
}

fn size(operator: &Operator) -> u64 {
    view::volume::all(operator.array())[0].size
}

/// A host does its work on the array.
fn with_host<T>(operator: &Operator, work: impl FnOnce(&mut Raw) -> T) -> T {
    let portal = Portal::bind(operator.array(), "127.0.0.1:0").expect("a portal");
    let host = "iqn.2026-11.internal.cleave:durable-host";
    let mut raw = Raw::login(&portal.address().to_string(), TARGET, host, 1).expect("login");
    raw.settle(0).expect("the unit becomes ready");
    let done = work(&mut raw);
    drop(raw);
    drop(portal);
    done
}

/// WRITE(16) with FUA. Returns the status.
fn write_stable(raw: &mut Raw, lba: u64, byte: u8) -> u8 {
    let mut cdb = cdb16(0x8A, lba, (BLOCK / 512) as u32);
    cdb[1] = 0x08;
    raw.command(0, &cdb, &[byte; BLOCK], 0).expect("an answer").status
}

fn byte(raw: &mut Raw, lba: u64) -> u8 {
    let answer = raw.read(0, lba, (BLOCK / 512) as u32).expect("READ(16)");
    assert_eq!(answer.status, 0, "{answer:?}");
    answer.data[0]
}

/// The `seed` of the pair `p` in the catalog.
fn seed(catalog: &Elsewhere) -> String {
    let bytes = catalog.bytes().expect("a catalog");
    let at = bytes.iter().position(|byte| *byte == b'\n').expect("a first line");
    let catalog: serde_json::Value = serde_json::from_slice(&bytes[at..]).expect("JSON");
    catalog["pairs"]["p"]["entry"]["seed"].as_str().expect("a seed").to_owned()
}

/// Otherwise the record that comes back would show an instant of which the write has destroyed a part.
#[test]
fn the_note_of_doubt_is_stable_before_a_write_without_the_record() {
    for killed in [false, true] {
        let Some(device) = Device::new(Kind::Ext4, "the note of doubt") else { return };
        let (data, volumes) = (device.mount_point(), tempfile::tempdir().expect("a temporary directory"));
        let catalog = Elsewhere::default();
        let operator = array(&device, &catalog, Some(volumes.path().join("a")));
        let path = Some(volumes.path().join("b"));
        let create = volume::Create { path, ..volume::Create::new(name("b"), 2 * MIB) };
        operator.run(&Who::Daemon, create).expect("a volume");
        let (named, sides) = (Some(name("p")), pair::Create::new(name("a"), name("b")));
        let create = pair::Create { name: named, defer: true, ..sides };
        operator.run(&Who::Daemon, create).expect("a pair");
        drop(operator);
        fs::remove_dir_all(data.join("pairs")).expect("the record goes");
        fs::create_dir(data.join("pairs")).expect("a mount point");
        let note = data.join("doubts").join(seed(&catalog));
        if killed {
            fs::create_dir(data.join("doubts")).expect("a directory");
            device.write_back();
            File::create(&note).expect("a note");
        } else {
            device.write_back();
        }
        let operator = catalog.open(&device);
        with_host(&operator, |raw| {
            assert_eq!(write_stable(raw, 0, 2), 0);
            shut_down(&data);
        });
        drop(operator);
        device.lose_power();
        assert!(note.exists(), "killed before: {killed}: the note is lost");
        let operator = catalog.open(&device);
        let error = view::pair::all(operator.array())[0].error.clone().unwrap_or_default();
        assert!(error.contains("its primary has been written since"), "{error}");
        with_host(&operator, |raw| assert_eq!(byte(raw, 0), 2));
    }
}

#[test]
fn a_resize_is_stable_when_it_is_answered() {
    for length in [4 * MIB, MIB] {
        let Some(device) = Device::new(Kind::Ext4, "a resize") else { return };
        let catalog = Elsewhere::default();
        let operator = array(&device, &catalog, None);
        let resize = volume::Resize { name: name("a"), size: length, shrink: true };
        operator.run(&Who::Daemon, resize).expect("a resize");
        shut_down(&device.mount_point());
        drop(operator);
        device.lose_power();
        let operator = catalog.open(&device);
        assert_eq!(size(&operator), length);
        with_host(&operator, |raw| assert_eq!(byte(raw, 0), 1));
    }
}
