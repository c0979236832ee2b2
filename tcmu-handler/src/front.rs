//! The kernel front as a whole: which devices there are, and the answers to the kernel about them.
//!
//! One thread owns the netlink socket and the devices. At the start it answers the kernel's waits that a killed
//! predecessor has left, and takes over the existing devices: the kernel answers BUSY while their rings are emptied,
//! and initiators send again. A ring that a predecessor has drained is used as it is, unless its commands are so old
//! that the kernel has given them up. A device whose object is missing stays BUSY until the object is there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cleave::array::Array;
use cleave::array::error::{ArrayError, Kind};
use cleave::internal::admin::config::TcmuConfig;
use cleave::internal::array::Lock;
use cleave::internal::array::backstore::{Backstore, Grant};
use cleave::scsi::opcode::DeviceType;
use cleave::units::Size;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::copies::DeviceCopies;
use crate::device::{self, Claim, Device};
use crate::netlink::{Change, Event, EventKind, Netlink};
use crate::ring::Drained;
use crate::sysfs::{self, KernelDevice};

/// How long the kernel may wait for a command. Its own default of 30 s ends the host's command while the array still
/// works on it. This is longer than initiators wait: they abort first, and an abort waits until the command is gone.
/// It is not for ever, in case no daemon comes back.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same for a device that takes copies, which last as long as their medium is large.
const COPY_PATIENCE: Duration = Duration::from_secs(3600);

/// How long before its time a command counts as given up by the kernel.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the commands of a device that the kernel removes may take to end. Usually there are none, because no LUN
/// uses the device.
const REMOVAL: Duration = Duration::from_secs(3);

/// The time between two looks at devices that wait for their object or have ended by themselves.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The request that fails when the front cannot start.
const ASKED: &str = "serve LIO's user backend";

/// The number of panics of the front's thread after which it gives up.
const PANICS: usize = 16;

/// Starts the front. The returned function ends it, within the time that it is given.
pub(crate) fn start(
    array: &Arc<Array>,
    config: &TcmuConfig,
) -> Result<impl FnOnce(Duration) + Send + use<>, ArrayError> {
    let refused = |why: String, remedy: &str| ArrayError::new(Kind::Failed, ASKED, why, remedy);
    let failed = |error: &io::Error| refused(error.to_string(), "look at the kernel's log");
    if !rustix::process::geteuid().is_root() {
        return Err(refused("only root may".to_owned(), "run it as root"));
    }
    if sysfs::module().is_none() {
        let remedy = "first 'modprobe -a target_core_user tcm_loop'";
        return Err(refused("the kernel has no TCMU".to_owned(), remedy));
    }
    let lock = sysfs::lock()
        .map_err(|why| refused(why, "a kernel has one: stop that process first, or serve its array"))?;
    for name in config.read_only.iter().chain(config.copy_reach.values().flatten()) {
        if !array.has_object(name) {
            tracing::warn!(object = %name, "the configuration's [tcmu] names it, and there is no such volume, drive or snapshot");
        }
    }
    let note = sysfs::take_drained();
    let mut front = Front {
        array: Arc::clone(array),
        config: config.clone(),
        link: link().map_err(|error| failed(&error))?,
        devices: BTreeMap::new(),
        waiting: BTreeMap::new(),
        _lock: lock,
    };
    front.adopt(|kernel_device| {
        let ring = sysfs::drained(&note, &kernel_device).map_or(RingState::InUse, RingState::Drained);
        Waiting::new(kernel_device, ring)
    });
    let wake =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(&errno.into()))?;
    let woken = wake.try_clone().map_err(|error| failed(&error))?;
    let (tell, patience) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("tcmu-netlink".to_owned())
        .spawn(move || {
            front.live(&woken);
            front.end(patience.recv().unwrap_or_default());
        })
        .map_err(|error| failed(&error))?;
    Ok(move |within| {
        let _ = tell.send(within);
        let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        if thread.join().is_err() {
            tracing::error!("the netlink thread had failed");
        }
    })
}

/// The state in which the last handler of a device has left its ring.
#[derive(Clone, Copy)]
enum RingState {
    /// No handler has taken an entry: the device has appeared by itself.
    Untouched { since: Duration },
    /// Every entry that was taken has been answered.
    Drained(Drained),
    /// Unknown: the commands in the ring may have been executed, in part or not at all.
    InUse,
}

