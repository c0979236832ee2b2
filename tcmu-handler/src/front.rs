//! The kernel front as a whole: which devices there are, and what the kernel is answered about them.
//!
//! One thread owns the netlink socket and the devices. At the start it frees what a killed predecessor left waiting,
//! and takes over the devices that are there: the kernel answers BUSY while their rings are emptied, and initiators
//! send again. A ring that a predecessor has drained is used as it is. A device whose object is missing stays BUSY
//! until the object is there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cleave::admin::config::TcmuConfig;
use cleave::array::Array;
use cleave::array::backstore::{Backstore, Grant};
use cleave::array::error::{ArrayError, Kind};
use cleave::scsi::opcode::DeviceType;
use cleave::units::Size;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::device::Device;
use crate::netlink::{Change, Event, Netlink, What};
use crate::sysfs::{self, Place};

/// How long the kernel may wait for a command, in seconds; its own default of 30 ends the host's command while the
/// array still works on it. Longer than initiators wait: they abort first, and an abort waits until the command is gone.
/// But not for ever, should no daemon come back.
const PATIENCE: u32 = 300;

/// The same for who can send a copy that takes as long as its medium is large.
const COPY_PATIENCE: u32 = 3600;

/// How long the commands of a device that the kernel removes may take to end. There are none, as a rule: nobody uses it.
const REMOVAL: Duration = Duration::from_secs(10);

