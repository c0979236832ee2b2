//! Which sectors of the volume have landed, and where in the log their bytes are.
//!
//! The map is spread over [`SHARDS`] locks by extents of 64 KiB, so that a write of one extent takes one lock, and
//! commands to different extents rarely meet. An extent has a sorted list of runs that do not overlap. Each run knows
//! the position of its entry, and the higher position wins, in whatever order the runs come: the map is what a replay
//! of the same entries would be.
//!
//! **Each interval has a layer of its own**, so an entry never supersedes one of another interval. A look goes through the
//! layers from the youngest to the oldest, and finds the first landed sectors in any of them. All layers of an extent are
//! under one lock, so a look sees all of them at one moment. As long as there is no image, there is one layer.
//!
//! Each run is 16 bytes; an extent has its place in a table and in an order, and an allocation for the runs. Measured with half a
//! million blocks of 4 KiB scattered over 1 TiB, a landed block takes up 151 bytes, of which 16 are in the first page of its
//! segment, which stays in memory: 38 MiB for each GiB that landed so. Blocks that share extents take up less.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::format::{Position, SECTOR};

/// Sectors of an extent of the map.
pub(super) const EXTENT: u64 = (64 << 10) / SECTOR;

/// How many locks share the extents.
const SHARDS: u64 = 64;

/// A search in a range of at most so many extents looks at each. A longer one asks every shard for its next extent.
const NEAR: u64 = 64;

/// Where landed sectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The entry.
    pub(super) position: Position,
    /// The slot of the store in which the entry's segment is.
    pub(super) slot: u32,
    /// The sector of the segment; 0 if the landed sectors are zeros.
    pub(super) at: u16,
}

impl Place {
    pub(super) fn is_zeros(&self) -> bool {
        self.at == 0
    }

    /// The place of what stands `sectors` behind.
    #[allow(clippy::cast_possible_truncation)] // within a segment
    pub(super) fn behind(self, sectors: u64) -> Self {
        if self.is_zeros() { self } else { Self { at: self.at + sectors as u16, ..self } }
    }

    /// Whether `next`, which is `sectors` behind on the volume, can be read together with this place.
    pub(super) fn continues(&self, next: &Self, sectors: u64) -> bool {
        let one_segment = self.slot == next.slot && self.position.sequence() == next.position.sequence();
        if self.is_zeros() || next.is_zeros() {
            return self.is_zeros() && next.is_zeros();
        }
        one_segment && u64::from(next.at) == u64::from(self.at) + sectors
    }
}

/// Landed sectors of one extent that one entry wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    position: Position,
    slot: u32,
    at: u16,
    /// First sector, from that of the extent.
    first: u8,
    count: u8,
}

const _: () = assert!(EXTENT <= u8::MAX as u64 && size_of::<Run>() == 16);

impl Run {
    fn start(&self) -> u64 {
        u64::from(self.first)
    }

    fn end(&self) -> u64 {
        self.start() + u64::from(self.count)
    }

    fn place(&self) -> Place {
        Place { position: self.position, slot: self.slot, at: self.at }
    }

    #[allow(clippy::cast_possible_truncation)] // within an extent
    fn new(within: Range<u64>, place: Place) -> Self {
        let (first, count) = (within.start as u8, (within.end - within.start) as u8);
        Self { position: place.position, slot: place.slot, at: place.at, first, count }
    }

    /// The part of the run in `within`.
    fn part(&self, within: Range<u64>) -> Self {
        let place = self.place().behind(within.start - self.start());
        Self::new(within, place)
    }
}

/// In a look, each interval counts.
pub(super) const EVERY: u64 = u64::MAX;

/// What has landed in one interval.
struct Layer {
    interval: u64,
    extents: Extents,
}

/// A table for so many extents is not made smaller.
const SPARE: usize = 256;

/// The runs of extents, none of them empty. Nearly every look is for one extent, and most of its time is that in which memory
/// answers: a table has the runs after one such wait, a tree after three. The order is for looks that go far.
#[derive(Default)]
struct Extents {
    runs: HashMap<u64, Vec<Run>>,
    order: BTreeSet<u64>,
}

impl Extents {
    fn get(&self, extent: u64) -> Option<&Vec<Run>> {
        self.runs.get(&extent)
    }

