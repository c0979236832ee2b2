//! A set of extents. Its memory grows with the number of changes, not with the size of the volume.
//!
//! The set is a tree of fan-out 64 over leaves of 4096 bits. A subtree that is all empty or all full is one word. So
//! a 1 PiB volume of which nothing, everything or a few long runs are in the set costs a few kilobytes, and making the
//! set at a split costs nothing. Invariants: no `Leaf` or `Branch` is all empty or all full of the extents it spans,
//! and no extent at or beyond the bound is in the tree.

use std::ops::Range;

/// Base-2 logarithm of the extents in a leaf.
const LEAF_SHIFT: u32 = 12;
/// Base-2 logarithm of the children of a branch.
const FAN_SHIFT: u32 = 6;
const WORDS: usize = 64;

/// The bits of one leaf: bit `i % 64` of word `i / 64` is extent `i` of the leaf.
pub(super) type Bits = [u64; WORDS];

/// How many extents a leaf spans.
pub(super) const LEAF_EXTENTS: u64 = 1 << LEAF_SHIFT;

const _: () = assert!(LEAF_EXTENTS as usize == WORDS * 64);
const _: () = assert!(WORDS == 1 << FAN_SHIFT);

/// A leaf with more runs than this is written as bits: beyond it the runs would take more bytes.
const LEAF_RUNS_MAX: usize = 24;

#[derive(Debug, Clone)]
enum Node {
    Empty,
    Full,
    Leaf(Box<Bits>),
    Branch(Box<[Node; WORDS]>),
}

/// A part of the set, as the record stores it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Every extent of the range.
    Run(Range<u64>),
    /// The bits of leaf number `.0`.
    Leaf(u64, &'a Bits),
}

/// A set of extent numbers below a fixed bound.
#[derive(Debug, Clone)]
pub(super) struct ExtentSet {
    root: Node,
    /// Levels of branches above the leaves.
    height: u32,
    extents: u64,
    count: u64,
}

impl ExtentSet {
    /// The empty set of extents below `extents`.
    pub(super) fn new(extents: u64) -> Self {
        let mut height = 0;
        while LEAF_SHIFT + FAN_SHIFT * height < 63 && extents > 1 << (LEAF_SHIFT + FAN_SHIFT * height) {
            height += 1;
        }
        Self { root: Node::Empty, height, extents, count: 0 }
    }

    /// The bound.
    pub(super) fn extents(&self) -> u64 {
        self.extents
    }

    /// How many extents are in the set.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether every extent below the bound is in the set.
    pub(super) fn is_full(&self) -> bool {
        self.count == self.extents
    }

    /// Makes the set empty.
    pub(super) fn clear(&mut self) {
        self.root = Node::Empty;
        self.count = 0;
    }

    /// Makes the set full. The cost does not depend on the bound: one branch at most is filled on each level.
    pub(super) fn insert_all(&mut self) {
        self.clear();
        self.insert(0..self.extents);
    }

