//! Pairs whose sides become equal again: by a resync, by a restore, and in spite of errors; and steady splits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::testing::{BLOCK, Rig, stamped, stamps, write};
use super::{EXTENT, Pair, PairError, Progress, State};
use crate::landing::Settled;
use crate::store::{Durability, Patience, StoreError};

const BLOCKS: u64 = 128;
/// Blocks of an extent.
const PER: u64 = EXTENT / BLOCK;

fn quick_split(pair: &Pair) {
    pair.quick_split(Timestamp::UNIX_EPOCH, &|| Duration::ZERO).unwrap();
}

fn steady_split(pair: &Pair) {
    pair.steady_split(Timestamp::UNIX_EPOCH, &|| Duration::ZERO).unwrap();
}

/// A pair in PSUS whose sides were all 1 at the split.
fn split(rig: &Rig) -> Arc<Pair> {
    let pair = rig.create();
    write(&*pair.primary_side(), 0, BLOCKS, 1).unwrap();
    pair.start_copy().unwrap();
    while pair.copy_step(1 << 20) != Progress::Whole {}
    quick_split(&pair);
    assert_eq!(pair.copy_step(1), Progress::Idle, "it vouches for the split");
    assert_eq!(pair.state(), State::Psus);
    pair
}

/// Copies to the end; how many bytes that were.
fn copy(pair: &Pair) -> u64 {
    let mut copied = 0;
    loop {
        match pair.copy_step(1) {
            Progress::Copied { bytes } => copied += bytes,
            Progress::Whole => return copied,
            other => panic!("{other:?}: {:?}", pair.status()),
        }
    }
}

fn both(rig: &Rig) -> [Vec<u64>; 2] {
    [stamps(&*rig.primary, 0, BLOCKS), stamps(&*rig.secondary, 0, BLOCKS)]
}

fn set_full(rig: &Rig, full: bool) {
    rig.record_stores.iter().for_each(|disk| disk.full.store(full, Ordering::SeqCst));
}

fn set_broken(rig: &Rig, broken: bool) {
    rig.record_stores.iter().for_each(|disk| disk.broken.store(broken, Ordering::SeqCst));
}

#[test]
fn a_resync_copies_what_either_side_has_changed_and_no_more() {
    for log in [false, true] {
        for crash in [None, Some(false), Some(true)] {
            let rig = if log { Rig::with_landing_log(BLOCKS) } else { Rig::new(BLOCKS) };
            let mut pair = split(&rig);
            write(&*pair.primary_side(), PER - 1, 2, 2).unwrap();
            write(&*pair.secondary_side(), 3 * PER, 1, 3).unwrap();
            pair.secondary_side().discard(5 * PER * BLOCK, BLOCK).unwrap();
            pair.primary_side().flush().unwrap();
            if let Some(power) = crash {
                drop(pair);
                rig.crash(power, 3);
                pair = rig.open();
                assert_eq!(pair.state(), State::Psus);
            }
            pair.resync().unwrap();
            assert_eq!((pair.state(), pair.status().split_at), (State::Copy, None));
            assert!(matches!(write(&*pair.secondary_side(), 0, 1, 9), Err(StoreError::ReadOnly(_))));
            assert_eq!(copy(&pair), 4 * EXTENT, "log {log}, crash {crash:?}");
            let [primary, secondary] = both(&rig);
            assert_eq!(primary, secondary);
            assert_eq!((primary[PER as usize], primary[3 * PER as usize]), (2, 1));
            quick_split(&pair);
            assert_eq!(pair.state(), State::Psus);
        }
    }
}

#[test]
fn a_resync_of_an_image_that_is_not_whole_copies_the_rest_too() {
    let rig = Rig::with_landing_log(BLOCKS);
    let pair = rig.create();
    write(&*pair.primary_side(), 0, BLOCKS, 1).unwrap();
    quick_split(&pair);
    assert_eq!(pair.copy_step(1), Progress::Copied { bytes: EXTENT });
    write(&*pair.primary_side(), 4 * PER, 1, 2).unwrap(); // lands
    write(&*pair.secondary_side(), 2 * PER, PER, 3).unwrap();
    assert_eq!(pair.state(), State::PsusSp);
    pair.resync().unwrap();
    assert_eq!(copy(&pair), 7 * EXTENT, "all but the extent that is equal");
    let [primary, secondary] = both(&rig);
    assert_eq!(primary, secondary);
    assert_eq!((primary[2 * PER as usize], primary[4 * PER as usize]), (1, 2));
}

