//! A set of extents, in the pieces in which the record has it.

use std::collections::BTreeMap;
use std::ops::Range;

/// Words of the bits of a piece.
pub(super) const WORDS: usize = 62;
/// Extents of a piece: 248 MiB.
pub(super) const PIECE: u64 = WORDS as u64 * 64;

/// The bits of a piece: bit `i % 64` of word `i / 64` is extent `i` of the piece.
pub(super) type Bits = [u64; WORDS];

/// A set of extents. Pieces of which no extent is in the set take up nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extents {
    pieces: BTreeMap<u64, Box<Bits>>,
    count: u64,
}

/// The bits of `run`, whose beginning and end are counted within a word.
fn mask(run: &Range<u64>) -> u64 {
    let below = |bit: u64| if bit >= 64 { u64::MAX } else { (1 << bit) - 1 };
    below(run.end) & !below(run.start)
}

/// Puts the extents of `run`, counted within the piece, into `bits`, or takes them out.
pub(super) fn set(bits: &mut Bits, run: &Range<u64>, present: bool) {
    for (base, word) in (0..).step_by(64).zip(bits) {
        let part = run.start.saturating_sub(base).min(64)..run.end.saturating_sub(base).min(64);
        let mask = mask(&part);
        *word = if present { *word | mask } else { *word & !mask };
    }
}

fn count(bits: &Bits) -> u64 {
    bits.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// The first bit at or after `from` that is `present`; [`PIECE`] if there is none.
fn find(bits: &Bits, from: u64, present: bool) -> u64 {
    let mut at = from;
    while at < PIECE {
        #[allow(clippy::cast_possible_truncation)] // below WORDS
        let word = bits[(at / 64) as usize];
        let word = if present { word } else { !word } >> (at % 64);
        if word != 0 {
            return at + u64::from(word.trailing_zeros());
        }
        at = (at / 64 + 1) * 64;
    }
    PIECE
}

/// The pieces that `run` touches, each with the part of the run in it, counted within the piece.
pub(super) fn parts(run: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let run = run.clone();
    (run.start / PIECE..run.end.div_ceil(PIECE)).filter_map(move |piece| {
        let base = piece * PIECE;
        let part = run.start.saturating_sub(base)..(run.end - base).min(PIECE);
        (!part.is_empty()).then_some((piece, part))
    })
}

impl Extents {
    /// How many extents are in the set.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The pieces that have extents, each with its bits, in their order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &Bits)> {
        self.pieces.iter().map(|(piece, bits)| (*piece, &**bits))
    }

    /// The bits of `piece`.
    pub(super) fn piece(&self, piece: u64) -> Bits {
        self.pieces.get(&piece).map_or([0; WORDS], |bits| **bits)
    }

    /// Gives `piece` these bits.
    pub(super) fn put(&mut self, piece: u64, bits: Bits) {
        self.count -= count(&self.piece(piece));
        self.count += count(&bits);
        if bits == [0; WORDS] {
            self.pieces.remove(&piece);
        } else {
            self.pieces.insert(piece, Box::new(bits));
        }
    }

    fn change(&mut self, run: &Range<u64>, present: bool) {
        for (piece, part) in parts(run) {
            let mut bits = self.piece(piece);
            set(&mut bits, &part, present);
            self.put(piece, bits);
        }
    }

    /// Adds `run`.
    pub(super) fn insert(&mut self, run: &Range<u64>) {
        self.change(run, true);
    }

    /// Removes `run`.
    pub(super) fn remove(&mut self, run: &Range<u64>) {
        self.change(run, false);
    }

    /// The first extent of the set at or after `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.pieces.range(from / PIECE..).find_map(|(piece, bits)| {
            let base = piece * PIECE;
            let found = find(bits, from.saturating_sub(base), true);
            (found < PIECE).then_some(base + found)
        })
    }

    /// Whether extent `from` is in the set, and the end of the run of extents with the same answer, at most `limit`.
    pub(super) fn run(&self, from: u64, limit: u64) -> (bool, u64) {
        match self.next(from) {
            Some(first) if first == from => {}
            first => return (false, first.unwrap_or(limit).min(limit)),
        }
        let mut at = from;
        while at < limit {
            let Some(bits) = self.pieces.get(&(at / PIECE)) else { break };
            let base = at / PIECE * PIECE;
            let end = find(bits, at - base, false);
            at = base + end;
            if end < PIECE {
                break;
            }
        }
        (true, at.min(limit))
    }

    /// Whether any extent of `run` is in the set.
    pub(super) fn meets(&self, run: &Range<u64>) -> bool {
        self.next(run.start).is_some_and(|first| first < run.end)
    }

    /// Whether every extent of `run` is in the set.
    pub(super) fn has_all(&self, run: &Range<u64>) -> bool {
        run.is_empty() || self.run(run.start, run.end) == (true, run.end)
    }

    /// The runs of the set, ascending.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at)?;
            at = self.run(start, u64::MAX).1;
            Some(start..at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::testing::random;
    use super::*;

    #[test]
    fn the_set_is_that_of_single_extents() {
        let mut seed = 7;
        let (mut set, mut naive) = (Extents::default(), BTreeSet::new());
        for _ in 0..400 {
            let start = random(&mut seed) % (3 * PIECE);
            let length = [1, 5, 64, 200, PIECE + 1][(random(&mut seed) % 5) as usize];
            let run = start..start + length;
            if random(&mut seed).is_multiple_of(2) {
                set.insert(&run);
                naive.extend(run);
            } else {
                set.remove(&run);
                naive.retain(|extent| !run.contains(extent));
            }
            assert_eq!(set.count(), naive.len() as u64);
            let at = random(&mut seed) % (5 * PIECE);
            assert_eq!(set.next(at), naive.range(at..).next().copied());
            let limit = at + 1 + random(&mut seed) % (2 * PIECE);
            let present = naive.contains(&at);
            let end = (at..limit).find(|extent| naive.contains(extent) != present).unwrap_or(limit);
            assert_eq!(set.run(at, limit), (present, end));
            let run = at..limit;
            assert_eq!(set.meets(&run), naive.range(run.clone()).next().is_some());
            assert_eq!(set.has_all(&run), run.clone().all(|extent| naive.contains(&extent)));
        }
        let extents: Vec<u64> = set.runs().flatten().collect();
        assert_eq!(extents, naive.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_parts_of_a_run_are_counted_within_their_pieces() {
        let all: Vec<_> = parts(&(PIECE - 1..2 * PIECE + 3)).collect();
        assert_eq!(all, [(0, PIECE - 1..PIECE), (1, 0..PIECE), (2, 0..3)]);
        assert_eq!(parts(&(5..5)).count(), 0);
        let mut bits = [0; WORDS];
        set(&mut bits, &(62..130), true);
        assert_eq!(bits[..4], [0xC000_0000_0000_0000, u64::MAX, 3, 0]);
    }
}
