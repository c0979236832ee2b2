//! A few places for work that takes much memory.
//!
//! The holders of tokens share all places but the last. So whatever they plan, an administrator at the UNIX socket
//! finds a place.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::who::Who;

/// The most files that are read and planned at once. Another one waits.
pub(super) const MAX_PLANS: usize = 2;

/// The same with the place that no token takes.
const MAX_PLANS_OF_SOCKET: usize = MAX_PLANS + 1;

/// Places, of which each is free or taken.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<usize>,
    left: Condvar,
}

impl Places {
    /// Takes a place for `who`, and waits at most `patience` for one.
    ///
    /// # Errors
    /// So many places are taken, which are all that `who` may take one of.
    pub(super) fn enter(&self, who: &Who, patience: Duration) -> Result<TakenPlace<'_>, usize> {
        let most = match who {
            Who::Token { .. } | Who::Initiator { .. } => MAX_PLANS,
            Who::Daemon | Who::Socket { .. } => MAX_PLANS_OF_SOCKET,
        };
        let (mut taken, until) = (self.taken.lock(), Instant::now() + patience);
        while *taken >= most {
            if self.left.wait_until(&mut taken, until).timed_out() && *taken >= most {
                return Err(most);
            }
        }
        *taken += 1;
        Ok(TakenPlace { of: self })
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        *self.taken.lock()
    }
}

/// A taken place, free again when this is dropped.
pub(super) struct TakenPlace<'a> {
    of: &'a Places,
}

impl Drop for TakenPlace<'_> {
    fn drop(&mut self) {
        *self.of.taken.lock() -= 1;
        // The one that waits longest may not be one that this place is for.
        self.of.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::who::Role;

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(name: &str) -> Who {
        let peer = "127.0.0.1:1".parse().unwrap();
        Who::Token { name: name.parse().unwrap(), role: Role::Viewer, peer }
    }

    #[test]
    fn no_more_are_in_than_there_are_places() {
        let (places, who) = (Places::default(), token("ci"));
        let first = places.enter(&who, Duration::ZERO);
        let second = places.enter(&who, Duration::ZERO);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(places.enter(&who, Duration::ZERO).err(), Some(2));
        drop(first);
        assert!(places.enter(&who, Duration::ZERO).is_ok(), "and it was left again at once");
        let third = places.enter(&who, Duration::ZERO);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| places.enter(&who, HOUR).is_ok());
            drop(third);
            assert!(waits.join().unwrap(), "a place that is left lets one in that waits");
        });
    }

    #[test]
    fn the_last_place_is_for_the_socket() {
        let places = Places::default();
        let held: Vec<_> = (0..2).filter_map(|_| places.enter(&token("a"), Duration::ZERO).ok()).collect();
        assert_eq!(held.len(), 2);
        let root = places.enter(&Who::Daemon, Duration::ZERO);
        assert!(root.is_ok());
        assert_eq!(places.enter(&Who::Daemon, Duration::ZERO).err(), Some(3));
        // Of two that wait, the one gets in for whom the place is.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| places.enter(&token("b"), HOUR).is_ok());
            let second = scope.spawn(|| places.enter(&Who::Daemon, HOUR).map(drop).is_ok());
            drop(root);
            assert!(second.join().unwrap());
            drop(held);
            assert!(other.join().unwrap());
        });
    }
}
