//! The join strings of agents that may enrol. Their files are logged, and never they themselves.

use std::{collections::BTreeMap, error::Error, io, time::Duration};

use proxy_api::{Agent, Enrolment};
use tunnel::local::{Local, LocalError, Offer, Wanted};
use tunnel_core::{
    identity::{AgentIdentity, AgentName, NameError},
    join::Address,
};

use crate::log::{Level, Log};

/// Why an agent has no join string.
#[derive(Debug, thiserror::Error)]
enum JoinsError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// The join strings that are offered, by the uid of their agent.
#[derive(Debug)]
pub(super) struct Joins {
    addresses: Vec<Address>,
    offers: BTreeMap<String, Offer>,
}

impl Joins {
    /// None yet. Agents reach the server at these addresses.
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        Self { addresses, offers: BTreeMap::new() }
    }

    /// Offers a join string for each agent of a configuration that may enrol, and for no other.
    pub(super) fn apply(&mut self, local: &Local, agents: &BTreeMap<String, Agent>, log: &Log) {
        let before = std::mem::take(&mut self.offers);
        for (uid, agent) in agents {
            let Some(enrolment) = agent.enrolment else { continue };
            match self.offer(local, uid, agent, enrolment) {
                Ok(Some(offer)) => {
                    if before.get(uid) != Some(&offer) {
                        let message = format!("enrols with the join string in {}", offer.path.display());
                        log.notice(Level::Info, "join", name(agent), message);
                    }
                    self.offers.insert(uid.clone(), offer);
                }
                Ok(None) => {}
                Err(error) => log.notice(Level::Error, "join", name(agent), format!("cannot enrol: {}", chain(&error))),
            }
        }
        // A later agent of the same name may have taken the file.
        for offer in before.values().filter(|offer| !self.offers.values().any(|other| other.path == offer.path)) {
            withdraw(local, offer, log);
        }
    }

    fn offer(
        &self,
        local: &Local,
        uid: &str,
        agent: &Agent,
        enrolment: Enrolment,
    ) -> Result<Option<Offer>, JoinsError> {
        let identity = AgentIdentity::new(AgentName::new(&agent.namespace, &agent.name)?, uid, agent.rotation)?;
        let expire = Duration::from_secs(enrolment.expire_seconds.into());
        let wanted = Wanted { redemptions: enrolment.redemptions, expire, addresses: &self.addresses };
        Ok(local.offer(&identity, wanted, token)?)
    }

    /// Removes join strings that are worth nothing any more.
    pub(super) fn look(&mut self, local: &Local, log: &Log) {
        self.offers.retain(|_, offer| {
            let is_live = local.is_live(offer);
            if !is_live {
                let message = "its join string was used or has expired, and is removed; if it has expired, another one is \
                               made when this program starts again or the manifests change";
                log.notice(Level::Info, "join", offer.identity.agent().to_string(), message);
                withdraw(local, offer, log);
            }
            is_live
        });
    }
}

fn withdraw(local: &Local, offer: &Offer, log: &Log) {
    if let Err(error) = local.withdraw(offer) {
        log.notice(Level::Warn, "join", offer.identity.agent().to_string(), chain(&error));
    }
}

fn name(agent: &Agent) -> String {
    format!("{}/{}", agent.namespace, agent.name)
}

fn token() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// An error with its causes, as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