#[test]
fn an_end_in_order_keeps_what_is_equal_and_a_crash_does_not() {
    for restore in [false, true] {
        for orderly in [false, true] {
            let rig = Rig::new(BLOCKS);
            let pair = split(&rig);
            write(&*pair.primary_side(), 0, 2 * PER, 2).unwrap();
            write(&*pair.secondary_side(), 2 * PER, PER, 3).unwrap();
            if restore { pair.restore() } else { pair.resync() }.unwrap();
            pair.copy_step(1);
            if orderly {
                pair.close().unwrap();
            }
            drop(pair);
            rig.crash(orderly, 5);
            let pair = rig.open();
            assert_eq!(pair.state(), if restore { State::Rcpy } else { State::Copy });
            assert_eq!(copy(&pair), if orderly { 2 } else { 8 } * EXTENT, "{restore} {orderly}");
            let [primary, secondary] = both(&rig);
            assert_eq!(primary, secondary);
            assert_eq!(primary[0], if restore { 1 } else { 2 });
        }
    }
}

#[test]
fn a_restored_primary_shows_the_secondary_at_once_and_takes_writes() {
    let rig = Rig::with_landing_log(BLOCKS);
    let pair = split(&rig);
    write(&*pair.primary_side(), 0, 3 * PER, 2).unwrap();
    write(&*pair.secondary_side(), 2 * PER, 3 * PER, 3).unwrap();
    let mut expected = stamps(&*pair.secondary_side(), 0, BLOCKS);
    pair.restore().unwrap();
    assert_eq!(pair.state(), State::Rcpy);
    assert_eq!(pair.status().copied_bytes, 3 * EXTENT, "the last three are equal");
    let side = pair.primary_side();
    assert_eq!(stamps(&*side, 0, BLOCKS), expected);
    let now = side.write(0, &stamped(9, 1), Durability::Cached, Patience::Now);
    assert!(matches!(now, Err(StoreError::WouldBlock)));
    for (block, count, stamp) in [(1, 1, 10), (2 * PER - 1, 2, 11), (4 * PER, PER, 12), (7 * PER, 1, 13)] {
        write(&*side, block, count, stamp).unwrap();
        expected[block as usize..(block + count) as usize].fill(stamp);
        assert_eq!(stamps(&*side, 0, BLOCKS), expected);
        assert_eq!(stamps(&*pair.secondary_side(), 0, BLOCKS), expected, "every write goes to both");
        pair.copy_step(1);
        assert_eq!(stamps(&*side, 0, BLOCKS), expected);
    }
    side.discard(3 * PER * BLOCK, PER * BLOCK).unwrap();
    expected[3 * PER as usize..4 * PER as usize].fill(0);
    side.flush().unwrap();
    let refused = write(&*pair.secondary_side(), 0, 1, 9);
    assert!(matches!(refused, Err(StoreError::ReadOnly(why)) if why.contains("restored")));
    assert!(matches!(pair.delete(), Err(PairError::Refused { state: State::Rcpy, .. })));
    copy(&pair);
    assert_eq!(pair.state(), State::Pair);
    assert_eq!(both(&rig), [expected.clone(), expected]);
}

#[test]
fn a_restore_begins_anew_after_any_crash_and_loses_no_answered_write() {
    for seed in 0..16 {
        let rig = Rig::new(BLOCKS);
        let pair = split(&rig);
        write(&*pair.primary_side(), 0, BLOCKS, 2).unwrap();
        write(&*pair.secondary_side(), PER, 1, 3).unwrap();
        pair.secondary_side().flush().unwrap();
        pair.restore().unwrap();
        pair.copy_step(1);
        write(&*pair.primary_side(), 0, 1, 4).unwrap();
        write(&*pair.primary_side(), 5 * PER, 1, 4).unwrap();
        pair.primary_side().flush().unwrap();
        rig.machine.arm(1 + seed);
        while !rig.machine.is_dead() && pair.state() == State::Rcpy {
            pair.copy_step(1);
        }
        drop(pair);
        rig.crash(true, seed as u64);
        let pair = rig.open();
        assert!(matches!(pair.state(), State::Rcpy | State::Copy), "{}", pair.state());
        let mut expected = vec![1; BLOCKS as usize];
        (expected[0], expected[5 * PER as usize], expected[PER as usize]) = (4, 4, 3);
        assert_eq!(stamps(&*pair.primary_side(), 0, BLOCKS), expected, "seed {seed}");
        copy(&pair);
        assert_eq!(both(&rig), [expected.clone(), expected]);
    }
}

