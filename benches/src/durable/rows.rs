//! The rows of the table: what is measured with which forwarders, and the goals.

use clap::ValueEnum;

use crate::unit::{MIB, Unit};

/// A forwarder, and when it syncs what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Portlane(Syncs),
    Rsyslog(Syncs),
    /// It never syncs.
    SyslogNg,
}

/// When messages are synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Syncs {
    /// Later: Portlane within half a second, rsyslog when the system likes.
    Later,
    /// After each write to the log.
    AtOnce,
}

/// A load, or the start with a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// Lines of 64 bytes over TCP while the sink is away, then their delivery over TCP.
    #[value(name = "tcp-64")]
    Tcp64,
    /// Lines of 512 bytes.
    #[value(name = "tcp-512")]
    Tcp512,
    /// Lines of 4,096 bytes.
    #[value(name = "tcp-4096")]
    Tcp4096,
    /// Datagrams of 64 bytes while the sink is away.
    #[value(name = "udp-64")]
    Udp64,
    /// Datagrams of 512 bytes.
    #[value(name = "udp-512")]
    Udp512,
    /// Datagrams of 4,096 bytes.
    #[value(name = "udp-4096")]
    Udp4096,
    /// Delivery by RELP of lines of 512 bytes.
    #[value(name = "relp-512")]
    Relp,
    /// Delivery of a backlog of lines of 512 bytes that is synced, by forwarders that sync at once where they can.
    #[value(name = "synced-512")]
    Synced,
    /// A start with a backlog of messages of 512 bytes.
    #[value(name = "start")]
    Start,
}

/// A measured quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    /// Messages that were kept, per second.
    Taken,
    /// CPU of the forwarder for each of them, in seconds.
    TakenCpu,
    /// The share of the time in which the forwarder had its CPU.
    Busy,
    /// Bytes of the log for each byte of messages.
    Disk,
    /// Messages that were delivered, per second.
    Delivered,
    /// CPU of the forwarder for each of them, in seconds.
    DeliveredCpu,
    /// The share of messages that were taken and never delivered.
    Lost,
    /// From the start of the process to the first delivered message.
    First,
    /// Private memory beyond that of a forwarder without messages.
    Memory,
}

/// A goal of Portlane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At least these multiples of the others, in the order of [`PAIRS`].
    Times([f64; 3]),
    /// At most this value.
    Most(f64),
}

/// What is held against what: forwarders with the same policy of syncs, or Portlane with the stricter one.
pub(crate) const PAIRS: [(Kind, Kind); 3] = [
    (Kind::Portlane(Syncs::Later), Kind::Rsyslog(Syncs::Later)),
    (Kind::Portlane(Syncs::Later), Kind::SyslogNg),
    (Kind::Portlane(Syncs::AtOnce), Kind::Rsyslog(Syncs::AtOnce)),
];

impl Kind {
    /// All of them; Portlane first.
    pub(crate) const ALL: [Self; 5] = [
        Self::Portlane(Syncs::Later),
        Self::Rsyslog(Syncs::Later),
        Self::SyslogNg,
        Self::Portlane(Syncs::AtOnce),
        Self::Rsyslog(Syncs::AtOnce),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portlane(Syncs::Later) => "Portlane",
            Self::Portlane(Syncs::AtOnce) => "Portlane, synced at once",
            Self::Rsyslog(Syncs::Later) => "rsyslog",
            Self::Rsyslog(Syncs::AtOnce) => "rsyslog, synced at once",
            Self::SyslogNg => "syslog-ng",
        }
    }

    pub(crate) fn syncs_at_once(self) -> bool {
        matches!(self, Self::Portlane(Syncs::AtOnce) | Self::Rsyslog(Syncs::AtOnce))
    }
}

