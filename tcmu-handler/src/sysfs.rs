//! TCMU devices in sysfs and configfs: their properties and their switches.
//!
//! A device's UIO name is `tcm-user/HBA/NAME/CONFIG`, and CONFIG is `SUBTYPE/STRING`. This handler serves the devices
//! of subtype [`SUBTYPE`]; the string is the name of a volume or drive.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cleave::catalog::names::ObjectName;
use cleave::internal::array::Lock;

use crate::ring::Drained;

/// The subtype of the devices that this handler serves.
pub(crate) const SUBTYPE: &str = "cleave";

/// The directory of UIO devices.
const UIO: &str = "/sys/class/uio";

/// The directory of LIO's backstores.
const BACKSTORES: &str = "/sys/kernel/config/target/core";

/// The switches of the module.
const PARAMETERS: &str = "/sys/module/target_core_user/parameters";

/// A handler that ends in order notes here the state of its rings. The note does not survive the machine, as the
/// rings do not.
const DRAINED: &str = "/run/cleave-tcmu.drained";

/// The lock of the only handler of this subtype.
const LOCK: &str = "/run/cleave-tcmu.lock";

/// The kernel's own `cmd_time_out`, in seconds.
const DEFAULT_COMMAND_TIMEOUT: u64 = 30;

/// The longest name that is read, in bytes.
const MAX_NAME: usize = 4096;

/// The most bytes that are mapped of one device: the ring and the largest data area that the module allows.
const MAX_MAPPING: u64 = 8 << 30;

/// A device of this subtype, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelDevice {
    /// `uioN`.
    pub(crate) uio: String,
    /// The number of the HBA `user_N`.
    pub(crate) hba: u32,
    /// The backstore's name.
    pub(crate) name: String,
    /// The configuration string behind the subtype.
    pub(crate) config: String,
}

impl fmt::Display for KernelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user_{}/{}", self.hba, self.name)
    }
}

impl KernelDevice {
    /// The device with the UIO device `uio` and the UIO name `name`; `None` if it is not of this subtype.
    ///
    /// # Errors
    /// Why a device of this subtype, for which this handler has to answer, cannot be served under that name.
    pub(crate) fn parse(uio: &str, name: &str) -> Option<Result<Self, String>> {
        let rest = name.strip_prefix("tcm-user/")?;
        let (hba, rest) = rest.split_once('/')?;
        let (backstore, config) = rest.split_once('/')?;
        if config.split('/').next() != Some(SUBTYPE) {
            return None;
        }
        let Some(config) = configured(config) else {
            return Some(Err(format!("'{config}' names no object: it has to be {SUBTYPE}/OBJECT")));
        };
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('/');
        Some(match hba.parse() {
            Ok(hba) if plain(backstore) && plain(uio) => {
                Ok(Self { uio: uio.to_owned(), hba, name: backstore.to_owned(), config: config.to_owned() })
            }
            _ => Err(format!("'{name}' is not a name that this handler takes")),
        })
    }

    /// The UIO device `uio`, if it is of this subtype.
    fn of_uio(uio: &str) -> Option<Self> {
        let plain = uio.strip_prefix("uio")?.bytes().all(|byte| byte.is_ascii_digit());
        let name = plain.then(|| read(&Path::new(UIO).join(uio).join("name")).ok()).flatten()?;
        Self::parse(uio, &name)?.ok()
    }

    /// The same device in its present state; its configuration may have changed. `None` if it has gone.
    pub(crate) fn again(&self) -> Option<Self> {
        Self::of_uio(&self.uio).filter(|now| (now.hba, &now.name) == (self.hba, &self.name))
    }

    /// Whether it still exists.
    pub(crate) fn is_there(&self) -> bool {
        self.again().is_some()
    }

    /// Whether the kernel is still making it, and may remove it again silently.
    pub(crate) fn is_being_made(&self) -> bool {
        read(&self.configfs("enable")).is_ok_and(|text| text == "0")
    }

    /// The object that it is to serve.
    pub(crate) fn object(&self) -> Result<ObjectName, String> {
        self.config
            .parse()
            .map_err(|why| format!("its configuration '{}' names no object: {why}", self.config))
    }