    /// The runs of `extent`, into which something lands now.
    fn filled(&mut self, extent: u64) -> &mut Vec<Run> {
        self.runs.entry(extent).or_insert_with(|| {
            self.order.insert(extent);
            Vec::with_capacity(1)
        })
    }

    /// Leaves of the runs of `extent` those that `stay`; how many have gone.
    fn retain(&mut self, extent: u64, stay: impl FnMut(&Run) -> bool) -> usize {
        let Entry::Occupied(mut entry) = self.runs.entry(extent) else { return 0 };
        let runs = entry.get_mut();
        let before = runs.len();
        runs.retain(stay);
        let gone = before - runs.len();
        if runs.is_empty() {
            entry.remove();
            self.order.remove(&extent);
            if self.runs.capacity() > SPARE && self.runs.len() < self.runs.capacity() / 8 {
                self.runs.shrink_to(self.runs.len() * 2);
            }
        }
        gone
    }

    /// The first extent from `extent` on that has runs.
    fn next(&self, extent: u64) -> Option<u64> {
        self.order.range(extent..).next().copied()
    }
}

/// Layers that have landed sectors, in the order of their intervals.
#[derive(Default)]
struct Layers(Vec<Layer>);

impl Layers {
    fn of(&self, interval: u64) -> Option<&Extents> {
        self.0.iter().rev().find(|layer| layer.interval == interval).map(|layer| &layer.extents)
    }

    /// The layer of `interval`, into which something lands now.
    fn filled(&mut self, interval: u64) -> &mut Extents {
        let at = self.0.partition_point(|layer| layer.interval < interval);
        if self.0.get(at).is_none_or(|layer| layer.interval != interval) {
            self.0.insert(at, Layer { interval, extents: Extents::default() });
        }
        &mut self.0[at].extents
    }

    /// The layers of the intervals before `before`, the youngest first.
    fn before(&self, before: u64) -> impl Iterator<Item = &Extents> {
        self.0.iter().rev().filter(move |layer| layer.interval < before).map(|layer| &layer.extents)
    }

    /// The first landed sectors in `within` of `extent` of the intervals before `before`.
    fn first(&self, extent: u64, within: &Range<u64>, before: u64) -> Option<(Range<u64>, Place)> {
        let mut found = None::<(Range<u64>, Place)>;
        for extents in self.before(before) {
            let Some(runs) = extents.get(extent) else { continue };
            let Some(run) = runs.get(runs.partition_point(|run| run.end() <= within.start)) else { continue };
            // What is older counts only in front of what is younger.
            let end = found.as_ref().map_or(within.end, |(found, _)| found.start);
            let part = run.start().max(within.start)..run.end().min(end);
            if !part.is_empty() {
                let place = run.part(part.clone()).place();
                found = Some((part, place));
            }
        }
        found
    }
}

/// The extents under one lock, on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Layers>);

/// Landed sectors, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landed {
    /// Sectors of the volume.
    pub(super) sectors: Range<u64>,
    /// The place of the first one.
    pub(super) place: Place,
}

/// The landed sectors of a volume.
pub(super) struct Map {
    shards: Box<[Shard]>,
    /// How many runs there are.
    runs: AtomicU64,
}

/// Cuts `sectors` at the borders of extents: extents, and ranges within them.
fn pieces(sectors: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    (sectors.start / EXTENT..sectors.end.div_ceil(EXTENT)).map(move |extent| {
        let base = extent * EXTENT;
        (extent, sectors.start.max(base) - base..sectors.end.min(base + EXTENT) - base)
    })
}

/// Puts `new` among `runs`. Where both are, the higher position stays.
fn overlay(runs: &mut Vec<Run>, new: Run) {
    let first = runs.partition_point(|run| run.end() <= new.start());
    let behind = runs.partition_point(|run| run.start() < new.end());
    if first == behind {
        return runs.insert(first, new);
    }
    if let [only] = &mut runs[first..behind]
        && (only.first, only.count) == (new.first, new.count)
    {
        if only.position < new.position {
            *only = new;
        }
        return;
    }
    let (mut merged, mut at, mut rest) = (Vec::new(), new.start(), None);
    for run in &runs[first..behind] {
        if run.position > new.position {
            if at < run.start() {
                merged.push(new.part(at..run.start()));
            }
            merged.push(*run);
            at = run.end();
            continue;
        }
        if run.start() < new.start() {
            merged.push(run.part(run.start()..new.start()));
        }
        if run.end() > new.end() {
            rest = Some(run.part(new.end()..run.end()));
        }
    }
    if at < new.end() {
        merged.push(new.part(at..new.end()));
    }
    merged.extend(rest);
    runs.splice(first..behind, merged);
}