/// A device of this handler that is not served yet.
struct Waiting {
    kernel_device: KernelDevice,
    ring: RingState,
    /// The claim to it. From the moment of the claim the kernel answers the device's users BUSY.
    claim: Option<Arc<Claim>>,
    /// Whether the log has the reason.
    told: bool,
    /// Whether this process has served it, so that another claim to it is that of one of its last commands.
    ours: bool,
}

impl Waiting {
    fn new(kernel_device: KernelDevice, ring: RingState) -> Self {
        Self { kernel_device, ring, claim: None, told: false, ours: false }
    }

    /// A device that has appeared by itself, just now.
    fn untouched(kernel_device: KernelDevice) -> Self {
        Self::new(kernel_device, RingState::Untouched { since: device::now() })
    }

    /// A device that this process has served and given up.
    fn given_up(kernel_device: KernelDevice) -> Self {
        Self { ours: true, ..Self::new(kernel_device, RingState::InUse) }
    }

    /// Claims the device, and lets the kernel answer its users BUSY. `None` if another process has it.
    fn hold(&mut self) -> Result<Option<Arc<Claim>>, String> {
        if let Some(claim) = &self.claim {
            return Ok(Some(Arc::clone(claim)));
        }
        let claim = match Claim::new(&self.kernel_device) {
            Ok(claim) => Arc::new(claim),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && self.ours => {
                return Err("commands from before its ring was given up are still under way".to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        self.kernel_device
            .block(true)
            .map_err(|error| format!("its commands cannot be held back: {error}"))?;
        Ok(Some(Arc::clone(self.claim.insert(claim))))
    }

    /// Whether the commands in the ring may be taken. They may not if they have been taken before, or if the kernel
    /// has given them up: the kernel does not tell that, and the initiator has gone on without them.
    fn can_be_taken(&mut self, claim: &Claim) -> Result<bool, String> {
        let (head, tail) = claim.positions().map_err(|broken| broken.to_string())?;
        if matches!(self.ring, RingState::Drained(drained_ring) if drained_ring.tail != tail) {
            self.ring = RingState::InUse; // another handler has used the ring since
        }
        let since = match self.ring {
            RingState::InUse => return Ok(false),
            RingState::Drained(drained_ring) => drained_ring.since,
            RingState::Untouched { since } => since,
        };
        let given_up =
            self.kernel_device.patience().is_some_and(|patience| device::now() + MARGIN >= since + patience);
        Ok(head != tail && !given_up)
    }
}

/// The connection to a loaded module.
struct Link {
    netlink: Netlink,
    /// The module, as [`sysfs::module`] identifies it. A module that is loaded later knows nothing of this socket.
    module: Option<u64>,
}

/// Joins the loaded module's events, and ends the kernel's waits for a former handler's answers.
fn link() -> io::Result<Link> {
    sysfs::without_netlink(|| {
        let module = sysfs::module();
        let mut netlink = Netlink::open()?;
        netlink.promise_answers(true)?;
        Ok(Link { netlink, module })
    })
}

struct Front {
    array: Arc<Array>,
    config: TcmuConfig,
    link: Link,
    /// By UIO name.
    devices: BTreeMap<String, Device>,
    /// Devices that cannot be served yet. None of them is in `devices`.
    waiting: BTreeMap<String, Waiting>,
    _lock: Lock,
}

impl Front {
    /// Serves until it is woken to stop.
    fn live(&mut self, woken: &OwnedFd) {
        for _ in 0..PANICS {
            let stopped = catch_unwind(AssertUnwindSafe(|| self.run(woken)));
            if matches!(stopped, Ok(true)) {
                return;
            }
            tracing::error!("the netlink thread was interrupted, and goes on");
            // Devices that it was working on are found again by this.
            let _ = catch_unwind(AssertUnwindSafe(|| self.adopt(Waiting::given_up)));
        }
        tracing::error!("no device comes or goes any more, until the daemon is started again");
        let _ = sysfs::without_netlink(|| self.link.netlink.promise_answers(false));
    }

    /// Serves events. True if it was woken to stop.
    fn run(&mut self, woken: &OwnedFd) -> bool {
        loop {
            while let Some(event) = self.link.netlink.waiting() {
                self.handle(&event);
            }
            let mut wanted =
                [PollFd::new(&self.link.netlink, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut wanted, Some(&LOOK)) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "netlink cannot be waited for");
                    return false;
                }
            }
            let [events, stop] = wanted.map(|polled| !polled.revents().is_empty());
            if stop {
                return true;
            }
            if !events {
                self.relink();
                self.look_after();
            } else if let Err(error) = self.link.netlink.receive() {
                self.recover(&error);
            }
        }
    }

    /// Ends the devices. From then on the kernel waits for no answers, and its earlier waits end.
    fn end(&mut self, within: Duration) {
        while self.link.netlink.is_readable() && self.link.netlink.receive().is_ok() {}
        while let Some(event) = self.link.netlink.waiting() {
            self.handle(&event);
        }
        sysfs::without_netlink(|| {
            if let Err(error) = self.link.netlink.promise_answers(false) {
                tracing::warn!(%error, "the kernel still waits for answers: 'targetcli' will hang until a handler runs");
            }
        });
        let devices = std::mem::take(&mut self.devices);
        let mut drained = std::thread::scope(|scope| {
            let stops: Vec<_> = devices
                .into_values()
                .map(|device| {
                    let kernel_device = device.kernel_device().clone();
                    scope.spawn(move || device.stop(within).map(|ring| (kernel_device, ring)))
                })
                .collect();
            stops.into_iter().filter_map(|stop| stop.join().ok().flatten()).collect::<Vec<_>>()
        });
        for Waiting { kernel_device, ring, claim, .. } in std::mem::take(&mut self.waiting).into_values() {
            let Some(claim) = claim else { continue };
            if let Err(error) = kernel_device.block(false) {
                tracing::warn!(device = %kernel_device, %error, "it goes on answering BUSY");
            }
            match (ring, claim.positions()) {
                (RingState::Drained(drained_ring), _) => drained.push((kernel_device, drained_ring)),
                (RingState::Untouched { since }, Ok((_, tail))) => {
                    drained.push((kernel_device, Drained { tail, since }))
                }
                _ => {}
            }
        }
        sysfs::note_drained(&drained);
    }

    /// Changes over to the module that is loaded now, if it is another one. A module without a device can be
    /// unloaded.
    fn relink(&mut self) {
        let module = sysfs::module();
        if module == self.link.module {
            return;
        }
        self.link.module = module;
        if module.is_none() {
            return tracing::warn!(
                "the module target_core_user has gone: no device can come until it is loaded again"
            );
        }
        match link() {
            Ok(link) => {
                self.link = link;
                tracing::info!("the module target_core_user is there again");
                self.adopt(Waiting::untouched);
            }
            Err(error) => {
                tracing::error!(%error, "the module target_core_user cannot be reached");
                self.link.module = None; // try again
            }
        }
    }

    /// Events may have been lost: ends all of the kernel's waits, and looks for devices.
    fn recover(&mut self, error: &io::Error) {
        tracing::warn!(%error, "events of the kernel's were lost");
        // The waits end. An answer to one of them would afterwards end another one.
        sysfs::without_netlink(|| self.link.netlink.discard());
        self.look_after();
        // No entry has been taken from devices that have appeared meanwhile.
        self.adopt(Waiting::untouched);
    }

    /// Takes over the existing devices that are not known yet.
    fn adopt(&mut self, waiting: impl Fn(KernelDevice) -> Waiting) {
        for kernel_device in sysfs::scan() {
            if !self.devices.contains_key(&kernel_device.uio)
                && !self.waiting.contains_key(&kernel_device.uio)
            {
                self.take_over(waiting(kernel_device));
            }
        }
    }

    /// Serves devices that could not be served before, gives up broken rings, and lets go of devices that the kernel
    /// has removed silently. It does so when it cannot complete a device that it has announced.
    fn look_after(&mut self) {
        let over = |(uio, device): (&String, &Device)| {
            let there = device.kernel_device().again();
            (device.is_over() || there.is_none()).then(|| (uio.clone(), there))
        };
        let over: Vec<_> = self.devices.iter().filter_map(over).collect();
        for (uio, there) in over {
            self.remove(&uio);
            if let Some(kernel_device) = there {
                if let Err(error) = kernel_device.block(true) {
                    tracing::warn!(device = %kernel_device, %error, "its commands cannot be held back");
                }
                self.take_over(Waiting::given_up(kernel_device));
            }
        }
        for (_, mut waiting) in std::mem::take(&mut self.waiting) {
            match waiting.kernel_device.again() {
                Some(now) => {
                    waiting.kernel_device = now;
                    self.take_over(waiting);
                }
                // Its name may now belong to another handler.
                None if waiting.claim.is_some() => drop(waiting.kernel_device.block(false)),
                None => {}
            }
        }
    }

    /// Serves an existing device, or keeps it waiting.
    fn take_over(&mut self, mut waiting: Waiting) {
        // A device that is still being made will be announced when it is there, or be removed again.
        let served =
            if waiting.kernel_device.is_being_made() { Ok(false) } else { self.serve_waiting(&mut waiting) };
        match served {
            Ok(true) => return,
            Ok(false) => {}
            Err(why) if !waiting.told => {
                tracing::error!(device = %waiting.kernel_device, why, "not served until that is mended");
                waiting.told = true;
            }
            Err(why) => tracing::debug!(device = %waiting.kernel_device, why, "not served"),
        }
        self.waiting.insert(waiting.kernel_device.uio.clone(), waiting);
    }

    /// True if the device is served now, by any process.
    fn serve_waiting(&mut self, waiting: &mut Waiting) -> Result<bool, String> {
        let Some(claim) = waiting.hold()? else {
            // Another process serves another array. This daemon must not take its device while that process restarts.
            tracing::error!(device = %waiting.kernel_device, "another process serves it: left alone until this daemon starts again");
            return Ok(true);
        };
        let as_it_is = waiting.can_be_taken(&claim)?;
        let kernel_device = &waiting.kernel_device;
        let backstore = self.open(kernel_device, matches!(waiting.ring, RingState::InUse))?;
        if !as_it_is {
            // A disk's commands can be sent again, except for copies to tape, which the array refuses once after
            // this. A tape would move twice. A reset of an empty ring loses nothing, and repairs the ring if the
            // kernel had given it up.
            let repeatable = backstore.device_type == DeviceType::Disk;
            kernel_device
                .reset_ring(repeatable)
                .map_err(|error| format!("its ring cannot be reset: {error}"))?;
        }
        // The device is in use already. Its users see the unit's own size, and must not lose it because of the size
        // that LIO noted.
        if let Err(why) = check_size(kernel_device, &backstore, kernel_device.size()) {
            tracing::warn!(device = %kernel_device, why, "served all the same");
        }
        self.serve(kernel_device, claim, backstore)?;
        if let Err(error) = kernel_device.block(false) {
            tracing::error!(device = %kernel_device, %error, "it goes on answering BUSY");
        }
        tracing::info!(device = %kernel_device, object = kernel_device.config, reset = !as_it_is, "taken over");
        Ok(true)
    }

    /// The object for the device `kernel_device`. `interrupted`: its last handler may have died while it executed
    /// commands of the device.
    fn open(&self, kernel_device: &KernelDevice, interrupted: bool) -> Result<Backstore, String> {
        let object = kernel_device.object()?;
        let grant = Grant {
            reach: self.config.copy_reach.get(&object).cloned().unwrap_or_default(),
            read_only: self.config.read_only.iter().cloned().collect(),
            copy_front: Some(Arc::new(DeviceCopies::new(kernel_device.to_string(), interrupted))),
            object,
        };
        self.array.open_backstore(&kernel_device.to_string(), &grant).map_err(|error| error.to_string())
    }

    fn serve(
        &mut self,
        kernel_device: &KernelDevice,
        claim: Arc<Claim>,
        backstore: Backstore,
    ) -> Result<(), String> {
        if let Err(error) = kernel_device.ask_for_task_management() {
            tracing::warn!(device = %kernel_device, %error, "aborts will not reach its commands");
        }
        let copies = backstore.device_type != DeviceType::Disk
            || kernel_device.object().is_ok_and(|object| self.config.copy_reach.contains_key(&object));
        if let Err(error) = kernel_device.extend_patience(if copies { COPY_PATIENCE } else { PATIENCE }) {
            tracing::info!(device = %kernel_device, %error, "its cmd_time_out stays at 30 s, because a LUN uses it");
        }
        let device =
            Device::open(kernel_device.clone(), claim, backstore).map_err(|error| error.to_string())?;
        self.devices.insert(kernel_device.uio.clone(), device);
        Ok(())
    }

    /// Does what an event asks for, and answers the event if its device belongs to this handler. It is answered in
    /// any case.
    fn handle(&mut self, event: &Event) {
        let Some(kernel_device) = KernelDevice::parse(&event.uio, &event.name) else {
            tracing::debug!(device = event.name, "another handler's device");
            return;
        };
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(event, kernel_device)));
        let status = match done {
            Ok(done) => done.map_or_else(|errno| -errno.raw_os_error(), |()| 0),
            Err(_) => -Errno::IO.raw_os_error(),
        };
        if let Err(error) = self.link.netlink.answer(event, status) {
            tracing::error!(device = event.name, %error, "the kernel could not be answered");
        }
    }

    fn perform(&mut self, event: &Event, kernel_device: Result<KernelDevice, String>) -> Result<(), Errno> {
        let kernel_device = match (&event.kind, kernel_device) {
            (EventKind::Removed, kernel_device) => {
                self.remove(&event.uio);
                tracing::info!(device = event.name, known = kernel_device.is_ok(), "removed");
                return Ok(());
            }
            (_, Ok(kernel_device)) => kernel_device,
            (_, Err(why)) => {
                tracing::error!(device = event.name, why, "refused");
                return Err(Errno::INVAL);
            }
        };
        match &event.kind {
            EventKind::Reconfigured(change) => self.reconfigure(&kernel_device, change),
            EventKind::Added | EventKind::Removed => self.add(kernel_device),
        }
    }

    fn add(&mut self, kernel_device: KernelDevice) -> Result<(), Errno> {
        // A former device with this number was removed silently.
        self.remove(&kernel_device.uio);
        let added = self.open(&kernel_device, false).and_then(|backstore| {
            check_size(&kernel_device, &backstore, kernel_device.size())?;
            let claim = Claim::new(&kernel_device).map_err(|error| error.to_string())?;
            self.serve(&kernel_device, Arc::new(claim), backstore)
        });
        match added {
            Ok(()) => {
                tracing::info!(device = %kernel_device, object = kernel_device.config, "added");
                Ok(())
            }
            Err(why) => {
                tracing::error!(device = %kernel_device, %why, "refused");
                // The kernel keeps the device all the same if it does not wait for answers (nl_reply_supported=-1).
                let waiting = Waiting { told: true, ..Waiting::untouched(kernel_device) };
                self.waiting.insert(waiting.kernel_device.uio.clone(), waiting);
                Err(Errno::INVAL)
            }
        }
    }

    fn remove(&mut self, uio: &str) {
        self.waiting.remove(uio);
        if let Some(device) = self.devices.remove(uio) {
            device.stop(REMOVAL);
        }
    }

    /// Answers a change in LIO's settings: only a change to the present state succeeds, since `cleave` changes
    /// objects.
    fn reconfigure(&self, kernel_device: &KernelDevice, change: &Change) -> Result<(), Errno> {
        let refuse = |why: &str| {
            tracing::error!(device = %kernel_device, ?change, why, "refused");
            Err(Errno::INVAL)
        };
        match change {
            Change::Size(size) => {
                let object = kernel_device.object().and_then(|object| {
                    let none = || format!("there is no volume {object}: see 'cleave volume list'");
                    self.array.size_of(&object).ok_or_else(none)
                });
                match object {
                    Ok(there) if there == *size => Ok(()),
                    Ok(there) => refuse(&format!(
                        "the volume has {}: first 'cleave volume resize {} {}'",
                        Size(there),
                        kernel_device.config,
                        Size(*size)
                    )),
                    Err(_) => Ok(()), // the size that LIO has for a drive means nothing
                }
            }
            Change::Config(config) if sysfs::configured(config) == Some(&kernel_device.config) => Ok(()),
            Change::Config(_) => refuse("a device keeps its object: remove it and create another"),
            // The unit's own caching mode page decides. Initiators see it and may change it.
            Change::WriteCache(_) => Ok(()),
            Change::Other => refuse("this handler does not know that setting"),
        }
    }
}

/// Whether the backstore was made with the volume's size, as [`KernelDevice::size`] tells it. A drive has no size.
fn check_size(
    kernel_device: &KernelDevice,
    backstore: &Backstore,
    size: io::Result<u64>,
) -> Result<(), String> {
    let Some(wanted) = backstore.size else { return Ok(()) };
    match size {
        Ok(size) if size == wanted => Ok(()),
        Ok(size) => Err(format!(
            "volume {} has {wanted} bytes, the backstore {size}: create it with size={wanted}",
            kernel_device.config
        )),
        Err(error) => Err(format!("its size cannot be read: {error}")),
    }
}
