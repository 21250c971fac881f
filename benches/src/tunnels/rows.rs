//! The rows of the table: what is measured with which tunnels, and the goals.

use clap::ValueEnum;

use crate::{kind::Kind, unit::Unit};

const KIB: f64 = 1024.0;
/// Seconds within which all agents of a herd are back.
const BACK: f64 = 10.0;
/// Handshakes of a herd in one second: the rate of the server (ADR 0083), and a twentieth more, because they are counted
/// at their end, and take unequal times.
const HANDSHAKES: f64 = 210.0;

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
    /// Agents that come back after their server was killed.
    #[value(name = "herd")]
    Herd,
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
    /// Time until this share of the agents has a carrier again.
    HalfBack,
    /// 99 %.
    MostBack,
    AllBack,
    /// The most handshakes in any one second.
    Handshakes,
    /// The most new connections in any one second, of which the server closes some at once.
    Dialled,
    /// The share of the time in which the server had its CPU.
    ServerBusy,
    /// The most private memory of the server.
    Peak,
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
    pub(crate) const ALL: [Self; 9] = [
        Self::Up1,
        Self::Up8,
        Self::Down1,
        Self::Down8,
        Self::Connections,
        Self::Calls,
        Self::Carrier,
        Self::Stream,
        Self::Herd,
    ];

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
            Self::Herd => "herd",
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Up1 | Self::Up8 | Self::Down1 | Self::Down8)
    }

    /// Whether the row says something about this tunnel.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match self {
            Self::Carrier | Self::Stream => kind != Kind::NoTunnel,
            // The agents of the others cannot run within the bench.
            Self::Herd => kind == Kind::Portlane,
            _ => true,
        }
    }

    pub(crate) fn quantities(self) -> &'static [Quantity] {
        use Quantity::{
            Agent, AllBack, Busy, Cpu, Dialled, HalfBack, Handshakes, Lost, MostBack, P50, P99, Peak, Rate, Server,
            ServerBusy, Sum,
        };
        match self {
            Self::Up1 | Self::Up8 | Self::Down1 | Self::Down8 => &[Rate, Cpu, Sum, Busy],
            Self::Connections => &[Rate, Cpu, Sum, Busy, Lost],
            Self::Calls => &[Rate, Cpu, Sum, Busy, P50, P99],
            Self::Carrier => &[Server],
            Self::Stream => &[Server, Agent],
            Self::Herd => &[HalfBack, MostBack, AllBack, Handshakes, Dialled, ServerBusy, Peak],
        }
    }

    /// What Portlane should reach.
    pub(crate) fn goal(self, quantity: Quantity) -> Option<Goal> {
        match (self, quantity) {
            (Self::Connections | Self::Calls, Quantity::Rate) => Some(Goal::OfRathole(1.2)),
            (_, Quantity::Rate) => Some(Goal::OfRathole(1.0)),
            (Self::Carrier, Quantity::Server) => Some(Goal::Most(24.0 * KIB)),
            (Self::Stream, Quantity::Server | Quantity::Agent) => Some(Goal::Most(2.0 * KIB)),
            (_, Quantity::AllBack) => Some(Goal::Most(BACK)),
            (_, Quantity::Handshakes) => Some(Goal::Most(HANDSHAKES)),
            _ => None,
        }
    }

    pub(crate) fn unit(self, quantity: Quantity) -> Unit {
        match quantity {
            Quantity::Rate if self.is_bulk() => Unit::GibPerSecond,
            Quantity::Rate | Quantity::Handshakes | Quantity::Dialled => Unit::PerSecond,
            Quantity::Cpu | Quantity::Sum if self.is_bulk() => Unit::SecondsPerGib,
            Quantity::Cpu | Quantity::Sum | Quantity::P50 | Quantity::P99 => Unit::Micros,
            Quantity::Busy | Quantity::Lost | Quantity::ServerBusy => Unit::Percent,
            Quantity::Server | Quantity::Agent => Unit::Bytes,
            Quantity::HalfBack | Quantity::MostBack | Quantity::AllBack => Unit::Seconds,
            Quantity::Peak => Unit::Mebibytes,
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
            Self::HalfBack => "half of the agents are back",
            Self::MostBack => "99 % of the agents are back",
            Self::AllBack => "all agents are back",
            Self::Handshakes => "most handshakes",
            Self::Dialled => "most connections",
            Self::ServerBusy => "server busy",
            Self::Peak => "most RssAnon of the server",
        }
    }
}
