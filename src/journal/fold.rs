//! Counts entries that somebody can cause as often as he likes: events of hosts, and verbs that a token is refused.
//!
//! The first entry of a [`Key`] is told at once. Further entries of the key within an interval are counted, and
//! told as one entry with the exact number at the end of the interval; and so on in each following interval. The key
//! is kind, object, state and cause, all of which the daemon makes. A kind has at most [`MOST`] keys at a time, and
//! [`FEW`] more without an object; the entries beyond that have one key for the whole kind. So a flood becomes few
//! entries and takes little memory, whatever its source.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::entry::{AuditLine, Event, Kind, Object, Who};

/// How long the events of a key are counted before they are told.
pub(super) const INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// How long the audit lines of a key are counted. The audit log is kept for years, and a flood of lines would shorten
/// that.
pub(super) const AUDIT_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// The most keys of one kind that name an object.
pub(super) const MOST: usize = 100;

/// The most keys of one kind that name no object.
const FEW: usize = 16;

/// Entries with equal keys are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    kind: Kind,
    /// How much of the entry the key names: 0 everything, 1 all but the object, 2 the kind alone.
    breadth: u8,
    object: Option<(String, String)>,
    state: Option<String>,
    cause: Option<String>,
}

impl Key {
    /// The most keys of this kind and breadth.
    fn limit(&self) -> usize {
        [MOST, FEW, 1][usize::from(self.breadth)]
    }

    /// The key to use instead when there are too many such keys.
    fn broader(self) -> Self {
        match self.breadth {
            0 => Self { breadth: 1, object: None, ..self },
            _ => Self { kind: self.kind, breadth: 2, object: None, state: None, cause: None },
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.kind, self.breadth) == (other.kind, other.breadth)
    }
}

/// An entry that can be counted.
pub(super) trait Counted {
    /// The key of the entry; `None` if it is told by itself.
    fn key(&self) -> Option<Key>;
    /// When it happened.
    fn time(&self) -> Timestamp;
    /// Lets the entry stand for `other`, too.
    fn add(&mut self, other: &Self);
    /// The entry without the facts that differ among the entries of a key of this breadth.
    fn narrowed(self, breadth: u8) -> Self;
}

impl Counted for Event {
    fn key(&self) -> Option<Key> {
        let Self { kind, object, state, cause, .. } = self.clone();
        let object = object.map(|Object { kind, name }| (kind, name));
        self.folds().then_some(Key { kind, breadth: 0, object, state, cause })
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
    }

    fn narrowed(self, breadth: u8) -> Self {
        match breadth {
            0 => self,
            1 => Self { object: None, ..self },
            _ => Self { object: None, state: None, cause: None, ..self },
        }
    }
}

/// A line of what a token or an initiator was refused. The key is the verb, and the token or initiator.
impl Counted for AuditLine {
    fn key(&self) -> Option<Key> {
        let name = match &self.who {
            Who::Token { name, .. } => name.clone(),
            Who::Initiator { name, .. } => format!("initiator {name}"),
            _ => return None,
        };
        let object = Some(("verb".to_owned(), self.verb.clone()));
        let (state, cause) = (Some(self.result.clone()), Some(name));
        Some(Key { kind: Kind::Verb, breadth: 0, object, state, cause })
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        (self.object, self.asked, self.operation) = (None, None, None);
    }

    fn narrowed(self, breadth: u8) -> Self {
        let various = || "*".to_owned();
        match breadth {
            0 => self,
            1 => Self { verb: various(), object: None, asked: None, why: None, ..self },
            _ => {
                let who = match self.who {
                    Who::Initiator { .. } => {
                        Who::Initiator { name: various(), target: various(), device: various() }
                    }
                    _ => Who::Token { name: various(), peer: various() },
                };
                Self { who, verb: various(), object: None, asked: None, why: None, ..self }
            }
        }
    }
}

/// The entries of a key in this interval.
#[derive(Debug)]
struct Said<E> {
    since: Timestamp,
    /// The first of the counted entries, with their number.
    counted: Option<E>,
}

