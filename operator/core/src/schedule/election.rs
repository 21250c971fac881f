//! Leader election by a Lease: when this replica may write the Lease, how long it leads, and when it tries again.
//!
//! A replica leads from the moment its write is accepted, and stops leading by its own clock before another replica may
//! take over. Clocks of other machines are not trusted: a Lease of another replica has lapsed once this replica has
//! seen no change of the Lease for its duration.

use std::time::Duration;

/// Lease duration: how long a Lease is valid without a renewal. With the pauses between two tries, another replica
/// leads 16 s after a leader has died, and proxies connect to the new leader within another second.
pub const DURATION: Duration = Duration::from_secs(12);
/// Renew deadline: how long a leader keeps leading without a successful renewal.
const DEADLINE: Duration = Duration::from_secs(8);
/// Retry period: the pause between two tries to acquire or renew the Lease.
const RETRY: Duration = Duration::from_secs(2);
/// Longest duration of another holder's Lease that this replica waits for.
const MAX_FOREIGN: Duration = Duration::from_secs(48);

/// A Lease as the API server returned it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Resource version.
    pub version: Option<String>,
    /// Identity of the holder; empty if the Lease was released.
    pub holder: String,
    /// Duration of the Lease, if it has a valid one.
    pub duration: Option<Duration>,
}

/// The next step of this replica with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the Lease: it is missing.
    Create,
    /// Take over the Lease, which begins a term.
    Acquire,
    /// Renew the Lease, which continues the term.
    Renew,
    /// Wait: another replica holds the Lease.
    Wait,
    /// The API server's store was restored to an earlier state: leave the election.
    SetBack,
}

/// The last seen state of a Lease that another replica holds.
#[derive(Debug)]
struct Foreign {
    version: Option<String>,
    since: Duration,
    duration: Duration,
}

/// The standing of this replica in the election. Times are durations since the replica joined.
#[derive(Debug)]
pub struct Standing {
    identity: String,
    foreign: Option<Foreign>,
    /// The highest resource version of the Lease that was seen.
    newest: u64,
    /// The time just before the request that last wrote the Lease; absent while this replica does not lead.
    renewed: Option<Duration>,
}

impl Standing {
    /// A replica that has not seen the Lease yet. The identity must be unique among all candidates.
    #[must_use]
    pub const fn new(identity: String) -> Self {
        Self { identity, foreign: None, newest: 0, renewed: None }
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.renewed.is_some_and(|renewed| now.saturating_sub(renewed) < DEADLINE)
    }

    /// Time until the renew deadline; unlimited while this replica does not lead.
    fn lasts(&self, now: Duration) -> Duration {
        self.renewed.map_or(Duration::MAX, |renewed| DEADLINE.saturating_sub(now.saturating_sub(renewed)))
    }

    /// Timeout of a try that begins now. Neither a try that hangs nor a pause may last beyond the renew deadline.
    #[must_use]
    pub fn patience(&self, now: Duration) -> Duration {
        self.lasts(now).min(RETRY * 2)
    }

    /// Records that a try ended, with or without success. Returns the pause until the next try. After the renew
    /// deadline the term is over.
    pub fn rest(&mut self, now: Duration) -> Duration {
        if !self.leads(now) {
            self.renewed = None;
        }
        self.lasts(now).min(RETRY)
    }

    /// Takes a read Lease; `None` if it does not exist.
    pub fn read(&mut self, lease: Option<&Observed>, now: Duration) -> Step {
        let Some(lease) = lease else {
            self.renewed = None;
            self.foreign = None;
            return Step::Create;
        };
        if self.is_older(lease) {
            self.renewed = None;
            return Step::SetBack;
        }
        if lease.holder != self.identity {
            self.renewed = None;
            if !lease.holder.is_empty() && !self.is_lapsed(lease, now) {
                return Step::Wait;
            }
        }
        if self.renewed.is_some() { Step::Renew } else { Step::Acquire }
    }

    /// Records that the API server accepted the write of a try that began at `asked`. Returns whether a term begins.
    pub fn wrote(&mut self, version: Option<&str>, asked: Duration) -> bool {
        self.newest = number(version).unwrap_or(self.newest);
        self.renewed.replace(asked).is_none()
    }

    /// Whether the API server returns an older Lease than before, which means that its store was restored. Resource
    /// versions are compared as numbers (KEP-5504); a recreated Lease has a higher one.
    fn is_older(&mut self, lease: &Observed) -> bool {
        let Some(version) = number(lease.version.as_deref()) else { return false };
        let is_older = version < self.newest;
        self.newest = self.newest.max(version);
        is_older
    }

    fn is_lapsed(&mut self, lease: &Observed, now: Duration) -> bool {
        match &self.foreign {
            Some(foreign) if foreign.version == lease.version => now.saturating_sub(foreign.since) > foreign.duration,
            _ => {
                let duration = lease.duration.unwrap_or(DURATION).min(MAX_FOREIGN);
                self.foreign = Some(Foreign { version: lease.version.clone(), since: now, duration });
                false
            }
        }
    }
}

fn number(version: Option<&str>) -> Option<u64> {
    version.and_then(|version| version.parse().ok())
}
