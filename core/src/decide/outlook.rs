//! What stands between a request and the reboot, and whether the request waits for
//! it, passes over it, or ends.

use iotdm_proto::OnInhibitor;
use iotdm_proto::reply::PreflightCheck;
use iotdm_proto::request::{OnPreflight, Terms};

use super::refusal::Refusal;

/// How many checks that object are told.
const MAX_OBJECTIONS: usize = 10;

/// What logind and the preflight checks say about a reboot now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Whether logind would reboot. Inhibitors are told before anything else.
    pub permission: Result<(), Refusal>,
    /// What each preflight check says; empty where there are none, or where they
    /// were not asked for.
    pub preflight: Vec<PreflightCheck>,
}

/// What a request says about obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    pub(super) on_inhibitor: OnInhibitor,
    pub(super) on_preflight: OnPreflight,
}

/// What an outlook means for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weighed {
    /// Nothing is in the way that the request minds.
    Go,
    /// The request waits until this is over.
    Wait(Refusal),
    /// The request cannot be carried out.
    Stop(Refusal),
}

impl Default for Manners {
    fn default() -> Self {
        Manners { on_inhibitor: OnInhibitor::Fail, on_preflight: OnPreflight::Fail }
    }
}

impl Manners {
    /// What the terms of a call or a wish say.
    pub(super) fn of(terms: &Terms) -> Self {
        Manners { on_inhibitor: terms.on_inhibitor(), on_preflight: terms.on_preflight() }
    }

    /// Whether what the preflight checks say makes any difference.
    pub(super) fn mind_preflight(self) -> bool {
        self.on_preflight != OnPreflight::Override
    }
}

impl Outlook {
    /// The outlook where the checks were not asked for.
    pub fn of(permission: Result<(), Refusal>) -> Self {
        Outlook { permission, preflight: Vec::new() }
    }

    /// Weighs the obstacles in the order in which they are told: inhibitors, the
    /// preflight checks, and what is wrong with logind.
    pub(super) fn weigh(self, manners: Manners) -> Weighed {
        let objections = self.objections();
        let mut rest = Weighed::Go;
        if let Err(refusal) = self.permission {
            match (&refusal, manners.on_inhibitor) {
                (Refusal::Blocked(_), OnInhibitor::Fail) => return Weighed::Stop(refusal),
                (Refusal::Blocked(_), OnInhibitor::Wait) => return Weighed::Wait(refusal),
                (Refusal::Blocked(_), OnInhibitor::Override) => {}
                _ => rest = Weighed::Stop(refusal),
            }
        }
        match objections {
            Some(refusal) if manners.on_preflight == OnPreflight::Fail => Weighed::Stop(refusal),
            Some(refusal) if manners.on_preflight == OnPreflight::Wait => Weighed::Wait(refusal),
            _ => rest,
        }
    }

    /// The preflight checks that object, if any does.
    pub(super) fn objections(&self) -> Option<Refusal> {
        let objections: Vec<PreflightCheck> =
            self.preflight.iter().filter(|check| !check.passed).take(MAX_OBJECTIONS).cloned().collect();
        (!objections.is_empty()).then_some(Refusal::Objected(objections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_are_weighed_in_their_order() {
        let blocked = || Err(Refusal::Blocked(Vec::new()));
        let silent = || Err(Refusal::LogindUnavailable("no bus".into()));
        let objection = PreflightCheck::objecting("fstab", "no device");
        let objected = || Refusal::Objected(vec![objection.clone()]);
        let weigh = |permission, objects: bool, on_inhibitor, on_preflight| {
            let preflight = match objects {
                true => vec![PreflightCheck::passing("dpkg"), objection.clone()],
                false => vec![PreflightCheck::passing("dpkg")],
            };
            Outlook { permission, preflight }.weigh(Manners { on_inhibitor, on_preflight })
        };
        use {OnInhibitor as I, OnPreflight as P};
        assert_eq!(weigh(Ok(()), false, I::Fail, P::Fail), Weighed::Go);
        assert_eq!(weigh(Ok(()), true, I::Fail, P::Fail), Weighed::Stop(objected()));
        assert_eq!(weigh(Ok(()), true, I::Fail, P::Wait), Weighed::Wait(objected()));
        assert_eq!(weigh(Ok(()), true, I::Fail, P::Override), Weighed::Go);
        assert_eq!(weigh(blocked(), true, I::Fail, P::Override), Weighed::Stop(blocked().unwrap_err()));
        assert_eq!(weigh(blocked(), true, I::Wait, P::Fail), Weighed::Wait(blocked().unwrap_err()));
        assert_eq!(weigh(blocked(), true, I::Override, P::Fail), Weighed::Stop(objected()));
        assert_eq!(weigh(blocked(), true, I::Override, P::Override), Weighed::Go);
        assert_eq!(weigh(silent(), true, I::Fail, P::Fail), Weighed::Stop(objected()));
        assert_eq!(weigh(silent(), true, I::Fail, P::Override), Weighed::Stop(silent().unwrap_err()));
        assert_eq!(weigh(silent(), false, I::Override, P::Wait), Weighed::Stop(silent().unwrap_err()));
    }
}
