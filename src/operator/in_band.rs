//! Requests that an initiator sends in band, through a command device.
//!
//! A request is a verb of pairs, groups and snapshots, as the admin API takes it, or a [`Query`]. What an initiator reaches is
//! [`Reach`]; anything else does not exist for it:
//!
//! | object | exists for the initiator if it reaches |
//! |---|---|
//! | volume | the volume |
//! | snapshot | its volume, or the snapshot itself |
//! | pair | both volumes |
//! | group | all of its members, of which there is one at least |
//!
//! A verb needs the right to change all volumes of the object. A verb that makes an object under a name, or of a volume, that is
//! taken by something out of reach is refused without a word about what that is. What the initiator does not reach is taken out of answers as well
//! ([`redacted`]). The reach is looked at when the request comes; the verb looks at the objects themselves in its turn.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cause::{Cause, ObjectKind};
use super::read::Unread;
use super::view;
use super::who::Who;
use super::{Operator, Refusal, Verb};
use crate::array::management::{Asker, Reach};
use crate::catalog::names::{ImageName, Name};
use crate::catalog::{Catalog, PairEntry};

/// A question about what an initiator reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", deny_unknown_fields)]
#[non_exhaustive]
pub enum Query {
    /// The volumes.
    #[serde(rename = "volume.list")]
    Volumes {},
    /// One volume.
    #[serde(rename = "volume.show")]
    Volume {
        /// Its name.
        name: Name,
    },
    /// The pairs.
    #[serde(rename = "pair.list")]
    Pairs {},
    /// One pair.
    #[serde(rename = "pair.show")]
    Pair {
        /// Its name.
        name: Name,
    },
    /// The groups.
    #[serde(rename = "group.list")]
    Groups {},
    /// One group.
    #[serde(rename = "group.show")]
    Group {
        /// Its name.
        name: Name,
    },
    /// The snapshots, of one volume or of all.
    #[serde(rename = "snapshot.list")]
    Snapshots {
        /// The volume.
        #[serde(default)]
        volume: Option<Name>,
    },
    /// One snapshot.
    #[serde(rename = "snapshot.show")]
    Snapshot {
        /// Its name.
        name: ImageName,
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InBand {
    /// A question.
    Query(Query),
    /// A verb.
    Verb(Box<Verb>),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// A question has no answer: what was asked, as an infinitive, and why not.
    Query(String, Box<Cause>),
    /// A verb was refused.
    Verb(Refusal),
}

impl InBand {
    /// The request in a JSON text.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn read(text: &[u8]) -> Result<Self, Unread> {
        let wrong = |error: serde_json::Error| Unread::Body(error.to_string());
        let document: Value = serde_json::from_slice(text).map_err(wrong)?;
        match (document.get("query").is_some(), document.get("verb").is_some()) {
            (true, false) => serde_json::from_value(document).map(Self::Query).map_err(wrong),
            (false, true) => serde_json::from_value(document).map(Self::Verb).map_err(wrong),
            _ => Err(Unread::Body("it is an object with either 'verb' or 'query'".to_owned())),
        }
    }

    /// Whether it is done at a time that is to come.
    #[must_use]
    pub fn lasts(&self) -> bool {
        match self {
            Self::Query(_) => false,
            Self::Verb(verb) => verb.lasting().is_some(),
        }
    }
}

impl From<&Asker> for Who {
    fn from(asker: &Asker) -> Self {
        let Asker { initiator, target, device, .. } = asker.clone();
        Self::Initiator { name: initiator, target, device }
    }
}

impl Operator {
    /// Does a request of `asker`. The answer is a JSON document, as a control command with `--json` prints it.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn answer_in_band(&self, asker: &Asker, request: InBand) -> Result<Value, NotDone> {
        let now = self.array.catalog();
        let reaches = Reaches { catalog: &now, reach: &asker.reach };
        let answer = match request {
            InBand::Query(query) => {
                let asked = query.asked();
                self.look(&reaches, &query).map_err(|cause| NotDone::Query(asked, Box::new(cause)))?
            }
            InBand::Verb(verb) => {
                let who = Who::from(asker);
                if let Err(cause) = reaches.admit(&verb) {
                    return Err(NotDone::Verb(self.refused(&who, *verb, cause)));
                }
                let kept = verb.clone();
                let done = self.perform(&who, *verb, None).map_err(|refusal| {
                    let cause = Box::new(told(&kept, *refusal.cause));
                    NotDone::Verb(Refusal { cause, ..refusal })
                })?;
                serde_json::from_str(&done.answer).unwrap_or_default()
            }
        };
        // The verb may have made the object that the answer shows.
        let now = self.array.catalog();
        Ok(redacted(answer, &Reaches { catalog: &now, reach: &asker.reach }, &asker.target))
    }