/// The keys, with their entries.
#[derive(Debug)]
pub(super) struct Fold<E> {
    keys: BTreeMap<Key, Said<E>>,
    interval: SignedDuration,
}

impl<E: Counted> Fold<E> {
    /// Without entries. Those of a key are counted for `interval`.
    pub(super) fn new(interval: SignedDuration) -> Self {
        Self { keys: BTreeMap::new(), interval }
    }

    /// Returns `entry` if it is to be told at once; otherwise counts it.
    pub(super) fn take(&mut self, entry: E) -> Option<E> {
        let Some(mut key) = entry.key() else { return Some(entry) };
        loop {
            if let Some(said) = self.keys.get_mut(&key) {
                match &mut said.counted {
                    Some(counted) => counted.add(&entry),
                    counted => *counted = Some(entry.narrowed(key.breadth)),
                }
                return None;
            }
            let alike = self.keys.keys().filter(|other| other.is_like(&key)).count();
            if alike < key.limit() {
                let since = entry.time();
                let entry = entry.narrowed(key.breadth);
                self.keys.insert(key, Said { since, counted: None });
                return Some(entry);
            }
            key = key.broader();
        }
    }

    /// The counted entries of all intervals that have ended by `now`, or of all intervals at once with `all`.
    pub(super) fn due(&mut self, now: Timestamp, all: bool) -> Vec<E> {
        let (mut due, interval) = (Vec::new(), self.interval);
        self.keys.retain(|_, said| {
            let age = now.duration_since(said.since);
            // A clock that was set back ends an interval too.
            if (SignedDuration::ZERO..interval).contains(&age) && !all {
                return true;
            }
            said.since = now;
            match said.counted.take() {
                Some(counted) => due.push(counted),
                None => return false,
            }
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn refused(name: &str, milliseconds: i64) -> Event {
        let event = Event::new(Kind::LoginRefused, at(milliseconds)).cause("there is no such target");
        event.detail(format!("claimed {name}"))
    }

    #[test]
    fn a_flood_is_two_events_with_the_exact_number() {
        let mut fold = Fold::new(INTERVAL);
        let told: Vec<Event> =
            (0..2000).filter_map(|at| fold.take(refused(&format!("host{at}"), at))).collect();
        assert_eq!((told.len(), told[0].count, told[0].time), (1, 1, at(0)));
        assert_eq!(fold.due(at(9999), false), []);
        let due = fold.due(at(10_000), false);
        assert_eq!((due.len(), due[0].count, due[0].time), (1, 1999, at(1)));
        assert_eq!(due[0].detail.as_deref(), Some("claimed host1"));
        assert_eq!(fold.due(at(20_000), false), [], "nothing more, so the key is forgotten");
        assert_eq!(fold.take(refused("x", 20_001)).unwrap().count, 1);
    }

    #[test]
    fn a_lasting_flood_is_one_event_an_interval() {
        let mut fold = Fold::new(INTERVAL);
        assert!(fold.take(refused("a", 0)).is_some());
        for interval in 1..5 {
            (0..7).for_each(|_| assert_eq!(fold.take(refused("a", interval * 10_000 - 1)), None));
            let due = fold.due(at(interval * 10_000), false);
            assert_eq!(due.iter().map(|event| event.count).collect::<Vec<_>>(), [7]);
        }
    }

    #[test]
    fn each_session_is_told_until_there_are_too_many_and_none_goes_uncounted() {
        let mut fold = Fold::new(INTERVAL);
        let began = |id: usize| {
            let event = Event::new(Kind::SessionBegan, at(id as i64));
            event.of(Object::new("session", id)).who("iqn.2026-11.a:b")
        };
        let told: Vec<Event> = (0..1000).filter_map(|id| fold.take(began(id))).collect();
        assert_eq!(told.len(), MOST + 1);
        let names: Vec<_> = told.iter().filter_map(|event| event.object.as_ref()).collect();
        assert_eq!((names.len(), names[99].name.as_str()), (MOST, "99"));
        let due = fold.due(at(10_000), true);
        let count: u64 = told.iter().chain(&due).map(|event| event.count).sum();
        assert_eq!((due.len(), count), (1, 1000));
    }

    #[test]
    fn the_memory_of_a_flood_is_bounded() {
        let mut fold = Fold::new(INTERVAL);
        let mut count = 0;
        for number in 0..5000_i64 {
            let event = Event::new(Kind::CopyEnded, at(number)).of(Object::new("copy", number));
            let event = event.cause(format!("cause {number}")).state(format!("state {number}"));
            count += fold.take(event).map_or(0, |event| event.count);
        }
        assert_eq!(fold.keys.len(), MOST + FEW + 1);
        count += fold.due(at(5000), true).iter().map(|event| event.count).sum::<u64>();
        assert_eq!(count, 5000);
    }

    fn forbidden(token: &str, verb: &str, milliseconds: i64) -> AuditLine {
        let who = Who::Token { name: token.to_owned(), peer: "192.0.2.1:7".to_owned() };
        let (verb, result, why) = (verb.to_owned(), "refused".to_owned(), Some("role".to_owned()));
        let (object, asked) = (Some("db".to_owned()), None);
        AuditLine {
            id: 0,
            time: at(milliseconds),
            who,
            verb,
            object,
            asked,
            result,
            why,
            operation: None,
            count: 1,
        }
    }

    #[test]
    fn a_flood_of_what_a_token_is_refused_is_a_line_an_hour_for_each_verb() {
        let mut fold = Fold::new(AUDIT_INTERVAL);
        let told: Vec<AuditLine> = (0..4000)
            .filter_map(|at| fold.take(forbidden("v", ["lun map", "volume delete"][at as usize % 2], at)))
            .collect();
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].object.as_deref(), told[0].count), (Some("db"), 1));
        assert_eq!(fold.due(at(3_599_999), false), []);
        let due = fold.due(at(3_600_001), false);
        let counts: Vec<_> = due.iter().map(|line| (line.verb.as_str(), line.count)).collect();
        assert_eq!(counts, [("lun map", 1999), ("volume delete", 1999)]);
        assert!(due[0].object.is_none(), "they had different ones");
        let own = AuditLine { who: Who::Daemon, ..forbidden("v", "lun map", 0) };
        assert_eq!(fold.take(own.clone()), Some(own));
    }

