//! Which server gets a query, and for how long.

use std::time::Duration;

use super::resolv_conf::ResolvConf;

/// The longest time for a query about one full name in one family. Beyond it, every wait is shortened, so that each
/// server is still queried as often as `attempts` says.
pub const QUESTION: Duration = Duration::from_secs(20);
/// How long a silent server is the only one that is queried. glibc waits for the whole timeout.
pub const STAGGER: Duration = Duration::from_secs(1);

/// One query to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Position of the server in the configuration.
    pub server: usize,
    /// Time for the answer.
    pub timeout: Duration,
    /// Whether the try may begin while the server before it is silent. A new round over all servers waits for the end
    /// of the round before.
    pub may_overlap: bool,
}

/// The tries of one query, in their order. `turn` counts queries, for `rotate`. Without `may_overlap`, each try waits
/// for the end of the one before.
#[must_use]
pub fn tries(conf: &ResolvConf, turn: usize, may_overlap: bool) -> Vec<Try> {
    let count = conf.servers.len().max(1);
    let first = if conf.has(super::resolv_conf::Flag::Rotate) { turn % count } else { 0 };
    let round: Duration = (0..count).map(|at| timeout(conf, at)).sum();
    let all = round.saturating_mul(conf.attempts.max(1));
    let share = (QUESTION.as_secs_f64() / all.as_secs_f64().max(1.0)).min(1.0);
    let of = |at: usize| Try {
        server: (first + at) % count,
        timeout: timeout(conf, at).mul_f64(share),
        may_overlap: may_overlap && at > 0,
    };
    (0..conf.attempts.max(1)).flat_map(|_| (0..count).map(of)).collect()
}

/// The time to answer for the server at this position of a round: doubled for each server before it, divided by their
/// number, and at least a second.
fn timeout(conf: &ResolvConf, at: usize) -> Duration {
    let doublings = u32::try_from(at).unwrap_or(u32::MAX).min(8);
    let mut seconds = conf.timeout.as_secs() << doublings;
    if at > 0 {
        seconds /= conf.servers.len().max(1) as u64;
    }
    Duration::from_secs(seconds.max(1))
}