    /// What the initiator sees. Only what it reaches is looked at, so a list takes no longer because there is more.
    fn look(&self, reaches: &Reaches<'_>, query: &Query) -> Result<Value, Cause> {
        let (array, catalog, reach) = (&*self.array, reaches.catalog, reaches.reach);
        Ok(match query {
            Query::Volumes {} => each(reach.volumes().map(|name| view::volume::named(array, name))),
            Query::Volume { name } => {
                reaches.volume(name, false)?;
                document(&view::volume::named(array, name)?)
            }
            Query::Pairs {} => {
                let seen = catalog.pairs.keys().filter(|name| reaches.pair(name).is_ok());
                each(seen.map(|name| view::pair::named(array, name)))
            }
            Query::Pair { name } => {
                reaches.pair(name)?;
                document(&view::pair::named(array, name)?)
            }
            Query::Groups {} => {
                let seen = catalog.groups.keys().filter(|name| reaches.group(name).is_ok());
                each(seen.map(|name| view::group::named(array, name)))
            }
            Query::Group { name } => {
                reaches.group(name)?;
                document(&view::group::named(array, name)?)
            }
            Query::Snapshots { volume } => {
                let asked = |of: &Name| volume.as_ref().is_none_or(|volume| volume == of);
                let volumes = reach.volumes().filter(|volume| asked(volume));
                let mut all: Vec<_> =
                    volumes.flat_map(|volume| view::snapshot::of_volume(array, volume)).collect();
                let alone = reach.images().filter(|image| asked(&image.volume) && !reach.sees(&image.volume));
                all.extend(alone.filter_map(|image| view::snapshot::named(array, image).ok()));
                document(&all)
            }
            Query::Snapshot { name } => {
                if !reaches.reach.sees_image(name) {
                    return Err(Cause::not_found(ObjectKind::Snapshot, name));
                }
                document(&view::snapshot::named(array, name)?)
            }
        })
    }
}

impl Query {
    /// What is asked, as an infinitive.
    fn asked(&self) -> String {
        match self {
            Self::Volumes {} => "list the volumes".to_owned(),
            Self::Volume { name } => format!("show volume {name}"),
            Self::Pairs {} => "list the pairs".to_owned(),
            Self::Pair { name } => format!("show pair {name}"),
            Self::Groups {} => "list the groups".to_owned(),
            Self::Group { name } => format!("show group {name}"),
            Self::Snapshots { .. } => "list the snapshots".to_owned(),
            Self::Snapshot { name } => format!("show snapshot {name}"),
        }
    }
}

/// The documents of those objects that are still there.
fn each<T: Serialize>(seen: impl Iterator<Item = Result<T, Cause>>) -> Value {
    document(&seen.filter_map(Result::ok).collect::<Vec<_>>())
}

fn document(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What a catalog has within a reach.
struct Reaches<'a> {
    catalog: &'a Catalog,
    reach: &'a Reach,
}