impl Map {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), runs: AtomicU64::new(0) }
    }

    #[allow(clippy::cast_possible_truncation)] // below SHARDS
    fn shard(&self, extent: u64) -> &RwLock<Layers> {
        &self.shards[(extent % SHARDS) as usize].0
    }

    /// Whether nothing has landed.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.load(Ordering::SeqCst) == 0
    }

    /// `sectors` have landed at `place` in `interval`.
    pub(super) fn insert(&self, interval: u64, sectors: Range<u64>, place: Place) {
        let start = sectors.start;
        for (extent, within) in pieces(sectors) {
            let place = place.behind(extent * EXTENT + within.start - start);
            let mut shard = self.shard(extent).write();
            let layer = shard.filled(interval);
            let runs = layer.filled(extent);
            let before = runs.len();
            overlay(runs, Run::new(within, place));
            if runs.len() >= before {
                self.runs.fetch_add((runs.len() - before) as u64, Ordering::SeqCst);
            } else {
                self.runs.fetch_sub((before - runs.len()) as u64, Ordering::SeqCst);
            }
        }
    }

    /// Forgets what the entry at `position`, of `sectors` in `interval`, has in the map.
    pub(super) fn forget(&self, interval: u64, sectors: Range<u64>, position: Position) {
        for (extent, _) in pieces(sectors) {
            let mut shard = self.shard(extent).write();
            let Some(layer) = shard.0.iter_mut().find(|layer| layer.interval == interval) else { continue };
            let gone = layer.extents.retain(extent, |run| run.position != position);
            self.runs.fetch_sub(gone as u64, Ordering::SeqCst);
            if layer.extents.runs.is_empty() {
                shard.0.retain(|layer| !layer.extents.runs.is_empty());
            }
        }
    }

    /// Calls `found` with each part of `sectors` that has landed in `interval`, ascending.
    pub(super) fn each_in(&self, interval: u64, sectors: Range<u64>, mut found: impl FnMut(Landed)) {
        for (extent, within) in pieces(sectors) {
            let shard = self.shard(extent).read();
            let base = extent * EXTENT;
            let Some(runs) = shard.of(interval).and_then(|layer| layer.get(extent)) else { continue };
            let first = runs.partition_point(|run| run.end() <= within.start);
            for run in runs[first..].iter().take_while(|run| run.start() < within.end) {
                let part = run.start().max(within.start)..run.end().min(within.end);
                let place = run.part(part.clone()).place();
                found(Landed { sectors: base + part.start..base + part.end, place });
            }
        }
    }

    /// The first landed sectors in `within` of `extent`, up to the end of their run or the begin of a younger one.
    fn first_in(&self, extent: u64, within: &Range<u64>, before: u64) -> Option<Landed> {
        let (part, place) = self.shard(extent).read().first(extent, within, before)?;
        let base = extent * EXTENT;
        Some(Landed { sectors: base + part.start..base + part.end, place })
    }

    /// The first extent from `extent` on in which something has landed in the intervals before `before`.
    fn next_extent(&self, extent: u64, before: u64) -> Option<u64> {
        let next_in = |shard: &Shard| {
            let layers = shard.0.read();
            layers.before(before).filter_map(|layer| layer.next(extent)).min()
        };
        self.shards.iter().filter_map(next_in).min()
    }

    /// The first extent from `extent` on in which something has landed in `intervals`.
    pub(super) fn extent_in(&self, extent: u64, intervals: &Range<u64>) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let next_in = |shard: &Shard| {
            let layers = shard.0.read();
            let layers = layers.0.iter().filter(|layer| intervals.contains(&layer.interval));
            layers.filter_map(|layer| layer.extents.next(extent)).min()
        };
        self.shards.iter().filter_map(next_in).min()
    }

    /// The first sectors in `sectors` that have landed in the intervals before `before`, or in any with [`EVERY`]: part
    /// of one run.
    pub(super) fn first(&self, sectors: Range<u64>, before: u64) -> Option<Landed> {
        if self.is_empty() || sectors.is_empty() {
            return None;
        }
        let (first, end) = (sectors.start / EXTENT, sectors.end.div_ceil(EXTENT));
        let near = first..end.min(first + NEAR);
        let found = pieces(sectors.start..sectors.end.min(near.end * EXTENT))
            .find_map(|(extent, within)| self.first_in(extent, &within, before));
        if found.is_some() || near.end == end {
            return found;
        }
        let mut extent = near.end;
        while let Some(next) = self.next_extent(extent, before).filter(|next| *next < end) {
            let base = next * EXTENT;
            let within = sectors.start.max(base) - base..sectors.end.min(base + EXTENT) - base;
            if let Some(found) = self.first_in(next, &within, before) {
                return Some(found);
            }
            extent = next + 1;
        }
        None
    }

    /// The same, as far as they can be read at once, or are zeros.
    pub(super) fn first_piece(&self, sectors: Range<u64>, before: u64) -> Option<Landed> {
        let mut piece = self.first(sectors.clone(), before)?;
        while piece.sectors.end < sectors.end {
            let (extent, at) = (piece.sectors.end / EXTENT, piece.sectors.end % EXTENT);
            let within = at..EXTENT.min(sectors.end - extent * EXTENT);
            let length = piece.sectors.end - piece.sectors.start;
            let next = self.first_in(extent, &within, before);
            let next = next.filter(|next| next.sectors.start == piece.sectors.end);
            let Some(next) = next.filter(|next| piece.place.continues(&next.place, length)) else { break };
            piece.sectors.end = next.sectors.end;
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Oracle;

    use proptest::prelude::*;

    use super::*;

    const SECTORS: u64 = 5 * EXTENT;

    fn place(position: u64, at: u16) -> Place {
        Place { position: Position::of_bits(position), slot: 3, at }
    }

    /// The interval of the first entries.
    const FIRST: u64 = 3;

    /// The place of each sector that has landed before `before`.
    fn all(
        map: &Map,
        next: impl Fn(&Map, Range<u64>, u64) -> Option<Landed>,
        before: u64,
    ) -> Oracle<u64, Place> {
        let (mut found, mut at) = (Oracle::new(), 0);
        while let Some(landed) = next(map, at..SECTORS, before) {
            assert!(landed.sectors.start >= at && !landed.sectors.is_empty());
            at = landed.sectors.end;
            let start = landed.sectors.start;
            let places = landed.sectors.map(|sector| (sector, landed.place.behind(sector - start)));
            found.extend(places);
        }
        found
    }

    fn count(map: &Map) -> u64 {
        map.shards
            .iter()
            .flat_map(|shard| {
                let layers = shard.0.read();
                let all = layers.0.iter().map(|layer| &layer.extents);
                assert!(all.clone().all(|extents| !extents.runs.is_empty()), "an empty layer stays");
                all.clone().for_each(|extents| assert!(extents.runs.len() == extents.order.len()));
                all.flat_map(|extents| extents.runs.values().map(Vec::len)).collect::<Vec<_>>()
            })
            .sum::<usize>() as u64
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert {
            sectors: Range<u64>,
            zeros: bool,
        },
        /// Into the interval before the last.
        Late {
            sectors: Range<u64>,
        },
        Begin,
        Forget(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let sectors = (0..SECTORS, 1..EXTENT * 2).prop_map(|(at, count)| at..(at + count).min(SECTORS));
        let step = prop_oneof![
            5 => (sectors.clone(), any::<bool>()).prop_map(|(sectors, zeros)| Step::Insert { sectors, zeros }),
            1 => sectors.prop_map(|sectors| Step::Late { sectors }),
            1 => Just(Step::Begin),
            1 => (0..64usize).prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// What each sector has in each interval.
    type Layered = Oracle<u64, Oracle<u64, Place>>;

    /// The place of each sector that has landed before `before`.
    fn expected(oracle: &Layered, before: u64) -> Oracle<u64, Place> {
        let youngest =
            |places: &Oracle<u64, Place>| places.range(..before).next_back().map(|(_, place)| *place);
        oracle.iter().filter_map(|(sector, places)| Some((*sector, youngest(places)?))).collect()
    }

    proptest! {
        #[test]
        fn within_an_interval_the_higher_position_wins_and_of_intervals_the_younger(
            steps in steps(),
            seed: u64,
        ) {
            let map = Map::new();
            let mut oracle = Layered::new();
            let mut entries = Vec::new();
            let mut present = FIRST;
            for (number, step) in steps.into_iter().enumerate() {
                // A position of its own, above or below those before it.
                let position = (seed.rotate_left(number as u32 * 7) & 0xffff) << 8 | number as u64;
                let (interval, sectors, zeros) = match step {
                    Step::Insert { sectors, zeros } => (present, sectors, zeros),
                    Step::Late { sectors } => (present - 1, sectors, false),
                    Step::Begin => {
                        present += 2;
                        continue;
                    }
                    Step::Forget(number) if number < entries.len() => {
                        let (interval, sectors, place): (u64, Range<u64>, Place) = entries.swap_remove(number);
                        let mut found = Vec::new();
                        let is_it = |there: &Place| there.position == place.position;
                        map.each_in(interval, sectors.clone(), |landed| {
                            let base = landed.sectors.start;
                            let expected = place.behind(base - sectors.start);
                            assert!(!is_it(&landed.place) || landed.place == expected);
                            found.extend(landed.sectors.filter(|_| is_it(&landed.place)));
                        });
                        let live: Vec<u64> = oracle.iter().filter(|(_, places)| places.get(&interval).is_some_and(is_it)).map(|(sector, _)| *sector).collect();
                        prop_assert_eq!(found, live);
                        map.forget(interval, sectors, place.position);
                        oracle.values_mut().for_each(|places| places.retain(|_, there| !is_it(there)));
                        continue;
                    }
                    Step::Forget(_) => continue,
                };
                let place = place(position, if zeros { 0 } else { 8 });
                map.insert(interval, sectors.clone(), place);
                for sector in sectors.clone() {
                    let new = place.behind(sector - sectors.start);
                    let there = oracle.entry(sector).or_default().entry(interval).or_insert(new);
                    if there.position < new.position {
                        *there = new;
                    }
                }
                entries.push((interval, sectors, place));
                for before in [present - 2, present, EVERY] {
                    prop_assert_eq!(&all(&map, Map::first, before), &expected(&oracle, before));
                }
                prop_assert_eq!(map.runs.load(Ordering::SeqCst), count(&map));
            }
            let landed = expected(&oracle, EVERY);
            prop_assert_eq!(map.is_empty(), landed.is_empty());
            let pieces = all(&map, Map::first_piece, EVERY);
            prop_assert!(pieces.keys().eq(landed.keys()));
            prop_assert!(pieces.iter().zip(&landed).all(|((_, one), (_, other))| one.at == other.at));
        }
    }

    #[test]
    fn what_is_far_is_found_without_looking_at_each_extent() {
        let map = Map::new();
        assert_eq!(map.first(0..u64::MAX, EVERY), None);
        let far = (1 << 46) + 5;
        map.insert(0, far..far + 3, place(1, 8));
        let landed = Landed { sectors: far + 1..far + 3, place: place(1, 9) };
        assert_eq!(map.first(far + 1..1 << 47, EVERY), Some(landed));
        assert_eq!(map.first(0..1 << 47, EVERY).unwrap().sectors, far..far + 3);
        assert_eq!(map.first(0..far, EVERY), None);
        assert_eq!(map.first(far + 3..1 << 47, EVERY), None);
    }

    #[test]
    fn pieces_go_on_over_extents_as_long_as_the_log_does() {
        let map = Map::new();
        map.insert(0, 100..300, place(1, 8));
        map.insert(0, 300..310, place(2, 208));
        map.insert(0, 310..320, place(3, 300));
        assert_eq!(map.first_piece(0..1000, EVERY).unwrap().sectors, 100..310);
        assert_eq!(map.first_piece(0..200, EVERY).unwrap().sectors, 100..200);
        assert_eq!(map.first_piece(310..1000, EVERY).unwrap().sectors, 310..320);
    }
}