/// Between two looks at what waits for its object or has ended by itself.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Starts the front. What comes back ends it, within the time that it is given.
pub(crate) fn start(
    array: &Arc<Array>,
    config: &TcmuConfig,
) -> Result<impl FnOnce(Duration) + Send + use<>, ArrayError> {
    let failed = |error: &io::Error| {
        let (why, remedy) = match error.kind() {
            io::ErrorKind::NotFound => {
                ("the kernel has no TCMU".to_owned(), "first 'modprobe -a target_core_user tcm_loop'")
            }
            io::ErrorKind::PermissionDenied => (
                error.to_string(),
                "run it as root, or with CAP_NET_ADMIN and access to configfs and /dev/uio*",
            ),
            _ => (error.to_string(), "look at the kernel's log"),
        };
        ArrayError::new(Kind::Failed, "serve LIO's user backend", why, remedy)
    };
    if !sysfs::is_there() {
        return Err(failed(&io::ErrorKind::NotFound.into()));
    }
    let drained = sysfs::take_drained();
    let mut front = sysfs::without_netlink(|| {
        let mut netlink = Netlink::open()?;
        netlink.promise_answers(true)?;
        Ok::<_, io::Error>(Front {
            array: Arc::clone(array),
            config: config.clone(),
            netlink,
            devices: BTreeMap::new(),
            unserved: BTreeMap::new(),
        })
    })
    .map_err(|error| failed(&error))?;
    front.adopt(|place| if sysfs::is_drained(&drained, place) { Left::Drained } else { Left::InUse });
    let wake =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(&errno.into()))?;
    let woken = wake.try_clone().map_err(|error| failed(&error))?;
    let (tell, patience) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("tcmu-netlink".to_owned())
        .spawn(move || {
            front.run(&woken);
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

/// How the last handler has left a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing that was taken from its ring is unanswered.
    Drained,
    /// Nobody knows: what is in the ring may have been done, in part or not at all.
    InUse,
}

struct Front {
    array: Arc<Array>,
    config: TcmuConfig,
    netlink: Netlink,
    /// By UIO name.
    devices: BTreeMap<String, Device>,
    /// Devices of ours that cannot be served yet, and whether their rings need a reset still. Their users are told BUSY.
    unserved: BTreeMap<String, (Place, Left)>,
}

impl Front {
    /// Serves events until it is woken to stop.
    fn run(&mut self, woken: &OwnedFd) {
        loop {
            while let Some(event) = self.netlink.waiting() {
                self.handle(&event);
            }
            let mut wanted = [PollFd::new(&self.netlink, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut wanted, Some(&LOOK)) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "netlink cannot be waited for: no device comes or goes any more");
                    break;
                }
            }
            let [events, stop] = wanted.map(|polled| !polled.revents().is_empty());
            if stop {
                break;
            }
            if !events {
                self.look_after();
            } else if let Err(error) = self.netlink.receive() {
                self.recover(&error);
            }
        }
    }

    /// Ends the devices. From then on the kernel waits for nobody, and for what it had asked already it waits no more.
    fn end(&mut self, within: Duration) {
        while self.netlink.is_readable() && self.netlink.receive().is_ok() {}
        while let Some(event) = self.netlink.waiting() {
            self.handle(&event);
        }
        sysfs::without_netlink(|| {
            if let Err(error) = self.netlink.promise_answers(false) {
                tracing::warn!(%error, "the kernel still waits for answers: 'targetcli' will hang until a handler runs");
            }
        });
        let devices = std::mem::take(&mut self.devices);
        let mut drained = std::thread::scope(|scope| {
            let stops: Vec<_> = devices
                .into_values()
                .map(|device| {
                    let place = device.place().clone();
                    scope.spawn(move || device.stop(within).then_some(place))
                })
                .collect();
            stops.into_iter().filter_map(|stop| stop.join().ok().flatten()).collect::<Vec<_>>()
        });
        for (place, left) in std::mem::take(&mut self.unserved).into_values() {
            switch(&place, place.block(false), "commands");
            drained.extend((left == Left::Drained).then_some(place));
        }
        sysfs::note_drained(&drained);
    }

    /// Events may have been lost: ends all waits, and looks at what there is.
    fn recover(&mut self, error: &io::Error) {
        tracing::warn!(%error, "events of the kernel's were lost");
        sysfs::without_netlink(|| {
            // The waits have ended; an answer to one of them now could end another one.
            self.netlink.discard();
            let there = sysfs::scan();
            let lost = |place: &Place| !there.contains(place);
            let gone: Vec<String> = self
                .devices
                .iter()
                .filter(|(_, device)| device.is_over() || lost(device.place()))
                .map(|(uio, _)| uio.clone())
                .collect();
            for uio in gone {
                self.remove(&uio);
            }
        });
        // Nobody has taken anything from those that came meanwhile.
        self.adopt(|_| Left::Drained);
    }

    /// Takes over the devices that are there and not served.
    fn adopt(&mut self, left: impl Fn(&Place) -> Left) {
        for place in sysfs::scan() {
            if self.devices.contains_key(&place.uio) {
                continue;
            }
            let left = left(&place);
            // One that is still being made is told of when it is there, or is taken away again.
            if !place.is_enabled() {
                self.unserved.insert(place.uio.clone(), (place, Left::Drained));
                continue;
            }
            switch(&place, place.block(true), "commands");
            match self.take_over(&place, left) {
                Ok(()) => switch(&place, place.block(false), "commands"),
                Err(why) => {
                    tracing::error!(device = %place, why, "not served until that is mended; it answers BUSY");
                    self.unserved.insert(place.uio.clone(), (place, left));
                }
            }
        }
    }

    /// Serves a device that was there before us.
    fn take_over(&mut self, place: &Place, left: Left) -> Result<(), String> {
        let backstore = self.open(place, left)?;
        if left == Left::InUse {
            // A disk's commands can be sent again, but for copies to tape, which the array refuses once after this. A tape
            // would move twice.
            let repeatable = backstore.device_type == DeviceType::Disk;
            switch(place, place.reset_ring(repeatable), "ring");
        }
        // It is in use already: its users ask the unit itself, and are not to lose it for LIO's note.
        if let Err(why) = check_size(place, &backstore, place.size()) {
            tracing::warn!(device = %place, why, "served all the same");
        }
        self.serve(place, backstore)?;
        tracing::info!(device = %place, object = place.config, reset = left == Left::InUse, "taken over");
        Ok(())
    }

    /// Serves what could not be served before, and lets go of what the kernel has taken away without a word, as it does
    /// when it could not finish what it told us of.
    fn look_after(&mut self) {
        let over = |(uio, device): (&String, &Device)| {
            (device.is_over() && !device.place().is_there()).then(|| uio.clone())
        };
        let over: Vec<String> = self.devices.iter().filter_map(over).collect();
        for uio in over {
            tracing::info!(device = %self.devices[&uio].place(), "gone");
            self.remove(&uio);
        }
        for (uio, (place, left)) in std::mem::take(&mut self.unserved) {
            if !place.is_there() {
                continue;
            }
            if !place.is_enabled() || self.take_over(&place, left).is_err() {
                self.unserved.insert(uio, (place, left));
                continue;
            }
            switch(&place, place.block(false), "commands");
        }
    }

    /// The object for the device at `place`.
    fn open(&self, place: &Place, left: Left) -> Result<Backstore, String> {
        let object = place.object()?;
        let grant = Grant {
            reach: self.config.copy_reach.get(object.as_str()).map_or(&[][..], Vec::as_slice),
            read_only: self.config.read_only.contains(object.as_str()),
            interrupted: left == Left::InUse,
        };
        self.array.open_backstore(&place.to_string(), &object, &grant).map_err(|error| error.to_string())
    }

    fn serve(&mut self, place: &Place, backstore: Backstore) -> Result<(), String> {
        if let Err(error) = place.ask_for_task_management() {
            tracing::warn!(device = %place, %error, "aborts will not reach its commands");
        }
        let device = Device::open(place.clone(), backstore).map_err(|error| error.to_string())?;
        self.devices.insert(place.uio.clone(), device);
        Ok(())
    }

    /// Does what an event asks for and answers it, if it is about a device of ours. Whatever happens there, it is answered.
    fn handle(&mut self, event: &Event) {
        let Some(place) = Place::parse(&event.uio, &event.name) else {
            tracing::debug!(name = event.name, "another handler's device");
            return;
        };
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(event, place)));
        let status = match done {
            Ok(done) => done.map_or_else(|errno| -errno.raw_os_error(), |()| 0),
            Err(_) => -Errno::IO.raw_os_error(),
        };
        if let Err(error) = self.netlink.answer(event, status) {
            tracing::error!(name = event.name, %error, "the kernel could not be answered");
        }
    }

    fn perform(&mut self, event: &Event, place: Result<Place, String>) -> Result<(), Errno> {
        let place = match (&event.what, place) {
            (What::Removed, place) => {
                self.remove(&event.uio);
                tracing::info!(name = event.name, known = place.is_ok(), "removed");
                return Ok(());
            }
            (_, Ok(place)) => place,
            (_, Err(why)) => {
                tracing::error!(name = event.name, why, "refused");
                return Err(Errno::INVAL);
            }
        };
        match &event.what {
            What::Reconfigured(change) => self.reconfigure(&place, change),
            What::Added | What::Removed => self.add(&place),
        }
    }

    fn add(&mut self, place: &Place) -> Result<(), Errno> {
        // What had this number before has gone without a word.
        self.remove(&place.uio);
        let added = self.open(place, Left::Drained).and_then(|backstore| {
            check_size(place, &backstore, place.size())?;
            let copies = backstore.device_type != DeviceType::Disk
                || self.config.copy_reach.contains_key(place.config.as_str());
            if let Err(error) = place.extend_patience(if copies { COPY_PATIENCE } else { PATIENCE }) {
                tracing::warn!(device = %place, %error, "the kernel ends commands that take 30 s");
            }
            self.serve(place, backstore)
        });
        match added {
            Ok(()) => {
                tracing::info!(device = %place, object = place.config, "added");
                Ok(())
            }
            Err(why) => {
                tracing::error!(device = %place, %why, "refused");
                Err(Errno::INVAL)
            }
        }
    }

    fn remove(&mut self, uio: &str) {
        self.unserved.remove(uio);
        if let Some(device) = self.devices.remove(uio) {
            device.stop(REMOVAL);
        }
    }

    /// A change that LIO is asked for: it may only say what is so already. Objects are changed by `cleave`.
    fn reconfigure(&self, place: &Place, change: &Change) -> Result<(), Errno> {
        let refuse = |why: &str| {
            tracing::error!(device = %place, ?change, why, "refused");
            Err(Errno::INVAL)
        };
        match change {
            Change::Size(size) => {
                let object = place.object().and_then(|object| {
                    let volume = self.array.volume(&object);
                    volume.map(|volume| volume.size).map_err(|error| error.to_string())
                });
                match object {
                    Ok(there) if there == *size => Ok(()),
                    Ok(there) => refuse(&format!(
                        "the volume has {}: first 'cleave volume resize {} {}'",
                        Size(there),
                        place.config,
                        Size(*size)
                    )),
                    Err(_) => Ok(()), // a drive: the size of LIO's means nothing
                }
            }
            Change::Config(config) if sysfs::configured(config) == Some(&place.config) => Ok(()),
            Change::Config(_) => refuse("a device keeps its object: remove it and create another"),
            // What counts is the unit's own caching mode page, which initiators see and may change.
            Change::WriteCache(_) => Ok(()),
            Change::Other => refuse("this handler does not know that setting"),
        }
    }
}

fn switch(place: &Place, result: io::Result<()>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(device = %place, %error, "its {what} could not be switched");
    }
}

/// Whether the backstore was made with the volume's size, as [`Place::size`] tells it. A drive has none.
fn check_size(place: &Place, backstore: &Backstore, size: io::Result<u64>) -> Result<(), String> {
    let Some(wanted) = backstore.size else { return Ok(()) };
    match size {
        Ok(size) if size == wanted => Ok(()),
        Ok(size) => Err(format!(
            "volume {} has {wanted} bytes, the backstore {size}: create it with size={wanted}",
            place.config
        )),
        Err(error) => Err(format!("its size cannot be read: {error}")),
    }
}
