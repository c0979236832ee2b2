//! The kernel front as a whole: which devices there are, and what the kernel is answered about them.
//!
//! One thread owns the netlink socket and the devices. At the start it frees what a killed predecessor left waiting,
//! and takes over the devices that are there: the kernel holds their commands back while their rings are emptied, and
//! then sends them again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cleave::array::Array;
use cleave::array::backstore::Backstore;
use cleave::array::error::{ArrayError, Kind};
use cleave::array::names::Name;
use cleave::scsi::opcode::DeviceType;
use cleave::units::Size;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::device::Device;
use crate::netlink::{Change, Event, Netlink, What};
use crate::sysfs::{self, Place};

/// Starts the front. What comes back ends it.
pub(crate) fn start(
    array: &Arc<Array>,
    copy_reach: BTreeMap<Name, Vec<Name>>,
) -> Result<impl FnOnce() + Send + use<>, ArrayError> {
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
    let mut front = sysfs::without_netlink(|| {
        let mut netlink = Netlink::open()?;
        netlink.promise_answers(true)?;
        let mut front = Front { array: Arc::clone(array), copy_reach, netlink, devices: BTreeMap::new() };
        front.adopt();
        Ok::<_, io::Error>(front)
    })
    .map_err(|error| failed(&error))?;
    let wake =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(&errno.into()))?;
    let woken = wake.try_clone().map_err(|error| failed(&error))?;
    let thread = std::thread::Builder::new()
        .name("tcmu-netlink".to_owned())
        .spawn(move || front.run(&woken))
        .map_err(|error| failed(&error))?;
    Ok(move || {
        let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        if thread.join().is_err() {
            tracing::error!("the netlink thread had failed");
        }
    })
}

struct Front {
    array: Arc<Array>,
    copy_reach: BTreeMap<Name, Vec<Name>>,
    netlink: Netlink,
    /// By UIO name.
    devices: BTreeMap<String, Device>,
}

impl Front {
    /// Serves events until it is woken to stop, and then ends the devices.
    fn run(&mut self, woken: &OwnedFd) {
        loop {
            while let Some(event) = self.netlink.waiting() {
                self.handle(&event);
            }
            let mut wanted = [PollFd::new(&self.netlink, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut wanted, None) {
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
            if events && let Err(error) = self.netlink.receive() {
                self.recover(&error);
            }
        }
        // From now on the kernel waits for nobody.
        if let Err(error) = self.netlink.promise_answers(false) {
            tracing::warn!(%error, "the kernel still waits for answers: 'targetcli' will hang until a handler runs");
        }
        let devices = std::mem::take(&mut self.devices);
        std::thread::scope(|scope| {
            devices.into_values().for_each(|device| drop(scope.spawn(|| device.stop())));
        });
    }

    /// Events may have been lost: ends all waits, and looks at what there is.
    fn recover(&mut self, error: &io::Error) {
        tracing::warn!(%error, "events of the kernel's were lost");
        sysfs::without_netlink(|| {
            let there = sysfs::scan();
            let gone = |uio: &String| !there.iter().any(|place| place.uio == *uio);
            let lost: Vec<String> = self.devices.keys().filter(|uio| gone(uio)).cloned().collect();
            for uio in lost {
                self.remove(&uio);
            }
            self.adopt();
        });
    }

    /// Takes over the devices that are there and not served.
    fn adopt(&mut self) {
        for place in sysfs::scan() {
            if self.devices.contains_key(&place.uio) {
                continue;
            }
            let switch = |result: io::Result<()>, what: &str| {
                if let Err(error) = result {
                    tracing::warn!(device = %place, %error, "its {what} could not be switched");
                }
            };
            let backstore = self.open(&place);
            let is_disk = backstore.as_ref().is_ok_and(|backstore| backstore.device_type == DeviceType::Disk);
            switch(place.block(true), "commands");
            // A disk's commands can be sent again. A tape would move twice.
            switch(place.reset_ring(is_disk), "ring");
            let added = backstore.and_then(|backstore| {
                // It is in use already: its users ask the unit itself, and are not to lose it for LIO's note.
                if let Err(why) = check_size(&place, &backstore, place.size()) {
                    tracing::warn!(device = %place, %why, "served all the same");
                }
                self.serve(&place, backstore)
            });
            switch(place.block(false), "commands");
            match added {
                Ok(()) => tracing::info!(device = %place, object = place.config, "taken over"),
                Err(why) => tracing::error!(device = %place, %why, "not served"),
            }
        }
    }

    /// The object for the device at `place`.
    fn open(&self, place: &Place) -> Result<Backstore, String> {
        let object = place.object()?;
        let reach = self.copy_reach.get(object.as_str()).map_or(&[][..], Vec::as_slice);
        self.array.open_backstore(&place.to_string(), &object, reach).map_err(|error| error.to_string())
    }

    fn serve(&mut self, place: &Place, backstore: Backstore) -> Result<(), String> {
        if let Err(error) = place.ask_for_task_management() {
            tracing::warn!(device = %place, %error, "aborts will not reach its commands");
        }
        let device = Device::open(place.clone(), backstore).map_err(|error| error.to_string())?;
        self.devices.insert(place.uio.clone(), device);
        Ok(())
    }

    /// Does what an event asks for and answers it, if it is about a device of ours.
    fn handle(&mut self, event: &Event) {
        let Some(place) = Place::parse(&event.uio, &event.name) else {
            tracing::debug!(name = event.name, "another handler's device");
            return;
        };
        let status = match &event.what {
            What::Added => self.add(&place),
            What::Removed => {
                self.remove(&event.uio);
                tracing::info!(device = %place, "removed");
                Ok(())
            }
            What::Reconfigured(change) => self.reconfigure(&place, change),
        };
        let status = status.map_or_else(|errno| -errno.raw_os_error(), |()| 0);
        if let Err(error) = self.netlink.answer(event, status) {
            tracing::error!(device = %place, %error, "the kernel could not be answered");
        }
    }

    fn add(&mut self, place: &Place) -> Result<(), Errno> {
        if self.devices.contains_key(&place.uio) {
            return Ok(()); // it came between joining the group and looking around
        }
        let added = self.open(place).and_then(|backstore| {
            check_size(place, &backstore, place.size())?;
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
        if let Some(device) = self.devices.remove(uio) {
            device.stop();
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
