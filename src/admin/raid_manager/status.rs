//! The statuses that RAID Manager shows for the states of a pair, one for each side.
//!
//! A quick split that still copies behind (PSUS(SP)) is PSUS on the P-VOL and COPY on the S-VOL. A steady split that still copies
//! (COPY(SP)) is COPY on both. PSUS of an S-VOL is shown as SSUS.

use super::code::{Code, Fault};
use crate::array::show;

/// A side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// P-VOL, the primary.
    Primary,
    /// S-VOL, the secondary.
    Secondary,
}

impl Side {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    /// RAID Manager's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Primary => "P-VOL",
            Self::Secondary => "S-VOL",
        }
    }

    /// The name of the volume on this side of `pair`.
    pub(super) fn volume(self, pair: &show::Pair) -> &str {
        match self {
            Self::Primary => &pair.primary,
            Self::Secondary => &pair.secondary,
        }
    }
}

/// A status of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// No pair.
    Smpl,
    /// A copy from the P-VOL to the S-VOL runs.
    Copy,
    /// A copy from the S-VOL to the P-VOL runs.
    Rcpy,
    /// Both are equal.
    Pair,
    /// Split.
    Psus,
    /// Suspended by an error.
    Psue,
}

impl Status {
    /// The status of one side of `pair`.
    ///
    /// # Errors
    /// The daemon has a state that this program does not know.
    pub(super) fn of(pair: &show::Pair, side: Side) -> Result<Self, Fault> {
        Self::of_state(&pair.state, side).ok_or_else(|| {
            let asked = format!("show pair {}", pair.name);
            let why =
                format!("its state is '{}', which this program does not know", pair.state.escape_default());
            Fault::new(Code::Communication, asked, why, "use the program of the daemon's version")
        })
    }

    /// The status of one side of a pair whose state has this word.
    fn of_state(word: &str, side: Side) -> Option<Self> {
        Some(match (word, side) {
            ("smpl", _) => Self::Smpl,
            ("copy" | "copy_sp", _) | ("psus_sp", Side::Secondary) => Self::Copy,
            ("rcpy", _) => Self::Rcpy,
            ("pair", _) => Self::Pair,
            ("psus_sp", Side::Primary) | ("psus", _) => Self::Psus,
            ("psue", _) => Self::Psue,
            _ => return None,
        })
    }

    /// A status that is to be waited for. RAID Manager's `copy` includes RCPY, and its `ssus` is PSUS of an S-VOL.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words = [
            ("smpl", Self::Smpl),
            ("copy", Self::Copy),
            ("rcpy", Self::Rcpy),
            ("pair", Self::Pair),
            ("psus", Self::Psus),
            ("ssus", Self::Psus),
            ("psue", Self::Psue),
        ];
        words.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, status)| status)
    }

    /// Whether a wait for `wanted` is over in this status.
    pub(super) fn is(self, wanted: Self) -> bool {
        self == wanted || (self, wanted) == (Self::Rcpy, Self::Copy)
    }

    /// The word for `side`.
    pub(super) fn word(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::Smpl, _) => "SMPL",
            (Self::Copy, _) => "COPY",
            (Self::Rcpy, _) => "RCPY",
            (Self::Pair, _) => "PAIR",
            (Self::Psus, Side::Primary) => "PSUS",
            (Self::Psus, Side::Secondary) => "SSUS",
            (Self::Psue, _) => "PSUE",
        }
    }

    /// The exit code of `pairevtwait -nowait`.
    pub(super) fn digit(self) -> u8 {
        match self {
            Self::Smpl => 1,
            Self::Copy | Self::Rcpy => 2,
            Self::Pair => 3,
            Self::Psus => 4,
            Self::Psue => 5,
        }
    }

    /// The exit code of `pairvolchk -ss`.
    pub(super) fn checked(self, side: Side) -> u8 {
        match (self, side) {
            (Self::Smpl, _) => 11,
            (status, Side::Primary) => 20 + status.digit(),
            (status, Side::Secondary) => 30 + status.digit(),
        }
    }

    /// The exit code of `pairvolchk` without `-ss`.
    pub(super) fn attribute(self, side: Side) -> u8 {
        match (self, side) {
            (Self::Smpl, _) => 1,
            (_, Side::Primary) => 2,
            (_, Side::Secondary) => 3,
        }
    }
}

