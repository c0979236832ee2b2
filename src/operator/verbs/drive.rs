//! The verbs of `drive`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::array::cartridge_slot::{Borrowed, CartridgeLocation};
use crate::array::show::{self, Done};
use crate::array::{Array, DriveUnit, OPERATOR, ShutOut, Snapshot, Turn};
use crate::catalog::index::{Index, Lookup};
use crate::catalog::labels::{Description, Labels, Notes};
use crate::catalog::names::{Barcode, Name};
use crate::catalog::transaction::Key;
use crate::catalog::{Catalog, DriveEntry, Kept, Seed, rules};
use crate::lu::tape::{DriveStatus, Start, UnloadError};
use crate::operator::act::{Act, Asked, Change, Changed, Effect, check};
use crate::operator::cause::{Cause, ObjectKind};
use crate::operator::outcome::Outcome;
use crate::operator::outlook::Outlook;
use crate::operator::shelf::{at_rest, borrow, refuse_unusable};
use crate::operator::view;
use crate::operator::who::{Meta, Role, Route, Subject};
use crate::operator::work::Work;
use crate::tape::{Cartridge, OpenError};

const META: Meta = Meta {
    noun: "drive",
    word: "",
    subject: Subject::Text("name"),
    route: Route::ItemAction,
    role: Role::Operator,
};

/// The entry of an existing drive.
fn entry<'a>(catalog: &'a mut Catalog, name: &Name) -> Result<&'a mut Kept<DriveEntry>, Cause> {
    catalog.drives.get_mut(name).ok_or_else(|| Cause::not_found(ObjectKind::Drive, name))
}

/// The unit of an existing drive.
fn unit<'a>(served: &'a Snapshot, name: &Name) -> Result<&'a DriveUnit, Cause> {
    let unit = served.drives.get(name);
    unit.map(AsRef::as_ref).ok_or_else(|| Cause::not_found(ObjectKind::Drive, name))
}

/// Refuses a drive that holds a cartridge.
fn refuse_full(name: &Name, entry: &DriveEntry) -> Result<(), Cause> {
    entry.loaded.clone().map_or(Ok(()), |cartridge| Err(Cause::DriveHolds { drive: name.clone(), cartridge }))
}

/// `drive create`: makes an empty drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Name.
    pub name: Name,
    /// Its labels; none if absent.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// Its description; none if absent.
    #[serde(default)]
    pub description: Option<Description>,
}

impl Create {
    /// A drive without labels or a description.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self { name, labels: None, description: None }
    }
}

impl Effect for Create {
    fn effect(&self, catalog: &mut Catalog, identity: Seed) -> Result<(), Cause> {
        if let Some(has) = catalog.drives.get(&self.name) {
            let (labels, description) = (self.labels.as_ref(), self.description.as_ref());
            return super::same::same_notes((&has.labels, &has.description), labels, description);
        }
        super::volume::refuse_name(catalog, &self.name)?;
        let Notes { labels, description } = Notes::of(self.labels.as_ref(), self.description.as_ref());
        let entry = DriveEntry { labels, description, ..DriveEntry::new(identity) };
        catalog.drives.insert(self.name.clone(), entry.into());
        Ok(())
    }
}

impl Change for Create {
    type Answer = show::Drive;
    const META: Meta = Meta { word: "create", route: Route::Collection, role: Role::Admin, ..META };

    fn allow<'a>(&self, turn: &Turn<'a>) -> Result<Option<ShutOut<'a>>, Cause> {
        super::volume::refuse_filling(turn, &self.name).map(|()| None)
    }

    fn foresee(&self, outlook: &Outlook<'_>) -> Result<(), Cause> {
        super::volume::refuse_filling(&outlook.turn, &self.name)
    }

    fn answer(&self, changed: &Changed<'_>) -> Result<show::Drive, Cause> {
        if changed.is_new {
            tracing::info!(target: OPERATOR, drive = %self.name, "drive created");
        }
        Ok(view::drive::of(changed.array, &changed.assembled.now, &self.name))
    }
}

/// `drive delete`: the drive must be empty and not mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Name.
    pub name: Name,
}

impl Effect for Delete {
    fn effect(&self, catalog: &mut Catalog, _: Seed) -> Result<(), Cause> {
        refuse_full(&self.name, entry(catalog, &self.name)?)?;
        rules::unmapped(catalog, &self.name.clone().into())?;
        catalog.drives.remove(&self.name);
        Ok(())
    }
}

impl Change for Delete {
    type Answer = Done;
    const META: Meta = Meta { word: "delete", route: Route::Item, role: Role::Admin, ..META };

    fn allow<'a>(&self, turn: &Turn<'a>) -> Result<Option<ShutOut<'a>>, Cause> {
        let shut_out = turn.shut_out(Key::Drive(self.name.clone()));
        super::volume::refuse_kernel_device(turn.array(), &self.name.clone().into()).map(|()| Some(shut_out))
    }

    fn foresee(&self, outlook: &Outlook<'_>) -> Result<(), Cause> {
        super::volume::refuse_kernel_device(outlook.array(), &self.name.clone().into())
    }

    fn answer(&self, _: &Changed<'_>) -> Result<Done, Cause> {
        tracing::info!(target: OPERATOR, drive = %self.name, "drive deleted");
        Ok(Done::new(format!("drive {} deleted", self.name)))
    }
}