impl Row {
    pub(crate) const ALL: [Self; 9] = [
        Self::Tcp64,
        Self::Tcp512,
        Self::Tcp4096,
        Self::Udp64,
        Self::Udp512,
        Self::Udp4096,
        Self::Relp,
        Self::Synced,
        Self::Start,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp64 => "lines of 64 B over TCP",
            Self::Tcp512 => "lines of 512 B over TCP",
            Self::Tcp4096 => "lines of 4,096 B over TCP",
            Self::Udp64 => "datagrams of 64 B",
            Self::Udp512 => "datagrams of 512 B",
            Self::Udp4096 => "datagrams of 4,096 B",
            Self::Relp => "512 B to a sink by RELP",
            Self::Synced => "512 B of a synced backlog",
            Self::Start => "start with a backlog",
        }
    }

    /// Bytes of a message.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Tcp64 | Self::Udp64 => 64,
            Self::Tcp512 | Self::Udp512 | Self::Relp | Self::Synced | Self::Start => 512,
            Self::Tcp4096 | Self::Udp4096 => 4096,
        }
    }

    /// Bytes of a message on its way, with the line end.
    pub(crate) fn wire(self) -> usize {
        self.size() + usize::from(!self.is_udp())
    }

    /// Whether messages come in datagrams.
    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::Udp64 | Self::Udp512 | Self::Udp4096)
    }

    /// Whether the row says something about this forwarder. syslog-ng has no RELP, and never syncs: the bench syncs its
    /// backlog for it.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match self {
            Self::Relp => kind != Kind::SyslogNg && !kind.syncs_at_once(),
            Self::Synced => kind == Kind::SyslogNg || kind.syncs_at_once(),
            Self::Start => !kind.syncs_at_once(),
            _ => true,
        }
    }

    pub(crate) fn quantities(self) -> &'static [Quantity] {
        use Quantity::{Busy, Delivered, DeliveredCpu, Disk, First, Lost, Memory, Taken, TakenCpu};
        match self {
            Self::Tcp64 | Self::Tcp512 | Self::Tcp4096 => &[Taken, TakenCpu, Busy, Disk, Delivered, DeliveredCpu, Lost],
            Self::Udp64 | Self::Udp512 | Self::Udp4096 => &[Taken, TakenCpu, Busy],
            Self::Relp => &[Delivered, DeliveredCpu, Lost],
            Self::Synced => &[Delivered, Lost],
            Self::Start => &[First, Memory],
        }
    }

    /// What Portlane should reach.
    pub(crate) fn goal(self, quantity: Quantity) -> Option<Goal> {
        match (self, quantity) {
            (_, Quantity::Taken) => Some(Goal::Times([3.0, 2.0, 3.0])),
            (_, Quantity::Delivered) => Some(Goal::Times([2.0, 2.0, 2.0])),
            (Self::Tcp512, Quantity::Disk) => Some(Goal::Most(1.1)),
            (_, Quantity::Lost) => Some(Goal::Most(0.0)),
            (_, Quantity::First) => Some(Goal::Most(1.0)),
            (_, Quantity::Memory) => Some(Goal::Most(8.0 * MIB)),
            _ => None,
        }
    }
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken with the sink away",
            Self::TakenCpu => "CPU of the forwarder for each",
            Self::Busy => "forwarder busy",
            Self::Disk => "disk for each byte",
            Self::Delivered => "delivered",
            Self::DeliveredCpu => "CPU of the forwarder for each delivered",
            Self::Lost => "lost",
            Self::First => "to the first message",
            Self::Memory => "more RssAnon",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Taken | Self::Delivered => Unit::PerSecond,
            Self::TakenCpu | Self::DeliveredCpu => Unit::Micros,
            Self::Busy | Self::Lost => Unit::Percent,
            Self::Disk => Unit::Ratio,
            Self::First => Unit::Millis,
            Self::Memory => Unit::Mebibytes,
        }
    }

    /// Whether the quantity says something about this forwarder in this row: with a sync for each message too few are
    /// kept to measure more than how they were taken, except where the row waits for them.
    pub(crate) fn suits(self, row: Row, kind: Kind) -> bool {
        let is_of_taking = matches!(self, Self::Taken | Self::TakenCpu | Self::Busy);
        row.suits(kind) && (is_of_taking || row == Row::Synced || !kind.syncs_at_once())
    }

    /// Whether one forwarder may have a multiple of what another one has.
    pub(crate) fn has_ratio(self) -> bool {
        !matches!(self, Self::Busy | Self::Lost | Self::Memory)
    }
}
