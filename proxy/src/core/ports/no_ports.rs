//! Datagrams to UDP ports without a socket, as the kernel counts them for a network namespace. Among them are answers
//! from another port than the queried one: sockets to endpoints are connected and do not receive them.

use std::mem;

/// Shortest pause between two notices, in seconds.
const PAUSE: u64 = 600;

/// The number of such datagrams over IPv4 and IPv6, from the texts of `/proc/net/snmp` and `/proc/net/snmp6`; `None` if
/// neither has it.
#[must_use]
pub fn count(snmp: &str, snmp6: &str) -> Option<u64> {
    match (count_v4(snmp), count_v6(snmp6)) {
        (None, None) => None,
        (four, six) => Some(four.unwrap_or(0).saturating_add(six.unwrap_or(0))),
    }
}

/// A line names the columns of the next line of its protocol.
fn count_v4(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "NoPorts")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

fn count_v6(snmp6: &str) -> Option<u64> {
    snmp6.lines().find_map(|line| line.strip_prefix("Udp6NoPorts"))?.trim().parse().ok()
}

/// The state of the count of these datagrams.
#[derive(Debug)]
pub struct NoPorts {
    /// The count at the last observation.
    last: Option<u64>,
    /// Whether flows were live at the last observation.
    had_flows: bool,
    /// Datagrams since the last notice.
    unlogged: u64,
    /// Time of the last notice, in seconds of the process clock.
    logged_at: Option<u64>,
}

/// The datagrams since earlier observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Datagrams since the last observation, while flows were live.
    pub new: u64,
    /// Datagrams since the last notice, if a notice is due.
    pub to_log: Option<u64>,
}

impl NoPorts {
    /// Starts counting from this number.
    #[must_use]
    pub fn since(count: Option<u64>) -> Self {
        Self { last: count, had_flows: false, unlogged: 0, logged_at: None }
    }

    /// Takes the present count at `now` (seconds); `None` if it is unknown. Datagrams from a time without flows do not
    /// concern the proxy. A notice is due at the first datagram, and then every ten minutes while there are more.
    pub fn observe(&mut self, count: Option<u64>, has_flows: bool, now: u64) -> Found {
        let had = mem::replace(&mut self.had_flows, has_flows);
        let before = mem::replace(&mut self.last, count);
        let new = match (before, count) {
            (Some(before), Some(count)) if has_flows || had => count.saturating_sub(before),
            _ => 0,
        };
        self.unlogged = self.unlogged.saturating_add(new);
        let is_due = self.logged_at.is_none_or(|at| now.saturating_sub(at) >= PAUSE);
        if self.unlogged == 0 || !is_due {
            return Found { new, to_log: None };
        }
        self.logged_at = Some(now);
        Found { new, to_log: Some(mem::take(&mut self.unlogged)) }
    }
}
