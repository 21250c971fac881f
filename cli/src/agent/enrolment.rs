//! The identity of the agent: from its folder, or from a join string.

use std::sync::Arc;

use proxy::log::{Level, Log};
use proxy_api::with_causes;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::time::{Instant, sleep};
use tunnel::{
    enrol::{EnrolError, Way, enrol},
    identity::agent::{AgentFolder, AgentKey, Enrolled, Joined},
};
use tunnel_core::{
    Dialler,
    identity::Span,
    join::{Address, JoinString},
};

use super::{
    ENROL_WITHIN as WITHIN, args::Secret, chance, damper::Damper, error::Error, settings::Settings, telling::next,
};

/// An agent that may dial its server.
pub(super) struct Member {
    pub(super) folder: AgentFolder,
    pub(super) key: AgentKey,
    pub(super) enrolled: Enrolled,
    /// The addresses of the server.
    pub(super) addresses: Vec<Address>,
    pub(super) way: Way,
}

impl Member {
    /// Enrols if there is a join string that was not redeemed here, however long that takes, and otherwise continues
    /// with the earlier identity.
    pub(super) async fn join(settings: &Settings, join: Option<&Secret>, log: &Log) -> Result<Self, Error> {
        let folder = AgentFolder::open(&settings.data)?;
        let clock = Arc::new(DefaultTimeProvider);
        let way = Way { proxy: settings.proxy.clone(), within: WITHIN, clock: clock.clone() };
        let text = join.map(Secret::text);
        let read = text.map(JoinString::parse).transpose().map_err(EnrolError::from)?;
        let joined = folder.joined()?;
        let key = folder.key()?;
        let now = clock.current_time().map_or(0, |now| now.as_secs());
        let kept = if is_new(read.as_ref(), joined.as_ref()) { None } else { folder.enrolled(&key, now)? };
        let (enrolled, addresses) = match (kept, joined, text.zip(read)) {
            (Some(kept), Some(joined), _) => {
                let left = Span(kept.not_after.saturating_sub(now));
                let message = format!("uses its present certificate, which is valid for another {left}");
                log.notice(Level::Info, "enrolled", kept.identity.agent().to_string(), message);
                (kept, joined.addresses)
            }
            (_, _, Some((text, read))) => {
                let enrolled = redeem(text, &read, &folder, &way, log).await?;
                (enrolled, read.addresses().to_vec())
            }
            (_, _, None) => return Err(Error::NotEnrolled(settings.data.clone())),
        };
        Ok(Self { folder, key, enrolled, addresses, way })
    }
}

/// Whether a join string differs from the one that was redeemed here last.
fn is_new(join: Option<&JoinString>, joined: Option<&Joined>) -> bool {
    join.is_some_and(|join| joined.is_none_or(|joined| joined.token != join.token().fingerprint()))
}

/// Redeems a join string, with retries until the server answers.
async fn redeem(
    text: &str,
    join: &JoinString,
    folder: &AgentFolder,
    way: &Way,
    log: &Log,
) -> Result<Enrolled, EnrolError> {
    let (mut dialler, mut damper, start) = (Dialler::default(), Damper::default(), Instant::now());
    let agent = join.agent().to_string();
    loop {
        match enrol(text, folder, way).await {
            Ok(enrolled) => {
                log.notice(Level::Info, "enrolled", agent, "with the join string, which this agent no longer needs");
                return Ok(enrolled);
            }
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                let pause = dialler.pause(None, chance());
                let why = with_causes(&error);
                if damper.tells("enrol", &why, start.elapsed()) {
                    log.notice(Level::Warn, "enrolment", agent.as_str(), format!("{why}; {}", next(pause)));
                }
                sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_core::{
        identity::{AgentName, Fingerprint},
        join::Token,
    };

    use super::*;

    #[test]
    fn only_another_join_string_than_the_last_one_is_redeemed() {
        let join = |token: u8| {
            let (address, agent) = (Address::new("a", 1), AgentName::new("home", "pi4"));
            let (address, agent) = (address.expect("an address"), agent.expect("names"));
            let root = Fingerprint::of(b"root");
            JoinString::new(vec![address], root, agent, 1, Token::new([token; 32])).expect("a join string")
        };
        let (first, second) = (join(1), join(2));
        let joined = Joined::of(&first);
        assert!(is_new(Some(&first), None) && is_new(Some(&second), Some(&joined)));
        assert!(!is_new(Some(&first), Some(&joined)) && !is_new(None, Some(&joined)) && !is_new(None, None));
    }
}
