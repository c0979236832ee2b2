//! The verbs of `command-device`.

use super::super::cli::CommandDeviceVerb;
use super::{Client, created, output};
use crate::array::error::ArrayError;
use crate::array::show;
use crate::operator::Made;
use crate::operator::verbs::command_device::{Create, Delete, Grant, Revoke};

impl Client {
    pub(super) fn command_device(&self, verb: CommandDeviceVerb) -> Result<(), ArrayError> {
        let device: show::CommandDevice = match verb {
            CommandDeviceVerb::Create { name, grants, notes } => {
                let (labels, description) = notes.of(|| format!("create command-device {name}"))?;
                let grants = grants.into_iter().collect();
                let made: Made<show::CommandDevice> =
                    self.ask(Create { name, grants, labels, description })?;
                return self.print(&made, |made| {
                    created(made, |device| &device.name, "command device", output::command_device)
                });
            }
            CommandDeviceVerb::List(selection) => {
                return self.select("/v1/command-devices", &selection, output::command_devices);
            }
            CommandDeviceVerb::Show { name } => self.daemon.fetch(&format!("/v1/command-devices/{name}"))?,
            CommandDeviceVerb::Grant { name, volumes } => {
                self.ask(Grant { name, volumes: volumes.into_iter().collect() })?
            }
            CommandDeviceVerb::Revoke { name, volumes } => {
                self.ask(Revoke { name, volumes: volumes.into_iter().collect() })?
            }
            CommandDeviceVerb::Delete { name } => return self.done(Delete { name }),
        };
        self.print(&device, output::command_device)
    }
}
