//! How long a client waits for a target: one limit for each kind of command, and one for all short commands together.
//!
//! A short command must be answered soon. A tape may need minutes to find a record and hours to erase; these limits
//! are those of Linux's `st`. An EXTENDED COPY is watched, and may run as long as it makes progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time limits of one run of a client command. Clones share the count of the time waited.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    chosen: Option<Duration>,
    /// How many milliseconds short commands have taken so far.
    waited: Arc<AtomicU64>,
}

/// The kinds of commands, by the time that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The unit answers from memory.
    Short,
    /// A record or filemarks. The drive may first have to bring the tape up to speed.
    Transfer,
    /// Moves or erases the tape.
    Movement,
    /// Copies through the copy manager.
    Copy,
    /// Asks about a running copy. A missing answer is no failure of the copy.
    Watch,
}

fn kind(cdb: &[u8]) -> Kind {
    match *cdb {
        [0x08 | 0x0A | 0x10 | 0x80, ..] => Kind::Transfer, // READ(6), WRITE(6), WRITE FILEMARKS
        [0x01 | 0x11 | 0x19 | 0x1B | 0x2B | 0x91 | 0x92, ..] => Kind::Movement, // REWIND, SPACE, ERASE, LOAD, LOCATE
        [0xA4, 0x10, ..] => Kind::Transfer, // MANAGEMENT PROTOCOL OUT: a verb, which may wait for a flush of much data
        [0x83, action, ..] if action & 0x1F <= 0x01 => Kind::Copy, // EXTENDED COPY(LID1), (LID4)
        [0x84, action, ..] if matches!(action & 0x1F, 0x00 | 0x05) => Kind::Watch, // COPY STATUS of both
        _ => Kind::Short,
    }
}

impl Patience {
    /// For a connection with its login, and for a short command.
    pub const SHORT: Duration = Duration::from_secs(30);
    /// For a record of a tape, and for a copy that makes no progress.
    pub const TRANSFER: Duration = Duration::from_secs(900);
    /// For a movement of a tape.
    pub const MOVEMENT: Duration = Duration::from_secs(14_000);
    /// For one EXTENDED COPY command, whatever progress it makes.
    pub const COPY: Duration = Duration::from_secs(24 * 3600);
    /// All short commands together may take this many times the limit of one.
    pub(crate) const TOGETHER: u32 = 20;

    /// The default limits, or `chosen` for each of them.
    #[must_use]
    pub fn new(chosen: Option<Duration>) -> Self {
        Self { chosen, waited: Arc::default() }
    }

    /// The limit for a connection with its login, a short command, or an abort.
    #[must_use]
    pub(crate) fn short(&self) -> Duration {
        self.chosen.unwrap_or(Self::SHORT)
    }

    /// The limit for a copy that makes no progress.
    #[must_use]
    pub(crate) fn progress(&self) -> Duration {
        self.chosen.unwrap_or(Self::TRANSFER)
    }

    /// The limit for `cdb`. For a short command, at most what is left of the time for all short commands together.
    #[must_use]
    pub(crate) fn of(&self, cdb: &[u8]) -> Duration {
        match kind(cdb) {
            Kind::Short => {
                let waited = Duration::from_millis(self.waited.load(Ordering::Relaxed));
                self.short().min((self.short() * Self::TOGETHER).saturating_sub(waited))
            }
            Kind::Watch => self.short(),
            Kind::Transfer => self.chosen.unwrap_or(Self::TRANSFER),
            Kind::Movement => self.chosen.unwrap_or(Self::MOVEMENT),
            Kind::Copy => Self::COPY,
        }
    }

    /// Counts `elapsed`, the time that `cdb` has taken, with or without an answer.
    pub(crate) fn took(&self, cdb: &[u8], elapsed: Duration) {
        if kind(cdb) == Kind::Short {
            let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.waited.fetch_add(elapsed, Ordering::Relaxed);
        }
    }

    /// Whether a missing answer to `cdb` ends the session.
    #[must_use]
    pub(crate) fn ends_session(cdb: &[u8]) -> bool {
        kind(cdb) != Kind::Watch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_the_limit_of_its_kind() {
        let patience = Patience::new(None);
        for (cdb, limit) in [
            (&[0x12, 0, 0, 0, 96, 0][..], Patience::SHORT),
            (&[0x84, 0x03], Patience::SHORT),
            (&[0x84, 0x05], Patience::SHORT),
            (&[0x0A, 0, 0, 1, 0, 0], Patience::TRANSFER),
            (&[0x01, 0, 0, 0, 0, 0], Patience::MOVEMENT),
            (&[0x83, 0x00], Patience::COPY),
            (&[0x83, 0x1C], Patience::SHORT),
            (&[], Patience::SHORT),
        ] {
            assert_eq!(patience.of(cdb), limit, "{cdb:02X?}");
        }
        let second = Duration::from_secs(1);
        let chosen = Patience::new(Some(second));
        assert_eq!((chosen.of(&[0x01]), chosen.progress(), chosen.short()), (second, second, second));
        assert_eq!(chosen.of(&[0x83, 0]), Patience::COPY, "it is limited by its progress");
    }

    #[test]
    fn short_answers_have_a_limit_together_too() {
        let patience = Patience::new(Some(Duration::from_secs(10)));
        let shared = patience.clone();
        for _ in 0..19 {
            assert_eq!(patience.of(&[0x12]), Duration::from_secs(10));
            shared.took(&[0x12], Duration::from_millis(10_000));
        }
        shared.took(&[0x12], Duration::from_millis(6_000));
        shared.took(&[0x84, 0x05], Duration::from_secs(1000));
        shared.took(&[0x01], Duration::from_secs(1000));
        assert_eq!(patience.of(&[0x12]), Duration::from_secs(4));
        shared.took(&[0x12], Duration::from_secs(1000));
        assert_eq!(patience.of(&[0x12]), Duration::ZERO);
    }
}
