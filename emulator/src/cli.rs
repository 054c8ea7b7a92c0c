//! The command line: its options, and the help that `--help` and the manual
//! page show. (The comments on options are that help.)

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use iotdm_proto::{DeviceId, HostName};

use crate::faults::{FaultKind, RETURN_CODES};
use crate::throttle::Tier;
use iotdm_proto::Identity;

/// The introduction of the help. What the emulator does not do stands first, so
/// that nobody has to find that out by trying.
const ABOUT: &str = "\
A local IoT Hub for trying out iotdm and for tests. It does NOT emulate:

  * AMQP, and HTTPS for devices
  * Entra ID authentication
  * of device provisioning (DPS): TPM, custom allocation and several hubs
  * IoT Edge: modules are identities like devices, without routes between them
  * Event Hubs: telemetry goes to `events`, and is gone where nobody looks on
  * of cloud-to-device messages: AMQP, feedback, expiry (`send` sends them)
  * file upload, digital twins
  * jobs that export and import the registry
  * daily quotas; throttling unless asked for with --tier

It is never needed on a gateway, and replaces no test against the real service.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "iotdm-emulator", version, about = ABOUT, arg_required_else_help = true)]
pub struct Cli {
    /// Log every exchange with devices and services
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// The command to carry out.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve MQTT and HTTPS until SIGTERM or Ctrl-C
    ///
    /// Prints one line to standard output as soon as clients can connect:
    /// "ready mqtts=ADDRESS https=ADDRESS data=DIR". DIR holds ca.pem (trust it), service-connection-string,
    /// policies/NAME, devices/ID (connection strings) and the store.
    Serve(Serve),
    /// Make the running emulator misbehave towards a device, for tests
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Print what devices send from now on, one JSON document a line
    Events(Events),
    /// Send a cloud-to-device message
    Send(Send),
    /// Let a device, or a group of them, register with the provisioning service
    ///
    /// Prints the id scope. The key is made by the service and written to --out; the devices of a group have keys
    /// derived from the group's: iotdm-ctl device derive-key.
    Enrol(Enrol),
    /// Print a link that shows the running hub in a browser: devices, twins, events, and methods to call
    ///
    /// The link is good for one browser, within an hour; what it opens, for twelve hours or until the emulator
    /// stops. `serve` prints one as it starts.
    Browse(Browse),
    /// Print environment variables: eval "$(iotdm-emulator env)"
    Env(Environment),
    /// Say how other programs come to trust the emulator's CA
    Trust(Data),
    /// Ask the running emulator on both of its ports; fails unless it serves, as health checks of containers want it
    Health(Data),
}

/// The options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// The hub's name in connection strings; clients have to resolve it to the address. May be repeated: the others
    /// are names that clients may use as well
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub host: Vec<HostName>,
    /// Port of MQTT over TLS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    pub mqtt_port: u16,
    /// Port of the REST interface and of MQTT over WebSocket; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub https_port: u16,
    /// Directory for everything that is kept, empty or an emulator's [default: $XDG_STATE_HOME/iotdm-emulator]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Create this device unless it exists; may be repeated
    #[arg(long, value_name = "ID")]
    pub device: Vec<DeviceId>,
    /// Let devices of type certificateAuthority in with certificates of these CAs (PEM); may be repeated
    #[arg(long, value_name = "FILE")]
    pub x509_ca: Vec<PathBuf>,
    /// Throttle as one unit of this tier is throttled [default: not at all]
    #[arg(long, value_name = "TIER", ignore_case = true)]
    pub tier: Option<Tier>,
}

/// The options of `browse`.
#[derive(Debug, Args)]
pub struct Browse {
    /// Whose rights the link gives: service sees and does as much as the page can, registryRead sees devices alone
    #[arg(long, value_name = "POLICY", default_value = crate::policies::OWNER,
        value_parser = ["iothubowner", "service", "registryRead", "registryReadWrite"])]
    pub policy: String,
    /// The running emulator's directory
    #[command(flatten)]
    pub data: Data,
}

/// The options of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// The device whose messages to print, its modules' included [default: all]
    pub device: Option<DeviceId>,
    /// Also print changes of twins
    #[arg(long)]
    pub twin_changes: bool,
    /// Also print which devices and modules are created and deleted, connect and leave
    #[arg(long)]
    pub lifecycle: bool,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// The running emulator's directory
    #[command(flatten)]
    pub data: Data,
}

/// The options of `send`.
#[derive(Debug, Args)]
pub struct Send {
    /// The device
    pub device: DeviceId,
    /// The message
    pub text: String,
    /// A property of the message; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub property: Vec<(String, String)>,
    /// The running emulator's directory
    #[command(flatten)]
    pub data: Data,
}

/// The options of `enrol`.
#[derive(Debug, Args)]
#[group(id = "attestation", required = true, multiple = false, args = ["out", "certificate"])]
pub struct Enrol {
    /// The registration id of the device, or the name of the group
    pub id: DeviceId,
    /// Let a group of devices register, instead of one
    #[arg(long)]
    pub group: bool,
    /// Write the key of the device or group to this file, which only you can read
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The certificate (PEM) of the device, or of the CA of the group's devices
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The running emulator's directory
    #[command(flatten)]
    pub data: Data,
}

/// The options of `env`.
#[derive(Debug, Args)]
pub struct Environment {
    /// Also IOTHUB_DEVICE_CONNECTION_STRING, of this device
    #[arg(long, value_name = "ID")]
    pub device: Option<Identity>,
    /// The emulator's directory
    #[command(flatten)]
    pub data: Data,
}

/// The subcommands of `fault`.
#[derive(Debug, Subcommand)]
pub enum FaultCommand {
    /// Do something wrong to a device, the next COUNT times
    Set {
        /// The device, or DEVICE/MODULE
        device: Identity,
        /// What to do wrong
        fault: FaultKind,
        /// How often
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Return code for refuse-connect, 1 to 5
        #[arg(long, default_value_t = 5, value_parser = return_code())]
        code: u8,
        /// Delay for delay-method, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        delay: f64,
        /// The running emulator's directory
        #[command(flatten)]
        data: Data,
    },
    /// Refuse the next COUNT requests of services with 429, whatever they are about
    Throttle {
        /// How often
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// The running emulator's directory
        #[command(flatten)]
        data: Data,
    },
    /// Print the faults that are still to happen, as JSON
    List {
        /// The running emulator's directory
        #[command(flatten)]
        data: Data,
    },
    /// Forget the faults of a device, or all
    Clear {
        /// The device, or DEVICE/MODULE
        device: Option<Identity>,
        /// The running emulator's directory
        #[command(flatten)]
        data: Data,
    },
}

/// The option that names a running emulator, by where it keeps its files.
#[derive(Debug, Args)]
pub struct Data {
    /// The running emulator's directory [default: $XDG_STATE_HOME/iotdm-emulator]
    #[arg(long = "data", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Takes the return codes that refuse a CONNECT.
fn return_code() -> impl TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(i64::from(*RETURN_CODES.start())..=i64::from(*RETURN_CODES.end()))
}

/// Reads `KEY=VALUE`, of which only the value may be empty.
fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "expected KEY=VALUE".to_owned())
}
