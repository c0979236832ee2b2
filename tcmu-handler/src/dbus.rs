//! The service on the system's D-Bus for targetcli, which asks for the user backstores and checks configurations. The
//! devices themselves come over netlink. Without the service everything works except `targetcli`'s
//! `backstores/user:cleave`.
//!
//! The service's name has one owner. If tcmu-runner owns it, this program registers with tcmu-runner as the handler
//! of its subtype, and tcmu-runner passes targetcli's questions about the subtype on. When tcmu-runner goes, the name
//! becomes this program's. When tcmu-runner comes back, this program gives the name up: tcmu-runner can answer for
//! this program, but not the other way round.

use std::sync::Arc;
use std::time::Duration;

use cleave::array::Array;
use cleave::catalog::names::ObjectName;
use cleave::internal::printable::{Printable, printable};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::{self, DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::names::WellKnownName;
use zbus::{Connection, interface};

use crate::sysfs;

/// The name and path for targetcli.
const SERVICE: &str = "org.kernel.TCMUService1";
const ROOT: &str = "/org/kernel/TCMUService1";
const HANDLER: &str = "/org/kernel/TCMUService1/cleave";

/// The name and path at which tcmu-runner takes registrations, and the name and path that it then uses for this
/// program.
const MANAGER: (&str, &str) =
    ("/org/kernel/TCMUService1/HandlerManager1", "org.kernel.TCMUService1.HandlerManager1");
const MANAGED: (&str, &str) =
    ("/org/kernel/TCMUService1/HandlerManager1/cleave", "org.kernel.TCMUService1.HandlerManager1.cleave");

/// How long the bus may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two looks whether another process wants the name.
const LOOK: Duration = Duration::from_secs(5);

/// The time between two tries to reach the bus: the first and the longest.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// The text of `help create` in targetcli.
const DESCRIPTION: &str = "cfgstring is the name of a volume or drive of the cleave array, as 'cleave volume list' and \
                           'cleave drive list' show them. For a volume the size has to be the volume's.";

/// The methods that targetcli calls.
#[derive(Clone)]
struct Handler {
    array: Arc<Array>,
}

#[interface(name = "org.kernel.TCMUService1")]
impl Handler {
    /// Whether a device can be made with the configuration `config`: `cleave/OBJECT`.
    fn check_config(&self, config: &str) -> (bool, String) {
        match check(&self.array, config) {
            Ok(()) => (true, String::new()),
            Err(why) => (false, printable(&why).into_owned()),
        }
    }

    /// Exchanges a medium: always refused, because the drive does that.
    fn change_medium(&self, name: &str, _size: u64, _config: &str) -> (i32, String) {
        let why = format!(
            "the medium of {} is not changed from here: use 'cleave drive unload' and 'load'",
            Printable(name)
        );
        (-rustix::io::Errno::OPNOTSUPP.raw_os_error(), why)
    }

    /// The description for people.
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_desc(&self) -> &str {
        DESCRIPTION
    }
}

/// The service. It ends when this is dropped.
pub(crate) struct Service(JoinHandle<()>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Offers the service as soon as there is a bus, and again when the bus comes back. Needs a runtime around it.
pub(crate) fn serve(array: Arc<Array>) -> Service {
    Service(tokio::spawn(async move {
        let handler = Handler { array };
        let (mut pause, mut told) = (PAUSE[0], String::new());
        loop {
            let offered = tokio::time::timeout(PATIENCE, Offer::new(&handler)).await;
            match offered.unwrap_or_else(|_| Err(failure("the bus does not answer"))) {
                Ok(offer) => {
                    tracing::info!(behind_tcmu_runner = offer.queued.is_some(), "targetcli has user:cleave");
                    offer.end().await;
                    (pause, told) = (PAUSE[0], String::new());
                }
                Err(error) => {
                    let why = explain(&error);
                    if why != told {
                        tracing::warn!(
                            why,
                            "no D-Bus service yet: targetcli shows no backstores/user:cleave; configfs works"
                        );
                        told = why;
                    }
                    pause = PAUSE[1].min(pause * 2);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }))
}

/// The text of an error, without the parts that change from try to try.
fn explain(error: &zbus::Error) -> String {
    let why = error.to_string();
    if why.contains("AccessDenied") {
        return "the bus does not let us have the name: put org.kernel.TCMUService1.conf into /etc/dbus-1/system.d".to_owned();
    }
    why
}

/// A connection that offers the service.
struct Offer {
    connection: Connection,
    /// Tells when the name becomes this program's, if tcmu-runner owns it.
    queued: Option<fdo::NameAcquiredStream>,
}

impl Offer {
    async fn new(handler: &Handler) -> zbus::Result<Self> {
        let builder = Builder::system().serve_at(ROOT, fdo::ObjectManager).serve_at(HANDLER, handler.clone());
        let connection = builder.build().await?;
        let acquired =
            DBusProxy::new(&connection).await?.receive_name_acquired_with_args(&[(0, SERVICE)]).await?;
        // Without a flag the name stays this program's, or the program is queued for it.
        let queued = match connection.request_name_with_flags(SERVICE, RequestNameFlags::empty()).await? {
            RequestNameReply::InQueue => {
                register(&connection, handler).await?;
                Some(acquired)
            }
            _ => None,
        };
        Ok(Self { connection, queued })
    }

    /// Waits until the offer has to be made anew: the bus has gone, the name has become this program's, or another
    /// process wants it.
    async fn end(self) {
        match self.queued {
            None => tokio::select! {
                () = self.connection.closed() => {}
                () = wanted(&self.connection) => {}
            },
            Some(mut acquired) => tokio::select! {
                () = self.connection.closed() => {}
                _ = acquired.next() => {}
            },
        }
    }
}

/// Waits until another process is queued for the name.
async fn wanted(connection: &Connection) {
    let Ok(bus) = DBusProxy::new(connection).await else { return };
    loop {
        tokio::time::sleep(LOOK).await;
        let queue = match WellKnownName::try_from(SERVICE) {
            Ok(name) => bus.list_queued_owners(name).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        if queue.iter().any(|owner| connection.unique_name().is_none_or(|own| own.as_str() != owner.as_str()))
        {
            return;
        }
    }
}

/// Registers with tcmu-runner.
async fn register(connection: &Connection, handler: &Handler) -> zbus::Result<()> {
    connection.object_server().at(MANAGED.0, handler.clone()).await?;
    connection.request_name_with_flags(MANAGED.1, RequestNameFlags::DO_NOT_QUEUE).await?;
    let question = (sysfs::SUBTYPE, DESCRIPTION);
    let answer = connection
        .call_method(Some(SERVICE), MANAGER.0, Some(MANAGER.1), "RegisterHandler", &question)
        .await?;
    let (done, why): (bool, String) = answer.body().deserialize()?;
    if done { Ok(()) } else { Err(failure(&format!("tcmu-runner does not take the handler: {why}"))) }
}

fn failure(why: &str) -> zbus::Error {
    zbus::Error::Failure(why.to_owned())
}

fn check(array: &Array, config: &str) -> Result<(), String> {
    let object =
        sysfs::configured(config).ok_or_else(|| format!("'{config}' is not a configuration of cleave's"))?;
    let name: ObjectName = object.parse().map_err(|why| format!("'{object}' names no object: {why}"))?;
    if array.has_object(&name) {
        return Ok(());
    }
    let (why, remedy) = name.not_there();
    Err(format!("{why}: {remedy}"))
}

#[cfg(test)]
mod tests {
    use cleave::array::Options;
    use cleave::operator::verbs::drive;
    use cleave::operator::{Operator, Who};

    use super::*;

    #[test]
    fn a_configuration_is_right_if_its_object_exists() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::open(directory.path(), &Options::default(), ()).unwrap();
        operator.run(&Who::Daemon, drive::Create::new("tape0".parse().unwrap())).unwrap();
        let array = operator.array();
        assert_eq!(check(array, "cleave/tape0"), Ok(()));
        assert!(check(array, "cleave/tape1").unwrap_err().contains("no volume or drive tape1"));
        assert!(check(array, "cleave/tape1@noon").unwrap_err().contains("no snapshot tape1@noon"));
        assert!(check(array, "cleave//dev/sda").unwrap_err().contains("/dev/sda"));
        assert!(check(array, "qcow/tape0").is_err());
    }
}
