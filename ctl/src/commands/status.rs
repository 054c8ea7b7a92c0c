//! `status`: how devices are and how their last reboot went, once or (`--watch`)
//! again and again.

mod attention;
mod prometheus;
mod row;
mod watch;

use std::collections::BTreeSet;

use anyhow::Context as _;
use iotdm_proto::DeviceId;

use self::row::{COLUMNS, DeviceStatus, Times};
use crate::cli::StatusArgs;
use crate::commands::selection::{
    Conditions, check_module_condition, each_once, each_row, of_devices, of_modules,
};
use crate::error::Usage;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, ROWS_OF_A_PAGE};
use crate::output::{Format, Output, say};
use crate::twin::Twin;

/// The devices as they are now.
struct Now {
    statuses: Vec<DeviceStatus>,
    /// How many queries it took.
    queries: u32,
    /// [`Exit::NoSuchDevice`] if some of the named devices do not exist.
    exit: Exit,
}

/// Prints the status of the named devices, of those that a condition selects,
/// or of all. Where some of the named devices do not exist, the others are
/// printed all the same.
pub async fn run(hub: &HubClient, output: Output, args: StatusArgs) -> anyhow::Result<Exit> {
    if args.watch {
        if matches!(output.format(), Format::Json | Format::Csv | Format::Prometheus) {
            return Err(
                Usage("--watch never comes to an end: use -o jsonl, a line for each change".into()).into()
            );
        }
        return watch::run(hub, output, &args).await;
    }
    let now = now(hub, &args, &mut BTreeSet::new()).await?;
    match now.statuses.as_slice() {
        [] if !args.devices.is_empty() => {}
        statuses if output.format() == Format::Prometheus => prometheus::print(output, statuses)?,
        [] if output.is_text() => output.line(format_args!("no devices"))?,
        statuses if output.is_text() => {
            let times = Times::now();
            let rows: Vec<_> = statuses.iter().map(|status| status.cells(&times)).collect();
            output.list(&COLUMNS, &rows)?;
        }
        statuses if output.is_tabular() => {
            let header = COLUMNS.map(|column| column.name);
            let header: Vec<&str> = header.into_iter().chain(["OUTCOME AT"]).collect();
            let rows: Vec<_> = statuses.iter().map(DeviceStatus::record).collect();
            output.table(&header, &rows)?;
        }
        [status] if args.devices.len() == 1 => output.json(status)?,
        statuses => output.array(statuses)?,
    }
    Ok(now.exit)
}

/// The queries for the twins that the command line means. Which modules have devices of
/// which `--where` holds has to be asked first; `count` is how many queries that takes.
async fn queries(hub: &HubClient, args: &StatusArgs, count: &mut u32) -> anyhow::Result<Vec<String>> {
    let conditions = Conditions::given(hub, args.condition.as_ref(), args.where_module.as_ref())?;
    let Conditions { device, module } = conditions.unwrap_or_default();
    if hub.module().is_none() {
        return Ok(vec![of_devices("*", device)?]);
    }
    let devices = match device {
        None => None,
        Some(_) => {
            let mut found = Vec::new();
            each_row(hub, &of_devices("deviceId", device)?, "--where", |id, _| found.push(id)).await?;
            *count += u32::try_from(found.len() / ROWS_OF_A_PAGE + 1).unwrap_or(u32::MAX);
            Some(found)
        }
    };
    check_module_condition(hub, module).await?;
    *count += u32::from(module.is_some());
    Ok(of_modules(hub, "*", devices.as_deref(), module)?)
}

/// Asks how the devices are that the command line means. Of named devices that do not
/// exist it says so, but for those that are `missing` already.
async fn now(hub: &HubClient, args: &StatusArgs, missing: &mut BTreeSet<DeviceId>) -> anyhow::Result<Now> {
    let mut now = Now { statuses: Vec::new(), queries: 0, exit: Exit::Done };
    if args.devices.is_empty() {
        for sql in queries(hub, args, &mut now.queries).await? {
            let mut pages = hub.query(&sql, None);
            // Of each twin only what is shown is kept.
            while let Some(rows) =
                pages.next().await.with_context(|| format!("the query \"{sql}\" failed"))?
            {
                now.queries += 1;
                now.statuses.extend(rows.into_iter().map(|row| DeviceStatus::of(&Twin::from(row))));
            }
        }
    }
    for device in &each_once(args.devices.iter().cloned()) {
        match hub.twin(device).await.with_context(|| device.to_string()) {
            Ok(twin) => {
                missing.remove(device);
                now.statuses.push(DeviceStatus::of(&twin));
            }
            Err(error) if exit_of(&error) == Exit::NoSuchDevice => {
                if missing.insert(device.clone()) {
                    say(format_args!("iotdm-ctl: {error:#}"));
                }
                now.exit = Exit::NoSuchDevice;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(now)
}
