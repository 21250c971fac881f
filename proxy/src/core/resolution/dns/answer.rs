//! The answers of servers about one full name.

use std::{net::IpAddr, time::Duration};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

impl Family {
    /// The name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Four => "IPv4",
            Self::Six => "IPv6",
        }
    }
}

/// The answer of the servers about one full name in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name has these addresses.
    Addresses {
        /// The addresses, in any order.
        ips: Vec<IpAddr>,
        /// How long they are valid.
        ttl: Duration,
    },
    /// The name exists, but has no address of the family.
    NoData,
    /// The answer has records, but no address of the family: they belong to an alias that leads nowhere, or to other
    /// names. The name exists, so the search ends.
    OtherRecords,
    /// The name does not exist.
    NxDomain,
    /// The servers are silent or report errors.
    Failed {
        /// The last cause.
        why: String,
        /// Whether a server has answered SERVFAIL, or the name cannot be queried, so that the search continues as if
        /// the name did not exist.
        is_servfail: bool,
    },
    /// A server has answered with records that cannot be read. That is a failure, but the name exists, so the search
    /// ends.
    Malformed {
        /// The fault.
        why: String,
    },
}

impl Answer {
    /// Whether there are addresses.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        matches!(self, Self::Addresses { .. })
    }

    /// The addresses; empty if the answer has none.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Addresses { ips, .. } => ips,
            _ => &[],
        }
    }

    /// Whether the answer is a failure.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// The failure, if the answer is one.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed { why, .. } | Self::Malformed { why } => Some(why),
            Self::Addresses { .. } | Self::NoData | Self::OtherRecords | Self::NxDomain => None,
        }
    }

    /// Of two failures, the one that decides: SERVFAIL, or else the later one. Any other answer takes precedence over a
    /// failure.
    #[must_use]
    pub fn or_later(self, later: Self) -> Self {
        match (&self, &later) {
            (Self::Failed { is_servfail: true, .. }, Self::Failed { is_servfail: false, .. }) => self,
            (_, Self::Failed { .. }) if !self.is_failed() => self,
            _ => later,
        }
    }
}

/// One value for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair<T> {
    /// IPv4.
    pub four: T,
    /// IPv6.
    pub six: T,
}

impl<T> Pair<T> {
    /// Both values.
    pub fn both(&self) -> [&T; 2] {
        [&self.four, &self.six]
    }

    /// The value of a family, for modification.
    pub fn of(&mut self, family: Family) -> &mut T {
        match family {
            Family::Four => &mut self.four,
            Family::Six => &mut self.six,
        }
    }
}

impl Pair<Option<IpAddr>> {
    /// The address to connect to after this many failed attempts. The families take turns, so that an unreachable
    /// family is left and one that works is kept. Of four attempts, the second and the third use the second family, so
    /// that each family meets both states of anything else that alternates.
    #[must_use]
    pub fn after(&self, failures: u64) -> Option<IpAddr> {
        let is_swapped = (failures ^ (failures >> 1)) & 1 == 1;
        let [first, second] = if is_swapped { [self.six, self.four] } else { [self.four, self.six] };
        first.or(second)
    }
}