    /// Adds `range`, which must lie below the bound.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        assert!(range.end <= self.extents, "extents {range:?} of {}", self.extents);
        if !range.is_empty() {
            self.count += self.root.set(self.height, range, true);
        }
        debug_assert!(self.count <= self.extents);
    }

    /// Removes `range`, which must lie below the bound.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        assert!(range.end <= self.extents, "extents {range:?} of {}", self.extents);
        if !range.is_empty() {
            self.count -= self.root.set(self.height, range, false);
        }
    }

    /// Adds every extent of `other`, which must have the same bound.
    pub(super) fn union(&mut self, other: &Self) {
        assert_eq!(self.extents, other.extents, "sets of different bounds");
        self.count += self.root.union(self.height, &other.root);
    }

    /// Adds the extents of leaf `leaf` whose bits are set; `None` if one of them is beyond the bound.
    pub(super) fn insert_bits(&mut self, leaf: u64, bits: &Bits) -> Option<()> {
        let base = leaf.checked_mul(LEAF_EXTENTS)?;
        for run in runs_of(bits) {
            let range = base.checked_add(run.start)?..base.checked_add(run.end)?;
            if range.end > self.extents {
                return None;
            }
            self.insert(range);
        }
        Some(())
    }

    /// Whether extent `from` is in the set, and the end of the run of extents with the same answer, at most `limit`.
    /// `from < limit <= extents`.
    pub(super) fn run(&self, from: u64, limit: u64) -> (bool, u64) {
        assert!(from < limit && limit <= self.extents);
        let mut scan = Scan { position: from, limit, value: None };
        self.root.scan(self.height, 0, &mut scan);
        debug_assert!(scan.position > from);
        (scan.value == Some(true), scan.position)
    }

    /// Whether every extent of `range` is in the set.
    pub(super) fn contains_all(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.run(range.start, range.end) == (true, range.end)
    }

    /// Whether no extent of `range` is in the set.
    pub(super) fn contains_none(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.run(range.start, range.end) == (false, range.end)
    }

    /// The first run in `range` of extents that are not in the set.
    pub(super) fn next_absent(&self, range: Range<u64>) -> Option<Range<u64>> {
        let mut from = range.start;
        while from < range.end {
            let (held, end) = self.run(from, range.end);
            if !held {
                return Some(from..end);
            }
            from = end;
        }
        None
    }

    /// The runs of extents in the set, ascending. Between two runs there is at least one extent that is not in the set.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < self.extents {
                let (present, end) = self.run(at, self.extents);
                let start = std::mem::replace(&mut at, end);
                if present {
                    return Some(start..end);
                }
            }
            None
        })
    }

    /// Calls `emit` with pieces that together make up the set, in ascending order.
    pub(super) fn pieces(&self, emit: &mut dyn FnMut(Piece<'_>)) {
        let mut pending = 0..0;
        self.root.pieces(self.height, 0, &mut |piece| {
            if let Piece::Run(run) = &piece
                && run.start == pending.end
            {
                pending.end = run.end;
                return;
            }
            if !pending.is_empty() {
                emit(Piece::Run(std::mem::take(&mut pending)));
            }
            match piece {
                Piece::Run(run) => pending = run,
                leaf @ Piece::Leaf(..) => emit(leaf),
            }
        });
        if !pending.is_empty() {
            emit(Piece::Run(pending));
        }
    }
}

struct Scan {
    position: u64,
    limit: u64,
    value: Option<bool>,
}

impl Scan {
    /// The extents up to `end` have `value`: extends the run, or refuses because the run has ended before.
    fn extend(&mut self, value: bool, end: u64) -> bool {
        if *self.value.get_or_insert(value) != value {
            return false;
        }
        self.position = end.min(self.limit);
        self.position < self.limit
    }
}

fn span(level: u32) -> u64 {
    1 << (LEAF_SHIFT + FAN_SHIFT * level)
}

/// The runs of set bits.
fn runs_of(bits: &Bits) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (index, &word) in bits.iter().enumerate() {
        let (base, mut rest) = (index as u64 * 64, word);
        while rest != 0 {
            let start = u64::from(rest.trailing_zeros());
            let length = u64::from((rest >> start).trailing_ones());
            rest &= !mask(start, start + length);
            match runs.last_mut() {
                Some(last) if last.end == base + start => last.end += length,
                _ => runs.push(base + start..base + start + length),
            }
        }
    }
    runs
}

/// A word with bits `start..end` set, `end <= 64`.
fn mask(start: u64, end: u64) -> u64 {
    let below = |bit: u64| if bit >= 64 { u64::MAX } else { (1 << bit) - 1 };
    below(end) & !below(start)
}

