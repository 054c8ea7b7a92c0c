//! The arguments of `device …`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use iotdm_proto::{DeviceId, Endpoint};
use serde::Deserialize;

use super::only_device::DeviceArgs;
use crate::{device_ids, values};

/// `device …`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Create a device, or many from a file
    Create(Box<DeviceCreateArgs>),
    /// Show a device's identity, without its keys
    #[command(after_help = "Example:\n  iotdm-ctl device show gw1")]
    Show(DeviceArgs),
    /// List the hub's devices
    List(DeviceListArgs),
    /// Let devices connect again
    #[command(
        after_help = "Examples:\n  iotdm-ctl device enable gw1\n  iotdm-ctl device enable --from list --yes"
    )]
    Enable(ManyArgs),
    /// Keep devices from connecting; their connections are closed
    Disable(DeviceDisableArgs),
    /// Delete devices, with their keys and their twins
    Delete(DeviceDeleteArgs),
    /// Give devices new keys, and keep their old ones until the next time
    RenewKey(RenewKeyArgs),
    /// Print the connection string that a device needs; it holds its key
    ConnectionString(ConnectionStringArgs),
    /// Derive a device's key from that of a DPS group enrolment, without a hub
    DeriveKey(DeriveKeyArgs),
}

/// How a device proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// By a key that the hub has, too
    #[default]
    Sas,
    /// By a certificate of which the hub knows the thumbprint
    X509Thumbprint,
    /// By a certificate of a CA that the hub knows
    X509Ca,
}

const DEVICE_CREATE_HELP: &str = "\
Examples:
  iotdm-ctl device create gw1 --out gw1.connection-string
  iotdm-ctl device create gw1 --module iotdm --out gw1-iotdm.connection-string
  iotdm-ctl device create gw2 --auth x509-thumbprint --certificate gw2.pem
  iotdm-ctl device create gw3 --auth x509-ca
  iotdm-ctl device create --from devices.csv --out connection-strings

A file has the id of a device on each line, or is CSV below a line of column names, or
JSON: an array or objects one after the other. Columns or keys: deviceId, and where
needed auth, thumbprint, secondaryThumbprint, status (enabled or disabled) and tags (in
CSV a column for each, such as tags.site). Nothing is created unless all of it is good.
Ids with ; # or + are refused: such a device could never connect.

With --module NAME that module of each device is created, with a key or certificate of
its own: a daemon that is this module connects beside whatever else uses the device's
identity. The device has to be there. A certificate of --auth x509-ca has the common name
DEVICE/NAME.

It needs the right to write the registry, as the policy \"registryReadWrite\" has it.";

/// `device create`
#[derive(Debug, Args)]
#[command(after_help = DEVICE_CREATE_HELP)]
#[command(group(ArgGroup::new("whom").args(["device", "from"]).required(true)))]
pub struct DeviceCreateArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::new_device_id)]
    pub device: Option<DeviceId>,
    /// Create the devices in this file, or on stdin (-)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate", "thumbprint"])]
    pub from: Option<PathBuf>,
    /// How the device proves who it is [default: sas]
    #[arg(long, value_name = "HOW")]
    pub auth: Option<Auth>,
    /// Its certificate (PEM), of which the thumbprint is taken
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The certificate that the device changes to later
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub secondary_certificate: Option<PathBuf>,
    /// The thumbprint of its certificate: SHA-256 or SHA-1 in hex
    #[arg(long, value_name = "HEX", value_parser = values::thumbprint, conflicts_with = "certificate")]
    pub thumbprint: Option<String>,
    /// Do not let the device connect yet
    #[arg(long)]
    pub disabled: bool,
    /// Write its connection string, or a line for each, to this file, which only you can read
    #[arg(long, value_name = "FILE", value_parser = values::out_file())]
    pub out: Option<PathBuf>,
    /// Let the device connect here in place of the hub (GatewayHostName)
    #[arg(long, value_name = "HOST[:PORT]", requires = "out")]
    pub gateway: Option<Endpoint>,
}

/// `device list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  iotdm-ctl device list --top 20")]
pub struct DeviceListArgs {
    /// At most so many devices
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub top: Option<usize>,
}

/// Which devices' identities to change.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["devices", "from", "condition", "where_module"]).required(true).multiple(true)))]
pub struct ManyArgs {
    /// The devices
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer(), conflicts_with_all = ["from", "condition", "where_module"])]
    pub devices: Vec<DeviceId>,
    /// The devices that this file, or stdin (-), names: ids, CSV or JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["condition", "where_module"])]
    pub from: Option<PathBuf>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// With --module: the devices of whose module this condition holds; with --where,
    /// only those of which that holds as well
    #[arg(long, value_name = "CONDITION")]
    pub where_module: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

