//! Whether the machine needs a reboot, and requests that are for no other one.

use iotdm_proto::Time;
use iotdm_proto::reply::{Granted, RebootReply};

use super::Core;
use crate::decide::effect::Effect;
use crate::decide::need::Need;
use crate::decide::refusal::Refusal;
use crate::decide::request::Request;

impl Core {
    /// What is known of it has changed.
    pub(super) fn need_changed(&mut self, need: Option<Need>, now: Time) -> Vec<Effect> {
        let told = need.map(|need| need.tell(self.record.reboot_required.as_ref(), now));
        if told == self.record.reboot_required {
            return Vec::new();
        }
        self.record.reboot_required = told;
        vec![self.save(), self.report()]
    }

    /// That the machine is known to need a reboot, or why that cannot be said.
    pub(super) fn needed(&self) -> Result<(), Refusal> {
        let why = match &self.record.reboot_required {
            Some(need) if need.required => return Ok(()),
            Some(_) => "the machine needs no reboot",
            None => "whether the machine needs a reboot is not known, so it is left alone",
        };
        Err(Refusal::NotNeeded(why.to_owned()))
    }

    /// The reply to a request that is for a machine that needs a reboot.
    pub(super) fn not_needed(&self, id: &str, request: &Request, why: String) -> RebootReply {
        RebootReply {
            id: id.to_owned(),
            status: Granted::NotNeeded,
            message: why,
            not_before: None,
            boot_id: self.record.boot.boot_id.clone(),
            preflight: Vec::new(),
            ignored: request.ignored.clone(),
        }
    }
}
