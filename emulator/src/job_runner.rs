//! The runner of scheduled jobs, which carries each out on the hub when the
//! job's time has come.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error};

use crate::api_version::ApiVersion;
use crate::clock::now;
use crate::hub::Hub;
use crate::jobs::device_job::DeviceJobStatus;
use crate::jobs::job::{Job, Work};
use crate::method_call::MethodCall;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::throttle::Operation;
use crate::twin::TwinChange;
use iotdm_proto::Identity;

/// How many devices of one job are dealt with at the same time: most wait for
/// a device's reply, and each costs a task meanwhile.
const AT_ONCE: usize = 100;

/// The longest wait for the next job. When the clock is set meanwhile, a job
/// is late by no more than that.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Carries out jobs for ever.
pub async fn run(hub: Arc<Hub>) {
    let mut changes = hub.jobs.watch();
    let mut running = JoinSet::new();
    let mut begun = HashSet::new();
    loop {
        let mut wait = LONGEST_WAIT;
        match hub.jobs.due(now()) {
            Ok((due, next)) => {
                for id in due {
                    if begun.len() < hub.throttle.concurrent_jobs() && begun.insert(id.clone()) {
                        running.spawn(carry_out(hub.clone(), id));
                    }
                }
                if let Some(next) = next {
                    // A millisecond more: times are cut to milliseconds, and before
                    // its time a job would not be due.
                    wait = (next.since(now()) + Duration::from_millis(1)).min(wait);
                }
            }
            // The error was logged where it arose.
            Err(_) => debug!("the jobs have to wait"),
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(Instant::now() + wait) => {}
            Some(Ok(id)) = running.join_next() => {
                begun.remove(&id);
            }
        }
    }
}

/// Carries out one job, or what is left of a job that had begun; returns the
/// job's id.
async fn carry_out(hub: Arc<Hub>, id: String) -> String {
    if let Err(error) = try_carry_out(&hub, &id).await {
        error!(job = id, %error, "a job broke off; it goes on when the emulator is started again");
        // Never returns, so that `run` does not begin the job again at once.
        std::future::pending::<()>().await;
    }
    id
}

async fn try_carry_out(hub: &Arc<Hub>, id: &str) -> Result<(), HubRefusal> {
    let Some(job) = hub.jobs.job(id) else { return Ok(()) };
    let targets = match targets(hub, &job) {
        Ok(targets) => targets,
        Err(refusal) => return hub.jobs.fail(id, &refusal),
    };
    let mut left = hub.jobs.begin(id, targets)?.into_iter();
    // The job's time runs from its first beginning, also over restarts.
    let began = hub.jobs.job(id).and_then(|job| job.began).unwrap_or_else(now);
    let rest = Duration::from_secs(job.max_execution).saturating_sub(now().since(began));
    let deadline = Instant::now() + rest.min(Duration::from_secs(365 * 24 * 3600));
    debug!(job = id, devices = left.len(), "a job begins");
    let job = Arc::new(job);
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(device) = left.next()
        {
            under_way.spawn(carry_out_on(hub.clone(), job.clone(), device));
        }
        tokio::select! {
            ended = under_way.join_next() => match ended {
                Some(Ok(ended)) => ended?,
                Some(Err(error)) => return Err(HubRefusal::internal(error)),
                None => break,
            },
            () = sleep_until(deadline) => break,
        }
    }
    under_way.shutdown().await;
    debug!(job = id, "a job ends");
    hub.jobs
        .finish(id, &ErrorCode::GatewayTimeout.because("the job's maxExecutionTimeInSeconds passed"))
        .await
}

/// Carries a job out on one device, unless the job was cancelled before the
/// device's turn.
async fn carry_out_on(hub: Arc<Hub>, job: Arc<Job>, device: Identity) -> Result<(), HubRefusal> {
    loop {
        let wait = hub.throttle.wait(Operation::JobDevice);
        if wait.is_zero() {
            break;
        }
        sleep(wait).await;
    }
    if !hub.jobs.note(&job.id, &device, DeviceJobStatus::Running).await? {
        return Ok(());
    }
    let done = match &job.work {
        Work::Method(body) => call(&hub, body, &device).await,
        Work::Twin(_) => change_twin(&hub, job.clone(), device.clone()).await,
    };
    let status = match done {
        Ok(response) => DeviceJobStatus::Completed(response),
        Err(error) => DeviceJobStatus::failed(&error),
    };
    hub.jobs.note(&job.id, &device, status).await.map(drop)
}

/// Calls the method in `body`; the device's reply as the job shows it.
async fn call(hub: &Hub, body: &Value, device: &Identity) -> Result<Value, HubRefusal> {
    let (status, payload) = hub.call(device, &MethodCall::parse(body.clone())?).await?;
    Ok(json!({ "status": status, "payload": payload }))
}

/// Changes the device's twin. Runs in a task of its own: the job's end drops
/// its devices' futures, which must not cut a change in two.
async fn change_twin(hub: &Arc<Hub>, job: Arc<Job>, device: Identity) -> Result<Value, HubRefusal> {
    let hub = hub.clone();
    let change = async move {
        let Work::Twin(body) = &job.work else { return Ok(Value::Null) };
        let change = TwinChange::parse(body)?;
        hub.change_twin(&device, &change, false, &Work::if_match(body)).await.map(|_| Value::Null)
    };
    tokio::spawn(change).await.map_err(HubRefusal::internal)?
}

/// The devices that the job's condition selects now.
fn targets(hub: &Hub, job: &Job) -> Result<Vec<Identity>, HubRefusal> {
    let condition = job.condition()?;
    let mut targets = Vec::new();
    hub.registry.devices(None, |id, device| {
        let twin = || device.row_json(id, &hub.presence(id), &ApiVersion::latest());
        if condition.as_ref().is_none_or(|condition| condition.holds(&twin())) {
            targets.push(id.clone());
        }
        ControlFlow::Continue(())
    });
    Ok(targets)
}
