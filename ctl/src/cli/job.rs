//! The arguments of `job …`.

use clap::{Args, Subcommand};

use crate::values;

/// `job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List the hub's jobs of the last 30 days, the newest first
    #[command(
        after_help = "Examples:\n  iotdm-ctl job list --top 5\n  iotdm-ctl job list --status running\n  \
        iotdm-ctl job list --type scheduleDeviceMethod -o json"
    )]
    List(JobListArgs),
    /// Show a job and how it went for each device
    #[command(after_help = "Example:\n  iotdm-ctl job show 6aadb16a-6738-4b2a-91e9-5a16d41625b1\n\n\
        With -o json: the hub's job with the key devices, an array of the hub's device jobs.")]
    Show(JobArgs),
    /// Cancel a job; what devices have got already stays in force
    #[command(after_help = "Example:\n  iotdm-ctl job cancel 6aadb16a-6738-4b2a-91e9-5a16d41625b1")]
    Cancel(JobArgs),
}

/// `job list`
#[derive(Debug, Args)]
pub struct JobListArgs {
    /// At most so many jobs
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub top: Option<usize>,
    /// Only jobs that are so far, in the hub's own word, such as running
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only jobs of this type, in the hub's own word, such as scheduleDeviceMethod
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
}

/// A command with a job and nothing else.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id; that of reboot --job is the request's
    #[arg(value_name = "JOB", value_parser = values::job_id)]
    pub job: String,
}
