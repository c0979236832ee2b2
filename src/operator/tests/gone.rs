//! Verbs whose object goes as soon as they are done, before their answer is made.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// Does something else when the log says `says`, on the same thread, once.
struct Rival {
    says: &'static str,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// The message of a line.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Rival {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let act = if message.0 == self.says { self.act.lock().take() } else { None };
        act.into_iter().for_each(|act| act());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What `verb` answers while somebody deletes its object by `delete`, as soon as the log `says` that the verb is done.
fn overtaken<A: Act, D: Act + Send + 'static>(
    array: &Arc<Array>,
    verb: &A,
    says: &'static str,
    delete: D,
) -> Result<A::Answer, Cause> {
    let there = Arc::clone(array);
    let done = Arc::new(Mutex::new(false));
    let told = Arc::clone(&done);
    let act = move || {
        delete.act(&there).unwrap();
        *told.lock() = true;
    };
    let rival = Rival { says, act: Mutex::new(Some(Box::new(act))) };
    let answer = tracing::subscriber::with_default(rival, || verb.act(array));
    assert!(*done.lock(), "the log has not said that");
    answer
}

/// The array of `directory`, opened again after a flush of the object in `of` has failed.
fn stopped(directory: &Path, array: Arc<Array>, of: &str) -> Arc<Array> {
    assert!(array.shutdown(Duration::from_secs(60)));
    drop(array);
    std::fs::write(directory.join(of).join("stopped"), "writing back failed").unwrap();
    Array::open(directory, &Options::default()).unwrap()
}

#[test]
fn a_split_that_is_done_is_answered_although_its_pair_is_deleted_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let array = Array::open(temporary.path(), &Options::default()).unwrap();
    let p = split_pair(&array);
    let split = pair::Split::new(p.clone());
    let says = "split already, so nothing was done";
    let answer = overtaken(&array, &split, says, pair::Delete::new(p)).unwrap();
    assert_eq!((answer.pairs[0].name.as_str(), answer.pairs[0].state.as_str()), ("p", "psus"));
}

#[test]
fn a_reinstatement_that_is_done_is_answered_although_its_volume_is_deleted_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let array = Array::open(temporary.path(), &Options::default()).unwrap();
    volume("a", 1 << 20).act(&array).unwrap();
    let array = stopped(temporary.path(), array, "volumes/a");
    let says = "the volume had stopped, and is reinstated";
    let reinstate = volume::Reinstate { name: name("a") };
    let answer = overtaken(&array, &reinstate, says, volume::Delete { name: name("a") }).unwrap();
    assert_eq!(answer.name, "a");
}

#[test]
fn a_reinstatement_that_is_done_is_answered_although_its_cartridge_is_deleted_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let array = Array::open(temporary.path(), &Options::default()).unwrap();
    cartridge::Create::new(barcode(), 1 << 20).act(&array).unwrap();
    let array = stopped(temporary.path(), array, "cartridges/DEMO01L8");
    let says = "the cartridge had stopped, and is reinstated";
    let reinstate = cartridge::Reinstate { barcode: barcode() };
    let answer = overtaken(&array, &reinstate, says, cartridge::Delete { barcode: barcode() }).unwrap();
    assert_eq!(answer.barcode, "DEMO01L8");
}
