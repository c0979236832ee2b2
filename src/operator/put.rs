//! Making one object what somebody wants of it, whether it is there or not: `PUT` of the admin API.
//!
//! What is wanted is what a table of a file says, and the way is that of [a whole file](super::apply): what is not said is not
//! changed, what an object keeps for life and is wanted otherwise is refused, and nothing is done before all of it is known to
//! be possible. The plan is made of the catalog as it is served; its first step looks in its turn whether the object is still
//! that one, and if it is not, a new plan is made.

use serde_json::{Map, Value};

use super::act::caught;
use super::apply::{self, Unapplied};
use super::cause::{Cause, ObjectKind};
use super::condition::{self, Precondition, key};
use super::desired::{self, AtLine, Desired};
use super::expected::Expected;
use super::outcome::Outcome;
use super::plan::{Change, Plan, Step, plan};
use super::read::{Unread, read, read_with};
use super::verb::Verb;
use super::who::{Role, Subject, Who};
use super::work::Work;
use super::{Operator, Record, Request, Stage};
use crate::catalog::names::IscsiName;
use crate::catalog::transaction::Key;
use crate::catalog::{Catalog, MapEntry, Revision, Seed};

/// How often a plan is made anew because somebody else was faster.
const TRIES: usize = 8;

/// An object as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// The object; of a LUN its target.
    key: Key,
    /// The one table.
    desired: Desired,
    /// What the request said.
    asked: Value,
}

/// Why an object is not what it is wanted to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unput {
    /// The verb that was refused, if it came to one.
    pub(crate) verb: Option<Box<Verb>>,
    /// Why.
    pub(crate) cause: Box<Cause>,
    /// How many verbs are done.
    pub(crate) done: usize,
    /// How many it takes.
    pub(crate) verbs: usize,
}

impl From<Cause> for Unput {
    fn from(cause: Cause) -> Self {
        Self { verb: None, cause: Box::new(cause), done: 0, verbs: 0 }
    }
}

impl From<Vec<desired::LineCause>> for Unput {
    fn from(causes: Vec<desired::LineCause>) -> Self {
        let unreadable = || Cause::Unreadable { why: "it cannot be".to_owned() };
        causes.into_iter().next().map_or_else(unreadable, |line| line.cause).into()
    }
}

impl From<Unapplied> for Unput {
    fn from(unapplied: Unapplied) -> Self {
        match unapplied {
            Unapplied::NotAllowed { needs } => Cause::NotAllowed { needs }.into(),
            Unapplied::Stale(cause) => cause.into(),
            Unapplied::Busy { most } => {
                Cause::Unreadable { why: format!("{most} files are being planned") }.into()
            }
            Unapplied::GivenUp => Cause::ClientGone.into(),
            Unapplied::Cancelled { .. } => Cause::Cancelled.into(),
            Unapplied::Lines(causes) => causes.into(),
            Unapplied::Stopped { done, items, refusal } => {
                Self { verb: Some(refusal.verb), cause: refusal.cause, done, verbs: items }
            }
        }
    }
}

impl Put {
    /// The object of `kind` that a path calls `subject`, as `body` wants it.
    ///
    /// # Errors
    /// What of the request cannot be meant.
    pub(crate) fn read(kind: ObjectKind, subject: &str, body: &[u8]) -> Result<Self, Unread> {
        let name = |field| (Subject::Text(field), Some(subject));
        let mut desired = Desired::default();
        match kind {
            ObjectKind::Volume => desired.volumes = table(name("name"), body)?,
            ObjectKind::Drive => desired.drives = table(name("name"), body)?,
            ObjectKind::CommandDevice => desired.command_devices = table(name("name"), body)?,
            ObjectKind::Cartridge => desired.cartridges = table(name("barcode"), body)?,
            ObjectKind::Pair => desired.pairs = table(name("name"), body)?,
            ObjectKind::Group => desired.groups = table(name("name"), body)?,
            ObjectKind::Target => {
                // A path's short form is made whole at the door.
                subject.parse::<IscsiName>().map_err(|error| Unread::Subject(error.to_string()))?;
                desired.targets = table(name("iqn"), body)?;
            }
            ObjectKind::Snapshot
            | ObjectKind::Session
            | ObjectKind::Copy
            | ObjectKind::Operation
            | ObjectKind::Token => {
                return Err(Unread::Body(format!("a {} is not made this way", kind.noun())));
            }
        }
        let key = key(kind, subject).ok_or_else(|| Unread::Subject(format!("'{subject}' is not a name")))?;
        Ok(Self { key, desired, asked: serde_json::from_slice(body).unwrap_or_default() })
    }

