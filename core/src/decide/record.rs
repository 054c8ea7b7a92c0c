//! The durable record: what the daemon must still know after the machine went
//! down at any instant.

use std::collections::VecDeque;

use iotdm_proto::need::RebootRequired;
use iotdm_proto::reply::PastBoot;
use iotdm_proto::report::{Boot, Clock, Reboot, RebootStatus, RequestedBy};
use iotdm_proto::request::OnPreflight;
use iotdm_proto::{OnInhibitor, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::age::Age;
use super::guard::Guards;
use super::health::KnownHealth;
use super::ids::GrantedRequest;

/// Everything that survives, written as one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The layout of this file, [`Record::VERSION`].
    pub version: u32,
    /// The boot that the daemon last ran in.
    pub boot: Boot,
    /// When that boot began, if it followed one that the daemon had seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Time>,
    /// The newest request. While it is pending, `started_at` tells whether
    /// the machine was about to be asked to go down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// Outcomes of requests before the newest one that the hub may not have heard of, the
    /// oldest first: each is told before what comes after it.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub unheard: VecDeque<Unheard>,
    /// What to do about obstacles when the pending request's time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Whether logind was asked to reboot for the pending request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// What the clock was like that `started_at` was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_clock: Option<Clock>,
    /// The clock of the running boot, which was not synchronised, was set: no other
    /// boot's clock tells how long it was from then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_was_set: bool,
    /// When reboots were begun of late, the latest last, for the guards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Time>,
    /// The wish in the twin that was last dealt with, as it stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Value>,
    /// An orderly shutdown of that boot has begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going_down: bool,
    /// The requests that were granted last, the latest last, until they are moved
    /// to a file of their own.
    #[serde(default, rename = "answers", skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<GrantedRequest>,
    /// When requests were granted of late, the latest last, by [`Age::passed`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted_at: Vec<u64>,
    /// How much time has passed.
    #[serde(default)]
    pub age: Age,
    /// The id of the wish that was last taken up, whatever became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wish: Option<String>,
    /// The health of the machine, as it was last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<KnownHealth>,
    /// The units that had failed when the newest request was accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_before: Vec<String>,
    /// Whether the machine needs a reboot, as it was last told in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<RebootRequired>,
    /// The need for which the daemon has asked itself for a reboot, as long as it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_for: Option<String>,
    /// The last boots, the running one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boots: Vec<PastBoot>,
    /// All of them by their cause. Absent until a boot has followed one that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_counts: Option<BootCounts>,
    /// The dumps of panics that were there at the last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panics: Option<Vec<String>>,
    /// This record was begun without an earlier one, and the twin, which may
    /// remember more, has not been read since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Where a damaged record was set aside, in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// An outcome that another request has taken the place of before the hub heard of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unheard {
    /// The request.
    pub reboot: Reboot,
    /// [`Record::last_wish`] as it was then. With a later wish's id beside it, a daemon
    /// whose record is lost would take that wish for carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wish: Option<String>,
}

/// How many boots the daemon has seen, by what ended the boot before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootCounts {
    /// See [`iotdm_proto::report::BootCause::Requested`].
    pub requested: u64,
    /// See [`iotdm_proto::report::BootCause::Local`].
    pub local: u64,
    /// See [`iotdm_proto::report::BootCause::Unclean`].
    pub unclean: u64,
    /// See [`iotdm_proto::report::BootCause::Unknown`]; and those that an earlier
    /// version has counted without their cause.
    pub unknown: u64,
}

/// How far the asking of logind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// It was about to be asked, and may have been.
    Asking,
    /// It has agreed.
    Agreed,
}

/// How a pending request treats obstacles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What to do about block inhibitors.
    pub on_inhibitor: OnInhibitor,
    /// What to do about preflight checks that object.
    #[serde(default = "fail", skip_serializing_if = "is_fail")]
    pub on_preflight: OnPreflight,
    /// How long to wait, in seconds.
    pub wait_seconds: u64,
    /// Until when, once the waiting has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Time>,
    /// The request is for some time from when it was made, not for an instant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// The time that was asked for, if the device's own limits do not allow
    /// that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<Time>,
    /// It is carried out only if the machine needs a reboot when its time has come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_if_required: bool,
    /// After this instant it is not carried out any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

