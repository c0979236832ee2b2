//! What verbs make of a catalog, and who hears of them.

mod ending;
mod gone;
mod heard;
mod swapped;

use std::sync::Arc;
use std::time::Duration;

use super::verbs::{cartridge, drive, group, lun, object, pair, target, volume};
use super::*;
use crate::catalog::labels::Labels;
use crate::catalog::names::{Barcode, IscsiName, Name, node_name};
use crate::catalog::rules::Rule;
use crate::catalog::transaction::Key;
use crate::catalog::{Catalog, Pace, Scrap, Seed, StoreKind};
use crate::pair::State;
use heard::{Came, Heard};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn iqn() -> IscsiName {
    node_name("t").unwrap()
}

fn barcode() -> Barcode {
    "DEMO01L8".parse().unwrap()
}

fn volume(text: &str, size: u64) -> volume::Create {
    volume::Create::new(name(text), size)
}

fn pair() -> pair::Create {
    pair::Create { defer: true, ..pair::Create::new(name("a"), name("b")) }
}

/// The pair `p` of the volumes `a` and `b`, split and whole: one that copies is not deleted.
fn split_pair(array: &Arc<Array>) -> Name {
    for each in ["a", "b"] {
        volume(each, 1 << 20).act(array).unwrap();
    }
    let p = name("p");
    pair::Create { name: Some(p.clone()), ..pair() }.act(array).unwrap();
    pair::Split::new(p.clone()).act(array).unwrap();
    view::pair::wait(array, &p, State::Psus, Duration::from_secs(60)).unwrap();
    p
}

/// A catalog, changed by effects alone.
#[derive(Default)]
struct World {
    catalog: Catalog,
    drawn: u8,
}

impl World {
    /// One with an object of each kind: `a` and `b` are a pair, `a` is LUN 0, and the cartridge is in the drive `d`.
    fn full() -> Self {
        let mut world = Self::default();
        let map = lun::Map {
            object: name("a").into(),
            target: iqn(),
            lun: 0,
            initiators: [].into(),
            read_only: false,
        };
        world.make(&volume("a", 4096));
        world.make(&volume("b", 4096));
        world.make(&pair());
        world.make(&target::Create::new(iqn()));
        world.make(&map);
        world.make(&cartridge::Create::new(barcode(), 8 << 30));
        world.make(&drive::Create::new(name("d")));
        world.make(&drive::Load { name: name("d"), barcode: barcode() });
        world
    }

    /// What the effect of `verb` refuses, or makes of the catalog, which keeps its rules.
    fn make(&mut self, verb: &impl Effect) {
        assert_eq!(self.try_to(verb), Ok(()));
    }

    fn try_to(&mut self, verb: &impl Effect) -> Result<(), Cause> {
        let mut after = self.catalog.clone();
        self.drawn += 1;
        verb.effect(&mut after, Seed([self.drawn; 16]))?;
        after.check().unwrap();
        self.catalog = after;
        Ok(())
    }

    /// Why the effect of `verb` is refused.
    fn refusal(&mut self, verb: &impl Effect) -> Cause {
        self.try_to(verb).unwrap_err()
    }
}

#[test]
fn what_is_there_is_not_made_again() {
    let mut world = World::full();
    let before = world.catalog.clone();
    let exists = |kind, name: &str| Cause::exists(kind, name);
    assert_eq!(world.refusal(&volume("d", 512)), exists(ObjectKind::Drive, "d"));
    assert_eq!(world.refusal(&drive::Create::new(name("a"))), exists(ObjectKind::Volume, "a"));
    let other = pair::Create { name: Some(name("p")), ..pair() };
    assert_eq!(world.refusal(&other), Cause::InPair { volume: name("b"), pair: name("a-b") });
    let load = drive::Load { name: name("d"), barcode: barcode() };
    world.make(&load);
    assert_eq!(world.catalog, before, "it is loaded there already");
    world.make(&drive::Create::new(name("e")));
    let elsewhere = drive::Load { name: name("e"), barcode: barcode() };
    assert_eq!(world.refusal(&elsewhere), Cause::InDrive { cartridge: barcode(), drive: name("d") });
    world.make(&drive::Delete { name: name("e") });
    assert_eq!(world.catalog, before);
}