impl Node {
    fn count(&self, level: u32) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full => span(level),
            Self::Leaf(bits) => bits.iter().map(|word| u64::from(word.count_ones())).sum(),
            Self::Branch(children) => children.iter().map(|child| child.count(level - 1)).sum(),
        }
    }

    /// Puts `range`, relative to this node, into the set, or takes it out if not `present`. Returns how many extents
    /// that changed.
    fn set(&mut self, level: u32, range: Range<u64>, present: bool) -> u64 {
        if range == (0..span(level)) {
            let count = self.count(level);
            *self = if present { Self::Full } else { Self::Empty };
            return if present { span(level) - count } else { count };
        }
        match self {
            Self::Full if present => 0,
            Self::Empty if !present => 0,
            Self::Full | Self::Empty => {
                self.split(level);
                self.set(level, range, present)
            }
            Self::Leaf(bits) => {
                let mut changed = 0;
                for index in range.start / 64..=(range.end - 1) / 64 {
                    let word = &mut bits[index as usize];
                    let base = index * 64;
                    let part = mask(range.start.saturating_sub(base), (range.end - base).min(64));
                    let next = if present { *word | part } else { *word & !part };
                    changed += u64::from((next ^ *word).count_ones());
                    *word = next;
                }
                self.join();
                changed
            }
            Self::Branch(children) => {
                let child = span(level - 1);
                let mut changed = 0;
                for index in range.start / child..=(range.end - 1) / child {
                    let base = index * child;
                    let part = range.start.saturating_sub(base)..(range.end - base).min(child);
                    changed += children[index as usize].set(level - 1, part, present);
                }
                self.join();
                changed
            }
        }
    }

    /// Makes a leaf or branch of an empty or full node.
    fn split(&mut self, level: u32) {
        *self = match (&*self, level) {
            (Self::Full, 0) => Self::Leaf(Box::new([u64::MAX; WORDS])),
            (Self::Full, _) => Self::Branch(Box::new([const { Self::Full }; WORDS])),
            (_, 0) => Self::Leaf(Box::new([0; WORDS])),
            (_, _) => Self::Branch(Box::new([const { Self::Empty }; WORDS])),
        };
    }

    /// Makes one word of a leaf or branch that has become all empty or all full.
    fn join(&mut self) {
        let (empty, full) = match self {
            Self::Empty | Self::Full => return,
            Self::Leaf(bits) => {
                (bits.iter().all(|word| *word == 0), bits.iter().all(|word| *word == u64::MAX))
            }
            Self::Branch(children) => (
                children.iter().all(|child| matches!(child, Self::Empty)),
                children.iter().all(|child| matches!(child, Self::Full)),
            ),
        };
        if full {
            *self = Self::Full;
        } else if empty {
            *self = Self::Empty;
        }
    }

    /// Adds the extents of `other`, a node of the same level and place, and returns how many that added.
    fn union(&mut self, level: u32, other: &Self) -> u64 {
        let added = match (&mut *self, other) {
            (Self::Full, _) | (_, Self::Empty) => return 0,
            (Self::Empty, other) => {
                let added = other.count(level);
                *self = other.clone();
                return added;
            }
            (_, Self::Full) => return self.set(level, 0..span(level), true),
            (Self::Leaf(bits), Self::Leaf(more)) => {
                bits.iter_mut().zip(&**more).fold(0, |added, (word, more)| {
                    let new = more & !*word;
                    *word |= new;
                    added + u64::from(new.count_ones())
                })
            }
            (Self::Branch(children), Self::Branch(more)) => {
                children.iter_mut().zip(&**more).map(|(child, more)| child.union(level - 1, more)).sum()
            }
            (Self::Leaf(_), Self::Branch(_)) | (Self::Branch(_), Self::Leaf(_)) => {
                unreachable!("nodes of one level")
            }
        };
        self.join();
        added
    }

    /// Extends `scan` through this node, which starts at extent `base`; false when the run has ended.
    fn scan(&self, level: u32, base: u64, scan: &mut Scan) -> bool {
        match self {
            Self::Empty => scan.extend(false, base + span(level)),
            Self::Full => scan.extend(true, base + span(level)),
            Self::Leaf(bits) => loop {
                let at = scan.position - base;
                if at == LEAF_EXTENTS {
                    return true;
                }
                let word = bits[(at / 64) as usize] >> (at % 64);
                let value = word & 1 == 1;
                let same = u64::from(if value { word.trailing_ones() } else { word.trailing_zeros() });
                if !scan.extend(value, scan.position + same.min(64 - at % 64)) {
                    return false;
                }
            },
            Self::Branch(children) => {
                let child = span(level - 1);
                for index in (scan.position - base) / child..WORDS as u64 {
                    if !children[index as usize].scan(level - 1, base + index * child, scan) {
                        return false;
                    }
                }
                true
            }
        }
    }

    fn pieces(&self, level: u32, base: u64, emit: &mut dyn FnMut(Piece<'_>)) {
        match self {
            Self::Empty => {}
            Self::Full => emit(Piece::Run(base..base + span(level))),
            Self::Leaf(bits) => {
                let runs = runs_of(bits);
                if runs.len() > LEAF_RUNS_MAX {
                    emit(Piece::Leaf(base / LEAF_EXTENTS, bits));
                } else {
                    runs.into_iter().for_each(|run| emit(Piece::Run(base + run.start..base + run.end)));
                }
            }
            Self::Branch(children) => {
                for (index, child) in children.iter().enumerate() {
                    child.pieces(level - 1, base + index as u64 * span(level - 1), emit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rebuilt(set: &ExtentSet) -> ExtentSet {
        let mut copy = ExtentSet::new(set.extents());
        set.pieces(&mut |piece| match piece {
            Piece::Run(run) => copy.insert(run),
            Piece::Leaf(leaf, bits) => copy.insert_bits(leaf, bits).unwrap(),
        });
        copy
    }

    #[test]
    fn a_full_pebibyte_is_one_word() {
        let extents = 1 << 34;
        let mut set = ExtentSet::new(extents);
        assert_eq!(set.run(0, extents), (false, extents));
        set.insert(0..extents / 2);
        assert_eq!(set.run(5, extents), (true, extents / 2));
        set.insert(extents / 2..extents);
        assert!(set.is_full());
        assert_eq!(set.run(7, extents), (true, extents));
        // The bound is no power of the fan-out, so the root has one level of children.
        let Node::Branch(children) = &set.root else { panic!("{:?}", set.root) };
        assert!(children.iter().all(|child| matches!(child, Node::Full | Node::Empty)));
    }

    #[test]
    fn bits_beyond_the_bound_are_refused() {
        let mut bits = [0; WORDS];
        bits[1] = 1;
        assert!(ExtentSet::new(64).insert_bits(0, &bits).is_none());
        assert!(ExtentSet::new(65).insert_bits(0, &bits).is_some());
        assert!(ExtentSet::new(65).insert_bits(u64::MAX, &bits).is_none());
    }

    #[test]
    fn scattered_extents_are_written_as_bits() {
        let mut set = ExtentSet::new(10_000);
        (0..4096).step_by(2).for_each(|extent| set.insert(extent..extent + 1));
        let mut leaves = 0;
        set.pieces(&mut |piece| leaves += usize::from(matches!(piece, Piece::Leaf(0, _))));
        assert_eq!(leaves, 1);
        assert_eq!(rebuilt(&set).count(), 2048);
    }

    #[test]
    fn a_full_set_of_any_bound_is_made_at_once() {
        for extents in [0, 1, 64, 4095, 4096, 4097, (1 << 18) + 1, 1 << 34, (1 << 34) - 1] {
            let mut set = ExtentSet::new(extents);
            set.insert(0..extents / 3);
            set.insert_all();
            assert_eq!((set.count(), set.is_full()), (extents, true));
            assert_eq!(set.runs().collect::<Vec<_>>(), (extents > 0).then_some(0..extents).as_slice());
            let mut pieces = 0;
            set.pieces(&mut |piece| {
                pieces += 1;
                assert_eq!(piece, Piece::Run(0..extents));
            });
            assert_eq!(pieces, u64::from(extents > 0));
            assert!(set.root.nodes() <= 1 + 64 * 5, "{extents}: {}", set.root.nodes());
            set.remove(0..extents);
            assert!(set.count() == 0 && matches!(set.root, Node::Empty));
        }
    }

    impl Node {
        /// How many nodes there are from here down. Also checks the invariants of the tree.
        fn nodes(&self) -> usize {
            match self {
                Self::Empty | Self::Full => 1,
                Self::Leaf(bits) => {
                    assert!(bits.iter().any(|word| *word != 0) && bits.iter().any(|word| *word != u64::MAX));
                    1
                }
                Self::Branch(children) => {
                    assert!(!children.iter().all(|child| matches!(child, Self::Empty)));
                    assert!(!children.iter().all(|child| matches!(child, Self::Full)));
                    1 + children.iter().map(Self::nodes).sum::<usize>()
                }
            }
        }
    }

    /// A change of one of two sets.
    #[derive(Clone, Debug)]
    enum Change {
        Insert(bool, Range<u64>),
        Remove(bool, Range<u64>),
        /// Adds the other set to this one.
        Union(bool),
        Clear(bool),
        InsertAll(bool),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let length = prop_oneof![2 => 1u64..9000, 1 => 1u64..300_000];
        let range =
            || (any::<u32>(), length.clone()).prop_map(|(at, length)| u64::from(at)..u64::from(at) + length);
        let change = prop_oneof![
            6 => (any::<bool>(), range()).prop_map(|(one, range)| Change::Insert(one, range)),
            5 => (any::<bool>(), range()).prop_map(|(one, range)| Change::Remove(one, range)),
            2 => any::<bool>().prop_map(Change::Union),
            1 => any::<bool>().prop_map(Change::Clear),
            1 => any::<bool>().prop_map(Change::InsertAll),
        ];
        prop::collection::vec(change, 1..40)
    }

    /// Compares every answer of `set` with `flags`.
    fn compare(set: &ExtentSet, flags: &[bool]) {
        let extents = flags.len() as u64;
        assert_eq!(set.count(), flags.iter().filter(|flag| **flag).count() as u64);
        let (mut at, mut runs) = (0, set.runs());
        while at < extents {
            let (value, end) = set.run(at, extents);
            assert!(flags[at as usize..end as usize].iter().all(|flag| *flag == value));
            assert!(end == extents || flags[end as usize] != value);
            assert_eq!(set.contains_all(at..end), value);
            assert_eq!(set.contains_none(at..end), !value);
            if value {
                assert_eq!(runs.next(), Some(at..end));
            }
            at = end;
        }
        assert_eq!(runs.next(), None);
        set.root.nodes();
    }

    proptest! {
        #[test]
        fn two_sets_equal_two_vectors_of_flags(
            extents in prop_oneof![15 => 1u64..20_000, 1 => 262_000u64..300_000],
            changes in changes(),
        ) {
            let mut sets = [(); 2].map(|()| ExtentSet::new(extents));
            let mut flags = [(); 2].map(|()| vec![false; extents as usize]);
            for change in changes {
                let cut = |range: Range<u64>| {
                    let start = range.start % extents;
                    start..(start + range.end - range.start).min(extents)
                };
                let fill = |flags: &mut [bool], range: Range<u64>, value| {
                    flags[range.start as usize..range.end as usize].fill(value);
                };
                match change {
                    Change::Insert(one, range) => {
                        sets[usize::from(one)].insert(cut(range.clone()));
                        fill(&mut flags[usize::from(one)], cut(range), true);
                    }
                    Change::Remove(one, range) => {
                        sets[usize::from(one)].remove(cut(range.clone()));
                        fill(&mut flags[usize::from(one)], cut(range), false);
                    }
                    Change::Union(one) => {
                        let (other, more) = (sets[usize::from(!one)].clone(), flags[usize::from(!one)].clone());
                        sets[usize::from(one)].union(&other);
                        flags[usize::from(one)].iter_mut().zip(more).for_each(|(flag, more)| *flag |= more);
                    }
                    Change::Clear(one) => {
                        sets[usize::from(one)].clear();
                        flags[usize::from(one)].fill(false);
                    }
                    Change::InsertAll(one) => {
                        sets[usize::from(one)].insert_all();
                        flags[usize::from(one)].fill(true);
                    }
                }
            }
            for (set, flags) in sets.iter().zip(&flags) {
                compare(set, flags);
                compare(&rebuilt(set), flags);
            }
        }
    }
}