    /// The length of its mapping in bytes.
    pub(crate) fn mapping_length(&self) -> io::Result<usize> {
        let text = read(&Path::new(UIO).join(&self.uio).join("maps/map0/size"))?;
        let size = u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let size = size.filter(|size| (4096..=MAX_MAPPING).contains(size));
        size.and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("map0/size says '{text}'")))
    }

    /// Its character device.
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.uio)
    }

    fn configfs(&self, file: &str) -> PathBuf {
        Path::new(BACKSTORES).join(format!("user_{}", self.hba)).join(&self.name).join(file)
    }

    /// The size with which the backstore was made.
    pub(crate) fn size(&self) -> io::Result<u64> {
        let text = read(&self.configfs("attrib/dev_size"))?;
        text.parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("dev_size says '{text}'")))
    }

    /// Makes the kernel report task management functions.
    pub(crate) fn ask_for_task_management(&self) -> io::Result<()> {
        fs::write(self.configfs("attrib/tmr_notification"), "1")
    }

    /// The time after which the kernel gives up a command; `None` if it never does.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let told = read(&self.configfs("attrib/cmd_time_out")).ok().and_then(|text| text.parse().ok());
        let seconds = told.unwrap_or(DEFAULT_COMMAND_TIMEOUT);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Sets the time after which the kernel gives up a command to `patience`, if it has its default value. The kernel
    /// accepts that only while no LUN uses the device.
    pub(crate) fn extend_patience(&self, patience: Duration) -> io::Result<()> {
        if self.patience() != Some(Duration::from_secs(DEFAULT_COMMAND_TIMEOUT)) {
            return Ok(());
        }
        fs::write(self.configfs("attrib/cmd_time_out"), patience.as_secs().to_string())
    }

    /// Whether the kernel answers new commands with BUSY.
    pub(crate) fn block(&self, block: bool) -> io::Result<()> {
        fs::write(self.configfs("action/block_dev"), if block { "1" } else { "0" })
    }

    /// Empties the ring: commands under way end with BUSY and are sent again, or with CHECK CONDITION if a repetition
    /// could execute them twice.
    pub(crate) fn reset_ring(&self, repeatable: bool) -> io::Result<()> {
        fs::write(self.configfs("action/reset_ring"), if repeatable { "1" } else { "2" })
    }
}

/// The part of a device configuration behind the subtype.
pub(crate) fn configured(config: &str) -> Option<&str> {
    config.strip_prefix(SUBTYPE)?.strip_prefix('/')
}

/// The existing devices of this subtype.
pub(crate) fn scan() -> Vec<KernelDevice> {
    let entries = fs::read_dir(UIO).into_iter().flatten().flatten();
    let mut found: Vec<KernelDevice> =
        entries.filter_map(|entry| KernelDevice::of_uio(entry.file_name().to_str()?)).collect();
    found.sort_by(|a, b| (a.hba, &a.name).cmp(&(b.hba, &b.name)));
    found
}

/// Identifies the loaded module; a module that is loaded again has another number. `None` if the kernel has no TCMU.
pub(crate) fn module() -> Option<u64> {
    fs::metadata(PARAMETERS).ok().map(|directory| directory.ino())
}

/// Makes sure that no other handler of this subtype runs on this kernel as long as the returned lock is held.
///
/// # Errors
/// The lock's holder, as far as it is known.
pub(crate) fn lock() -> Result<Lock, String> {
    match Lock::take(Path::new(LOCK)) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(holder(Lock::holder(Path::new(LOCK)))),
        Err(error) => Err(error.to_string()),
    }
}

/// Earlier versions made the lock file so that every user could open and hold it.
fn holder(process: Option<u32>) -> String {
    let Some(process) = process else { return "another cleave-tcmu does".to_owned() };
    match fs::metadata(format!("/proc/{process}")).map(|there| there.uid()) {
        Ok(user) if user != 0 => {
            format!("process {process} of user {user} holds {LOCK}, and is no cleave-tcmu")
        }
        _ => format!("another cleave-tcmu does (process {process})"),
    }
}

/// Ends all waits of the kernel for answers that a former handler did not give. `between` runs while the kernel does
/// not ask.
pub(crate) fn without_netlink<T>(between: impl FnOnce() -> T) -> T {
    let switch = |name: &str, value: &str| {
        if let Err(error) = fs::write(Path::new(PARAMETERS).join(name), value) {
            tracing::warn!(parameter = name, %error, "the module's switch could not be set");
        }
    };
    switch("block_netlink", "1");
    let _unblock = OnDrop(|| switch("block_netlink", "0"));
    switch("reset_netlink", "1");
    between()
}

