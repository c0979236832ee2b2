//! The service on the system's D-Bus that targetcli asks which user backstores there are, and whether a configuration
//! is right. The devices themselves come over netlink; without the service everything but `targetcli`'s
//! `backstores/user:cleave` works.

use std::sync::Arc;
use std::time::Duration;

use cleave::array::Array;
use cleave::array::names::Name;
use zbus::connection::Builder;
use zbus::{Connection, fdo, interface};

use crate::sysfs;

/// The name and the path that targetcli knows.
const SERVICE: &str = "org.kernel.TCMUService1";
const ROOT: &str = "/org/kernel/TCMUService1";
const HANDLER: &str = "/org/kernel/TCMUService1/cleave";

/// How long the bus may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `help create` shows in targetcli.
const DESCRIPTION: &str = "cfgstring is the name of a volume or drive of the cleave array, as 'cleave volume list' and \
                           'cleave drive list' show them. For a volume the size has to be the volume's.";

/// What targetcli calls.
struct Handler {
    array: Arc<Array>,
}

#[interface(name = "org.kernel.TCMUService1")]
impl Handler {
    /// Whether a device can be made with the configuration `config`: `cleave/OBJECT`.
    fn check_config(&self, config: &str) -> (bool, String) {
        match check(&self.array, config) {
            Ok(()) => (true, String::new()),
            Err(why) => (false, why),
        }
    }

    /// Exchanges a medium: never, because that is the drive's business.
    fn change_medium(&self, name: &str, _size: u64, _config: &str) -> (i32, String) {
        let why =
            format!("the medium of {name} is not changed from here: use 'cleave drive unload' and 'load'");
        (-rustix::io::Errno::OPNOTSUPP.raw_os_error(), why)
    }

    /// For people.
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_desc(&self) -> &str {
        DESCRIPTION
    }
}

/// Offers the service until the connection is dropped.
pub(crate) async fn serve(array: Arc<Array>) -> zbus::Result<Connection> {
    let builder = Builder::system()
        .serve_at(ROOT, fdo::ObjectManager)
        .serve_at(HANDLER, Handler { array })
        .name(SERVICE)
        .replace_existing_names(false);
    match tokio::time::timeout(PATIENCE, builder.build()).await {
        Ok(connection) => connection,
        Err(_) => Err(zbus::Error::Failure("the bus does not answer".to_owned())),
    }
}

fn check(array: &Array, config: &str) -> Result<(), String> {
    let object =
        sysfs::configured(config).ok_or_else(|| format!("'{config}' is not a configuration of cleave's"))?;
    let name: Name = object.parse().map_err(|why| format!("'{object}' names no object: {why}"))?;
    if array.volume(&name).is_ok() || array.drive(&name).is_ok() {
        return Ok(());
    }
    Err(format!("there is no volume or drive {name}: see 'cleave volume list' and 'cleave drive list'"))
}

#[cfg(test)]
mod tests {
    use cleave::array::Options;
    use cleave::array::request::NewDrive;

    use super::*;

    #[test]
    fn a_configuration_is_right_if_its_object_exists() {
        let directory = tempfile::tempdir().unwrap();
        let array = Array::open(directory.path(), &Options::default()).unwrap();
        array.create_drive(&NewDrive { name: "tape0".parse().unwrap() }).unwrap();
        assert_eq!(check(&array, "cleave/tape0"), Ok(()));
        assert!(check(&array, "cleave/tape1").unwrap_err().contains("no volume or drive tape1"));
        assert!(check(&array, "cleave//dev/sda").unwrap_err().contains("/dev/sda"));
        assert!(check(&array, "qcow/tape0").is_err());
    }
}
