//! The one door to the logical units: a [`Session`] is an I_T nexus with the LUNs that it sees.
//!
//! * A command looks up its LUN under a lock that only a change of the map takes for writing, clones one handle, and
//!   enters the logical unit on the caller's thread. This allocates nothing.
//! * A change of the map reaches living sessions at once. LUNs that stay keep their nexuses, with pending unit
//!   attentions; new LUNs are attached; removed LUNs are detached and their tasks end. Every remaining LUN reports
//!   REPORTED LUNS DATA HAS CHANGED (SPC-4 6.33).
//! * A command for an unmapped LUN is no error of the conversation; it is answered as SPC-4 6.6.2 says.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::front::CopyFront;
use super::show;
use crate::catalog::names::ObjectName;
use crate::copy::{CopyManager, OperationId, UnitKey};
use crate::lu::{
    Announced, Done, ItlNexus, LogicalUnit, LunAccess, LunInventory, Outcome, Reply, ReplySink, Task,
    WeakItlNexus, Work, missing,
};
use crate::sam::{Cdb, Function, FunctionResponse, Lun, Nexus, TaskTag};
use crate::scsi::sense::{Asc, Format, Sense};

/// A LUN that a session will see, made from the catalog.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    pub(super) lun: u16,
    pub(super) object: ObjectName,
    pub(super) unit: Arc<LogicalUnit>,
    pub(super) read_only: bool,
}

/// One LUN of a session.
#[derive(Clone, Debug)]
struct Mapped {
    number: u16,
    object: ObjectName,
    itl: ItlNexus,
}

/// The LUNs that REPORT LUNS reports. This is apart from the session: the I_T_L nexuses hold it, and must not hold
/// themselves.
#[derive(Debug, Default)]
struct Inventory(RwLock<Vec<(Lun, WeakItlNexus)>>);

impl LunInventory for Inventory {
    fn luns(&self) -> Vec<Lun> {
        self.0.read().iter().map(|(lun, _)| *lun).collect()
    }

    fn reported(&self) {
        self.0.read().iter().for_each(|(_, itl)| itl.clear(Asc::REPORTED_LUNS_DATA_HAS_CHANGED));
    }
}

type Dropper = Box<dyn Fn() + Send + Sync>;

/// The functions that are called at the end of a session; `None` when it has ended.
type Waiting = Option<Vec<Box<dyn FnOnce() + Send>>>;

/// One I_T nexus, and its I_T_L nexuses in the array. Dropping it closes it.
pub struct Session {
    nexus: Arc<Nexus>,
    /// In ascending order of the LUNs.
    mapped: RwLock<Vec<Mapped>>,
    inventory: Arc<Inventory>,
    since: Timestamp,
    peer: Mutex<Option<String>>,
    commands: AtomicU64,
    dropper: Mutex<Option<Dropper>>,
    closed: AtomicBool,
    waiting: Arc<Mutex<Waiting>>,
    copies: Arc<CopyManager>,
    copy_front: Option<Arc<dyn CopyFront>>,
    on_close: Box<dyn Fn() + Send + Sync>,
}

