//! The verb of any object: sets its labels and its description.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::array::OPERATOR;
use crate::array::show::Marked;
use crate::catalog::labels::{Description, LabelKey, LabelValue, Labels};
use crate::catalog::names::{Barcode, ImageName, IscsiName, Name};
use crate::catalog::{Catalog, Seed};
use crate::operator::act::{Change, Changed, Effect};
use crate::operator::cause::{Cause, ObjectKind};
use crate::operator::who::{Meta, Role, Route, Subject};

/// `object annotate`: sets and removes labels of a volume, drive, command device, cartridge, target, pair or group, and sets its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Annotate {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Name of the object.
    pub name: String,
    /// Labels to be set; a label replaces one with the same key.
    #[serde(default)]
    pub set: BTreeMap<LabelKey, LabelValue>,
    /// Keys of labels to be removed first.
    #[serde(default)]
    pub remove: BTreeSet<LabelKey>,
    /// The new description; an empty one removes the former.
    #[serde(default)]
    pub description: Option<Description>,
}

impl Annotate {
    /// A verb that changes nothing of the object called `name`.
    #[must_use]
    pub fn of(kind: ObjectKind, name: &str) -> Self {
        let (set, remove, description) = Default::default();
        Self { kind, name: name.to_owned(), set, remove, description }
    }

    /// Whether the verb asks for a change.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.set.is_empty() || !self.remove.is_empty() || self.description.is_some()
    }

    /// The labels and the description of the object, if it exists.
    fn notes<'a>(&self, catalog: &'a mut Catalog) -> Option<(&'a mut Labels, &'a mut Description)> {
        macro_rules! of {
            ($objects:ident, $name:ty) => {{
                let entry = &mut **catalog.$objects.get_mut(&self.name.parse::<$name>().ok()?)?;
                Some((&mut entry.labels, &mut entry.description))
            }};
        }
        match self.kind {
            ObjectKind::Volume => of!(volumes, Name),
            ObjectKind::Drive => of!(drives, Name),
            ObjectKind::CommandDevice => of!(command_devices, Name),
            ObjectKind::Cartridge => of!(cartridges, Barcode),
            ObjectKind::Target => of!(targets, IscsiName),
            ObjectKind::Pair => of!(pairs, Name),
            ObjectKind::Group => of!(groups, Name),
            ObjectKind::Snapshot => of!(snapshots, ImageName),
            ObjectKind::Session | ObjectKind::Copy | ObjectKind::Operation | ObjectKind::Token => None,
        }
    }
}

impl Effect for Annotate {
    fn effect(&self, catalog: &mut Catalog, _: Seed) -> Result<(), Cause> {
        let notes = self.notes(catalog);
        let (labels, description) = notes.ok_or_else(|| Cause::not_found(self.kind, &self.name))?;
        let put = labels.with(self.set.clone(), &self.remove);
        *labels = put.map_err(|why| Cause::Labels { why })?;
        if let Some(new) = &self.description {
            *description = new.clone();
        }
        Ok(())
    }
}

impl Change for Annotate {
    type Answer = Marked;
    const META: Meta = Meta {
        noun: "object",
        word: "annotate",
        subject: Subject::Several,
        route: Route::CollectionAction,
        role: Role::Operator,
    };

    fn answer(&self, changed: &Changed<'_>) -> Result<Marked, Cause> {
        let (kind, name) = (self.kind.noun().to_owned(), self.name.clone());
        tracing::info!(target: OPERATOR, object = name, kind, "object annotated");
        let mut now = Catalog::clone(&changed.assembled.now.catalog);
        let notes = self.notes(&mut now).map(|(labels, description)| (labels.clone(), description.clone()));
        let (labels, description) = notes.unwrap_or_default();
        Ok(Marked { kind, name, labels, description })
    }
}
