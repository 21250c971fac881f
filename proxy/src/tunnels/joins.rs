//! The join strings of agents that may enrol. Logs name their files, never the strings.

use std::{collections::BTreeMap, io, mem, time::Duration};

use proxy_api::{Agent, Enrolment, with_causes};
use tokio::time::Instant;
use tunnel::local::{Local, LocalError, Offer, Wanted};
use tunnel_core::{
    identity::{AgentIdentity, AgentName, NameError},
    join::Address,
};

use crate::{
    core::logging::fault::Fault,
    log::{Level, Log},
};

#[cfg(test)]
mod tests;

/// Pause after a failure, such as a full disk.
const PAUSE: Duration = Duration::from_secs(60);

/// Why an agent has no join string.
#[derive(Debug, thiserror::Error)]
enum JoinsError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// The means to create and report join strings.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    /// The folder.
    pub(super) local: &'a Local,
    /// The addresses at which agents reach the server.
    pub(super) addresses: &'a [Address],
    /// The log.
    pub(super) log: &'a Log,
    /// The present time.
    pub(super) now: Instant,
}

/// The join strings of the agents that may enrol, by uid.
#[derive(Debug, Default)]
pub(super) struct Joins(BTreeMap<String, Standing>);

/// The state of an agent's join string.
#[derive(Debug)]
struct Standing {
    agent: Agent,
    enrolment: Enrolment,
    /// The join string that was made last.
    offer: Option<Offer>,
    fault: Fault,
    /// The time of the next attempt to make one, if the last attempt failed.
    retry: Option<Instant>,
}

impl Joins {
    /// Offers a join string to each agent of a configuration that may enrol, and withdraws all others.
    pub(super) fn apply(&mut self, maker: Maker<'_>, agents: &BTreeMap<String, Agent>) {
        let mut before = mem::take(&mut self.0);
        for (uid, agent) in agents {
            let Some(enrolment) = agent.enrolment else { continue };
            let known = before.remove(uid).map(|known| (known.offer, known.fault, known.retry));
            let (offer, fault, retry) = known.unwrap_or_default();
            let mut standing = Standing { agent: agent.clone(), enrolment, offer, fault, retry };
            if standing.see_to(maker, uid) {
                self.0.insert(uid.clone(), standing);
            }
        }
        // A later agent of the same name may have taken the file.
        let used: Vec<&Offer> = self.0.values().filter_map(|standing| standing.offer.as_ref()).collect();
        let gone = before.values().filter_map(|standing| standing.offer.as_ref());
        for offer in gone.filter(|offer| !used.iter().any(|other| other.path == offer.path)) {
            withdraw(maker, offer);
        }
    }

    /// Replaces join strings that have expired, and forgets those that are used up.
    pub(super) fn look(&mut self, maker: Maker<'_>) {
        self.0.retain(|uid, standing| !standing.is_due(maker) || standing.see_to(maker, uid));
    }
}

impl Standing {
    fn is_due(&self, maker: Maker<'_>) -> bool {
        let is_live = self.offer.as_ref().is_some_and(|offer| maker.local.is_live(offer));
        is_due(is_live, self.retry, maker.now)
    }

    /// Makes sure that the agent has a valid join string. Returns whether an agent may still enrol.
    fn see_to(&mut self, maker: Maker<'_>, uid: &str) -> bool {
        match self.make(maker, uid) {
            Ok(Some(offer)) => {
                self.tell(maker, &offer);
                (self.offer, self.retry) = (Some(offer), None);
                self.fault.works();
                true
            }
            Ok(None) => {
                if self.offer.is_some() {
                    self.say(maker, Level::Info, "its join string is used up, and was removed".to_owned());
                }
                false
            }
            Err(error) => {
                let why = with_causes(&error);
                if self.fault.fails(&why) {
                    let seconds = PAUSE.as_secs();
                    let message = format!("cannot issue a join string: {why}; will retry every {seconds} s");
                    self.say(maker, Level::Error, message);
                }
                self.retry = Some(maker.now + PAUSE);
                true
            }
        }
    }

    fn make(&self, maker: Maker<'_>, uid: &str) -> Result<Option<Offer>, JoinsError> {
        let agent = AgentName::new(&self.agent.namespace, &self.agent.name)?;
        let identity = AgentIdentity::new(agent, uid, self.agent.rotation)?;
        let expire = Duration::from_secs(self.enrolment.expire_seconds.into());
        let wanted = Wanted { redemptions: self.enrolment.redemptions, expire, addresses: maker.addresses };
        Ok(maker.local.offer(&identity, wanted, token)?)
    }

    /// Logs a join string if it is not the one before.
    fn tell(&self, maker: Maker<'_>, offer: &Offer) {
        let path = offer.path.display();
        let message = match &self.offer {
            Some(before) if before == offer => return,
            Some(before) if before.identity == offer.identity && !maker.local.is_live(before) => {
                format!("its join string has expired; the next one is in {path}")
            }
            _ => format!("enrols with the join string in {path}"),
        };
        self.say(maker, Level::Info, message);
    }

    fn say(&self, maker: Maker<'_>, level: Level, message: String) {
        maker.log.notice(level, "join", format!("{}/{}", self.agent.namespace, self.agent.name), message);
    }
}

/// Whether a join string needs attention: it is no longer valid, and a retry after a failure is due.
fn is_due(is_live: bool, retry: Option<Instant>, now: Instant) -> bool {
    retry.map_or(!is_live, |at| at <= now)
}

fn withdraw(maker: Maker<'_>, offer: &Offer) {
    if let Err(error) = maker.local.withdraw(offer) {
        maker.log.notice(Level::Warn, "join", offer.identity.agent().to_string(), with_causes(&error));
    }
}

fn token() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