    /// LUN `lun` of `target`, as `body` wants it.
    ///
    /// # Errors
    /// What of the request cannot be meant.
    pub(crate) fn read_lun(target: &IscsiName, lun: u16, body: &[u8]) -> Result<Self, Unread> {
        let number = lun.to_string();
        let path = [(Subject::Text("target"), target.as_str()), (Subject::Number("lun"), number.as_str())];
        let table: desired::Lun = read_with(&path, body)?;
        let mut asked: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        asked.extend([("target".to_owned(), target.as_str().into()), ("lun".to_owned(), lun.into())]);
        let desired = Desired { luns: vec![AtLine { line: 1, table }], ..Desired::default() };
        Ok(Self { key: Key::Target(target.clone()), desired, asked: asked.into() })
    }

    /// The revision that the object has in `catalog`, if it is there.
    fn found(&self, catalog: &Catalog) -> Option<Revision> {
        let is_there = self.desired.luns.iter().all(|at| self.entry(catalog, &at.table).is_some());
        catalog.revision_of(&self.key).filter(|_| is_there)
    }

    fn entry<'a>(&self, catalog: &'a Catalog, lun: &desired::Lun) -> Option<&'a MapEntry> {
        catalog.targets.get(&lun.target.0)?.maps.iter().find(|entry| lun.is_at(entry))
    }

    /// What the object is called: its noun, and its name.
    #[must_use]
    pub(crate) fn about(&self) -> String {
        match self.desired.luns.first() {
            Some(at) => at.table.about(),
            None => super::plan::about(&self.key),
        }
    }

    /// The object's noun, and the name of the object; of a LUN that of its target.
    fn object(&self) -> (&'static str, String) {
        let (kind, name) = super::plan::named(&self.key);
        (if self.desired.luns.is_empty() { kind.noun() } else { "lun" }, name)
    }

    /// The object's entry in the catalog; of a LUN its target's.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The map entry of `catalog` at the place of the one that is wanted, if it is one.
    #[must_use]
    pub(crate) fn lun(&self, catalog: &Catalog) -> Option<MapEntry> {
        self.entry(catalog, &self.desired.luns.first()?.table).cloned()
    }
}

/// The one table of `body`.
fn table<T: serde::de::DeserializeOwned>(
    (field, subject): (Subject, Option<&str>),
    body: &[u8],
) -> Result<Vec<AtLine<T>>, Unread> {
    read(field, subject, body).map(|table| vec![AtLine { line: 1, table }])
}