#[test]
fn a_restore_that_an_error_breaks_off_serves_no_wrong_primary_until_it_is_repeated() {
    for of_primary in [false, true] {
        for recorded in [false, true] {
            let rig = Rig::new(BLOCKS);
            let pair = split(&rig);
            write(&*pair.primary_side(), 0, BLOCKS, 2).unwrap();
            pair.restore().unwrap();
            pair.copy_step(1);
            let disk = if of_primary { &rig.primary } else { &rig.secondary };
            disk.broken.store(true, Ordering::SeqCst);
            set_broken(&rig, !recorded);
            assert!(write(&*pair.primary_side(), 0, 1, 3).is_err());
            assert_eq!(pair.state(), State::Psue);
            let why = pair.status().error.unwrap();
            assert!(why.contains("part old, part restored") && why.contains("--restore"), "{why}");
            disk.broken.store(false, Ordering::SeqCst);
            set_broken(&rig, false);
            for crash in [None, Some(false), Some(true)] {
                if crash.is_some() && !recorded {
                    continue; // finds RCPY, and restores anew
                }
                let pair = match crash {
                    None => Arc::clone(&pair),
                    Some(power) => {
                        rig.crash(power, 1);
                        rig.open()
                    }
                };
                assert_eq!(pair.state(), State::Psue);
                for side in [pair.primary_side(), pair.secondary_side()] {
                    let read = side.read(0, &mut [0; 4096], Patience::Wait);
                    assert!(matches!(read, Err(StoreError::Corrupt(why)) if why.contains("broken off")));
                    assert!(matches!(write(&*side, 0, 1, 9), Err(StoreError::Corrupt(_))));
                    assert!(side.flush().is_err() && side.next_data(0).is_err());
                }
                assert!(matches!(pair.resync(), Err(PairError::Refused { state: State::Psue, .. })));
                let split = pair.quick_split(Timestamp::UNIX_EPOCH, &|| Duration::ZERO);
                assert!(matches!(split, Err(PairError::Refused { .. })));
            }
            drop(pair);
            rig.crash(true, 2);
            let pair = rig.open();
            if recorded {
                pair.restore().unwrap();
            }
            assert_eq!((pair.state(), pair.status().error), (State::Rcpy, None));
            copy(&pair);
            let [primary, secondary] = both(&rig);
            assert_eq!(primary, secondary);
            assert_eq!(primary[1..], [1; BLOCKS as usize - 1]);
        }
    }
}

#[test]
fn an_unfinished_restore_can_be_given_up() {
    let rig = Rig::new(BLOCKS);
    let pair = split(&rig);
    write(&*pair.primary_side(), 0, BLOCKS, 2).unwrap();
    pair.restore().unwrap();
    pair.lose("its data may be lost").unwrap();
    assert_eq!(pair.state(), State::Psue);
    pair.delete().unwrap();
    drop(pair);
    rig.crash(true, 2);
    let pair = rig.open();
    assert_eq!(pair.state(), State::Smpl);
    assert_eq!(stamps(&*pair.secondary_side(), 0, BLOCKS), [1; BLOCKS as usize]);
}