/// Runs in any case, also after a panic.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Notes the state of the rings for the next handler.
pub(crate) fn note_drained(rings: &[(KernelDevice, Drained)]) {
    let line = |(kernel_device, left): &(KernelDevice, Drained)| {
        format!("{} {kernel_device} {} {}\n", kernel_device.uio, left.tail, left.since.as_secs())
    };
    let text: String = rings.iter().map(line).collect();
    let mut options = OpenOptions::new();
    let made = options.create(true).truncate(true).write(true).mode(0o600).open(DRAINED);
    if let Err(error) = made.and_then(|mut file| file.write_all(text.as_bytes())) {
        tracing::warn!(%error, "the next start will reset the rings");
    }
}

/// The note of the last handler. It is removed, because it is true only once.
pub(crate) fn take_drained() -> String {
    let note = fs::read_to_string(DRAINED).unwrap_or_default();
    match fs::remove_file(DRAINED) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // A note that stays would describe rings that this handler has used.
            tracing::warn!(%error, "{DRAINED} cannot be removed, and is not believed");
            String::new()
        }
        _ => note,
    }
}

/// The state of `kernel_device` in `note`.
pub(crate) fn drained(note: &str, kernel_device: &KernelDevice) -> Option<Drained> {
    let start = format!("{} {kernel_device} ", kernel_device.uio);
    let (tail, since) = note.lines().find_map(|line| line.strip_prefix(&start))?.split_once(' ')?;
    Some(Drained { tail: tail.parse().ok()?, since: Duration::from_secs(since.parse().ok()?) })
}

/// Reads a short text of one line.
fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_NAME);
    let text = text.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not a short text"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_lock_is_told() {
        assert_eq!(holder(None), "another cleave-tcmu does");
        let process = std::process::id();
        let told = holder(Some(process));
        match rustix::process::geteuid().as_raw() {
            0 => assert_eq!(told, format!("another cleave-tcmu does (process {process})")),
            user => assert_eq!(
                told,
                format!("process {process} of user {user} holds {LOCK}, and is no cleave-tcmu")
            ),
        }
    }

    #[test]
    fn only_devices_of_our_subtype_are_ours() {
        let kernel_device = KernelDevice::parse("uio3", "tcm-user/2/db/cleave/primary").unwrap().unwrap();
        assert_eq!(
            (kernel_device.hba, kernel_device.name.as_str(), kernel_device.config.as_str()),
            (2, "db", "primary")
        );
        assert_eq!(kernel_device.to_string(), "user_2/db");
        assert_eq!(kernel_device.object().unwrap().to_string(), "primary");
        for foreign in [
            "tcm-user/2/db/qcow/primary",
            "tcm-user/2/db/cleaver/primary",
            "tcm-user/2/db/",
            "tcm-user/2/db",
            "other/2/db/cleave/primary",
            "",
        ] {
            assert_eq!(KernelDevice::parse("uio3", foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_device_of_this_subtype_is_answered_for_whatever_else_is_wrong_with_it() {
        for wrong in [
            "tcm-user/2/db/cleave",
            "tcm-user/x/db/cleave/primary",
            "tcm-user/2/../cleave/primary",
            "tcm-user/2/.hidden/cleave/primary",
            "tcm-user/2//cleave/primary",
        ] {
            assert!(matches!(KernelDevice::parse("uio3", wrong), Some(Err(_))), "{wrong}");
        }
    }

    #[test]
    fn a_note_speaks_of_the_devices_that_it_names() {
        let kernel_device = |uio, name: &str| {
            KernelDevice::parse(uio, &format!("tcm-user/2/{name}/cleave/a")).unwrap().unwrap()
        };
        let left = Drained { tail: 4096, since: Duration::from_secs(7) };
        let note = "uio3 user_2/db 4096 7\nuio4 user_2/other x 7\n";
        assert_eq!(drained(note, &kernel_device("uio3", "db")), Some(left));
        assert_eq!(drained(note, &kernel_device("uio1", "db")), None);
        assert_eq!(drained(note, &kernel_device("uio3", "d")), None);
        assert_eq!(drained(note, &kernel_device("uio4", "other")), None);
        assert_eq!(drained("", &kernel_device("uio3", "db")), None);
    }

    #[test]
    fn a_configuration_that_names_no_object_is_told() {
        let kernel_device =
            KernelDevice::parse("uio0", "tcm-user/0/x/cleave//var/lib/disk.img").unwrap().unwrap();
        let why = kernel_device.object().unwrap_err();
        assert!(why.contains("/var/lib/disk.img"), "{why}");
    }

    #[test]
    fn a_uio_name_cannot_lead_elsewhere() {
        assert_eq!(KernelDevice::of_uio("uio0/../../x"), None);
        assert_eq!(KernelDevice::of_uio("../uio0"), None);
    }
}