#[test]
fn what_is_there_and_equal_is_as_good_as_made_and_what_differs_is_named() {
    let mut world = World::full();
    let before = world.catalog.clone();
    let map =
        lun::Map { object: name("a").into(), target: iqn(), lun: 0, initiators: [].into(), read_only: false };
    let cartridge = cartridge::Create::new(barcode(), 8 << 30);
    world.make(&volume("a", 4096));
    world.make(&target::Create::new(iqn()));
    world.make(&target::Create { relative_id: Some(1), ..target::Create::new(iqn()) });
    world.make(&map);
    world.make(&pair());
    world.make(&cartridge);
    world.make(&drive::Create::new(name("d")));
    assert_eq!(world.catalog, before, "nothing has changed");

    let differs = |field: &str, has: &str, wants: &str| {
        let [field, has, wants] = [field, has, wants].map(str::to_owned);
        Cause::Differs { field, has, wants }
    };
    let labels = || Labels::default().with([("k".parse().unwrap(), "v".parse().unwrap())], []).unwrap();
    let volume = volume("a", 4096);
    assert_eq!(
        world.refusal(&volume::Create { size: 8192, ..volume.clone() }),
        differs("size", "4KiB", "8KiB")
    );
    let external = volume::Create { path: Some("/srv/a".into()), ..volume.clone() };
    assert_eq!(world.refusal(&external), differs("path", "", "/srv/a"));
    let in_memory = volume::Create { store: StoreKind::Mem, ..volume.clone() };
    assert_eq!(world.refusal(&in_memory), differs("store", "file", "mem"));
    let labelled = volume::Create { labels: Some(labels()), ..volume.clone() };
    assert_eq!(world.refusal(&labelled), differs("labels", "", "k=v"));
    let numbered = target::Create { relative_id: Some(2), ..target::Create::new(iqn()) };
    assert_eq!(world.refusal(&numbered), differs("relative_id", "1", "2"));
    let read_only = lun::Map { read_only: true, ..map.clone() };
    assert_eq!(world.refusal(&read_only), differs("read_only", "false", "true"));
    let other = lun::Map { object: name("b").into(), ..map };
    assert!(matches!(world.refusal(&other), Cause::Rule { rule: Rule::Taken { .. } }));
    let fast = pair::Create { pace: Some(Pace::Fast), ..pair() };
    assert_eq!(world.refusal(&fast), differs("pace", "medium", "fast"));
    let swapped =
        pair::Create { name: Some(name("a-b")), primary: name("b"), secondary: name("a"), ..pair() };
    assert_eq!(world.refusal(&swapped), differs("primary", "a", "b"));
    let large = cartridge::Create { size: 9 << 30, ..cartridge };
    assert_eq!(world.refusal(&large), differs("size", "8GiB", "9GiB"));
    let described =
        drive::Create { description: Some("x".parse().unwrap()), ..drive::Create::new(name("d")) };
    assert_eq!(world.refusal(&described), differs("description", "", "x"));
    assert_eq!(world.catalog, before);

    // What is written on an object later is not asked for by who made it.
    let annotate = object::Annotate::of(ObjectKind::Volume, "a");
    world.make(&object::Annotate { set: [("k".parse().unwrap(), "v".parse().unwrap())].into(), ..annotate });
    world.make(&volume);
    world.make(&labelled);
}

