//! A landing log with arbitrarily changed bytes, some of them with checksums made to fit again. It is refused; or it is
//! read, landed in, brought home and opened again without a panic, and hosts see the same before and after. So do readers of
//! an image, until something of its interval comes home.
#![no_main]

use std::ops::Range;
use std::sync::Arc;

use cleave::internal::landing::{Landing, Outcome, SEGMENT, Shape};
use cleave::store::{Durability, MemStore, Patience, Store, StoreError};
use cleave::units::BlockSize;
use cleave::volume::Block;
use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;

const LENGTH: u64 = 256 << 10;
const LIMIT: u64 = 5 << 20;
const SHAPE: Shape = Shape { identity: *b"0123456789abcdef", length: LENGTH, block_size: BlockSize::B512 };
/// The superblocks, then the first pages of the first segments (docs/FORMATS.md, Landing log).
const PLACES: [(u64, usize); 5] =
    [(0, 512), (4096, 512), (SEGMENT, 1024), (2 * SEGMENT, 1024), (3 * SEGMENT, 8192)];
/// Bytes of a superblock and of a segment's header, with their checksums.
const SEALED: [usize; 5] = [512, 512, 80, 80, 80];

#[derive(Debug)]
struct Home(MemStore);

impl Block for Home {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.read(offset, buffer, patience)
    }
    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        self.0.write(offset, data, durability, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.0.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        self.0.next_data(offset)
    }
}

/// A log of three segments of three intervals, of which the last two count.
fn recorded(home: &Home) -> Arc<MemStore> {
    let store = Arc::new(MemStore::new(0));
    let open = |landing: Result<Landing, StoreError>| landing.expect("memory does not fail");
    let mut landing = open(Landing::create(Arc::clone(&store) as Arc<dyn Store>, SHAPE, LIMIT));
    for round in 1..4u8 {
        let begun = landing.begin_interval(u64::from(round) * 2).expect("a small number");
        assert_eq!(begun, Outcome::Landed);
        for at in 0..4 {
            let data = vec![round; 512 << at];
            let landed = landing.land(at * 9216, &data, Durability::Cached, Patience::Wait);
            assert_eq!(landed.expect("memory does not fail"), Outcome::Landed);
        }
        landing.land_zeros(8192..12288).expect("memory does not fail");
        landing.flush().expect("memory does not fail");
        if round == 1
            && let Some(batch) = landing.oldest(0).expect("memory does not fail")
        {
            batch.bring(home).expect("memory does not fail");
            batch.end().expect("memory does not fail");
        }
        landing = open(Landing::open(Arc::clone(&store) as Arc<dyn Store>, SHAPE, LIMIT));
    }
    store
}

fn change(store: &MemStore, offset: u64, bytes: &mut [u8], with: impl FnOnce(&mut [u8])) {
    store.read(offset, bytes, Patience::Wait).expect("within the store");
    with(bytes);
    store.write(offset, bytes, Durability::Cached, Patience::Wait).expect("within the store");
}

/// Makes the checksum at the end of `length` bytes fit.
fn vouch(store: &MemStore, offset: u64, length: usize) {
    change(store, offset, &mut vec![0; length], |bytes| {
        let (body, crc) = bytes.split_at_mut(length - 4);
        let right = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, body)).expect("CRC32C has 32 bits");
        crc.copy_from_slice(&right.to_be_bytes());
    });
}

fn seen(landing: &Landing, home: &Home) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH as usize];
    landing.read(home, 0, &mut bytes, Patience::Wait).expect("memory does not fail");
    bytes
}

fn image(landing: &Landing, home: &Home, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH as usize];
    landing.read_as_of(number, home, 0, &mut bytes, Patience::Wait).expect("memory does not fail");
    bytes
}

fn use_it(landing: &Landing, home: &Home) -> Result<Vec<u8>, StoreError> {
    let _ = landing.next_data(home, 0)?;
    let before = seen(landing, home);
    let images = [5, 6].map(|number| (number, image(landing, home, number)));
    while let Some(batch) = landing.oldest(0)? {
        let interval = batch.interval();
        batch.bring(home)?;
        batch.end()?;
        assert_eq!(seen(landing, home), before);
        for (number, bytes) in images.iter().filter(|(number, _)| *number > interval) {
            assert_eq!(&image(landing, home, *number), bytes);
            let _ = landing.next_data_as_of(*number, home, 0)?;
        }
    }
    let _ = landing.begin_interval(u64::from(u32::MAX))?;
    assert!(landing.is_empty() && !landing.touches(&(0..LENGTH)));
    let _ = landing.land(4096, &[9; 1024], Durability::Stable, Patience::Wait)?;
    let _ = landing.land_zeros(0..LENGTH)?;
    let _ = landing.land(512, &[8; 512], Durability::Stable, Patience::Wait)?;
    Ok(seen(landing, home))
}

fuzz_target!(|data: &[u8]| {
    let [mode, data @ ..] = data else { return };
    let home = Home(MemStore::new(LENGTH));
    let store = recorded(&home);
    for edit in data.chunks_exact(4) {
        let place = usize::from(edit[0]) % PLACES.len();
        let (offset, room) = PLACES[place];
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]])) % room;
        change(&store, offset + at as u64, &mut [0], |byte| byte[0] = edit[3]);
        if mode & 1 == 1 {
            vouch(&store, offset, SEALED[place]);
        }
    }
    let open = || Landing::open(Arc::clone(&store) as Arc<dyn Store>, SHAPE, LIMIT);
    if let Ok(landing) = open()
        && let Ok(before) = use_it(&landing, &home)
    {
        drop(landing);
        let again = open().expect("a log that was closed in order");
        assert_eq!(seen(&again, &home), before);
    }
});
