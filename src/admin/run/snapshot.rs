//! The verbs of `volume snapshot`.

use super::super::cli::{NewSnapshot, Of, SnapshotVerb};
use super::super::outlast::{WAIT_SLICE, outlast};
use super::{Client, OperationDocument, output};
use crate::array::error::ArrayError;
use crate::array::show;
use crate::catalog::names::ImageName;
use crate::operator::verbs::{group, snapshot};
use crate::operator::{Made, Verb};

impl Client {
    pub(super) fn snapshot(&self, verb: SnapshotVerb) -> Result<(), ArrayError> {
        let snapshot: show::Snapshot = match verb {
            SnapshotVerb::Create(new) => return self.take(new),
            SnapshotVerb::List { volume, selection } => {
                let of = volume.as_ref().map(|volume| format!("volume={volume}"));
                return self.select_of("/v1/snapshots", of, &selection, output::snapshots);
            }
            SnapshotVerb::Show(image) => {
                self.daemon.fetch(&format!("/v1/snapshots/{}", image.image("show")?))?
            }
            SnapshotVerb::Delete(image) => {
                return self.done(snapshot::Delete { name: image.image("delete")? });
            }
            SnapshotVerb::Protect { image, off } => {
                self.ask(snapshot::Protect { name: image.image("protect")?, off })?
            }
        };
        self.print(&snapshot, output::snapshot)
    }

    /// Makes snapshots, at once or at a time for which this waits.
    fn take(&self, new: NewSnapshot) -> Result<(), ArrayError> {
        let of = new.of()?;
        let NewSnapshot { protect, at, notes, .. } = new;
        match of {
            Of::Volume(name) => {
                let (labels, description) = notes.of(|| format!("create snapshot {name}"))?;
                let verb = snapshot::Create { name, protect, at, labels, description };
                let made: show::NewSnapshot = match at {
                    Some(_) if !self.daemon.is_in_band() => self.later(verb)?,
                    _ => self.ask::<Made<show::NewSnapshot>>(verb)?.object,
                };
                self.print(&made, |made| {
                    let show::NewSnapshot { snapshot, elapsed_us, hold_us, .. } = made;
                    made_at(&[&snapshot.name], *elapsed_us, *hold_us)
                })
            }
            Of::Group(name, snapshot) => {
                let (labels, description) = notes.of(|| format!("create snapshots of group {name}"))?;
                let verb = group::Snapshot { name, snapshot, protect, at, labels, description };
                let made: show::NewSnapshots = match at {
                    Some(_) if !self.daemon.is_in_band() => self.later(verb)?,
                    _ => self.ask(verb)?,
                };
                self.print(&made, |made| {
                    let names: Vec<&String> = made.snapshots.iter().map(|snapshot| &snapshot.name).collect();
                    made_at(&names, made.elapsed_us, made.hold_us)
                })
            }
        }
    }

    /// Has the daemon do a verb at a time that is to come, and waits for it.
    fn later<T: serde::de::DeserializeOwned>(&self, verb: impl Into<Verb>) -> Result<T, ArrayError> {
        let begun: OperationDocument = self.ask(verb)?;
        let ended = outlast(&self.daemon, begun.id, None, WAIT_SLICE, |_| {})?;
        let answer = ended.unless_failed()?.answer.unwrap_or_default();
        serde_json::from_value(answer).map_err(|error| self.daemon.confused(&error.to_string()))
    }

    /// Refuses to restore a volume, which this version cannot do.
    pub(super) fn restore(&self, name: &ImageName) -> Result<(), ArrayError> {
        let ImageName { volume, .. } = name;
        let remedy = format!(
            "map {name} read-only and {volume} as LUNs of one host, and copy there, as by 'cleave xcopy'; take a snapshot of {volume} first"
        );
        Err(ArrayError::refused(
            format!("restore volume {volume} from {name}"),
            "this version does not do that yet",
            remedy,
        ))
    }
}

/// What a person reads of new snapshots.
fn made_at(names: &[&String], elapsed_us: u64, hold_us: u64) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let held = match hold_us {
        0 => "no host write was held".to_owned(),
        _ => format!("host writes were held for at most {hold_us} µs"),
    };
    let noun = if names.len() == 1 { "snapshot" } else { "snapshots" };
    format!("{noun} {} made in {elapsed_us} µs; {held}", names.join(" "))
}
