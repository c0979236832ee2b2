//! The tables of `pairdisplay`, in RAID Manager's two forms: fields between brackets, commas and points, and with `-CLI` words between
//! blanks. Each pair has two lines, the local side first.
//!
//! The array has no numbers of ports, targets, arrays and volumes that a script could use. So an LDEV# is the volume's name, Port#,
//! TID, LU and Seq# are dashes, and the mirror unit is 0.

use super::code::Fault;
use super::options::Form;
use super::select::{Selection, group_of};
use super::status::{Side, Status};
use crate::array::show;

/// What a line shows, as text.
struct Line<'a> {
    group: &'a str,
    device: &'a str,
    /// L or R.
    place: char,
    /// The volume of this side, and that of the other one.
    volume: &'a str,
    other: &'a str,
    side: Side,
    status: Status,
    percent: u32,
}

/// The table of `selection`.
///
/// # Errors
/// A state is not known here.
pub(super) fn table(selection: &Selection, form: Form) -> Result<String, Fault> {
    let mut lines = vec![head(form).to_owned()];
    for pair in &selection.pairs {
        for (place, side) in [('L', selection.side), ('R', selection.side.other())] {
            if place == 'R' && form.local {
                continue;
            }
            let line = Line {
                group: group_of(pair),
                device: &pair.name,
                place,
                volume: side.volume(pair),
                other: side.other().volume(pair),
                side,
                status: Status::of(pair, side)?,
                percent: percent(pair),
            };
            lines.push(if form.cli { line.words(form) } else { line.fields(form) });
        }
    }
    Ok(lines.join("\n"))
}

fn head(form: Form) -> &'static str {
    match (form.cli, form.device, form.percent) {
        (false, false, false) => {
            "Group   PairVol(L/R) (Port#,TID, LU-M) ,Seq#,LDEV#.P/S,Status, Seq#,P-LDEV# M"
        }
        (false, false, true) => {
            "Group   PairVol(L/R) (Port#,TID, LU-M) ,Seq#,LDEV#.P/S,Status,   % ,P-LDEV# M"
        }
        (false, true, false) => "Group   PairVol(L/R) Device_File M ,Seq#,LDEV#.P/S,Status, Seq#,P-LDEV# M",
        (false, true, true) => "Group   PairVol(L/R) Device_File M ,Seq#,LDEV#.P/S,Status,   % ,P-LDEV# M",
        (true, false, false) => {
            "Group   PairVol L/R   Port# TID  LU-M   Seq# LDEV# P/S Status   Seq# P-LDEV# M"
        }
        (true, false, true) => "Group   PairVol L/R   Port# TID  LU-M   Seq# LDEV# P/S Status    % P-LDEV# M",
        (true, true, false) => "Group   PairVol L/R  Device_File M   Seq# LDEV# P/S Status   Seq# P-LDEV# M",
        (true, true, true) => "Group   PairVol L/R  Device_File M   Seq# LDEV# P/S Status    % P-LDEV# M",
    }
}

/// How much of a pair is copied, in whole percent. 100 only if all is.
fn percent(pair: &show::Pair) -> u32 {
    (0..=100u32).rev().find(|percent| f64::from(*percent) <= pair.progress * 100.0).unwrap_or(0)
}

