//! The steps for command devices. They come behind the volumes that they grant, and before the LUNs at which they are mapped.

use std::collections::BTreeSet;

use super::{AtLine, Draft, Planner, Step, verb};
use crate::catalog::names::Name;
use crate::catalog::transaction::Key;
use crate::operator::cause::{Cause, ObjectKind};
use crate::operator::desired::CommandDevice;
use crate::operator::verbs::{command_device, group};

impl Planner<'_> {
    pub(super) fn command_device(&mut self, AtLine { line, table }: &AtLine<CommandDevice>) {
        let key = Key::CommandDevice(table.name.clone());
        let wants = table.grants.clone().unwrap_or_default();
        if wants.iter().any(|volume| self.refused.contains(&Key::Volume(volume.clone()))) {
            self.refused.insert(key);
            return;
        }
        let missing: Vec<Cause> = wants
            .iter()
            .filter(|volume| !self.catalog.volumes.contains_key(*volume))
            .map(|volume| Cause::not_found(ObjectKind::Volume, volume))
            .collect();
        let object = super::about(&key);
        if !missing.is_empty() {
            self.refused.insert(key); // so its LUNs are not to blame
            return missing.into_iter().for_each(|cause| self.refuse(Some(*line), &object, cause));
        }
        let stay = wants.iter().map(|volume| self.needs(*line, &object, &[Key::Volume(volume.clone())]));
        if stay.filter(|stays| !stays).count() > 0 {
            self.refused.insert(key);
            return;
        }
        let (labels, description) = (table.labels.as_ref(), table.description.as_ref());
        let mut draft = Draft::new(!self.catalog.command_devices.contains_key(&table.name));
        match self.catalog.command_devices.get(&table.name).cloned() {
            Some(has) => {
                self.same(*line, &key, "identity", table.identity, has.seed);
                let (name, grants) = (&table.name, table.grants.as_ref());
                let new: BTreeSet<Name> = wants.difference(&has.grants).cloned().collect();
                let gone = grants.map(|grants| has.grants.difference(grants).cloned().collect());
                let gone: BTreeSet<Name> = gone.unwrap_or_default();
                if !new.is_empty() {
                    draft.details.push(format!("grants {}", group::listed(&new)));
                    let grant = command_device::Grant { name: name.clone(), volumes: new };
                    draft.steps.push(verb(grant));
                }
                if !gone.is_empty() {
                    draft.details.push(format!("grants no more {}", group::listed(&gone)));
                    let revoke = command_device::Revoke { name: name.clone(), volumes: gone };
                    draft.steps.push(verb(revoke));
                }
                let noted = (ObjectKind::CommandDevice, table.name.as_str());
                draft.annotate(noted, (&has.labels, &has.description), labels, description);
            }
            None => {
                draft
                    .details
                    .extend((!wants.is_empty()).then(|| format!("grants {}", group::listed(&wants))));
                let new = command_device::Create {
                    name: table.name.clone(),
                    grants: wants,
                    labels: table.labels.clone(),
                    description: table.description.clone(),
                };
                draft.steps.push(Step { verb: new.into(), identity: table.identity });
                draft.noted(labels, description);
            }
        }
        self.conclude(*line, &key, draft);
    }
}
