//! The identity of the agent: from its folder, or from a join string.

use std::{io, sync::Arc};

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
    enrolment::EnrolReason,
    identity::{Fingerprint, Span},
    join::{Address, JoinString},
};

use super::{
    ENROL_WITHIN as WITHIN, args::Secret, chance, damper::Damper, error::Error, settings::Settings, telling::next,
};

/// Reads the join string, if there is one. An agent that has enrolled needs none, and its file may be gone or empty.
pub(super) fn read(settings: &Settings) -> Result<Option<Secret>, Error> {
    let Some(join) = &settings.join else { return Ok(None) };
    let has_enrolled = AgentFolder::has_enrolled(&settings.data);
    match join.read() {
        Err(Error::Join { source, .. }) if has_enrolled && source.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(secret) if has_enrolled && secret.text().trim().is_empty() => Ok(None),
        read => read.map(Some),
    }
}

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
    pub(super) async fn join(
        folder: AgentFolder,
        settings: &Settings,
        join: Option<&Secret>,
        log: &Log,
    ) -> Result<Self, Error> {
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
                announce(&kept, now, log);
                (kept, joined.addresses)
            }
            (_, joined, Some((text, read))) => match redeem(text, &read, &folder, &way, log).await {
                Ok(enrolled) => (enrolled, read.addresses().to_vec()),
                Err(error) => {
                    let kept = remaining(&error, &read, &folder, &key, now).zip(joined);
                    let Some((kept, joined)) = kept else { return Err(error.into()) };
                    log.notice(Level::Warn, "enrolment", read.agent().to_string(), with_causes(&error));
                    announce(&kept, now, log);
                    (kept, joined.addresses)
                }
            },
            (_, _, None) => return Err(Error::NotEnrolled(settings.data.clone())),
        };
        Ok(Self { folder, key, enrolled, addresses, way })
    }
}

/// Whether a join string differs from the one that was redeemed here last.
fn is_new(join: Option<&JoinString>, joined: Option<&Joined>) -> bool {
    join.is_some_and(|join| joined.is_none_or(|joined| joined.token != join.token().fingerprint()))
}

/// Logs that an agent continues with its identity.
fn announce(kept: &Enrolled, now: u64, log: &Log) {
    let left = Span(kept.not_after.saturating_sub(now));
    let message = format!("uses its present certificate, which is valid for another {left}");
    log.notice(Level::Info, "enrolled", kept.identity.agent().to_string(), message);
}

/// The identity of the same agent at the same server, from an earlier join string, if this one cannot be redeemed any
/// more. It may have stayed in a file after another machine has redeemed it.
fn remaining(
    error: &EnrolError,
    join: &JoinString,
    folder: &AgentFolder,
    key: &AgentKey,
    now: u64,
) -> Option<Enrolled> {
    let is_spent = match error {
        EnrolError::Expired { .. } => true,
        EnrolError::Refused(refusal) => refusal.reason == EnrolReason::Token,
        _ => false,
    };
    let kept = if is_spent { folder.enrolled(key, now).ok().flatten()? } else { return None };
    let is_same = kept.identity.agent() == join.agent() && Fingerprint::of(&kept.root) == join.root();
    is_same.then_some(kept)
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
    use std::fs;

    use tunnel_core::{identity::AgentName, join::Token};

    use super::*;
    use crate::agent::args::tests::{file, options};

    #[test]
    fn only_an_agent_that_has_not_enrolled_needs_its_join_string() {
        let folder = tempfile::tempdir().expect("a folder");
        let [data, join] = ["data", "join"].map(|name| folder.path().join(name));
        let words = ["--data", data.to_str().expect("UTF-8"), "--join-file", join.to_str().expect("UTF-8")];
        let settings = Settings::new(&options(&words), &file(""), |_| None, "pi4").expect("valid settings");
        let text = || read(&settings).map(|secret| secret.map(|secret| secret.text().to_owned()));
        assert_eq!(text().expect_err("there is no file").code(), 2);
        fs::create_dir(&data).expect("made");
        for name in ["key.pem", "certificate.pem", "joined"] {
            text().expect_err("it has not enrolled yet");
            fs::write(data.join(name), "x").expect("written");
        }
        assert_eq!(text().expect("it has enrolled"), None);
        fs::write(&join, "\n").expect("written");
        assert_eq!(text().expect("the file is empty"), None);
        fs::write(&join, "another").expect("written");
        assert_eq!(text().expect("readable").as_deref(), Some("another"));
    }

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