impl ManyArgs {
    /// Whether the devices are selected by a file or a condition, and not named.
    pub fn are_selected(&self) -> bool {
        self.devices.is_empty()
    }
}

const DISABLE_HELP: &str = "\
Examples:
  iotdm-ctl device disable gw1 --reason 'stolen'
  iotdm-ctl device disable --where \"tags.site = 'north'\" --reason 'site closed'

It asks before devices that you did not name yourself. With -o json and several
devices it prints {\"disabled\": [...], \"errors\": [{\"deviceId\", \"error\"}]}.";

/// `device disable`
#[derive(Debug, Args)]
#[command(after_help = DISABLE_HELP)]
pub struct DeviceDisableArgs {
    /// Which devices.
    #[command(flatten)]
    pub which: ManyArgs,
    /// Why; kept with the identity
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

const DELETE_HELP: &str = "\
Examples:
  iotdm-ctl device delete gw1 --yes
  iotdm-ctl device list -o csv > old.csv
  iotdm-ctl device delete --from old.csv

With --module NAME the module is deleted, and the device stays.

With -o json and several devices it prints {\"deleted\": [...], \"errors\": [...]}.";

/// `device delete`
#[derive(Debug, Args)]
#[command(after_help = DELETE_HELP)]
pub struct DeviceDeleteArgs {
    /// Which devices.
    #[command(flatten)]
    pub which: ManyArgs,
}

/// One of the two keys that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Key {
    /// The key that the device uses
    Primary,
    /// The spare key
    Secondary,
}

const RENEW_KEY_HELP: &str = "\
Examples:
  iotdm-ctl device renew-key gw1 --out gw1.connection-string
  iotdm-ctl device renew-key gw1 --key secondary
  iotdm-ctl device renew-key --where \"tags.site = 'north'\" --out connection-strings

The new key becomes the primary one and the primary one becomes the secondary, so
that the device can go on with the key that it has until it gets the new one. The
oldest key is gone each time: a device that has not got the key of its last renewal
yet is locked out by the next one, so that this is asked about.";

/// `device renew-key`
#[derive(Debug, Args)]
#[command(after_help = RENEW_KEY_HELP)]
pub struct RenewKeyArgs {
    /// Which devices.
    #[command(flatten)]
    pub which: ManyArgs,
    /// Replace only this key, at once, and leave the other one
    #[arg(long)]
    pub key: Option<Key>,
    /// Write the connection string with the new key, or a line for each, to this file, which only you can read
    #[arg(long, value_name = "FILE", value_parser = values::out_file())]
    pub out: Option<PathBuf>,
}

const CONNECTION_STRING_HELP: &str = "\
Examples:
  iotdm-ctl device connection-string gw1 --out gw1.connection-string
  iotdm-ctl device connection-string gw1 --module iotdm --out iotdm.connection-string
  iotdm-ctl device connection-string gw1 --gateway edge.example.com";

/// `device connection-string`
#[derive(Debug, Args)]
#[command(after_help = CONNECTION_STRING_HELP)]
pub struct ConnectionStringArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
    pub device: DeviceId,
    /// Which of its keys
    #[arg(long, default_value = "primary")]
    pub key: Key,
    /// Write the connection string to this file, which only you can read, in place of stdout
    #[arg(long, value_name = "FILE", value_parser = values::out_file())]
    pub out: Option<PathBuf>,
    /// Let the device connect here in place of the hub (GatewayHostName)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub gateway: Option<Endpoint>,
}

const DERIVE_KEY_HELP: &str = "\
Example:
  iotdm-ctl device derive-key gw1 --group-key-file group.key --out gw1.key

Source of the rule: DPS, \"Symmetric key attestation\", group enrolments.";

/// `device derive-key`
#[derive(Debug, Args)]
#[command(after_help = DERIVE_KEY_HELP)]
pub struct DeriveKeyArgs {
    /// The registration id of the device
    #[arg(value_name = "REGISTRATION", value_parser = values::registration_id)]
    pub registration: String,
    /// The file with the group's key, in base64
    #[arg(long, value_name = "FILE")]
    pub group_key_file: PathBuf,
    /// Write the key to this file, which only you can read, in place of stdout
    #[arg(long, value_name = "FILE", value_parser = values::out_file())]
    pub out: Option<PathBuf>,
}
