//! The entries of the journal: events, for those who look after the array, and audit lines, for the question who
//! changed what.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::micros;

/// The longest text in an entry, in bytes. A longer one is cut.
const MAX_TEXT: usize = 512;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema), schemars(rename = "EventKind"))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub(crate) enum Kind {
    /// The daemon began to serve.
    DaemonStarted,
    /// The daemon ended in order.
    DaemonStopped,
    /// An initiator logged in.
    SessionBegan,
    /// A session ended; the cause says which side ended it.
    SessionEnded,
    /// A login was refused.
    LoginRefused,
    /// The state of a pair changed.
    PairState,
    /// An EXTENDED COPY began.
    CopyBegan,
    /// An EXTENDED COPY ended; the state says how.
    CopyEnded,
    /// An operation began that is neither a copy nor the copy behind a pair.
    OperationBegan,
    /// Such an operation ended; the state says how.
    OperationEnded,
    /// A cartridge was loaded into a drive.
    MediumLoaded,
    /// A cartridge was unloaded from a drive.
    MediumUnloaded,
    /// An object takes no more writes, or cannot be used.
    ObjectFailed,
    /// An object that had failed can be used again.
    ObjectRecovered,
    /// A write waits for space, or space is running out.
    SpaceLow,
    /// There is space again.
    SpaceFreed,
    /// An operator's change was made or refused.
    Verb,
    /// Events are missing: `count` of them, up to the number of this entry.
    Gap,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 18] = [
        Self::DaemonStarted,
        Self::DaemonStopped,
        Self::SessionBegan,
        Self::SessionEnded,
        Self::LoginRefused,
        Self::PairState,
        Self::CopyBegan,
        Self::CopyEnded,
        Self::OperationBegan,
        Self::OperationEnded,
        Self::MediumLoaded,
        Self::MediumUnloaded,
        Self::ObjectFailed,
        Self::ObjectRecovered,
        Self::SpaceLow,
        Self::SpaceFreed,
        Self::Verb,
        Self::Gap,
    ];

    /// The word for the kind in files, in JSON and on the command line.
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::DaemonStarted => "daemon_started",
            Self::DaemonStopped => "daemon_stopped",
            Self::SessionBegan => "session_began",
            Self::SessionEnded => "session_ended",
            Self::LoginRefused => "login_refused",
            Self::PairState => "pair_state",
            Self::CopyBegan => "copy_began",
            Self::CopyEnded => "copy_ended",
            Self::OperationBegan => "operation_began",
            Self::OperationEnded => "operation_ended",
            Self::MediumLoaded => "medium_loaded",
            Self::MediumUnloaded => "medium_unloaded",
            Self::ObjectFailed => "object_failed",
            Self::ObjectRecovered => "object_recovered",
            Self::SpaceLow => "space_low",
            Self::SpaceFreed => "space_freed",
            Self::Verb => "verb",
            Self::Gap => "gap",
        }
    }

    /// Whether a host can cause such events as often as it likes. Many of them with the same object and cause become
    /// one event.
    #[must_use]
    pub(crate) fn folds(self) -> bool {
        matches!(
            self,
            Self::SessionBegan | Self::SessionEnded | Self::LoginRefused | Self::CopyBegan | Self::CopyEnded
        )
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|kind| kind.word()).collect();
            format!("there is no such kind of event; name one of {}", words.join(", "))
        })
    }
}

/// The object that an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema), schemars(rename = "EventObject"))]
pub(crate) struct Object {
    /// The object's noun on the command line: `volume`, `pair`, `session`, …
    pub(crate) kind: String,
    /// Its name, barcode or number.
    pub(crate) name: String,
}

impl Object {
    /// The object of kind `kind` that is called `name`.
    #[must_use]
    pub(crate) fn new(kind: &str, name: impl std::fmt::Display) -> Self {
        Self { kind: short(kind.to_owned()), name: short(name.to_string()) }
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
pub(crate) struct Event {
    /// The number of the event. Numbers rise by one from event to event and never start again. 0 until the journal
    /// has taken the event.
    pub(crate) id: u64,
    /// When it happened; if it stands for several events, when the first of them happened.
    #[serde(serialize_with = "micros")]
    #[cfg_attr(feature = "admin", schemars(with = "Timestamp"))]
    pub(crate) time: Timestamp,
    /// The kind of the event.
    pub(crate) kind: Kind,
    /// The object that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<Object>,
    /// The object's new state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// The cause. There are only a few different texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    /// The initiator or operator that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) who: Option<String>,
    /// Details, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// How often it happened.
    pub(crate) count: u64,
}

impl Event {
    /// An event of `kind` at `time`, without further facts.
    #[must_use]
    pub(crate) fn new(kind: Kind, time: Timestamp) -> Self {
        let (object, state, cause, who, detail) = (None, None, None, None, None);
        Self { id: 0, time, kind, object, state, cause, who, detail, count: 1 }
    }

    /// The event with its object.
    #[must_use]
    pub(crate) fn of(self, object: Object) -> Self {
        Self { object: Some(object), ..self }
    }

    /// The event with the object's new state.
    #[must_use]
    pub(crate) fn state(self, state: impl Into<String>) -> Self {
        Self { state: Some(short(state.into())), ..self }
    }

    /// The event with its cause, which must not be a text that a stranger has chosen: events with the same cause are
    /// counted together.
    #[must_use]
    pub(crate) fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(short(cause.into())), ..self }
    }

    /// The event with the initiator or operator that caused it.
    #[must_use]
    pub(crate) fn who(self, who: impl Into<String>) -> Self {
        Self { who: Some(short(who.into())), ..self }
    }