/// `drive load`: puts a cartridge into a drive. Hosts are told that the medium may have changed. A cartridge that is in the
/// drive already stays as it is; one that a host has put offline there is threaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The drive.
    pub name: Name,
    /// The cartridge.
    pub barcode: Barcode,
}

impl Load {
    /// Puts the cartridge, which is in the drive `holder` if that is one, into the drive.
    fn load(&self, catalog: &mut Catalog, holder: Option<Name>) -> Result<(), Cause> {
        let is_there = catalog.cartridges.contains_key(&self.barcode);
        let entry = entry(catalog, &self.name)?;
        if !is_there {
            return Err(Cause::not_found(ObjectKind::Cartridge, &self.barcode));
        }
        if entry.loaded.as_ref() == Some(&self.barcode) {
            return Ok(());
        }
        refuse_full(&self.name, entry)?;
        if let Some(drive) = holder {
            return Err(Cause::InDrive { cartridge: self.barcode.clone(), drive });
        }
        entry.loaded = Some(self.barcode.clone());
        Ok(())
    }
}

impl Effect for Load {
    fn effect(&self, catalog: &mut Catalog, _: Seed) -> Result<(), Cause> {
        let holder = catalog.drive_of(&self.barcode).cloned();
        self.load(catalog, holder)
    }

    fn effect_by(&self, catalog: &mut Catalog, index: &Index, _: Seed) -> Result<(), Cause> {
        self.load(catalog, index.drive_of(&self.barcode).cloned())
    }
}

impl Load {
    fn not_reopened(&self, error: &OpenError) -> Cause {
        Cause::NotReopened { cartridge: self.barcode.clone(), error: error.to_string() }
    }

    /// Whether the drive has that cartridge already.
    fn is_done(&self, catalog: &Catalog) -> bool {
        catalog.drives.get(&self.name).is_some_and(|entry| entry.loaded.as_ref() == Some(&self.barcode))
    }
}

impl Change for Load {
    type Answer = show::Drive;
    const META: Meta = Meta { word: "load", ..META };

    /// What an earlier step makes or unloads is not there yet, or not where it is then.
    fn foresee(&self, outlook: &Outlook<'_>) -> Result<(), Cause> {
        let Self { name, barcode } = self;
        if self.is_done(&outlook.now.catalog) {
            return Ok(());
        }
        let drive = outlook.now.drives.get(name).filter(|_| !outlook.is_changed(Key::Drive(name.clone())));
        if drive.is_some_and(|unit| unit.drive.status(Duration::ZERO).is_some()) {
            return Err(Cause::DriveFull { drive: name.clone() });
        }
        let is_there = outlook.now.cartridges.contains_key(barcode);
        if is_there && !outlook.is_changed(Key::Cartridge(barcode.clone())) {
            refuse_unusable(at_rest(&outlook.now, barcode)?)?;
        }
        Ok(())
    }

    /// The cartridge leaves the shelf, so that no other verb uses it. Only this verb's assembly puts a cartridge into
    /// the drive, so an empty drive stays empty until then.
    fn prepare(&self, work: &mut Work<'_>) -> Result<(), Cause> {
        let Self { name, barcode } = self;
        let is_full = unit(work.served(), name)?.drive.status(Duration::ZERO).is_some();
        if self.is_done(work.before()) {
            // A cartridge that failed when the array opened is loaded by the catalog alone.
            let holds = || Cause::DriveHolds { drive: name.clone(), cartridge: barcode.clone() };
            return if is_full { Ok(()) } else { Err(holds()) };
        }
        if is_full {
            return Err(Cause::DriveFull { drive: name.clone() });
        }
        let to_shelf = barcode.clone();
        work.undo(move |work| work.parts.borrowed.remove(&to_shelf).into_iter().for_each(Borrowed::back));
        let borrowed = borrow(work.served(), barcode, CartridgeLocation::Out, "load")?;
        let cartridge =
            work.parts.borrowed.entry(barcode.clone()).insert_entry(borrowed).into_mut().cartridge();
        let reopened = if cartridge.stopped() { cartridge.reopen() } else { Ok(()) };
        reopened.map_err(|error| self.not_reopened(&error))
    }

    /// Threads a cartridge that is in the drive already, but that a host has put offline. Not while a command may be under way
    /// with it: then it is threaded.
    fn confirm(&self, work: &mut Work<'_>) -> Result<(), Cause> {
        let unit = unit(work.served(), &self.name)?;
        let is_offline = |status: DriveStatus| !status.threaded;
        if unit.drive.status(Duration::ZERO).is_some_and(is_offline)
            && unit.drive.thread(&self.barcode, &unit.unit).map_err(|error| self.not_reopened(&error))?
        {
            tracing::info!(target: OPERATOR, drive = %self.name, cartridge = %self.barcode, "cartridge threaded");
        }
        Ok(())
    }

