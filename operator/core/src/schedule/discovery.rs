//! Schedules discovery of kinds that a cluster may lack, and interprets the answers of the API server.
//!
//! Only a definite answer counts as absence: a failed request must not turn into "there are no such objects". An
//! unclear answer leaves earlier knowledge in place.

use std::time::Duration;

use super::backoff::Backoff;

/// Interval of discovery for a kind that the API server does not serve.
const LOOK: Duration = Duration::from_secs(30);
/// First pause after an unclear answer.
const SOON: Duration = Duration::from_millis(250);
/// Longest pause after unclear answers.
const LATEST: Duration = Duration::from_secs(30);

/// Whether the API server serves a kind in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The version lists the kind.
    Yes,
    /// The version does not exist, or does not list the kind.
    No,
    /// The request failed, which proves nothing about the kind.
    Unclear,
}

/// The next step after discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Watch the kind in this version, until the API server no longer serves it.
    Watch(&'static str),
    /// The API server does not serve the kind: repeat discovery after a pause.
    Absent {
        /// Whether the driver has not received the empty list yet.
        is_news: bool,
        /// The pause.
        again: Duration,
    },
    /// Nothing is known: repeat discovery after a pause.
    Unclear {
        /// Whether this is the first unclear answer in a row.
        is_news: bool,
        /// The pause.
        again: Duration,
    },
}

/// The state of discovery for one kind.
#[derive(Debug)]
pub struct Discovery {
    backoff: Backoff,
    /// Whether the driver has received the empty list.
    is_absent: bool,
    /// Whether the last answer was unclear.
    is_failing: bool,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { backoff: Backoff::new(SOON, LATEST), is_absent: false, is_failing: false }
    }
}

impl Discovery {
    /// Takes the answers of the API server about these versions, in the order of preference. Versions after the first
    /// one that is served may be missing.
    pub fn answered(&mut self, answers: &[(&'static str, Served)]) -> Next {
        if let Some(&(version, _)) = answers.iter().find(|(_, served)| *served == Served::Yes) {
            self.is_failing = false;
            self.is_absent = false;
            return Next::Watch(version);
        }
        if answers.iter().any(|(_, served)| *served == Served::Unclear) {
            let is_news = !std::mem::replace(&mut self.is_failing, true);
            return Next::Unclear { is_news, again: self.backoff.pause() };
        }
        self.is_failing = false;
        self.backoff.reset();
        Next::Absent { is_news: !std::mem::replace(&mut self.is_absent, true), again: LOOK }
    }

    /// Records that the API server no longer serves the watched version. `listed` says whether the watch had listed the
    /// kind. Returns the pause before the next discovery: the API server may list a kind whose requests it refuses
    /// already.
    pub fn lost(&mut self, listed: bool) -> Duration {
        if listed {
            self.backoff.reset();
        }
        self.backoff.pause()
    }
}
