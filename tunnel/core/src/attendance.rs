//! What a server logs about agents that connect and are lost. The number of lines is bounded, whatever agents do.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::hello::Instance;
use crate::identity::AgentName;
use crate::notices::Notice;
use crate::registry::Key;

#[cfg(test)]
mod tests;

/// How long a loss has to last until it is logged. An agent that reconnects is usually back within a second.
const LASTS: Duration = Duration::from_secs(3);
/// The time in which lines are counted.
const PERIOD: Duration = Duration::from_secs(60);
/// Most lines about one instance in a period. A later line then has the latest state.
const MOST_OF_ONE: usize = 4;
/// Most lines in a period. The rest are counted in one line.
const MOST: u64 = 64;
/// Most instances that are followed: more than an endpoint admits, and than can connect between two calls of
/// [`Attendance::observe`].
const FOLLOWED: usize = 4096;

/// An instance that has a session.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The instance.
    pub key: &'a Key,
    /// When its session began.
    pub since: Duration,
    /// Whether the session has a connection.
    pub attached: bool,
}

/// The last line about an instance. It names the session by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Connected(Duration),
    Lost(Duration),
}

#[derive(Debug)]
struct Of {
    agent: String,
    /// Where its last connection came from.
    from: SocketAddr,
    /// When its last session began.
    since: Duration,
    /// When it was first seen without a connection; `None` while it has one.
    lost: Option<Duration>,
    /// Whether it has no session.
    is_gone: bool,
    /// Why the last connection or session has ended.
    why: Option<String>,
    told: Told,
    /// The times of the lines in the last period.
    lines: VecDeque<Duration>,
    is_seen: bool,
}

impl Of {
    fn see(&mut self, seen: Seen<'_>, now: Duration) {
        (self.is_seen, self.is_gone, self.since) = (true, false, seen.since);
        if seen.attached {
            (self.lost, self.why) = (None, None);
        } else {
            self.lost.get_or_insert(now);
        }
    }

    fn leave(&mut self, now: Duration) {
        self.is_gone = true;
        self.lost.get_or_insert(now);
    }

    /// The state that a line is due for: whether the instance has a connection.
    fn due(&self, now: Duration) -> Option<bool> {
        match (self.lost, self.told) {
            (None, Told::Connected(since)) if since == self.since => None,
            (None, _) => Some(true),
            (Some(_), Told::Lost(_)) => None,
            // A session that has ended does not resume.
            (Some(at), _) => (self.is_gone || now.saturating_sub(at) >= LASTS).then_some(false),
        }
    }

    /// The message about a state that is due.
    fn message(&self, instance: &Instance, is_connected: bool) -> String {
        let from = self.from;
        if !is_connected {
            // A connection that was dropped has no reason of its own.
            let end = if self.is_gone { "its session has ended" } else { "its connection has ended" };
            let why = self.why.as_deref().unwrap_or(end);
            return format!("instance {instance}, which had connected from {from}, is lost: {why}");
        }
        match self.told {
            Told::Nothing => format!("instance {instance} has connected from {from}"),
            Told::Connected(since) | Told::Lost(since) if since == self.since => {
                format!("instance {instance} has connected from {from} again, and its streams continue")
            }
            Told::Connected(_) | Told::Lost(_) => {
                format!("instance {instance} has connected from {from} again, and its earlier streams have ended")
            }
        }
    }

    fn tell(&mut self, is_connected: bool) {
        self.told = if is_connected { Told::Connected(self.since) } else { Told::Lost(self.since) };
    }

    fn expire(&mut self, now: Duration) {
        while self.lines.front().is_some_and(|at| now.saturating_sub(*at) >= PERIOD) {
            self.lines.pop_front();
        }
    }

    /// Whether nothing is left to log, and no line counts any more.
    fn is_over(&self) -> bool {
        self.is_gone && self.lines.is_empty() && matches!(self.told, Told::Lost(_))
    }
}

/// The instances of agents, as the log has them. Only agents that were admitted are noted, so no stranger causes a
/// line.
#[derive(Debug, Default)]
pub struct Attendance {
    instances: BTreeMap<Key, Of>,
    /// When the period began: with its first line.
    began: Option<Duration>,
    /// The lines of the period, and those that were left out.
    lines: u64,
    left_out: u64,
}

impl Attendance {
    /// Notes that an instance was admitted.
    pub fn admitted(&mut self, key: &Key, agent: &AgentName, from: SocketAddr) {
        if let Some(of) = self.instances.get_mut(key) {
            of.from = from;
            return;
        }
        if self.instances.len() >= FOLLOWED {
            self.left_out += 1;
            return;
        }
        let of = Of {
            agent: agent.to_string(),
            from,
            since: Duration::ZERO,
            lost: None,
            is_gone: false,
            why: None,
            told: Told::Nothing,
            lines: VecDeque::new(),
            is_seen: false,
        };
        self.instances.insert(key.clone(), of);
    }

    /// Notes why the connection or the session of an instance has ended.
    pub fn ended(&mut self, key: &Key, why: String) {
        if let Some(of) = self.instances.get_mut(key) {
            of.why = Some(why);
        }
    }

    /// Takes all instances that have a session, and returns the lines to log at `now`, the time since any fixed start.
    pub fn observe<'a>(&mut self, seen: impl IntoIterator<Item = Seen<'a>>, now: Duration) -> Vec<Notice> {
        for of in self.instances.values_mut() {
            of.is_seen = false;
        }
        for seen in seen {
            if let Some(of) = self.instances.get_mut(seen.key) {
                of.see(seen, now);
            }
        }
        let mut notices: Vec<Notice> = self.end_of_period(now).into_iter().collect();
        for (key, of) in &mut self.instances {
            if !of.is_seen {
                of.leave(now);
            }
            of.expire(now);
            let Some(is_connected) = of.due(now).filter(|_| of.lines.len() < MOST_OF_ONE) else { continue };
            let message = of.message(&key.instance, is_connected);
            of.tell(is_connected);
            self.began.get_or_insert(now);
            if self.lines == MOST {
                self.left_out += 1;
                continue;
            }
            self.lines += 1;
            of.lines.push_back(now);
            let kind = if is_connected { "agent_connected" } else { "agent_lost" };
            notices.push(Notice { kind, subject: of.agent.clone(), message });
        }
        self.instances.retain(|_, of| !of.is_over());
        notices
    }

    /// Ends a period that is over. Returns a line about those that were left out.
    fn end_of_period(&mut self, now: Duration) -> Option<Notice> {
        self.began.filter(|began| now.saturating_sub(*began) >= PERIOD)?;
        let left_out = std::mem::take(&mut self.left_out);
        (self.began, self.lines) = (None, 0);
        (left_out > 0).then(|| {
            let connected = self.instances.values().filter(|of| of.lost.is_none()).count();
            let message = format!(
                "{left_out} more lines about agents that connected or were lost were left out; {connected} instances \
                 are connected now"
            );
            Notice { kind: "agents_left_out", subject: "tunnels".to_owned(), message }
        })
    }
}
