//! The files with connection strings that a user hands to devices and
//! services: one of each device and of each policy, in the data directory.

use anyhow::Result;

use crate::address::{Address, MQTT_PORT};
use crate::authentication::Authentication;
use crate::data_dir::{CONNECTION_STRING, DataDir};
use crate::device::Device;
use crate::policies::{OWNER, Policies};
use iotdm_proto::Identity;

/// Writes and removes connection strings for clients of one address.
pub struct ConnectionStrings {
    dir: DataDir,
    address: Address,
}

impl ConnectionStrings {
    /// The connection strings in `dir` for the hub at `address`.
    pub fn new(dir: DataDir, address: Address) -> Self {
        ConnectionStrings { dir, address }
    }

    /// The part of the address that the devices' connection strings depend
    /// on: when that part changes, all their files have to be written again.
    pub fn devices_depend_on(&self) -> String {
        format!("{}:{}", self.address.host, self.address.mqtt_port)
    }

    /// Removes the files of all devices but `kept`, and files that a killed
    /// emulator left half-written.
    pub fn sweep<'a>(&self, kept: impl Iterator<Item = &'a Identity>) -> Result<()> {
        self.dir.sweep(kept)
    }

    /// Writes the file of a device or module. An identity without any
    /// authentication has no file, since there is no string that a client could
    /// connect with.
    pub fn write_device(&self, id: &Identity, device: &Device) -> Result<()> {
        match self.of_device(id, device) {
            Some(text) => self.dir.write(&self.dir.device(id), &text),
            None => self.remove_device(id),
        }
    }

    /// Removes the file of a device or module, if there is one.
    pub fn remove_device(&self, id: &Identity) -> Result<()> {
        self.dir.remove(&self.dir.device(id))
    }

    /// Writes the file of each policy, and that of the owner a second time
    /// under the name that users look for.
    pub fn write_policies(&self, policies: &Policies) -> Result<()> {
        let host = self.address.for_services();
        for policy in policies.iter() {
            let (name, key) = (&policy.name, policy.key.expose_base64());
            let text =
                format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={}\n", key.as_str());
            self.dir.write(&self.dir.policy(name), &text)?;
            if name == OWNER {
                self.dir.write(&self.dir.service_connection_string(), &text)?;
            }
        }
        Ok(())
    }

    /// Writes the file with the id scope of the provisioning service, which
    /// devices need in the place of a connection string.
    pub fn write_id_scope(&self, id_scope: &str) -> Result<()> {
        self.dir.write(&self.dir.id_scope(), &format!("{id_scope}\n"))
    }

    /// The connection string of a device with a final newline; `None` where
    /// the device has nothing to authenticate with. A port other than the
    /// standard one goes into `GatewayHostName`, which clients connect to while
    /// they sign tokens for `HostName`.
    fn of_device(&self, id: &Identity, device: &Device) -> Option<String> {
        let Address { host, mqtt_port, .. } = &self.address;
        let mut text = format!("{CONNECTION_STRING}{host};DeviceId={}", id.device);
        if let Some(module) = &id.module {
            text.push_str(&format!(";ModuleId={module}"));
        }
        match &device.authentication {
            Authentication::Sas(keys) => {
                text.push_str(&format!(";SharedAccessKey={}", keys.primary.expose_base64().as_str()));
            }
            Authentication::SelfSigned(_) | Authentication::CertificateAuthority => {
                text.push_str(";x509=true");
            }
            Authentication::None => return None,
        }
        if *mqtt_port != MQTT_PORT {
            text.push_str(&format!(";GatewayHostName={host}:{mqtt_port}"));
        }
        text.push('\n');
        Some(text)
    }
}