#[test]
fn what_is_used_stays() {
    let mut world = World::full();
    let entry = world.catalog.targets[&iqn()].maps[0].clone();
    let mapped = Rule::Mapped { target: iqn(), entry };
    assert_eq!(world.refusal(&volume::Delete { name: name("a") }), Cause::from(mapped.clone()));
    assert_eq!(world.refusal(&target::Delete { iqn: iqn() }), Cause::from(mapped));
    let in_pair = |volume| Cause::InPair { volume: name(volume), pair: name("a-b") };
    assert_eq!(world.refusal(&volume::Delete { name: name("b") }), in_pair("b"));
    let resize = |text, size, shrink| volume::Resize { name: name(text), size, shrink };
    assert_eq!(world.refusal(&resize("a", 8192, false)), in_pair("a"));
    let holds = Cause::DriveHolds { drive: name("d"), cartridge: barcode() };
    assert_eq!(world.refusal(&drive::Delete { name: name("d") }), holds);

    let rename = |from, to| volume::Rename { name: name(from), to: name(to) };
    assert_eq!(world.refusal(&rename("a", "b")), Cause::exists(ObjectKind::Volume, "b"));
    assert_eq!(world.refusal(&rename("a", "d")), Cause::exists(ObjectKind::Drive, "d"));
    assert_eq!(world.refusal(&rename("x", "y")), Cause::not_found(ObjectKind::Volume, "x"));
    let before = world.catalog.clone();
    world.make(&rename("a", "db"));
    assert_eq!(world.catalog.targets[&iqn()].maps[0].object, name("db"));
    assert_eq!(world.catalog.pairs["a-b"].primary, name("db"));
    world.make(&rename("db", "a"));
    assert_eq!(world.catalog, before);

    let pace = |pair| pair::SetPace { name: name(pair), pace: Pace::Slow };
    assert_eq!(world.refusal(&pace("p")), Cause::not_found(ObjectKind::Pair, "p"));
    world.make(&pace("a-b"));
    assert_eq!(world.catalog.pairs["a-b"].pace, Pace::Slow);
    world.make(&pair::Delete::new(name("a-b")));
    assert_eq!(world.catalog.scrap, [Scrap::Pair(name("a-b"))].into());
    assert_eq!(world.refusal(&resize("a", 512, false)), Cause::WouldLose { has: 4096 });
    world.make(&resize("a", 512, true));
    assert_eq!(world.catalog.volumes["a"].size, 512);
    let unlike = pair::Create { name: Some(name("p")), ..pair() };
    assert!(matches!(world.refusal(&unlike), Cause::ShapesDiffer { .. }));
    world.make(&drive::Unload { name: name("d") });
    assert_eq!(world.refusal(&drive::Unload { name: name("d") }), Cause::DriveEmpty { drive: name("d") });
    world.make(&drive::Delete { name: name("d") });
    let unmap = lun::Unmap { target: iqn(), lun: 0, initiator: None, all_entries: false };
    let unclear = lun::Unmap { initiator: Some(iqn()), all_entries: true, ..unmap.clone() };
    assert_eq!(world.refusal(&unclear), Cause::OneAndAll);
    world.make(&unmap);
    world.make(&volume::Delete { name: name("a") });
    world.make(&volume::Delete { name: name("b") });
    world.make(&target::Delete { iqn: iqn() });
    world.make(&cartridge::Delete { barcode: barcode() });
    assert_eq!(world.catalog, Catalog { scrap: world.catalog.scrap.clone(), ..Catalog::default() });
}

#[test]
fn what_is_not_there_is_named() {
    let mut world = World::default();
    let missing = |kind, name: &str| Cause::not_found(kind, name);
    assert_eq!(world.refusal(&volume::Delete { name: name("a") }), missing(ObjectKind::Volume, "a"));
    assert_eq!(world.refusal(&pair()), missing(ObjectKind::Volume, "a"));
    let same = pair::Create { secondary: name("a"), ..pair() };
    assert_eq!(world.refusal(&same), Cause::SameVolume);
    assert_eq!(world.refusal(&pair::Delete::new(name("p"))), missing(ObjectKind::Pair, "p"));
    assert_eq!(world.refusal(&drive::Unload { name: name("d") }), missing(ObjectKind::Drive, "d"));
    let cartridge = cartridge::Delete { barcode: barcode() };
    assert_eq!(world.refusal(&cartridge), missing(ObjectKind::Cartridge, "DEMO01L8"));
    let small = cartridge::Create::new(barcode(), 1);
    assert!(matches!(world.refusal(&small), Cause::CartridgeSize { .. }));
    let long = "x".repeat(Name::MAX_LENGTH);
    let long = pair::Create { primary: name(&long), ..pair() };
    assert_eq!(world.refusal(&long), Cause::NoDefaultName);
}

#[test]
fn a_directory_is_one_volume_s_alone() {
    let mut world = World::default();
    let at = |text: &str, path: &str| volume::Create { path: Some(path.into()), ..volume(text, 512) };
    world.make(&at("a", "/srv/a"));
    for (path, relation) in
        [("/srv/a", Relation::Same), ("/srv/a/b", Relation::Inside), ("/srv", Relation::Above)]
    {
        let taken = Cause::PathTaken { path: path.to_owned(), relation, volume: name("a") };
        assert_eq!(world.refusal(&at("b", path)), taken);
    }
    let in_memory = volume::Create { store: StoreKind::Mem, ..at("b", "/srv/b") };
    assert_eq!(world.refusal(&in_memory), Cause::NoPathInMemory);
    world.make(&at("b", "/srv/ab"));
}

/// Can keep nothing.
struct Full;

impl Audit for Full {
    fn ready(&self) -> Result<(), String> {
        Err("no space".to_owned())
    }

    fn note(&self, record: Record<'_>) {
        panic!("{record:?} was done");
    }
}

#[test]
fn no_verb_is_done_that_could_not_be_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let operator = Operator::open(temporary.path(), &Options::default(), Full).unwrap();
    let refusal = operator.run(&Who::Daemon, target::Create::new(iqn())).unwrap_err();
    assert_eq!(*refusal.cause, Cause::NotAudited { why: "no space".to_owned() });
    assert_eq!(view::target::all(operator.array()).len(), 0);
}

