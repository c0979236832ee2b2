//! Places of which there are few, and their holders.
//!
//! The tokens share places by the rule of [`crate::share`]: one token alone gets half of them, and a token without a
//! place gets one as long as any is free. Processes at the UNIX socket are administrators, and share with nobody.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::names::Name;
use crate::operator::Who;
use crate::share::Shares;

/// The holder of places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A process at the UNIX socket.
    Socket,
    /// The bearer of this token.
    Token(Name),
}

impl From<&Who> for Holder {
    fn from(who: &Who) -> Self {
        match who {
            // An initiator does not come by the API.
            Who::Daemon | Who::Socket { .. } | Who::Initiator { .. } => Self::Socket,
            Who::Token { name, .. } => Self::Token(name.clone()),
        }
    }
}

/// The places of one kind.
#[derive(Clone, Debug)]
pub(super) struct Places {
    shares: Arc<Mutex<Shares<Holder>>>,
    /// What those who have a place do, as in "64 requests are at work".
    what: &'static str,
}

/// A place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    holder: Holder,
}

/// The place of a request with a file, if the request has one, for work that goes on behind the request's answer.
pub(super) type Held = Arc<Option<Place>>;

impl Drop for Place {
    fn drop(&mut self) {
        self.places.shares.lock().give_back(&self.holder);
    }
}

impl Places {
    /// `limit` places for those who do `what`.
    pub(super) fn new(limit: usize, what: &'static str) -> Self {
        Self { shares: Arc::new(Mutex::new(Shares::new(limit))), what }
    }

    /// A place for `holder`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn take(&self, holder: &Holder) -> Result<Place, String> {
        let mut shares = self.shares.lock();
        let (is_given, name) = match holder {
            Holder::Socket => (shares.take_unshared(holder.clone()), None),
            Holder::Token(name) => (shares.take(holder.clone()), Some(name)),
        };
        match name {
            _ if is_given => Ok(Place { places: self.clone(), holder: holder.clone() }),
            Some(name) if shares.taken() < shares.limit() => {
                let held = shares.held(holder);
                Err(format!("the share of token {name} is used up: {held} {}", self.what))
            }
            _ => Err(format!("{} {}", shares.limit(), self.what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Holder {
        Holder::Token(name.parse().unwrap())
    }

    #[test]
    fn a_token_leaves_places_for_others_and_the_socket_has_all_of_its_own() {
        let places = Places::new(8, "requests wait");
        let greedy =
            |holder: &Holder| -> Vec<Place> { (0..9).map_while(|_| places.take(holder).ok()).collect() };
        let held = greedy(&token("a"));
        assert_eq!(held.len(), 4);
        let why = "the share of token a is used up: 4 requests wait";
        assert_eq!(places.take(&token("a")).unwrap_err(), why);
        let others = [greedy(&token("b")), greedy(&token("c")), greedy(&token("d"))];
        assert_eq!(others.each_ref().map(Vec::len), [2, 1, 1]);
        assert_eq!(places.take(&token("e")).unwrap_err(), "8 requests wait");
        drop((held, others));
        assert_eq!(greedy(&Holder::Socket).len(), 8);
        assert_eq!(places.shares.lock().taken(), 0, "a place that is dropped is free");
    }
}