    /// The event with details.
    #[must_use]
    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(short(detail.into())), ..self }
    }

    /// Whether such events are counted together: somebody can cause them as often as he likes. Of the verbs these are
    /// those that have a cause, because the asker's role does not allow them.
    pub(super) fn folds(&self) -> bool {
        self.kind.folds() || self.kind == Kind::Verb && self.cause.is_some()
    }

    /// An entry for `count` missing events up to number `id`.
    pub(super) fn gap(id: u64, count: u64, time: Timestamp) -> Self {
        let detail = "events that are not kept: too old, too many at once, or damaged";
        Self { id, count, ..Self::new(Kind::Gap, time).detail(detail) }
    }
}

/// The origin of a verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema), schemars(rename = "AskedBy"))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub(crate) enum Who {
    /// The daemon itself.
    Daemon,
    /// A peer of the UNIX socket.
    Socket {
        /// The user ID of the peer.
        uid: u32,
        /// The process ID of the peer, if the system tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// A request with a token.
    Token {
        /// The token's name.
        name: String,
        /// The address that the request came from.
        peer: String,
    },
    /// An initiator, in band.
    Initiator {
        /// Its node name.
        name: String,
        /// The target of its session.
        target: String,
        /// The command device.
        device: String,
    },
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Daemon => f.write_str("the daemon"),
            Self::Socket { uid, pid: Some(pid) } => write!(f, "uid {uid}, process {pid}"),
            Self::Socket { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Token { name, peer } => write!(f, "token {name} from {peer}"),
            Self::Initiator { name, target, device } => {
                write!(f, "initiator {name} by command device {device} of {target}")
            }
        }
    }
}

/// A verb that was asked for, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
pub(crate) struct AuditLine {
    /// The number of the line. Lines have numbers of their own, apart from those of events; they rise by one and
    /// never start again. 0 until the journal has taken the line.
    pub(crate) id: u64,
    /// When it was answered; of what lasts and begins, when it began.
    #[serde(serialize_with = "micros")]
    #[cfg_attr(feature = "admin", schemars(with = "Timestamp"))]
    pub(crate) time: Timestamp,
    /// The origin of the verb.
    pub(crate) who: Who,
    /// The verb as on the command line: `volume create`.
    pub(crate) verb: String,
    /// The object that the verb was to change, where the request names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// The other arguments, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<Value>,
    /// `done`; `begun` of what lasts, which has another line when it has ended; the code of the refusal; or `defect` if a
    /// defect of the program has ended it.
    pub(crate) result: String,
    /// Why the verb was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// The number of the operation, of what lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<u64>,
    /// How often it was asked for: more than once where a token is refused what its role does not allow.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub(crate) count: u64,
}

fn once() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the type that serde asks for
fn is_once(count: &u64) -> bool {
    *count == 1
}

impl AuditLine {
    /// A line for `count` missing lines up to number `id`.
    pub(super) fn gap(id: u64, count: u64, time: Timestamp) -> Self {
        let (who, word) = (Who::Daemon, Kind::Gap.word().to_owned());
        let why = Some("lines that are not kept: too old, or damaged".to_owned());
        Self {
            id,
            time,
            who,
            verb: word.clone(),
            object: None,
            asked: None,
            result: word,
            why,
            operation: None,
            count,
        }
    }
}

/// Cuts `text` to [`MAX_TEXT`] bytes.
pub(super) fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// The type of the entries of a series.
pub(super) trait Entry: Serialize + for<'de> Deserialize<'de> + Clone {
    /// Its number.
    fn id(&self) -> u64;
    /// Sets its number.
    fn set_id(&mut self, id: u64);
    /// How many numbers the entry stands for; its own number is the last of them.
    fn covers(&self) -> u64;
    /// An entry for the gap that is left if this entry cannot be kept; the gap has `covers` numbers. `None` if the
    /// entry must be kept.
    fn as_gap(&self, covers: u64) -> Option<Self>;
}

impl Entry for Event {
    fn id(&self) -> u64 {
        self.id
    }

    fn set_id(&mut self, id: u64) {
        self.id = id;
    }

    fn covers(&self) -> u64 {
        if self.kind == Kind::Gap { self.count.max(1) } else { 1 }
    }

    fn as_gap(&self, covers: u64) -> Option<Self> {
        Some(Self::gap(self.id, covers, self.time))
    }
}

impl Entry for AuditLine {
    fn id(&self) -> u64 {
        self.id
    }

    fn set_id(&mut self, id: u64) {
        self.id = id;
    }

    fn covers(&self) -> u64 {
        1
    }

    fn as_gap(&self, _: u64) -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_json_and_lead_back() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(kind.word().parse::<Kind>(), Ok(kind));
        }
        assert!("nonsense".parse::<Kind>().unwrap_err().ends_with("verb, gap"));
    }

    #[test]
    fn a_text_of_a_stranger_is_cut_between_letters() {
        let event = Event::new(Kind::LoginRefused, Timestamp::UNIX_EPOCH).detail("\u{e9}".repeat(1000));
        assert_eq!(event.detail.unwrap().len(), MAX_TEXT);
        let event =
            Event::new(Kind::LoginRefused, Timestamp::UNIX_EPOCH).who(format!("a{}", "\u{e9}".repeat(1000)));
        assert_eq!(event.who.unwrap().len(), MAX_TEXT - 1);
    }

    #[test]
    fn unknown_facts_are_not_written() {
        let event =
            Event::new(Kind::PairState, Timestamp::UNIX_EPOCH).of(Object::new("pair", "db")).state("psue");
        let expected = serde_json::json!({
            "id": 0, "time": "1970-01-01T00:00:00.000000Z", "kind": "pair_state", "object": {"kind": "pair", "name": "db"},
            "state": "psue", "count": 1
        });
        assert_eq!(serde_json::to_value(event).unwrap(), expected);
    }
}
