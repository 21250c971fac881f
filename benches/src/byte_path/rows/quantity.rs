//! What is measured of a row.

/// A measured quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    /// Operations or GiB per second.
    Rate,
    /// CPU of the forwarder for each operation or GiB, in seconds.
    Cpu,
    /// The same with client and servers.
    Sum,
    /// The share of the time in which the forwarder had a CPU. Far below 1, the load is what limits the rate.
    Busy,
    P50,
    P99,
    P999,
    /// The share of datagrams that were lost, or of operations that failed.
    Lost,
    /// Bytes for each idle connection that has echoed 100 bytes.
    Cold,
    /// The same after a burst on every connection.
    Warm,
    /// Bytes that are left for each connection after all have ended.
    Left,
    /// Files for each connection.
    Files,
    Anon,
    Rss,
    /// Changes that took effect.
    Edits,
    Broken,
    Refused,
    Corrupt,
    /// The longest wait of a paced stream without changes.
    CalmStall,
    /// The same with changes.
    Stall,
    EffectP50,
    EffectP99,
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cpu => "CPU of the forwarder",
            Self::Sum => "CPU of client, forwarder and servers",
            Self::Busy => "forwarder busy",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Lost => "lost or failed",
            Self::Cold | Self::Anon => "RssAnon",
            Self::Warm => "RssAnon after a burst on each",
            Self::Left => "RssAnon left for each after all have ended",
            Self::Files => "files",
            Self::Rss => "RSS",
            Self::Edits => "changes",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::CalmStall => "stall without changes",
            Self::Stall => "stall",
            Self::EffectP50 => "change to effect p50",
            Self::EffectP99 => "change to effect p99",
        }
    }

    /// Whether each unit is a failure, so that the worst round counts and not the median.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Lost | Self::Broken | Self::Refused | Self::Corrupt)
    }

    /// Whether more is better.
    pub(crate) fn is_better_if_more(self) -> bool {
        matches!(self, Self::Rate | Self::Edits)
    }
}