#[test]
fn every_verb_is_told_with_who_asked_and_what_came_of_it() {
    let temporary = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    let operator = Operator::open(temporary.path(), &Options::default(), heard.clone()).unwrap();
    let create = target::Create::new(iqn());
    let socket = Who::Socket { uid: 0, pid: Some(1) };
    assert_eq!(operator.run(&socket, create.clone()).unwrap().iqn, iqn().to_string());
    let other = target::Create { relative_id: Some(7), ..create.clone() };
    let again = operator.perform(&Who::Daemon, other.clone().into(), None).unwrap_err();
    let viewer = Who::Token { name: name("looks"), role: Role::Viewer, peer: "127.0.0.1:1".parse().unwrap() };
    let delete = target::Delete { iqn: iqn() };
    let needs = Cause::NotAllowed { needs: Role::Admin };
    assert_eq!(*operator.run(&viewer, delete.clone()).unwrap_err().cause, needs);
    assert_eq!(view::target::all(operator.array()).len(), 1);
    let done = operator.perform(&Who::Daemon, delete.clone().into(), None).unwrap();
    assert_eq!(done.answer, format!(r#"{{"done":"target {} deleted"}}"#, iqn()));
    let expected = [
        (socket, Ok(create.into()), Came::Done),
        (Who::Daemon, Ok(other.into()), Came::Refused(*again.cause)),
        (viewer, Ok(delete.clone().into()), Came::Refused(needs)),
        (Who::Daemon, Ok(delete.into()), Came::Done),
    ];
    assert_eq!(*heard.0.lock(), expected);
}

/// A plan's steps are done many at a time, and not by [`Operator::run`].
#[test]
fn a_file_is_applied_for_those_alone_who_may_do_all_of_it_and_only_if_it_can_be_kept() {
    let file = "[[volume]]\nname = \"db\"\nsize = \"1MiB\"\nstore = \"mem\"\n[[target]]\niqn = \"t\"\n";
    let apply = |dry_run| Apply { file: file.to_owned(), dry_run, prune: false };
    let holder = |role| Who::Token { name: name("ci"), role, peer: "127.0.0.1:1".parse().unwrap() };
    let temporary = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    let operator = Operator::open(temporary.path(), &Options::default(), heard.clone()).unwrap();
    for role in [Role::Viewer, Role::Operator] {
        let refused = operator.apply(&holder(role), &apply(false)).unwrap_err();
        assert_eq!(refused, Unapplied::NotAllowed { needs: Role::Admin });
        assert_eq!(operator.apply(&holder(role), &apply(true)).unwrap().items.len(), 2);
    }
    assert_eq!(
        (view::volume::all(operator.array()).len(), view::target::all(operator.array()).len()),
        (0, 0)
    );
    assert!(heard.0.lock().iter().all(|(.., came)| matches!(came, Came::Refused(_))));
    operator.apply(&holder(Role::Admin), &apply(false)).unwrap();
    assert_eq!(
        (view::volume::all(operator.array()).len(), view::target::all(operator.array()).len()),
        (1, 1)
    );
    // Nothing to do asks for no role.
    assert_eq!(operator.apply(&holder(Role::Viewer), &apply(false)).unwrap().items.len(), 0);

    let temporary = tempfile::tempdir().unwrap();
    let operator = Operator::open(temporary.path(), &Options::default(), Full).unwrap();
    let refused = operator.apply(&Who::Daemon, &apply(false)).unwrap_err();
    assert!(matches!(refused, Unapplied::Stopped { done: 0, items: 2, .. }), "{refused:?}");
    assert_eq!(view::volume::all(operator.array()).len(), 0);
}

/// An operator over an empty array.
fn operator() -> (tempfile::TempDir, Arc<Operator>) {
    let temporary = tempfile::tempdir().unwrap();
    let operator = Operator::open(temporary.path(), &Options::default(), ()).unwrap();
    (temporary, operator)
}

fn in_memory(text: &str) -> volume::Create {
    volume::Create { store: StoreKind::Mem, ..volume(text, 1 << 20) }
}

#[test]
fn a_verb_is_done_on_its_condition_alone() {
    let (_temporary, operator) = operator();
    let revisions = |numbers: &[u64]| Expected::Revisions(numbers.iter().copied().collect());
    let stale = |expected: &Expected, found: Option<u64>| Cause::Stale { expected: expected.clone(), found };
    let create = target::Create::new(iqn());
    let made = operator.run_if(&Who::Daemon, create.clone(), Some(&Expected::Absent)).unwrap();
    let first = made.revision.unwrap().number();
    assert!(made.is_new);
    let again = operator.run_if(&Who::Daemon, create.clone(), None).unwrap();
    assert_eq!((again.is_new, again.revision, &again.answer), (false, made.revision, &made.answer));
    let refused = operator.run_if(&Who::Daemon, create.clone(), Some(&Expected::Absent)).unwrap_err();
    assert_eq!(*refused.cause, stale(&Expected::Absent, Some(first)));

    let annotate = object::Annotate::of(ObjectKind::Target, iqn().as_str());
    let annotate = object::Annotate { description: Some("x".parse().unwrap()), ..annotate };
    let changed = operator.run_if(&Who::Daemon, annotate, Some(&revisions(&[first]))).unwrap();
    let second = changed.revision.unwrap().number();
    assert!(second > first && !changed.is_new);
    let delete = target::Delete { iqn: iqn() };
    for expected in [revisions(&[first]), revisions(&[]), Expected::Absent] {
        let refused = operator.run_if(&Who::Daemon, delete.clone(), Some(&expected)).unwrap_err();
        assert_eq!(*refused.cause, stale(&expected, Some(second)));
    }
    assert_eq!(view::target::all(operator.array()).len(), 1);

    // Who makes an object by its list expects the list.
    let list = operator.array().catalog().revision.number();
    let drive = drive::Create::new(name("d"));
    let refused = operator.run_if(&Who::Daemon, drive.clone(), Some(&revisions(&[list + 1]))).unwrap_err();
    assert_eq!(*refused.cause, stale(&revisions(&[list + 1]), Some(list)));
    operator.run_if(&Who::Daemon, drive, Some(&revisions(&[list]))).unwrap();

    let gone = operator.run_if(&Who::Daemon, delete.clone(), Some(&revisions(&[first, second]))).unwrap();
    assert_eq!(gone.revision, None);
    for expected in [Expected::Present, revisions(&[second])] {
        let refused = operator.run_if(&Who::Daemon, delete.clone(), Some(&expected)).unwrap_err();
        assert_eq!(*refused.cause, stale(&expected, None), "made anew it has another revision");
    }
    let refused = operator.run_if(&Who::Daemon, delete, Some(&Expected::Absent)).unwrap_err();
    assert_eq!(*refused.cause, Cause::not_found(ObjectKind::Target, iqn()));

    // A renamed volume has its revision under its new name.
    let made = operator.run_if(&Who::Daemon, in_memory("a"), None).unwrap();
    assert!(made.is_new);
    let rename = volume::Rename { name: name("a"), to: name("b") };
    let renamed = operator.run_if(&Who::Daemon, rename, Some(&Expected::Present)).unwrap();
    assert_eq!(renamed.revision, operator.array().catalog().revision_of(&Key::Volume(name("b"))));
    assert!(!operator.run_if(&Who::Daemon, in_memory("b"), None).unwrap().is_new);
}

#[test]
fn what_is_put_is_there_whatever_was_there_before() {
    let (_temporary, operator) = operator();
    let put = |kind, subject: &str, body: &str| Put::read(kind, subject, body.as_bytes()).unwrap();
    let volume = |body: &str| put(ObjectKind::Volume, "db", body);
    let doing = |put: &Put| operator.put(&Who::Daemon, put, None);
    let made = doing(&volume(r#"{"size": "1MiB", "store": "mem", "labels": {"env": "test"}}"#)).unwrap();
    assert!(made.is_new);
    let entry = || operator.array().catalog().volumes["db"].clone();
    let first = entry();
    assert_eq!(first.labels.to_string(), "env=test");
    let again = doing(&volume(r#"{"size": 1048576, "labels": {"env": "test"}}"#)).unwrap();
    assert_eq!((again.is_new, again.revision), (false, Some(first.revision())), "nothing was to be done");
    let changed =
        doing(&volume(r#"{"size": "2MiB", "labels": {"tier": "gold"}, "description": "x"}"#)).unwrap();
    assert_eq!((changed.is_new, changed.revision), (false, Some(entry().revision())));
    assert_eq!((entry().size, entry().labels.to_string()), (2 << 20, "tier=gold".to_owned()));
    assert_eq!((entry().description.as_str(), entry().seed), ("x", first.seed));
    let refused = doing(&volume(r#"{"block_size": 4096, "labels": {}}"#)).unwrap_err();
    assert!(matches!(&*refused.cause, Cause::Differs { field, .. } if field == "block_size"), "{refused:?}");
    let refused = doing(&volume(r#"{"size": "1MiB", "labels": {}}"#)).unwrap_err();
    assert_eq!(*refused.cause, Cause::WouldLose { has: 2 << 20 });
    assert_eq!(entry().labels.to_string(), "tier=gold", "all of it, or nothing");
    doing(&volume(r#"{"size": "1MiB", "shrink": true}"#)).unwrap();

    doing(&put(ObjectKind::Target, iqn().as_str(), "{}")).unwrap();
    let lun = |body: &str| Put::read_lun(&iqn(), 3, body.as_bytes()).unwrap();
    assert!(doing(&lun(r#"{"object": "db"}"#)).unwrap().is_new);
    assert!(!doing(&lun(r#"{"object": "db"}"#)).unwrap().is_new);
    assert!(!doing(&lun(r#"{"object": "db", "read_only": true}"#)).unwrap().is_new);
    assert!(view::lun::all(operator.array()).iter().map(|lun| lun.read_only).eq([true]));
    assert!(!doing(&lun(r#"{"read_only": false}"#)).unwrap().is_new, "a LUN that is there keeps its object");
    assert!(
        view::lun::all(operator.array()).iter().map(|lun| (&*lun.object, lun.read_only)).eq([("db", false)])
    );
    let missing = doing(&lun(r#"{"object": "none"}"#)).unwrap_err();
    assert!(matches!(*missing.cause, Cause::Rule { rule: Rule::NoObject(_) }), "{missing:?}");

    // Conditions, and who may.
    let stale = Expected::Revisions([first.revision().number()].into());
    let rest = volume(r#"{"description": "y"}"#);
    let refused = operator.put(&Who::Daemon, &rest, Some(&stale)).unwrap_err();
    assert!(matches!(*refused.cause, Cause::Stale { found: Some(_), .. }), "{refused:?}");
    let refused = operator.put(&Who::Daemon, &rest, Some(&Expected::Absent)).unwrap_err();
    assert!(matches!(*refused.cause, Cause::Stale { found: Some(_), .. }), "{refused:?}");
    let holder = |role| Who::Token { name: name("ci"), role, peer: "127.0.0.1:1".parse().unwrap() };
    let refused = operator.put(&holder(Role::Viewer), &rest, None).unwrap_err();
    assert_eq!(*refused.cause, Cause::NotAllowed { needs: Role::Operator });
    assert_eq!(entry().description.as_str(), "x");
    let now = Expected::Revisions([entry().revision().number()].into());
    operator.put(&holder(Role::Operator), &rest, Some(&now)).unwrap();
    let new = put(ObjectKind::Volume, "new", r#"{"size": "1MiB", "store": "mem"}"#);
    let refused = operator.put(&holder(Role::Operator), &new, Some(&Expected::Absent)).unwrap_err();
    assert_eq!(*refused.cause, Cause::NotAllowed { needs: Role::Admin });
    operator.put(&holder(Role::Admin), &new, Some(&Expected::Absent)).unwrap();
}

/// Two who have seen the same: one is first, and the other one hears of it.
#[test]
fn of_many_who_have_seen_the_same_one_changes_it() {
    let (_temporary, operator) = operator();
    operator.run(&Who::Daemon, target::Create::new(iqn())).unwrap();
    let seen = operator.array().catalog().revision_of(&Key::Target(iqn())).unwrap().number();
    let done = std::thread::scope(|scope| {
        let change = |number: u32| {
            let operator = &operator;
            move || {
                let body = format!(r#"{{"description": "{number}"}}"#);
                let put = Put::read(ObjectKind::Target, iqn().as_str(), body.as_bytes()).unwrap();
                operator.put(&Who::Daemon, &put, Some(&Expected::Revisions([seen].into())))
            }
        };
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(change(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let (first, others): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    assert_eq!((first.len(), others.len()), (1, 7));
    for refused in others {
        let cause = refused.map(drop).unwrap_err().cause;
        assert!(matches!(*cause, Cause::Stale { .. }), "{cause:?}");
    }
}

/// What a request says of a verb that the array of the next test could do.
fn sensible(verb: &str, directory: &Path) -> Value {
    use serde_json::json;
    match verb {
        "volume.create" => json!({"name": "new", "size": 4096, "store": "mem"}),
        "volume.resize" => json!({"name": "c", "size": 2 << 20}),
        "volume.rename" => json!({"name": "c", "to": "e"}),
        "volume.clone" => json!({"name": "c", "new": "new", "store": "mem"}),
        "volume.restore" => json!({"name": "a", "snapshot": "old"}),
        "volume.pace" => json!({"name": "a", "pace": "slow"}),
        "volume.abandon" => json!({"name": "a"}),
        "volume.limit" => json!({"name": "c", "snapshot_policy": "hold"}),
        "volume.reinstate" | "volume.delete" => json!({"name": "c"}),
        "target.create" => json!({"iqn": "iqn.2026-11.internal.cleave:new"}),
        "target.delete" => json!({"iqn": "iqn.2026-11.internal.cleave:empty"}),
        "lun.map" => json!({"object": "c", "target": iqn(), "lun": 1}),
        "lun.unmap" => json!({"target": iqn(), "lun": 0}),
        "pair.create" => json!({"primary": "c", "secondary": "d"}),
        "pair.split" | "pair.resync" | "pair.delete" => json!({"name": "a-b"}),
        "pair.set" => json!({"name": "a-b", "copy_policy": "merge"}),
        "pair.swap" => json!({"name": "a-b"}),
        "pair.pace" => json!({"name": "a-b", "pace": "slow"}),
        "group.create" => json!({"name": "new", "volumes": ["c"]}),
        "group.add" => json!({"name": "g", "volumes": ["c"]}),
        "group.remove" => json!({"name": "g", "volumes": ["a"]}),
        "group.split" | "group.resync" | "group.delete" => json!({"name": "g"}),
        "group.snapshot" => json!({"name": "g", "snapshot": "new"}),
        "snapshot.create" => json!({"name": "c@new"}),
        "snapshot.protect" | "snapshot.delete" => json!({"name": "a@old"}),
        "cartridge.create" => json!({"barcode": "NEW001L8", "size": 1 << 20}),
        "cartridge.export" => json!({"barcode": "SHELF1L8", "file": directory.join("out.tap")}),
        "cartridge.import" => json!({"barcode": "SHELF1L8", "file": directory.join("in.tap")}),
        "cartridge.reinstate" | "cartridge.delete" => json!({"barcode": "SHELF1L8"}),
        "drive.create" => json!({"name": "new"}),
        "command-device.create" => json!({"name": "new", "grants": ["c"]}),
        "command-device.grant" | "command-device.revoke" => json!({"name": "cmd0", "volumes": ["c"]}),
        "command-device.delete" => json!({"name": "cmd0"}),
        "drive.load" => json!({"name": "spare", "barcode": "SHELF1L8"}),
        "drive.unload" => json!({"name": "tape"}),
        "drive.delete" => json!({"name": "spare"}),
        "copy.abort" | "operation.cancel" | "session.drop" => json!({"id": 1}),
        "token.create" => json!({"name": "new", "role": "viewer", "sha256": "00".repeat(32)}),
        "token.delete" => json!({"name": "ci"}),
        "object.annotate" => json!({"kind": "volume", "name": "c", "description": "x"}),
        other => panic!("say what {other} is done to"),
    }
}

/// The verb called `verb`, with what a request says.
fn read(verb: &str, mut fields: Value) -> Verb {
    fields["verb"] = verb.into();
    serde_json::from_value(fields).unwrap()
}

/// An array that could do what is [`sensible`].
fn with_all(directory: &Path) -> Arc<Operator> {
    let operator = Operator::open(&directory.join("data"), &Options::default(), ()).unwrap();
    std::fs::write(directory.join("in.tap"), [0xFF; 4]).unwrap();
    let make = |verb, fields| operator.perform(&Who::Daemon, read(verb, fields), None).unwrap();
    for volume in ["a", "b", "c", "d"] {
        make("volume.create", serde_json::json!({"name": volume, "size": 1 << 20, "store": "mem"}));
    }
    for barcode in ["DRIVE1L8", "SHELF1L8"] {
        make("cartridge.create", serde_json::json!({"barcode": barcode, "size": 1 << 20}));
    }
    make("pair.create", serde_json::json!({"primary": "a", "secondary": "b", "defer": true}));
    make("group.create", serde_json::json!({"name": "g", "volumes": ["a"]}));
    make("snapshot.create", serde_json::json!({"name": "a@old"}));
    for drive in ["tape", "spare"] {
        make("drive.create", serde_json::json!({"name": drive}));
    }
    make("command-device.create", serde_json::json!({"name": "cmd0"}));
    make("drive.load", serde_json::json!({"name": "tape", "barcode": "DRIVE1L8"}));
    for target in [iqn(), node_name("empty").unwrap()] {
        make("target.create", serde_json::json!({"iqn": target}));
    }
    make("lun.map", serde_json::json!({"object": "a", "target": iqn(), "lun": 0}));
    make("token.create", serde_json::json!({"name": "ci", "role": "viewer", "sha256": "11".repeat(32)}));
    operator
}

#[test]
fn a_volume_is_in_one_group_at_most_and_no_secondary_is_in_any() {
    let mut world = World::full();
    let set = |names: &[&str]| names.iter().map(|text| name(text)).collect();
    let create = |text: &str, volumes: &[&str]| group::Create {
        name: name(text),
        volumes: set(volumes),
        labels: None,
        description: None,
    };
    world.make(&volume("c", 4096));
    world.make(&volume("e", 4096));
    world.make(&create("g", &["a", "c"]));
    world.make(&create("g", &["c", "a"]));
    let before = world.catalog.clone();
    let in_group = |volume: &str| Cause::InGroup { volume: name(volume), group: name("g") };
    assert_eq!(world.refusal(&create("h", &["c"])), in_group("c"));
    assert!(matches!(world.refusal(&create("g", &["a"])), Cause::Differs { .. }));
    let secondary = Cause::IsSecondary { volume: name("b"), pair: name("a-b") };
    assert_eq!(world.refusal(&create("h", &["b"])), secondary);
    let add = |volumes: &[&str]| group::Add { name: name("g"), volumes: set(volumes) };
    assert_eq!(world.refusal(&add(&["b"])), secondary);
    assert_eq!(world.refusal(&add(&["gone"])), Cause::not_found(ObjectKind::Volume, "gone"));
    world.make(&add(&["a"]));
    assert_eq!(world.catalog, before, "it is a member");
    assert_eq!(world.refusal(&volume::Delete { name: name("c") }), in_group("c"));
    let pair = |primary: &str, secondary: &str, group: Option<&str>| pair::Create {
        group: group.map(name),
        ..pair::Create::new(name(primary), name(secondary))
    };
    assert_eq!(world.refusal(&pair("e", "c", None)), in_group("c"));
    world.make(&create("h", &[]));
    assert_eq!(world.refusal(&pair("c", "e", Some("h"))), in_group("c"));
    assert_eq!(world.refusal(&pair("c", "e", Some("x"))), Cause::not_found(ObjectKind::Group, "x"));
    world.make(&pair("c", "e", Some("g")));
    world.make(&volume::Rename { name: name("c"), to: name("z") });
    assert_eq!(world.catalog.groups["g"].volumes, set(&["a", "z"]));
    let remove = |volumes: &[&str]| group::Remove { name: name("g"), volumes: set(volumes) };
    assert_eq!(world.refusal(&remove(&["c"])), Cause::NotInGroup { volume: name("c"), group: name("g") });
    world.make(&remove(&["z", "a"]));
    world.make(&group::Delete { name: name("g") });
    assert_eq!(world.catalog.pairs.len(), 2, "the pairs stay");
    world.make(&volume("n", 4096));
    world.make(&volume("m", 4096));
    world.make(&pair("n", "m", Some("h")));
    assert_eq!(world.catalog.groups["h"].volumes, set(&["n"]), "the pair has brought its primary");
}

/// Whatever way a verb is done by, its turn looks at its condition.
#[test]
fn no_verb_forgets_its_condition() {
    let temporary = tempfile::tempdir().unwrap();
    let operator = with_all(temporary.path());
    let before = Catalog::clone(operator.array().turn().head());
    let never = Expected::Revisions([u64::MAX].into());
    for (name, _) in Verb::ALL {
        let verb = read(name, sensible(name, temporary.path()));
        let stale = |cause: Cause| assert!(matches!(cause, Cause::Stale { .. }), "{name}: {cause:?}");
        stale(*operator.perform(&Who::Daemon, verb.clone(), Some(&never)).unwrap_err().cause);
        // By the turn alone, as the steps of a plan are done.
        let on = verb.on(Some(never.clone()));
        let step = plan::Step { verb, identity: None };
        stale(apply::step(&operator, &step, &on).unwrap_err());
        assert_eq!(**operator.array().turn().head(), before, "{name}");
    }
    assert_eq!(operator.operations().list(), [], "nothing has begun");
    assert!(!temporary.path().join("out.tap").exists());
    let shown = view::cartridge::named(operator.array(), &"SHELF1L8".parse().unwrap()).unwrap();
    assert!(shown.moving.is_none() && shown.drive.is_none());
    assert_eq!(view::pair::all(operator.array())[0].state, State::Smpl.word());
}