    fn answer(&self, changed: &Changed<'_>) -> Result<show::Drive, Cause> {
        if !self.is_done(changed.before) {
            tracing::info!(target: OPERATOR, drive = %self.name, cartridge = %self.barcode, "cartridge loaded");
        }
        Ok(view::drive::of(changed.array, &changed.assembled.now, &self.name))
    }
}

/// `drive unload`: makes the data of the cartridge stable, and takes the cartridge out of a drive that no copy uses.
/// Waits for the drive's running command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "admin", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Unload {
    /// The drive.
    pub name: Name,
}

impl Effect for Unload {
    fn effect(&self, catalog: &mut Catalog, _: Seed) -> Result<(), Cause> {
        let loaded = entry(catalog, &self.name)?.loaded.take();
        loaded.map(drop).ok_or_else(|| Cause::DriveEmpty { drive: self.name.clone() })
    }
}

impl Act for Unload {
    type Answer = show::Drive;
    const META: Meta = Meta { word: "unload", ..META };

    /// The drive gives its cartridge back before the catalog says so: everything on it is stable then. Nobody has the turn
    /// while the drive ends its command. If the catalog's drive is not as expected any more after that, the cartridge goes back.
    fn act_for(&self, asked: &Asked<'_>) -> Result<Outcome<show::Drive>, Cause> {
        let (Self { name }, Asked { array, on, .. }) = (self, *asked);
        check(self, asked)?;
        array.refuse_stopping()?;
        // Before the drive gives its cartridge back: to put a cartridge back writes its position by the array's path.
        array.displaced().map_or(Ok(()), |displaced| Err(Cause::from(displaced)))?;
        // A copy that begins from now on finds no medium before its first record, or an unload that waits for that record.
        self.refuse_copied(array)?;
        let unloaded = unit(&array.snapshot(), name)?.drive.unload();
        let cartridge = unloaded.map_err(|error| not_unloaded(&error))?;
        let mut work = Work::resume(array);
        let is_out = cartridge.map(|cartridge| self.take_out(&mut work, cartridge)).is_some();
        array.refuse_stopping()?;
        on.check(work.turn())?;
        self.effect(&mut work.after, Seed([0; 16]))?;
        let named = work.before().drives.get(name).and_then(|entry| entry.loaded.clone());
        let barcode = named.ok_or_else(|| Cause::DriveEmpty { drive: name.clone() })?;
        // Only the catalog has the cartridge in the drive: the cartridge failed when the array opened, or the catalog
        // could not be changed at an earlier unload. In any other case a second unload has taken the cartridge out.
        let slot = work.served().cartridges.get(&barcode);
        if !is_out
            && slot.is_some_and(|slot| slot.inspect(|location| matches!(location, CartridgeLocation::Drive)))
        {
            return Err(Cause::DriveEmpty { drive: name.clone() });
        }
        work.commit()?;
        let assembled = work.assemble();
        tracing::info!(target: OPERATOR, drive = %name, cartridge = %barcode, "cartridge unloaded");
        let (answer, revision) = (view::drive::of(array, &assembled.now, name), on.revision(work.turn()));
        Ok(Outcome { revision, ..Outcome::of(answer, &Self::META) })
    }

    /// An initiator that loses its way to the drive by an earlier step neither copies any more nor prevents the removal.
    fn foresee(&self, outlook: &Outlook<'_>) -> Result<(), Cause> {
        if outlook.is_changed(Key::Drive(self.name.clone())) {
            return Ok(());
        }
        self.refuse_copied(outlook.array())?;
        match unit(&outlook.now, &self.name)?.drive.is_removal_prevented() {
            true => Err(not_unloaded(&UnloadError::Prevented)),
            false => Ok(()),
        }
    }
}

/// Why a drive does not give its cartridge back.
fn not_unloaded(error: &UnloadError) -> Cause {
    match error {
        UnloadError::Prevented => Cause::RemovalPrevented { why: error.to_string() },
        UnloadError::Write(_) => Cause::NotUnloaded { error: error.to_string() },
    }
}

impl Unload {
    /// Refuses a drive that a copy uses.
    fn refuse_copied(&self, array: &Array) -> Result<(), Cause> {
        let copies = array.copies_of(&self.name.clone().into());
        copies.first().map_or(Ok(()), |copy| Err(Cause::CopyUses { copy: copy.0 }))
    }

    /// Takes the cartridge over from the drive. If the catalog does not change, the cartridge goes back into the drive.
    fn take_out(&self, work: &mut Work<'_>, cartridge: Cartridge) {
        let barcode = cartridge.label().barcode.clone();
        let Some(slot) = work.served().cartridges.get(&barcode) else { return };
        let borrowed = slot.taken_out(Box::new(cartridge), "unload");
        work.parts.borrowed.insert(barcode.clone(), borrowed);
        let drive = work.served().drives.get(&self.name).cloned();
        work.undo(move |work| {
            if let (Some(borrowed), Some(unit)) = (work.parts.borrowed.remove(&barcode), drive) {
                work.array().thread(borrowed, &barcode, &unit, Some(Start::Beginning));
            }
        });
    }
}