impl Operator {
    /// Makes an object what `put` says, for `who`, if it is as `expected`; `None`: whatever it is.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn put(
        &self,
        who: &Who,
        put: &Put,
        expected: Option<&Expected>,
    ) -> Result<Outcome<()>, Unput> {
        let _under_way = self.verbs.enter();
        let (noun, object) = put.object();
        let request = Request::Object { noun, object: &object, asked: &put.asked };
        // Every change needs at least this role. Without the role, nothing is looked at.
        if let Err(cause) = self.allowed(who, Role::Operator) {
            self.note_not_begun(who, request, &cause);
            return Err(cause.into());
        }
        let done = self.try_to_put(who, put, expected);
        if let Err(Unput { verb, cause, .. }) = &done {
            match (verb, &**cause) {
                // The verb that needs the role has been told.
                (None, Cause::NotAllowed { .. }) => {}
                (None, cause) => self.note_not_begun(who, request, cause),
                (Some(verb), Cause::Stale { .. }) => self.note(Record::of(who, verb, Stage::Refused(cause))),
                (Some(_), _) => {}
            }
        }
        done
    }

    /// Does it. What is refused without a verb, and a verb whose object has changed meanwhile, are not told yet.
    fn try_to_put(&self, who: &Who, put: &Put, expected: Option<&Expected>) -> Result<Outcome<()>, Unput> {
        let mut put = put.clone();
        let misplaced = self.resolve(who, &mut put.desired);
        if !misplaced.is_empty() {
            return Err(misplaced.into());
        }
        let mut overtaken = None;
        for _ in 0..TRIES {
            let catalog = self.array.catalog();
            let found = put.found(&catalog);
            if let Some(expected) = expected {
                condition::refuse(expected, found)?;
            }
            let plan = plan(&catalog, &put.desired, false)?;
            if plan.items.is_empty() {
                return Ok(Outcome { answer: (), is_new: false, revision: found });
            }
            self.refuse(who, &plan)?;
            self.foresee(&plan)?;
            let seen = catalog.revision_of(&put.key).map(Revision::number);
            let seen = seen.map_or(Expected::Absent, |seen| Expected::Revisions([seen].into()));
            let on = Precondition::of_object(put.key.clone(), Some(seen));
            match self.make(who, &plan, on) {
                Err(refused) if refused.done == 0 && matches!(*refused.cause, Cause::Stale { .. }) => {
                    overtaken = Some(refused);
                }
                Err(refused) => return Err(refused),
                Ok(revision) => {
                    let is_new = plan.items.iter().any(|item| item.change == Change::Add);
                    return Ok(Outcome { answer: (), is_new, revision });
                }
            }
        }
        Err(overtaken.unwrap_or_else(|| Cause::Overtaken.into()))
    }

    /// Does the steps of `plan`, the first one `on` a condition; the revision that the object has then.
    fn make(&self, who: &Who, plan: &Plan, on: Precondition) -> Result<Option<Revision>, Unput> {
        let steps: Vec<&Step> = plan.items.iter().flat_map(|item| &item.steps).collect();
        let verbs = steps.len();
        let refused = |step: &Step, cause: Cause, done| {
            let verb = Some(Box::new(step.verb.clone()));
            Unput { verb, cause: Box::new(cause), done, verbs }
        };
        if steps.iter().all(|step| apply::is_catalog(step)) {
            let changed = caught(|| self.change_catalog(&steps, &on));
            let changed =
                changed.unwrap_or_else(|cause| steps.first().map_or(Ok(None), |step| Err((*step, cause))));
            let revision = changed.map_err(|(step, cause)| {
                self.note_refused(who, step, &cause);
                refused(step, cause, 0)
            })?;
            steps.iter().for_each(|step| self.note(Record::of(who, &step.verb, Stage::Done)));
            return Ok(revision);
        }
        let mut on = on;
        let mut revision = None;
        for (done, step) in steps.into_iter().enumerate() {
            revision = apply::step(self, step, &on).map_err(|cause| {
                self.note_refused(who, step, &cause);
                refused(step, cause, done)
            })?;
            self.note(Record::of(who, &step.verb, Stage::Done));
            // What comes next is about what this step has made of it.
            on = on.expecting(revision.map(|revision| Expected::Revisions([revision.number()].into())));
        }
        Ok(revision)
    }

    /// Tells the audit of a refused verb, but not of one that may come again by another plan.
    fn note_refused(&self, who: &Who, step: &Step, cause: &Cause) {
        if !matches!(cause, Cause::Stale { .. }) {
            self.note(Record::of(who, &step.verb, Stage::Refused(cause)));
        }
    }

    /// Does steps that are the catalog's alone, all or none.
    fn change_catalog<'s>(
        &self,
        steps: &[&'s Step],
        on: &Precondition,
    ) -> Result<Option<Revision>, (&'s Step, Cause)> {
        let Some(first) = steps.first() else { return Ok(None) };
        let mut work = Work::begin(&self.array).map_err(|stopping| (*first, stopping.into()))?;
        on.check(work.turn()).map_err(|cause| (*first, cause))?;
        for step in steps {
            // None of these makes an object with an identity.
            step.verb.effect(&mut work.after, Seed([0; 16])).map_err(|cause| (*step, cause))?;
        }
        work.refuse_swap().map_err(|cause| (*first, cause))?;
        work.commit().map_err(|error| (*first, error.into()))?;
        work.assemble();
        Ok(on.revision(work.turn()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(put: &Put, catalog: &Catalog) -> Option<u64> {
        put.found(catalog).map(Revision::number)
    }

    #[test]
    fn a_request_is_one_table_and_the_path_names_it() {
        let put =
            Put::read(ObjectKind::Volume, "db", br#"{"size": "1GiB", "labels": {"env": "test"}}"#).unwrap();
        assert_eq!((put.about().as_str(), put.lun(&Catalog::default())), ("volume db", None));
        assert_eq!(put.desired.volumes[0].table.size, Some(desired::Bytes(1 << 30)));
        assert_eq!(revision(&put, &Catalog::default()), None);
        let pair = Put::read(ObjectKind::Pair, "p", br#"{"primary": "a", "secondary": "b"}"#).unwrap();
        assert_eq!(pair.about(), "pair p");
        let target: IscsiName = "iqn.2026-01.a:t".parse().unwrap();
        let lun = Put::read_lun(&target, 7, br#"{"object": "db"}"#).unwrap();
        assert_eq!(
            (lun.about().as_str(), lun.key()),
            ("LUN 7 of iqn.2026-01.a:t", &Key::Target(target.clone()))
        );
        for (kind, subject, body) in [
            (ObjectKind::Volume, "db", r#"{"name": "other"}"#),
            (ObjectKind::Volume, "../db", "{}"),
            (ObjectKind::Volume, "db", r#"{"surprise": 1}"#),
            (ObjectKind::Target, "t", "{}"),
            (ObjectKind::Cartridge, "low", "{}"),
            (ObjectKind::Session, "7", "{}"),
        ] {
            assert!(Put::read(kind, subject, body.as_bytes()).is_err(), "{subject} {body}");
        }
        for body in ["", "null", "{}"] {
            assert_eq!(Put::read_lun(&target, 7, body.as_bytes()).unwrap().about(), lun.about(), "{body}");
        }
        for body in [
            "[]",
            r#"{"object": "db", "lun": 8}"#,
            r#"{"object": "db", "surprise": 1}"#,
            r#"{"object": "db", "object": "other"}"#,
        ] {
            assert!(Put::read_lun(&target, 7, body.as_bytes()).is_err(), "{body}");
        }
    }
}