/// The exit code of `pairvolchk -ss` for the P-VOL of `pair`; `None`: its state is not known here.
pub(crate) fn checked(pair: &show::Pair) -> Option<u8> {
    Status::of_state(&pair.state, Side::Primary).map(|status| status.checked(Side::Primary))
}

/// The statuses of a group for `pairvolchk -ss`: the first one that a volume has is the group's.
const OF_GROUP: [Status; 4] = [Status::Copy, Status::Psue, Status::Pair, Status::Psus];

/// The status of a group for `pairvolchk -ss`. RCPY is COPY. `None`: some of its volumes are in SMPL, and not all.
pub(super) fn of_group(statuses: &[Status]) -> Option<Status> {
    let simplex = statuses.iter().filter(|status| **status == Status::Smpl).count();
    if simplex > 0 {
        return (simplex == statuses.len()).then_some(Status::Smpl);
    }
    OF_GROUP.into_iter().find(|candidate| statuses.iter().any(|status| status.is(*candidate)))
}

/// The status that all volumes of a group have, for `pairevtwait -nowait`; `None`: they have several. RCPY is COPY.
pub(super) fn common(statuses: &[Status]) -> Option<Status> {
    let first = *statuses.first()?;
    statuses.iter().all(|status| status.digit() == first.digit()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_each_state_are_raid_manager_s() {
        let codes = |word: &str| {
            [Side::Primary, Side::Secondary].map(|side| {
                let status = Status::of_state(word, side).unwrap();
                (status.word(side), status.digit(), status.checked(side), status.attribute(side))
            })
        };
        for (word, primary, secondary) in [
            ("smpl", ("SMPL", 1, 11, 1), ("SMPL", 1, 11, 1)),
            ("copy", ("COPY", 2, 22, 2), ("COPY", 2, 32, 3)),
            ("copy_sp", ("COPY", 2, 22, 2), ("COPY", 2, 32, 3)),
            ("rcpy", ("RCPY", 2, 22, 2), ("RCPY", 2, 32, 3)),
            ("pair", ("PAIR", 3, 23, 2), ("PAIR", 3, 33, 3)),
            ("psus_sp", ("PSUS", 4, 24, 2), ("COPY", 2, 32, 3)),
            ("psus", ("PSUS", 4, 24, 2), ("SSUS", 4, 34, 3)),
            ("psue", ("PSUE", 5, 25, 2), ("PSUE", 5, 35, 3)),
        ] {
            assert_eq!(codes(word), [primary, secondary], "{word}");
        }
        assert_eq!(Status::of_state("hold", Side::Primary), None);
    }

    #[test]
    fn a_status_is_written_as_in_raid_manager() {
        for (text, status) in [
            ("smpl", Status::Smpl),
            ("copy", Status::Copy),
            ("rcpy", Status::Rcpy),
            ("PAIR", Status::Pair),
            ("psus", Status::Psus),
            ("ssus", Status::Psus),
            ("psue", Status::Psue),
        ] {
            assert_eq!(Status::parse(text), Some(status));
        }
        assert_eq!((Status::parse("split"), Status::parse("")), (None, None));
        assert!(Status::Rcpy.is(Status::Copy) && !Status::Copy.is(Status::Rcpy));
        assert!(Status::Pair.is(Status::Pair) && !Status::Pair.is(Status::Psus));
    }

    #[test]
    fn a_group_has_one_status() {
        use Status::{Copy, Pair, Psue, Psus, Rcpy, Smpl};
        let group = of_group;
        assert_eq!(group(&[Pair, Psus]), Some(Pair));
        assert_eq!(group(&[Psus, Psue, Pair]), Some(Psue));
        assert_eq!(group(&[Psue, Rcpy, Pair]), Some(Copy));
        assert_eq!(group(&[Psus, Psus]), Some(Psus));
        assert_eq!((group(&[Smpl, Smpl]), group(&[Smpl, Pair])), (Some(Smpl), None));
        assert_eq!((common(&[Copy, Rcpy]), common(&[Pair, Psus])), (Some(Copy), None));
        assert_eq!((common(&[Psus]), common(&[])), (Some(Psus), None));
    }
}