fn fail() -> OnPreflight {
    OnPreflight::Fail
}

fn is_fail(on_preflight: &OnPreflight) -> bool {
    *on_preflight == OnPreflight::Fail
}

impl Record {
    /// The layout that this version writes. Version 1 lacks keys that have
    /// defaults, and the file's checksum.
    pub const VERSION: u32 = 2;

    /// The record of a daemon that has seen nothing before `boot`.
    pub fn new(boot: Boot) -> Self {
        Record {
            version: Self::VERSION,
            boot,
            reboot_time: None,
            reboot: None,
            unheard: VecDeque::new(),
            plan: None,
            asked: None,
            started_clock: None,
            clock_was_set: false,
            starts: Vec::new(),
            wish: None,
            going_down: false,
            granted: Vec::new(),
            granted_at: Vec::new(),
            age: Age::default(),
            last_wish: None,
            health: None,
            failed_before: Vec::new(),
            reboot_required: None,
            asked_for: None,
            boots: Vec::new(),
            boot_counts: None,
            panics: None,
            lost: false,
            damaged: None,
        }
    }

    /// The newest request, if it has not ended yet.
    pub fn pending(&self) -> Option<&Reboot> {
        self.reboot.as_ref().filter(|reboot| !reboot.status.is_final())
    }

    /// The most outcomes that are kept for a hub that has not heard of them. A hub that
    /// takes calls takes reports, or will soon; of more, the oldest are given up.
    pub const MAX_UNHEARD: usize = 8;

    /// Keeps the newest request's outcome, of which the hub may not have heard, since
    /// another request takes its place. Returns the ids of those that are given up.
    pub(super) fn keep_unheard(&mut self) -> Vec<String> {
        // What the daemon has taken back is as if it had never been asked for.
        let is_told = |reboot: &Reboot| {
            let taken_back =
                reboot.requested_by == RequestedBy::Device && reboot.status == RebootStatus::Cancelled;
            reboot.status.is_final() && !taken_back
        };
        let Some(reboot) = self.reboot.clone().filter(is_told) else { return Vec::new() };
        self.unheard.push_back(Unheard { reboot, last_wish: self.last_wish.clone() });
        let excess = self.unheard.len().saturating_sub(Self::MAX_UNHEARD);
        self.unheard.drain(..excess).map(|unheard| unheard.reboot.id).collect()
    }

    /// Notes that the newest request, which was granted, began or ended now: from
    /// now on its age counts.
    pub(super) fn renew(&mut self, begun: bool) {
        let Some(newest) = self.reboot.as_ref() else { return };
        if let Some(request) = self.granted.iter_mut().find(|request| request.id == newest.id) {
            request.at = Some(self.age.passed());
            request.begun |= begun;
        }
    }

    /// Remembers that a reboot began, forgetting the oldest that no guard
    /// needs.
    pub fn started(&mut self, now: Time) {
        self.starts.push(now);
        let excess = self.starts.len().saturating_sub(Guards::MAX_PER_HOUR);
        self.starts.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Versions before the preflight checks have written it so, and can read it.
    #[test]
    fn a_plan_that_says_nothing_of_preflight_checks_is_written_as_before_there_were_any() {
        let mut plan = Plan {
            on_inhibitor: OnInhibitor::Wait,
            on_preflight: OnPreflight::Fail,
            wait_seconds: 3600,
            wait_until: None,
            delayed: false,
            moved_from: None,
            only_if_required: false,
            deadline: None,
        };
        let written = json!({"onInhibitor": "wait", "waitSeconds": 3600});
        assert_eq!(json!(plan), written);
        assert_eq!(serde_json::from_value::<Plan>(written).unwrap(), plan);
        plan.on_preflight = OnPreflight::Wait;
        assert_eq!(json!(plan), json!({"onInhibitor": "wait", "onPreflight": "wait", "waitSeconds": 3600}));
    }
}
