//! Damage. A data directory contains every kind of file. One file at a time is wounded in one place: a bit is
//! flipped, or the file is cut, removed, emptied, or replaced by a directory. Then a daemon starts on the data
//! directory. The daemon refuses to start and names the damage; or the object is refused with the damage named; or
//! everything reads back as it was. Wrong data is never shown, and refused files are not written over
//! (docs/TESTING.md, Damage).
//!
//! | variable | |
//! |---|---|
//! | `CLEAVE_DAMAGE_CASES` | wounds of each of the two trees |
//! | `CLEAVE_DAMAGE_SEED` | another seed |

#![allow(clippy::print_stdout)] // scripts/test shows the output

#[allow(dead_code)] // shared with tests/it, which uses the rest
#[path = "../it/daemon.rs"]
mod daemon;
#[allow(dead_code)] // shared with tests/power, which uses the rest
#[path = "../power/random.rs"]
mod random;
#[allow(dead_code)] // shared with tests/it, which uses the rest
#[path = "../it/raw.rs"]
mod raw;
mod tree;
mod verdict;
mod wounds;

use std::collections::BTreeMap;
use std::time::Instant;

use random::Random;
use tree::{End, Tree};
use verdict::{Outcome, judge};
use wounds::{Kind, Wound, cases};

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => otherwise,
    }
}

/// For each kind of file and wound: how many wounds were survived, refused, and neither.
type Tally = BTreeMap<(Kind, &'static str), [usize; 3]>;

fn word(wound: &Wound) -> &'static str {
    match wound {
        Wound::Flip { .. } => "flip",
        Wound::Cut { .. } => "cut",
        Wound::Remove => "remove",
        Wound::Directory => "directory",
        Wound::Empty => "empty",
    }
}

fn wound_a_tree(end: End) {
    let began = Instant::now();
    let root = tempfile::tempdir().expect("a temporary directory");
    let tree = Tree::make(root.path(), end);
    let count = number("CLEAVE_DAMAGE_CASES", 300) as usize;
    let mut random = Random::new(number("CLEAVE_DAMAGE_SEED", 0xDA7A) + end as u64);
    let mut tally = Tally::new();
    let mut wrong = Vec::new();
    let cases = cases(tree.kept(), &tree.files(), count, &mut random);
    for case in &cases {
        tree.restore();
        case.strike(&tree.place);
        let verdict = judge(&tree, case);
        let column = match &verdict {
            Ok(Outcome::Survived) => 0,
            Ok(Outcome::Refused(_)) => 1,
            Err(_) => 2,
        };
        tally.entry((case.kind, word(&case.wound))).or_default()[column] += 1;
        let line = format!("{end:?}, {}, {:?}: {verdict:?}", case.file.display(), case.wound);
        match verdict {
            Err(_) => {
                println!("WRONG {line}");
                wrong.push(line);
            }
            Ok(_) => println!("{line}"),
        }
    }
    println!("{:<14} {:<10} {:>8} {:>8} {:>8}", "file", "wound", "survived", "refused", "wrong");
    for ((kind, wound), [survived, refused, wrong]) in &tally {
        println!("{:<14} {wound:<10} {survived:>8} {refused:>8} {wrong:>8}", format!("{kind:?}"));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{end:?}: {} wounds, {} wrong, {seconds:.0} s", cases.len(), wrong.len());
    assert_eq!(cases.len(), count);
    assert!(wrong.is_empty(), "{} of {count} wounds:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn nothing_damaged_is_shown_wrong_after_a_kill() {
    wound_a_tree(End::Killed);
}

#[test]
fn nothing_damaged_is_shown_wrong_after_an_orderly_end() {
    wound_a_tree(End::Stopped);
}
