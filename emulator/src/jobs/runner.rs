//! Carries jobs out, each when its time has come.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error};

use super::Jobs;
use super::job::{Job, Work};
use super::outcome::Outcome;
use crate::device::now;
use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::method::{Method, call};
use crate::throttle::Operation;
use crate::twin::Change;

/// Devices of one job that are dealt with at the same time.
const AT_ONCE: usize = 100;

/// The longest wait for the next job, since clocks are set at times.
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
                    // A millisecond more, since the clock's parts of one are cut off.
                    wait = (next.since(now()) + Duration::from_millis(1)).min(wait);
                }
            }
            // Logged where it arose.
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

/// Carries out one job, or what is left of it; returns its id.
async fn carry_out(hub: Arc<Hub>, id: String) -> String {
    if let Err(error) = try_carry_out(&hub, &id).await {
        error!(job = id, %error, "a job broke off; it goes on when the emulator is started again");
        // Not to be begun again at once.
        std::future::pending::<()>().await;
    }
    id
}

async fn try_carry_out(hub: &Arc<Hub>, id: &str) -> Result<(), HubError> {
    let Some(job) = hub.jobs.job(id) else { return Ok(()) };
    let mut left = hub.jobs.begin(id, targets(hub, &job)?)?.into_iter();
    // After a restart the time that has passed counts as well.
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
            under_way.spawn(one(hub.clone(), job.clone(), device));
        }
        tokio::select! {
            ended = under_way.join_next() => match ended {
                Some(Ok(ended)) => ended?,
                Some(Err(error)) => return Err(HubError::internal(error)),
                None => break,
            },
            () = sleep_until(deadline) => break,
        }
    }
    under_way.shutdown().await;
    debug!(job = id, "a job ends");
    hub.jobs.finish(id, &Code::GatewayTimeout.because("the job's maxExecutionTimeInSeconds passed")).await
}

/// Deals with one device, unless the job was cancelled meanwhile.
async fn one(hub: Arc<Hub>, job: Arc<Job>, device: Identity) -> Result<(), HubError> {
    loop {
        let wait = hub.throttle.wait(Operation::JobDevice);
        if wait.is_zero() {
            break;
        }
        sleep(wait).await;
    }
    if !Jobs::note(&hub, &job.id, &device, Outcome::Running).await? {
        return Ok(());
    }
    let done = match &job.work {
        Work::Method(body) => match Method::parse(body.clone()) {
            Ok(method) => call(&hub, &device, &method)
                .await
                .map(|(status, payload)| json!({ "status": status, "payload": payload })),
            Err(error) => Err(error),
        },
        Work::Twin(_) => change_twin(&hub, job.clone(), device.clone()).await,
    };
    let outcome = match done {
        Ok(response) => Outcome::Completed(response),
        Err(error) => Outcome::failed(&error),
    };
    Jobs::note(&hub, &job.id, &device, outcome).await.map(drop)
}

/// In a task of its own, since the job's end must not cut a change in two.
async fn change_twin(hub: &Arc<Hub>, job: Arc<Job>, device: Identity) -> Result<Value, HubError> {
    let hub = hub.clone();
    let change = async move {
        let Work::Twin(body) = &job.work else { return Ok(Value::Null) };
        let change = Change::parse(body)?;
        hub.change_twin(&device, &change, false, &Work::if_match(body)).await.map(|_| Value::Null)
    };
    tokio::spawn(change).await.map_err(HubError::internal)?
}

/// The devices that the job's condition selects now.
fn targets(hub: &Hub, job: &Job) -> Result<Vec<Identity>, HubError> {
    let condition = job.condition()?;
    let mut targets = Vec::new();
    hub.registry.devices(None, |id, device| {
        let twin = || device.twin_json(id, &hub.presence(id));
        if condition.as_ref().is_none_or(|condition| condition.holds(&twin())) {
            targets.push(id.clone());
        }
        ControlFlow::Continue(())
    });
    Ok(targets)
}