impl Line<'_> {
    /// The column M: the S-VOL can be written (W), or cannot be read (N).
    fn mark(&self) -> &'static str {
        match (self.status, self.side) {
            (Status::Psus, _) => "W",
            (Status::Psue, Side::Secondary) => "N",
            _ => "-",
        }
    }

    fn words(&self, form: Form) -> String {
        let Self { group, device, place, volume, other, side, .. } = self;
        let place_of = match form.device {
            true => format!("{volume:<11} 0"),
            false => "      -   -    - 0".to_owned(),
        };
        let begin = format!("{group:<7} {device:<7} {place}   {place_of}      - {volume:>5}");
        if self.status == Status::Smpl {
            return format!("{begin} SMPL  -         - {:>7} -", "-");
        }
        let (word, figure, mark) = (self.status.word(*side), self.figure(form, "-"), self.mark());
        format!("{begin} {} {word:<6} {figure:>4} {other:>7} {mark}", side.word())
    }

    fn fields(&self, form: Form) -> String {
        let Self { group, device, place, volume, other, side, .. } = self;
        let place_of = match form.device {
            true => format!("{volume:<11} 0 "),
            false => "(-      , -,   --0 )".to_owned(),
        };
        let begin = format!("{group:<7} {device}({place}) {place_of}-    {volume:>6}");
        if self.status == Status::Smpl {
            return format!("{begin}.SMPL ----,-----    ---- -");
        }
        let (word, figure, mark) = (self.status.word(*side), self.figure(form, "-"), self.mark());
        format!("{begin}.{} {word},{figure:>5} {other:>7} {mark}", side.word())
    }

    fn figure(&self, form: Form, number: &str) -> String {
        if form.percent { self.percent.to_string() } else { number.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Which;
    use super::super::testing::{in_group, pair};
    use super::*;

    fn shown(form: Form, local: Side) -> Vec<String> {
        let mut split = in_group(pair("data", "db", "db-copy", "psus_sp"), "erp");
        split.progress = 0.979;
        let all = vec![split, in_group(pair("log", "redo", "redo-copy", "smpl"), "erp")];
        let selection = Selection::of(&Which::Group("erp".parse().unwrap()), all, local).unwrap();
        table(&selection, form).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_plain_form_is_raid_manager_s() {
        assert_eq!(
            shown(Form { percent: true, ..Form::default() }, Side::Primary),
            [
                "Group   PairVol(L/R) (Port#,TID, LU-M) ,Seq#,LDEV#.P/S,Status,   % ,P-LDEV# M",
                "erp     data(L) (-      , -,   --0 )-        db.P-VOL PSUS,   97 db-copy W",
                "erp     data(R) (-      , -,   --0 )-    db-copy.S-VOL COPY,   97      db -",
                "erp     log(L) (-      , -,   --0 )-      redo.SMPL ----,-----    ---- -",
                "erp     log(R) (-      , -,   --0 )-    redo-copy.SMPL ----,-----    ---- -",
            ]
        );
        assert_eq!(
            shown(Form { local: true, device: true, ..Form::default() }, Side::Secondary),
            [
                "Group   PairVol(L/R) Device_File M ,Seq#,LDEV#.P/S,Status, Seq#,P-LDEV# M",
                "erp     data(L) db-copy     0 -    db-copy.S-VOL COPY,    -      db -",
                "erp     log(L) redo-copy   0 -    redo-copy.SMPL ----,-----    ---- -",
            ]
        );
    }

    #[test]
    fn the_form_for_scripts_has_the_same_number_of_words_in_every_line() {
        let cli = Form { cli: true, percent: true, ..Form::default() };
        let lines = shown(cli, Side::Primary);
        assert_eq!(
            lines,
            [
                "Group   PairVol L/R   Port# TID  LU-M   Seq# LDEV# P/S Status    % P-LDEV# M",
                "erp     data    L         -   -    - 0      -    db P-VOL PSUS     97 db-copy W",
                "erp     data    R         -   -    - 0      - db-copy S-VOL COPY     97      db -",
                "erp     log     L         -   -    - 0      -  redo SMPL  -         -       - -",
                "erp     log     R         -   -    - 0      - redo-copy SMPL  -         -       - -",
            ]
        );
        for form in [cli, Form { device: true, ..cli }, Form { percent: false, ..cli }] {
            let lines = shown(form, Side::Primary);
            let words: Vec<usize> = lines[1..].iter().map(|line| line.split_whitespace().count()).collect();
            assert_eq!(words, [if form.device { 12 } else { 14 }; 4], "{form:?}");
        }
    }

    #[test]
    fn only_a_whole_copy_is_a_hundred_percent() {
        let at = |progress| percent(&show::Pair { progress, ..pair("p", "a", "b", "copy") });
        let places = [0.0, 0.5, 0.9999, 1.0, 2.0, -1.0, f64::NAN].map(at);
        assert_eq!(places, [0, 50, 99, 100, 100, 0, 0]);
    }

    #[test]
    fn each_status_has_its_mark() {
        for (state, marks) in [
            ("copy", ["-", "-"]),
            ("pair", ["-", "-"]),
            ("psus_sp", ["W", "-"]),
            ("psus", ["W", "W"]),
            ("rcpy", ["-", "-"]),
            ("psue", ["-", "N"]),
        ] {
            let all = vec![pair("p", "a", "b", state)];
            let selection = Selection::of(&Which::Group("p".parse().unwrap()), all, Side::Primary).unwrap();
            let text = table(&selection, Form { cli: true, ..Form::default() }).unwrap();
            let shown: Vec<&str> =
                text.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
            assert_eq!(shown, marks, "{state}");
        }
    }
}
