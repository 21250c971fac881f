//! The rows of the table: what is measured with which tunnels, and the goals.

use clap::ValueEnum;

use crate::{kind::Kind, unit::Unit};

const KIB: f64 = 1024.0;

/// A load, or a state in which memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// One stream from the client to the target.
    #[value(name = "up-1")]
    Up1,
    /// Eight of them.
    #[value(name = "up-8")]
    Up8,
    /// One stream from the target to the client.
    #[value(name = "down-1")]
    Down1,
    /// Eight of them.
    #[value(name = "down-8")]
    Down8,
    /// New connections, each with one byte there and back.
    #[value(name = "connections")]
    Connections,
    /// Round trips of 64 bytes on 64 connections.
    #[value(name = "calls-64")]
    Calls,
    /// Memory of an agent that is connected.
    #[value(name = "idle-carrier")]
    Carrier,
    /// Memory of a stream without traffic.
    #[value(name = "idle-stream")]
    Stream,
}

/// A measured quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    /// Operations or GiB per second.
    Rate,
    /// CPU of agent and server for each operation or GiB, in seconds.
    Cpu,
    /// The same with client and target.
    Sum,
    /// The share of the time in which agent and server had their CPU.
    Busy,
    P50,
    P99,
    /// The share of connections that failed.
    Lost,
    /// Private memory of the server.
    Server,
    /// Private memory of the agent.
    Agent,
}

/// A goal of Portlane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At least this multiple of rathole over TLS.
    OfRathole(f64),
    /// At most this value.
    Most(f64),
}

impl Row {
    pub(crate) const ALL: [Self; 8] =
        [Self::Up1, Self::Up8, Self::Down1, Self::Down8, Self::Connections, Self::Calls, Self::Carrier, Self::Stream];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Up1 => "bulk, 1 stream up",
            Self::Up8 => "bulk, 8 streams up",
            Self::Down1 => "bulk, 1 stream down",
            Self::Down8 => "bulk, 8 streams down",
            Self::Connections => "connections",
            Self::Calls => "round trips of 64 B on 64 connections",
            Self::Carrier => "idle agent",
            Self::Stream => "idle stream",
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Up1 | Self::Up8 | Self::Down1 | Self::Down8)
    }

    /// Whether the row says something about this tunnel.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        kind != Kind::NoTunnel || !matches!(self, Self::Carrier | Self::Stream)
    }

    pub(crate) fn quantities(self) -> &'static [Quantity] {
        use Quantity::{Agent, Busy, Cpu, Lost, P50, P99, Rate, Server, Sum};
        match self {
            Self::Up1 | Self::Up8 | Self::Down1 | Self::Down8 => &[Rate, Cpu, Sum, Busy],
            Self::Connections => &[Rate, Cpu, Sum, Busy, Lost],
            Self::Calls => &[Rate, Cpu, Sum, Busy, P50, P99],
            Self::Carrier => &[Server],
            Self::Stream => &[Server, Agent],
        }
    }

    /// What Portlane should reach.
    pub(crate) fn goal(self, quantity: Quantity) -> Option<Goal> {
        match (self, quantity) {
            (Self::Connections | Self::Calls, Quantity::Rate) => Some(Goal::OfRathole(1.2)),
            (_, Quantity::Rate) => Some(Goal::OfRathole(1.0)),
            (Self::Carrier, Quantity::Server) => Some(Goal::Most(24.0 * KIB)),
            (Self::Stream, Quantity::Server | Quantity::Agent) => Some(Goal::Most(2.0 * KIB)),
            _ => None,
        }
    }

    pub(crate) fn unit(self, quantity: Quantity) -> Unit {
        match quantity {
            Quantity::Rate if self.is_bulk() => Unit::GibPerSecond,
            Quantity::Rate => Unit::PerSecond,
            Quantity::Cpu | Quantity::Sum if self.is_bulk() => Unit::SecondsPerGib,
            Quantity::Cpu | Quantity::Sum | Quantity::P50 | Quantity::P99 => Unit::Micros,
            Quantity::Busy | Quantity::Lost => Unit::Percent,
            Quantity::Server | Quantity::Agent => Unit::Bytes,
        }
    }
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cpu => "CPU of agent and server",
            Self::Sum => "CPU of all",
            Self::Busy => "agent and server busy",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Lost => "failed",
            Self::Server => "RssAnon of the server",
            Self::Agent => "RssAnon of the agent",
        }
    }
}
