//! An exchange of roles of which nobody knows whether a restart finds it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::catalog::Revision;
use crate::catalog::memory::Memory;
use crate::catalog::store::CommitError;
use crate::operator::act::Change;
use crate::operator::verbs::swap;
use crate::operator::work::Work;

/// A catalog in memory, whose next transaction fails and leaves it in doubt.
#[derive(Clone, Debug, Default)]
struct Doubtful {
    memory: Memory,
    fails: Arc<AtomicBool>,
}

impl Store for Doubtful {
    fn load(&self) -> Arc<Catalog> {
        self.memory.load()
    }

    fn commit(&self, expected: Revision, transaction: &Transaction) -> Result<Arc<Catalog>, CommitError> {
        if self.in_doubt() {
            return Err(CommitError::Failed(io::ErrorKind::StorageFull.into()));
        }
        self.memory.commit(expected, transaction)
    }

    fn in_doubt(&self) -> bool {
        self.fails.load(Ordering::SeqCst)
    }
}

#[test]
fn a_pair_of_a_swap_in_doubt_is_not_resynced_before_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let catalog = Doubtful::default();
    let store = Box::new(catalog.clone());
    let array = Array::open_on(store, temporary.path(), &Options::default()).unwrap();
    let p = split_pair(&array);

    catalog.fails.store(true, Ordering::SeqCst);
    swap::Swap { name: p.clone() }.act(&array).unwrap_err();
    for restore in [false, true] {
        let refused = pair::Resync { name: p.clone(), restore }.act(&array).unwrap_err();
        let Cause::PairState { state: State::Psus, why, .. } = refused else { panic!("{refused:?}") };
        assert!(why.contains("restart the daemon"), "{why}");
    }
    let shown = view::pair::of(&array.snapshot(), &p).unwrap();
    assert_eq!((shown.state.as_str(), shown.primary.as_str()), ("psus", "a"), "and nothing has begun");
}

#[test]
fn hosts_that_go_on_with_the_former_roles_after_a_defect_have_changed_everything_for_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let array = Array::open(temporary.path(), &Options::default()).unwrap();
    let p = split_pair(&array);
    pair::SetPace { name: p.clone(), pace: Pace::None }.act(&array).unwrap();

    let swap = swap::Swap { name: p.clone() };
    let mut work = Work::begin(&array).unwrap();
    swap.effect(&mut work.after, Seed([9; 16])).unwrap();
    swap.prepare(&mut work).unwrap();
    work.commit().unwrap();
    swap.confirm(&mut work).unwrap();
    drop(work); // as a panic before the assembly does
    drop(array); // and then the daemon is killed

    let array = Array::open(temporary.path(), &Options::default()).unwrap();
    let found = view::pair::of(&array.snapshot(), &p).unwrap();
    assert_eq!((found.state.as_str(), found.primary.as_str()), ("psus", "b"));
    pair::Resync { name: p.clone(), restore: false }.act(&array).unwrap();
    let copies = view::pair::of(&array.snapshot(), &p).unwrap();
    assert_eq!((copies.state.as_str(), copies.dirty_bytes), ("copy", 1 << 20));
}