impl Reaches<'_> {
    /// Refuses a volume that does not exist for the initiator, or that it must not change.
    fn volume(&self, name: &Name, change: bool) -> Result<(), Cause> {
        if !self.reach.sees(name) {
            return Err(Cause::not_found(ObjectKind::Volume, name));
        }
        if change && !self.reach.changes(name) {
            return Err(Cause::OnlySeen { volume: name.clone() });
        }
        Ok(())
    }

    /// The pair of this name, if it exists for the initiator.
    fn pair(&self, name: &Name) -> Result<&PairEntry, Cause> {
        let pair = self.catalog.pairs.get(name);
        let pair = pair.filter(|pair| self.reach.sees(&pair.primary) && self.reach.sees(&pair.secondary));
        pair.map(|pair| &**pair).ok_or_else(|| Cause::not_found(ObjectKind::Pair, name))
    }

    fn change_pair(&self, name: &Name) -> Result<(), Cause> {
        let pair = self.pair(name)?;
        [&pair.primary, &pair.secondary].into_iter().try_for_each(|volume| self.volume(volume, true))
    }

    /// The members of the group of this name, if it exists for the initiator.
    fn group(&self, name: &Name) -> Result<Vec<&Name>, Cause> {
        let members: Vec<&Name> =
            self.catalog.groups.get(name).into_iter().flat_map(|group| &group.volumes).collect();
        let is_seen = !members.is_empty() && members.iter().all(|volume| self.reach.sees(volume));
        if is_seen { Ok(members) } else { Err(Cause::not_found(ObjectKind::Group, name)) }
    }

    fn change_group(&self, name: &Name) -> Result<(), Cause> {
        self.group(name)?.into_iter().try_for_each(|volume| self.volume(volume, true))
    }

    /// The same with the pairs of the group.
    fn change_pairs_of(&self, name: &Name) -> Result<(), Cause> {
        self.change_group(name)?;
        let group = self.catalog.groups.get(name).ok_or_else(|| Cause::not_found(ObjectKind::Group, name))?;
        let secondaries = self.catalog.pairs_of_group(group).map(|pair| &self.catalog.pairs[pair].secondary);
        for secondary in secondaries {
            if !self.reach.sees(secondary) {
                return Err(Cause::not_found(ObjectKind::Group, name));
            }
            self.volume(secondary, true)?;
        }
        Ok(())
    }

    fn change_image(&self, name: &ImageName) -> Result<(), Cause> {
        if !self.reach.sees_image(name) {
            return Err(Cause::not_found(ObjectKind::Snapshot, name));
        }
        // An image that is mapped alone may be read; whether it stays is for those who have its volume.
        match self.reach.changes(&name.volume) {
            true => Ok(()),
            false => Err(Cause::OnlySeen { volume: name.volume.clone() }),
        }
    }

    /// Refuses a verb that is not for initiators, or is about something that does not exist for this one.
    fn admit(&self, verb: &Verb) -> Result<(), Cause> {
        match verb {
            Verb::PairCreate(create) => {
                let volumes = [&create.primary, &create.secondary];
                volumes.into_iter().try_for_each(|volume| self.volume(volume, true))?;
                if let Some(group) = &create.group {
                    self.change_group(group)?;
                }
                if let Ok(name) = create.named()
                    && self.catalog.pairs.contains_key(&name)
                {
                    self.pair(&name).map_err(|_| Cause::OutOfReach { what: format!("the name {name}") })?;
                }
                volumes.into_iter().try_for_each(|volume| self.refuse_beyond(volume))
            }
            Verb::PairSplit(split) => self.change_pair(&split.name),
            Verb::PairResync(resync) => self.change_pair(&resync.name),
            Verb::PairPace(pace) => self.change_pair(&pace.name),
            Verb::PairSet(set) => self.change_pair(&set.name),
            Verb::PairDelete(delete) => self.change_pair(&delete.name),
            Verb::GroupSplit(split) => self.change_pairs_of(&split.name),
            Verb::GroupResync(resync) => self.change_pairs_of(&resync.name),
            Verb::GroupSnapshot(new) => self.change_group(&new.name),
            Verb::SnapshotCreate(new) => self.volume(&new.name.volume, true),
            Verb::SnapshotProtect(protect) => self.change_image(&protect.name),
            Verb::SnapshotDelete(delete) => self.change_image(&delete.name),
            _ => Err(Cause::NotInBand),
        }
    }

    /// Refuses a volume that is in a pair or group which does not exist for the initiator.
    fn refuse_beyond(&self, volume: &Name) -> Result<(), Cause> {
        let pair = self.catalog.pair_of(volume.as_str()).map(|(name, _)| self.pair(name).map(drop));
        let group = self.catalog.group_of(volume).map(|name| self.group(name).map(drop));
        match [pair, group].into_iter().flatten().all(|seen| seen.is_ok()) {
            true => Ok(()),
            false => Err(Cause::OutOfReach { what: format!("volume {volume}") }),
        }
    }
}

/// The cause as the initiator is told: without what it does not reach.
fn told(verb: &Verb, cause: Cause) -> Cause {
    let what = |verb: &Verb| match verb {
        Verb::SnapshotDelete(delete) => format!("snapshot {}", delete.name),
        _ => "it".to_owned(),
    };
    match cause {
        // Targets and initiators.
        Cause::Rule { .. } | Cause::KernelDevice { .. } => Cause::OutOfReach { what: what(verb) },
        other => other,
    }
}

/// The answer without what the initiator does not reach: groups, pairs, LUNs of other targets, and what is about the machine of
/// the array.
fn redacted(mut answer: Value, reaches: &Reaches<'_>, target: &str) -> Value {
    redact(&mut answer, reaches, target);
    answer
}

fn redact(value: &mut Value, reaches: &Reaches<'_>, target: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                let is_seen = |sees: &dyn Fn(&Name) -> bool| {
                    value.as_str().is_none_or(|text| text.parse().is_ok_and(|name| sees(&name)))
                };
                let stays = match name.as_str() {
                    "labels" => continue,
                    "group" => is_seen(&|name| reaches.group(name).is_ok()),
                    "pair" => is_seen(&|name| reaches.pair(name).is_ok()),
                    "path" => false,
                    "kernel_devices" => {
                        *value = Value::Array(Vec::new());
                        continue;
                    }
                    "pairs" if value.as_array().is_some_and(|pairs| pairs.iter().all(Value::is_string)) => {
                        let sees = |pair: &Value| {
                            pair.as_str().is_some_and(|pair| {
                                pair.parse().is_ok_and(|name| reaches.pair(&name).is_ok())
                            })
                        };
                        value.as_array_mut().into_iter().for_each(|pairs| pairs.retain(sees));
                        continue;
                    }
                    "luns" => {
                        let luns = value.as_array_mut();
                        luns.into_iter().for_each(|luns| luns.retain(|lun| lun["target"] == target));
                        continue;
                    }
                    _ => {
                        redact(value, reaches, target);
                        continue;
                    }
                };
                if !stays {
                    *value = Value::Null;
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, reaches, target)),
        _ => {}
    }
}
