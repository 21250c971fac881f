//! When the API server is asked whether it serves a kind that a cluster may lack, and what its answers mean.
//!
//! Only a definite answer counts as absence: a failed request must not turn into "there are no such objects". Whatever
//! was known before an unclear answer stays known.

use std::time::Duration;

use super::backoff::Backoff;

/// Interval of looking for a kind that the API server does not serve.
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

/// What follows from the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Watch the kind in this version, until the API server no longer serves it.
    Watch(&'static str),
    /// The API server does not serve the kind: ask again after a pause.
    Absent {
        /// The driver has not received the empty list yet.
        is_news: bool,
        /// The pause.
        again: Duration,
    },
    /// Nothing is known: ask again after a pause.
    Unclear {
        /// This is the first unclear answer in a row.
        is_news: bool,
        /// The pause.
        again: Duration,
    },
}

/// What is known about one kind.
#[derive(Debug)]
pub struct Discovery {
    backoff: Backoff,
    /// The driver has received the empty list.
    is_absent: bool,
    /// The last answer was unclear.
    is_failing: bool,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { backoff: Backoff::new(SOON, LATEST), is_absent: false, is_failing: false }
    }
}

impl Discovery {
    /// The API server was asked about these versions, in the order of preference. Versions after the first one that is
    /// served may be missing.
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

    /// The API server no longer serves the version that was watched. `listed`: the watch had listed the kind. Returns
    /// the pause before the API server is asked again: discovery may list a kind whose requests are refused already.
    pub fn lost(&mut self, listed: bool) -> Duration {
        if listed {
            self.backoff.reset();
        }
        self.backoff.pause()
    }
}