impl Session {
    /// A session without LUNs. `copy_front` speaks to its copies; `on_close` is called once.
    pub(super) fn new(
        nexus: Nexus,
        since: Timestamp,
        copies: Arc<CopyManager>,
        copy_front: Option<Arc<dyn CopyFront>>,
        on_close: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            nexus: Arc::new(nexus),
            mapped: RwLock::new(Vec::new()),
            inventory: Arc::default(),
            since,
            peer: Mutex::new(None),
            commands: AtomicU64::new(0),
            dropper: Mutex::new(None),
            closed: AtomicBool::new(false),
            waiting: Arc::new(Mutex::new(Some(Vec::new()))),
            copies,
            copy_front,
            on_close,
        }
    }

    /// The front's part in the copies of this session.
    pub(super) fn copy_front(&self) -> Option<&dyn CopyFront> {
        self.copy_front.as_deref()
    }

    /// The initiator and the port.
    #[must_use]
    pub fn nexus(&self) -> &Nexus {
        &self.nexus
    }

    /// Takes a command for the unit at `lun`. It is answered once through its reply, perhaps before this returns.
    pub fn submit(&self, lun: Lun, task: Task) {
        if let Some(work) = self.admit(lun, task) {
            work.begin();
        }
    }

    /// Takes a command that a front has received together with others. If it may run now, it is the caller's to start.
    #[must_use]
    pub(crate) fn admit(&self, lun: Lun, task: Task) -> Option<Work> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        match self.itl_nexus(lun) {
            Some(itl) => itl.admit(task),
            None => {
                missing::answer(&*self.inventory, &self.nexus, lun, task);
                None
            }
        }
    }

    /// Announces a command that cannot be executed yet to the task set of the unit at `lun`; [`Announced::submit`]
    /// submits it. If the command is ended before, `front` is told. `None` if there is no unit at `lun`: then only
    /// this session knows the command, and submits it as any other.
    #[must_use]
    pub(crate) fn announce(&self, lun: Lun, tag: TaskTag, front: Arc<dyn ReplySink>) -> Option<Announced> {
        let announced = self.itl_nexus(lun)?.announce(tag, front)?;
        self.commands.fetch_add(1, Ordering::Relaxed);
        Some(announced)
    }

    /// Ends a command whose data was faulty: ABORTED COMMAND with `asc`, in the sense format of the unit.
    pub(crate) fn fail(&self, lun: Lun, reply: Reply, cdb: &Cdb, asc: Asc) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        match self.itl_nexus(lun) {
            Some(itl) => itl.fail(reply, cdb, asc),
            None => missing::fail(&self.nexus, lun, reply, cdb, asc),
        }
    }

    /// CHECK CONDITION with this sense data, in the sense format of the unit at `lun`.
    #[must_use]
    pub fn check(&self, lun: Lun, sense: &Sense) -> Outcome {
        match self.itl_nexus(lun) {
            Some(itl) => itl.unit().check(sense),
            None => Outcome::check(sense.encode(Format::Fixed)),
        }
    }

    /// Whether this nexus may perform `function` on the unit at `lun`; for a TARGET RESET, on any unit. Without a
    /// unit nothing is forbidden.
    #[must_use]
    pub fn permits(&self, lun: Lun, function: Function) -> bool {
        match function {
            Function::TargetReset => {
                let mapped = self.mapped.read();
                mapped.is_empty() || mapped.iter().any(|mapped| mapped.itl.access().permits(function))
            }
            _ => self.itl_nexus(lun).is_none_or(|itl| itl.access().permits(function)),
        }
    }

    /// Performs a task management function on the unit at `lun`. TARGET RESET and the loss of the nexus concern all
    /// units of this session; a unit that the session may only read loses only this nexus' tasks. `done` is called
    /// when the ended tasks are gone.
    pub fn manage(&self, lun: Lun, function: Function, done: Done) {
        if !self.permits(lun, function) {
            return done(FunctionResponse::NotAuthorized);
        }
        match function {
            Function::TargetReset | Function::NexusReset => {
                let nexuses: Vec<ItlNexus> =
                    self.mapped.read().iter().map(|mapped| mapped.itl.clone()).collect();
                let all = Countdown::new(nexuses.len(), Box::new(|| done(FunctionResponse::Complete)));
                for itl in nexuses {
                    let all = Arc::clone(&all);
                    let permitted = itl.access().permits(function);
                    let function = if permitted { function } else { Function::AbortTaskSet };
                    let all = self.forgetting(&itl, function, Box::new(move |_| all.one()));
                    itl.manage(function, all);
                }
            }
            _ => match self.itl_nexus(lun) {
                Some(itl) => itl.manage(function, self.forgetting(&itl, function, done)),
                None => done(FunctionResponse::IncorrectLun),
            },
        }
    }

    /// Wraps `done` for a function that stops the copies which `itl` or its unit took, and discards their results: at
    /// once, and again when they have ended, because each leaves a result.
    fn forgetting(&self, itl: &ItlNexus, function: Function, done: Done) -> Done {
        let (copies, unit, nexus) = (Arc::clone(&self.copies), Arc::clone(itl.unit()), self.nexus.id);
        let forget: Box<dyn Fn() + Send> = match function {
            Function::LogicalUnitReset | Function::TargetReset => Box::new(move || copies.unit_reset(&unit)),
            Function::NexusReset => Box::new(move || copies.nexus_lost(nexus)),
            _ => return done,
        };
        forget();
        Box::new(move |response| {
            forget();
            done(response);
        })
    }

    /// Ends the session: the loss of the I_T nexus at every unit. `done` is called when its tasks are gone. A second
    /// call only waits for that.
    pub fn close(&self, done: Box<dyn FnOnce() + Send>) {
        let mut waiting = self.waiting.lock();
        match &mut *waiting {
            Some(waiting) => waiting.push(done),
            None => {
                drop(waiting);
                return done();
            }
        }
        drop(waiting);
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mapped = std::mem::take(&mut *self.mapped.write());
        self.inventory.0.write().clear();
        self.copies.nexus_lost(self.nexus.id);
        (self.on_close)();
        let (waiting, copies, nexus) = (Arc::clone(&self.waiting), Arc::clone(&self.copies), self.nexus.id);
        let gone = Box::new(move || {
            copies.nexus_lost(nexus);
            let waiting = waiting.lock().take();
            waiting.into_iter().flatten().for_each(|done| done());
        });
        let all = Countdown::new(mapped.len(), gone);
        for Mapped { itl, .. } in mapped {
            let all = Arc::clone(&all);
            itl.detach(Box::new(move || all.one()));
        }
    }

    /// How the front ends the session's connections at an operator's request: it closes them, and then the session.
    /// Called on any thread; must not block.
    pub(crate) fn set_dropper(&self, dropper: Dropper) {
        *self.dropper.lock() = Some(dropper);
    }

    /// The address of the initiator, for people.
    pub fn set_peer(&self, peer: String) {
        *self.peer.lock() = Some(peer);
    }

    /// Asks the front to end the session. False if the front cannot.
    pub(crate) fn drop_connections(&self) -> bool {
        let dropper = self.dropper.lock();
        dropper.as_ref().inspect(|dropper| dropper()).is_some()
    }

    /// The I_T_L nexus of the unit at `lun`.
    pub(super) fn itl_nexus(&self, lun: Lun) -> Option<ItlNexus> {
        let number = lun.number()?;
        let mapped = self.mapped.read();
        let index = mapped.binary_search_by_key(&number, |mapped| mapped.number).ok()?;
        Some(mapped[index].itl.clone())
    }

    /// The name of the object at `lun`.
    pub(super) fn object(&self, lun: Lun) -> Option<ObjectName> {
        let number = lun.number()?;
        self.mapped.read().iter().find(|mapped| mapped.number == number).map(|mapped| mapped.object.clone())
    }

    /// The running copies of this session, each with a LUN that it needs. A copy reaches an object by the first LUN
    /// that leads to the object.
    pub(super) fn copies_by_lun(&self) -> Vec<(u16, OperationId)> {
        let (mapped, mut seen) = (self.mapped.read(), BTreeSet::new());
        let first = mapped.iter().filter(|mapped| seen.insert(UnitKey::of(mapped.itl.unit())));
        let copies = first.flat_map(|here| {
            let copies = self.copies.of_nexus(self.nexus.id, here.itl.unit());
            copies.into_iter().map(|copy| (here.number, copy))
        });
        copies.collect()
    }

    /// All I_T_L nexuses, with the names of their objects.
    pub(super) fn itl_nexuses(&self) -> Vec<(ObjectName, ItlNexus)> {
        self.mapped.read().iter().map(|mapped| (mapped.object.clone(), mapped.itl.clone())).collect()
    }

    /// From now on the session sees `visible`, which is in ascending order. With `tell`, remaining LUNs report that
    /// the map has changed. Returns the LUNs that have lost their units.
    pub(super) fn refresh(&self, visible: &[Visible], tell: bool) -> Vec<u16> {
        let mut mapped = self.mapped.write();
        if self.closed.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut old = std::mem::take(&mut *mapped).into_iter().peekable();
        let mut gone = Vec::new();
        let mut changed = false;
        for Visible { lun, object, unit, read_only } in visible {
            let stays = |mapped: &Mapped| {
                mapped.number == *lun
                    && Arc::ptr_eq(mapped.itl.unit(), unit)
                    && mapped.itl.access().read_only == *read_only
            };
            gone.extend(std::iter::from_fn(|| old.next_if(|old| old.number < *lun)));
            if let Some(mut same) = old.next_if(stays) {
                if same.object != *object {
                    same.object = object.clone(); // a rename
                }
                mapped.push(same);
                continue;
            }
            let Some(address) = Lun::from_number(*lun) else { continue };
            let access = LunAccess { read_only: *read_only };
            let inventory = Arc::clone(&self.inventory) as Arc<dyn LunInventory>;
            let itl = unit.attach(&self.nexus, address, access, inventory);
            mapped.push(Mapped { number: *lun, object: object.clone(), itl });
            changed = true;
        }
        gone.extend(old);
        changed |= !gone.is_empty();
        *self.inventory.0.write() =
            mapped.iter().map(|mapped| (mapped.itl.lun(), mapped.itl.downgrade())).collect();
        if tell && changed {
            mapped.iter().for_each(|mapped| mapped.itl.establish(Asc::REPORTED_LUNS_DATA_HAS_CHANGED));
        }
        drop(mapped);
        let numbers = gone.iter().map(|gone| gone.number).collect();
        gone.into_iter().for_each(|gone| gone.itl.detach(Box::new(|| ())));
        numbers
    }

    /// The document for `session list` and `session show`.
    pub(crate) fn show(&self) -> show::Session {
        let initiator = self.nexus.initiator.as_ref();
        show::Session {
            id: self.nexus.id.0,
            initiator: initiator.map_or_else(String::new, |port| port.name.to_string()),
            kernel: initiator.is_none(),
            isid: initiator.map_or_else(String::new, |port| {
                port.isid.iter().map(|byte| format!("{byte:02x}")).collect()
            }),
            target: self.nexus.port.name.clone(),
            portal_group: self.nexus.port.portal_group,
            peer: self.peer.lock().clone(),
            since: self.since,
            luns: self.mapped.read().len(),
            commands: self.commands.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close(Box::new(|| ()));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("nexus", &self.nexus).finish_non_exhaustive()
    }
}

/// Calls `done` once when all its parts have happened; at once if there are none.
struct Countdown {
    left: AtomicU64,
    done: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Countdown {
    fn new(count: usize, done: Box<dyn FnOnce() + Send>) -> Arc<Self> {
        let this = Arc::new(Self { left: AtomicU64::new(count as u64 + 1), done: Mutex::new(Some(done)) });
        this.one(); // so that zero parts are done at once
        this
    }

    fn one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().take()
        {
            done();
        }
    }
}