#[test]
fn after_an_error_a_resync_copies_everything() {
    for from in [State::Pair, State::Copy, State::PsusSp] {
        let rig = Rig::new(BLOCKS);
        let pair = rig.create();
        write(&*pair.primary_side(), 0, BLOCKS, 1).unwrap();
        match from {
            State::PsusSp => quick_split(&pair),
            _ => pair.start_copy().unwrap(),
        }
        while from == State::Pair && pair.copy_step(1 << 20) != Progress::Whole {}
        pair.copy_step(1);
        rig.secondary.broken.store(true, Ordering::SeqCst);
        write(&*pair.primary_side(), 0, BLOCKS, 2).unwrap();
        assert_eq!(pair.state(), State::Psue, "{from}");
        rig.secondary.broken.store(false, Ordering::SeqCst);
        write(&*pair.primary_side(), 3, 1, 3).unwrap();
        assert!(matches!(pair.restore(), Err(PairError::Refused { .. })), "{from}");
        set_full(&rig, true);
        assert!(matches!(pair.resync(), Err(PairError::Store(StoreError::NoSpace))));
        assert_eq!(pair.state(), State::Psue);
        set_full(&rig, false);
        pair.resync().unwrap();
        assert_eq!((pair.state(), pair.status().error), (State::Copy, None));
        assert_eq!(copy(&pair), BLOCKS * BLOCK);
        let [primary, secondary] = both(&rig);
        assert_eq!((&primary, primary[3]), (&secondary, 3));
        drop(pair);
        rig.crash(true, 1);
        assert_eq!(rig.open().state(), State::Copy, "no suspension is left");
    }
}

#[test]
fn changes_that_cannot_be_recorded_are_all_changes_or_are_not_made() {
    for log in [false, true] {
        let rig = if log { Rig::with_landing_log(BLOCKS) } else { Rig::new(BLOCKS) };
        let pair = split(&rig);
        set_full(&rig, true);
        write(&*pair.primary_side(), 0, 1, 2).unwrap();
        write(&*pair.secondary_side(), PER, 1, 3).unwrap();
        assert!(!matches!(pair.primary.settle(u64::MAX), Ok(Settled::Stays(_))));
        assert_eq!((pair.state(), pair.status().error), (State::Psus, None));
        drop(pair);
        rig.crash(true, 6);
        set_full(&rig, false);
        let pair = rig.open();
        assert_eq!(pair.state(), State::Psus);
        pair.resync().unwrap();
        assert_eq!(copy(&pair), BLOCKS * BLOCK, "nobody knows what has changed");
        let [primary, secondary] = both(&rig);
        assert_eq!(primary, secondary);
    }
    let rig = Rig::new(BLOCKS);
    let pair = split(&rig);
    set_broken(&rig, true);
    assert!(write(&*pair.primary_side(), 0, 1, 2).is_err());
    assert!(write(&*pair.secondary_side(), PER, 1, 3).is_err());
    assert_eq!(both(&rig), [[1; BLOCKS as usize], [1; BLOCKS as usize]]);
    assert_eq!(pair.state(), State::Psus, "and both sides are served");
}

#[test]
fn a_volume_that_may_have_lost_data_has_everything_changed() {
    let rig = Rig::new(BLOCKS);
    let pair = split(&rig);
    pair.lose("the volume had stopped").unwrap();
    assert_eq!(pair.state(), State::Psus);
    drop(pair);
    rig.crash(true, 3);
    let pair = rig.open();
    pair.restore().unwrap();
    assert_eq!(copy(&pair), BLOCKS * BLOCK);
}

#[test]
fn a_steady_split_is_of_the_moment_when_the_secondary_is_whole() {
    for from in [State::Smpl, State::Copy] {
        let rig = Rig::with_landing_log(BLOCKS);
        let pair = rig.create();
        write(&*pair.primary_side(), 0, BLOCKS, 1).unwrap();
        if from == State::Copy {
            pair.start_copy().unwrap();
            pair.copy_step(1);
        }
        steady_split(&pair);
        assert_eq!((pair.state(), pair.status().split_at), (State::CopySp, None), "{from}");
        assert!(matches!(write(&*pair.secondary_side(), 0, 1, 9), Err(StoreError::ReadOnly(_))));
        while pair.copy_step(1) != Progress::Splits {}
        write(&*pair.primary_side(), 0, 1, 2).unwrap();
        assert_eq!(pair.copy_step(1), Progress::Splits, "nobody has split it yet");
        let moment = Timestamp::from_second(9).unwrap();
        assert!(pair.complete_split(moment, &|| Duration::ZERO).unwrap().is_some());
        assert_eq!((pair.state(), pair.status().split_at), (State::Psus, Some(moment)));
        assert!(pair.complete_split(moment, &|| Duration::ZERO).unwrap().is_none());
        write(&*pair.primary_side(), 0, 1, 3).unwrap();
        assert_eq!(stamps(&*pair.secondary_side(), 0, 2), [2, 1]);
    }
    let rig = Rig::new(BLOCKS);
    let pair = split(&rig);
    steady_split(&pair);
    assert_eq!(pair.state(), State::Psus, "it is split already");
}

