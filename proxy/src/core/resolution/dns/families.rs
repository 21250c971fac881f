//! The addresses of a name by family: which ones are kept when a family fails, and which query is next.

use std::{net::IpAddr, time::Duration};

use super::{
    answer::{Answer, Family, Pair},
    search::Outcome,
};

/// The shortest and longest time until addresses are queried again, whatever their TTL.
pub const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Time until a failed name or family is queried again.
pub const RETRY: Duration = Duration::from_secs(5);
/// The most addresses of a name that are used. Sessions compare all of them.
pub const MOST_ADDRESSES: usize = 256;

/// The state of a name. Times are those of the caller's clock.
#[derive(Debug, Default)]
pub struct Families {
    /// The full name that has the addresses.
    fqdn: Option<String>,
    states: Pair<State>,
    /// Whether the addresses come from the hosts file.
    is_listed: bool,
    /// Why the last search found nothing.
    failure: Option<String>,
    /// When both families are queried again.
    whole: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The last addresses, sorted.
    ips: Vec<IpAddr>,
    /// Why the last query failed.
    failure: Option<String>,
    /// When the family alone is queried again.
    again: Option<Duration>,
}

/// The present result for a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Its addresses, sorted, at most [`MOST_ADDRESSES`]. `None` before the first answer, and after a search that found
    /// nothing: the addresses in use stay, and another namespace may have found them since. Empty: the addresses in use
    /// came from the hosts file, which no longer has the name.
    pub addresses: Option<Vec<IpAddr>>,
    /// How many more addresses the name has.
    pub left_out: usize,
    /// Why the name fails, wholly or in one family; addresses of an earlier answer are kept.
    pub failure: Option<String>,
}

/// The next query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Both families, from the first candidate on.
    Whole,
    /// A family that has failed, while the other one was found.
    Family(Family),
}

impl Families {
    /// The full name that has the addresses.
    #[must_use]
    pub fn fqdn(&self) -> Option<&str> {
        self.fqdn.as_deref()
    }

    /// Takes the addresses of a name from the hosts file, which apply to both families.
    pub fn listed(&mut self, ips: &[IpAddr], now: Duration) -> Resolution {
        *self = Self { whole: now + TTL.1, is_listed: true, ..Self::default() };
        for ip in ips {
            let family = if ip.is_ipv4() { Family::Four } else { Family::Six };
            self.states.of(family).ips.push(*ip);
        }
        for state in [&mut self.states.four, &mut self.states.six] {
            state.ips.sort_unstable();
        }
        self.current()
    }

    /// Takes the result of a search.
    pub fn searched(&mut self, outcome: Outcome, now: Duration) -> Resolution {
        // A line that was removed from the hosts file ends its address, as in glibc. Addresses from DNS outlive
        // NXDOMAIN: a server may be wrong for a while.
        let is_removed = self.is_listed && outcome.is_definitely_nothing();
        match outcome {
            Outcome::Found { fqdn, answers } => {
                self.move_to(&fqdn);
                self.is_listed = false;
                self.failure = None;
                let ttl = answers.both().into_iter().filter_map(ttl).min().unwrap_or(RETRY);
                self.whole = now + ttl;
                let Pair { four, six } = answers;
                self.states.four.take(four, now);
                self.states.six.take(six, now);
            }
            Outcome::Nothing(why) => {
                self.failure = Some(why);
                self.whole = now + RETRY;
                (self.states.four.again, self.states.six.again) = (None, None);
                if is_removed {
                    (self.states, self.is_listed) = (Pair::default(), false);
                }
                return Resolution { addresses: is_removed.then(Vec::new), ..self.current() };
            }
        }
        self.current()
    }

    /// Takes the answer for a family that had failed.
    pub fn again(&mut self, family: Family, answer: Answer, now: Duration) -> Resolution {
        if let Some(ttl) = ttl(&answer) {
            self.whole = self.whole.min(now + ttl);
        }
        self.states.of(family).take(answer, now);
        self.current()
    }

    /// The next query, and how long after `now` it is due.
    #[must_use]
    pub fn due(&self, now: Duration) -> (Duration, Due) {
        let families = [(self.states.four.again, Family::Four), (self.states.six.again, Family::Six)];
        let alone = families.into_iter().filter_map(|(at, family)| Some((at?, Due::Family(family))));
        let first = alone.min_by_key(|(at, _)| *at).filter(|(at, _)| *at < self.whole);
        let (at, due) = first.unwrap_or((self.whole, Due::Whole));
        (at.saturating_sub(now), due)
    }

    /// How long after `now` both families are queried.
    #[must_use]
    pub fn whole_in(&self, now: Duration) -> Duration {
        self.whole.saturating_sub(now)
    }

    /// Drops the addresses if the full name has changed: they belong to another server.
    fn move_to(&mut self, fqdn: &str) {
        if self.fqdn.as_deref() != Some(fqdn) {
            self.fqdn = Some(fqdn.to_owned());
            self.states = Pair::default();
        }
    }

    fn current(&self) -> Resolution {
        let Pair { four, six } = &self.states;
        let half = MOST_ADDRESSES / 2;
        // Each family has half of the room, and the part that the other one leaves.
        let of_six = six.ips.len().min(half.max(MOST_ADDRESSES.saturating_sub(four.ips.len())));
        let of_four = four.ips.len().min(MOST_ADDRESSES - of_six);
        let addresses: Vec<IpAddr> =
            four.ips.iter().take(of_four).chain(six.ips.iter().take(of_six)).copied().collect();
        let left_out = four.ips.len() + six.ips.len() - addresses.len();
        let of = |state: &State, family: Family| {
            state.failure.as_ref().map(|why| format!("its {} addresses: {why}", family.as_str()))
        };
        let failure = self.failure.clone();
        let failure = failure.or_else(|| of(four, Family::Four)).or_else(|| of(six, Family::Six));
        Resolution { addresses: Some(addresses).filter(|all| !all.is_empty()), left_out, failure }
    }
}

impl State {
    /// A definite answer replaces the addresses; a failure keeps them.
    fn take(&mut self, answer: Answer, now: Duration) {
        match answer {
            Answer::Addresses { mut ips, .. } => {
                ips.sort_unstable();
                ips.dedup();
                *self = Self { ips, ..Self::default() };
            }
            Answer::NoData | Answer::OtherRecords | Answer::NxDomain => *self = Self::default(),
            Answer::Failed { why, .. } | Answer::Malformed { why } => {
                (self.failure, self.again) = (Some(why), Some(now + RETRY));
            }
        }
    }
}

/// How long addresses are valid, within the bounds.
fn ttl(answer: &Answer) -> Option<Duration> {
    match answer {
        Answer::Addresses { ttl, .. } => Some((*ttl).clamp(TTL.0, TTL.1)),
        _ => None,
    }
}