    #[test]
    fn the_refused_verbs_of_very_many_tokens_are_all_counted_and_name_no_wrong_token() {
        let mut fold = Fold::new(AUDIT_INTERVAL);
        let mut told: Vec<AuditLine> = Vec::new();
        for number in 0..3000 {
            told.extend(fold.take(forbidden(&format!("t{}", number % 300), "lun map", number)));
        }
        assert_eq!(told.len(), MOST + FEW + 1);
        told.extend(fold.due(at(3000), true));
        assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 3000);
        let (several, of_one): (Vec<_>, Vec<_>) =
            told.iter().partition(|line| matches!(&line.who, Who::Token { name, .. } if name == "*"));
        assert_eq!(several.iter().map(|line| line.count).sum::<u64>(), 3000 - 10 * (MOST + FEW) as u64);
        assert!(of_one.iter().all(|line| line.count <= 9));
    }

    #[test]
    fn a_pair_s_states_are_all_told() {
        let mut fold = Fold::new(INTERVAL);
        for state in ["copy", "pair", "psus_sp", "psus", "copy", "pair"] {
            let event = Event::new(Kind::PairState, at(0)).of(Object::new("pair", "db")).state(state);
            assert_eq!(fold.take(event.clone()), Some(event));
        }
        assert_eq!(fold.due(at(20_000), true), []);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_back() {
        let mut fold = Fold::new(INTERVAL);
        assert!(fold.take(refused("a", 50_000)).is_some());
        assert!(fold.take(refused("a", 50_001)).is_none());
        assert_eq!(fold.due(at(0), false).len(), 1);
    }
}