#[test]
fn a_steady_split_goes_on_after_a_crash() {
    let rig = Rig::new(BLOCKS);
    let pair = rig.create();
    write(&*pair.primary_side(), 0, BLOCKS, 1).unwrap();
    steady_split(&pair);
    pair.copy_step(1);
    drop(pair);
    rig.crash(true, 8);
    let pair = rig.open();
    assert_eq!((pair.state(), pair.status().copied_bytes), (State::CopySp, 0));
    quick_split(&pair); // nobody has to wait for it
    assert_eq!(pair.state(), State::PsusSp);
}

/// Ends the threads of a test, however the test ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The log is brought home although hosts never rest, and no write of theirs is lost on either side.
#[test]
fn sides_become_equal_under_writers_that_never_rest() {
    const WRITERS: u64 = 3;
    for round in 0..24 {
        let (log, restore) = (round % 2 == 0, round % 4 > 1);
        let rig = if log { Rig::with_landing_log(BLOCKS) } else { Rig::new(BLOCKS) };
        let pair = split(&rig);
        let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let last = thread::scope(|scope| {
            let ends = Ends(&over);
            let (over, rounds, pair) = (&over, &rounds, &pair);
            let writer = |writer| {
                move || {
                    // One block in each extent. The last round of each begins when the sides are equal: a restore takes
                    // back what was written before it.
                    for stamp in 2.. {
                        let is_last = over.load(Ordering::SeqCst);
                        for extent in 0..BLOCKS / PER {
                            write(&*pair.primary_side(), extent * PER + writer, 1, stamp).unwrap();
                        }
                        rounds.fetch_add(1, Ordering::SeqCst);
                        if is_last {
                            return stamp;
                        }
                    }
                    unreachable!("the stamps do not end")
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    pair.copy_step(EXTENT);
                    let _ = pair.primary.settle(EXTENT);
                    thread::yield_now();
                }
            });
            let more = |count| {
                let until = rounds.load(Ordering::SeqCst) + count;
                while rounds.load(Ordering::SeqCst) < until {
                    thread::yield_now();
                }
            };
            more(2 * WRITERS);
            if restore { pair.restore() } else { pair.resync() }.unwrap();
            while pair.state() != State::Pair {
                thread::yield_now();
            }
            more(WRITERS);
            drop(ends);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<u64>>()
        });
        let [primary, secondary] = both(&rig);
        assert_eq!(primary, secondary, "round {round}");
        for extent in 0..BLOCKS / PER {
            for (writer, stamp) in (0..WRITERS).zip(&last) {
                assert_eq!(primary[(extent * PER + writer) as usize], *stamp, "round {round}");
            }
        }
    }
}

/// A write of before the split is flushed on the primary afterwards, and not on the secondary. It is equal, so a resync does not
/// copy it; a new split shows it, also after a power loss.
#[test]
fn what_a_resync_takes_for_equal_is_stable_on_both_sides() {
    for seed in 0..16 {
        let rig = Rig::new(BLOCKS);
        let pair = rig.create();
        pair.start_copy().unwrap();
        while pair.copy_step(1 << 20) != Progress::Whole {}
        write(&*pair.primary_side(), 0, BLOCKS, 7).unwrap();
        quick_split(&pair);
        pair.primary_side().flush().unwrap();
        pair.resync().unwrap();
        quick_split(&pair);
        drop(pair);
        rig.crash(true, seed);
        let pair = rig.open();
        assert_eq!(pair.state(), State::PsusSp);
        assert_eq!(stamps(&*pair.secondary_side(), 0, BLOCKS), [7; BLOCKS as usize], "seed {seed}");
    }
}
