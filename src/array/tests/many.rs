//! Many objects: the cost of a list grows as their number, and not as its square.

use std::time::Instant;

use super::*;
use crate::catalog::{
    CartridgeEntry, DriveEntry, MapEntry, PairEntry, Seed, TargetEntry, VolumeEntry, VolumeLocation, encode,
};

/// An array with `count` volumes in memory, each in a pair with the next and mapped at a target of its own, and as many
/// drives, each with a cartridge.
fn array_of(count: usize) -> (tempfile::TempDir, Arc<Array>) {
    let temporary = tempfile::tempdir().unwrap();
    drop(open(temporary.path()));
    let mut seeds = (0..).map(|seed: u128| Seed(seed.to_be_bytes()));
    let mut seed = || seeds.next().unwrap();
    let mut catalog = Catalog::default();
    for at in 0..count {
        let (volume, drive) = (name(&format!("v{at}")), name(&format!("d{at}")));
        let barcode: Barcode = format!("C{at}L8").parse().unwrap();
        let (size, block_size) = (1 << 20, BlockSize::B512);
        let entry = VolumeEntry::new(seed(), size, block_size, VolumeLocation::Memory);
        catalog.volumes.insert(volume.clone(), entry.into());
        catalog.cartridges.insert(barcode.clone(), CartridgeEntry::new(seed(), size).into());
        let entry = DriveEntry { loaded: Some(barcode), ..DriveEntry::new(seed()) };
        catalog.drives.insert(drive.clone(), entry.into());
        let maps = [volume, drive].into_iter().zip(0..).map(|(object, lun)| MapEntry {
            lun,
            object: object.into(),
            initiators: Default::default(),
            read_only: false,
        });
        let entry = TargetEntry { maps: maps.collect(), ..TargetEntry::new(at as u16 + 1) };
        catalog.targets.insert(node_name(&format!("t{at}")).unwrap(), entry.into());
    }
    for at in (0..count).step_by(2) {
        let [primary, secondary] = [at, at + 1].map(|at| name(&format!("v{at}")));
        let broken = Some("test".to_owned());
        let entry = PairEntry { broken, ..PairEntry::new(seed(), primary, secondary, Pace::Fast) };
        catalog.pairs.insert(name(&format!("p{at}")), entry.into());
    }
    std::fs::write(temporary.path().join("catalog.json"), encode(&catalog)).unwrap();
    let array = open(temporary.path());
    (temporary, array)
}

/// A list, which returns its number of entries.
type List = (&'static str, fn(&Array) -> usize);

const LISTS: [List; 8] = [
    ("volumes", |array| array.volumes().len()),
    ("targets", |array| array.targets().len()),
    ("luns", |array| array.luns().len()),
    ("pairs", |array| view::pair::all(array).len()),
    ("cartridges", |array| view::cartridge::all(array).len()),
    ("drives", |array| view::drive::all(array).len()),
    ("discovery", |array| array.discover(&HOST.parse().unwrap()).len()),
    ("status", |array| view::status(array, Vec::new()).luns.len()),
];

/// The shortest time of a few runs.
fn shortest(array: &Array, list: fn(&Array) -> usize) -> Duration {
    let time = |_| {
        drop(array.turn().publish(|_| ()));
        let began = Instant::now();
        assert!(list(array) > 0);
        began.elapsed()
    };
    (0..5).map(time).min().unwrap()
}

#[test]
fn a_list_of_sixteen_times_as_many_objects_takes_far_less_than_their_square() {
    let made = [200, 3200].map(|count| {
        let (temporary, array) = array_of(count);
        let login = |at| array.login(port(HOST), &node_name(&format!("t{at}")).unwrap(), 1).unwrap();
        let sessions: Vec<_> = (0..count).map(login).collect();
        (sessions, array, temporary)
    });
    let [(_, few, _), (_, many, _)] = &made;
    for (what, list) in LISTS {
        // Whatever else the machine does: with the square each factor would be 256.
        let factor = |_| shortest(many, list).as_secs_f64() / shortest(few, list).as_secs_f64();
        let factors: Vec<f64> = (0..20).map(factor).take_while(|factor| *factor > 100.0).collect();
        assert!(factors.len() < 20, "{what} of 16 times as many objects take {factors:?} times as long");
    }
}
