//! The rows of the tables: what is measured with which forwarders, the goals, and how figures are printed.

mod quantity;

pub(crate) use self::quantity::Quantity;
use crate::{
    servers::port,
    subject::{Kind, Source, Variant},
    unit::{MIB, Unit},
};

/// A load, or a state in which memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Bulk1,
    Bulk8,
    Both8,
    Connections,
    Calls64,
    /// Beside idle connections.
    Calls64Idle,
    Calls1000,
    OpenLoop,
    Accepts,
    Refusals,
    Idle,
    Empty,
    Udp1,
    Udp100,
    Udp1000,
    /// Datagrams that nothing can join.
    Singles,
    Bursts,
    Trains,
    /// The changes come in a document.
    Changes,
    /// The changes come from an operator.
    ChangesPushed,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    /// Portlane beside other forwarders.
    Compared,
    /// Models of I/O side by side.
    Models,
    Workers,
    AccessLog,
    Limits,
    Listeners,
    Changes,
    ChangesPushed,
}

/// A goal of Portlane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At least this multiple of the best of the others.
    AtLeast(f64),
    /// At most this multiple of the best of the others.
    AtMost(f64),
    /// At most this value.
    Most(f64),
    /// At most this multiple of the same quantity of another row.
    Of(Row, f64),
    /// At most this much more than another quantity of the row.
    Above(Quantity, f64),
}

impl Row {
    pub(crate) const COMPARED: [Self; 17] = [
        Self::Bulk1,
        Self::Bulk8,
        Self::Both8,
        Self::Connections,
        Self::Calls64,
        Self::Calls1000,
        Self::OpenLoop,
        Self::Accepts,
        Self::Refusals,
        Self::Idle,
        Self::Empty,
        Self::Udp1,
        Self::Udp100,
        Self::Udp1000,
        Self::Singles,
        Self::Bursts,
        Self::Trains,
    ];

    /// Name for `--rows`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bulk1 => "bulk-1",
            Self::Bulk8 => "bulk-8",
            Self::Both8 => "both-8",
            Self::Connections => "connections",
            Self::Calls64 => "calls-64",
            Self::Calls64Idle => "calls-64-idle",
            Self::Calls1000 => "calls-1000",
            Self::OpenLoop => "open-loop",
            Self::Accepts => "accepts",
            Self::Refusals => "refusals",
            Self::Idle => "idle",
            Self::Empty => "empty",
            Self::Udp1 => "udp-1",
            Self::Udp100 => "udp-100",
            Self::Udp1000 => "udp-1000",
            Self::Singles => "singles",
            Self::Bursts => "bursts",
            Self::Trains => "trains",
            Self::Changes => "changes",
            Self::ChangesPushed => "changes-pushed",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Bulk1 => "bulk, 1 connection up",
            Self::Bulk8 => "bulk, 8 connections up",
            Self::Both8 => "bulk, 8 connections both ways",
            Self::Connections => "connections",
            Self::Calls64 => "64 busy connections of 64 B",
            Self::Calls64Idle => "64 busy connections of 64 B beside 1,000 idle ones",
            Self::Calls1000 => "1,000 busy connections of 64 B",
            Self::OpenLoop => "open loop, 10,000/s over 200 connections",
            Self::Accepts => "first byte of a new connection beside 8 bulk streams",
            Self::Refusals => "refusal of a new connection beside 8 bulk streams",
            Self::Idle => "idle connection",
            Self::Empty => "forwarder without connections",
            Self::Udp1 => "UDP echo 64 B, 1 flow",
            Self::Udp100 => "UDP echo 64 B, 100 flows",
            Self::Udp1000 => "UDP echo 64 B, 1,000 flows",
            Self::Singles => "UDP 1,200 B one by one, 20 flows",
            Self::Bursts => "UDP 1,200 B in bursts of 20",
            Self::Trains => "UDP 1,200 B in trains of 20",
            Self::Changes => "changes beside traffic",
            Self::ChangesPushed => "pushed changes beside traffic",
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk1 | Self::Bulk8 | Self::Both8)
    }

    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::Udp1 | Self::Udp100 | Self::Udp1000 | Self::Singles | Self::Bursts | Self::Trains)
    }

    /// Whether the row is a load all the time, so that samples say where the CPU time goes.
    pub(crate) fn has_operations(self) -> bool {
        !matches!(self, Self::Idle | Self::Empty | Self::Changes | Self::ChangesPushed)
    }

    /// Whether the system calls belong to the operations that are counted. Beside streams, most are of the streams.
    pub(crate) fn has_calls_of_operations(self) -> bool {
        self.has_operations() && !matches!(self, Self::Accepts | Self::Refusals)
    }

    /// Where Portlane has its configuration from.
    pub(crate) fn source(self) -> Source {
        if self == Self::ChangesPushed { Source::Operator } else { Source::File }
    }

    /// Port of the server that datagrams are forwarded to.
    pub(crate) fn udp_server(self) -> u16 {
        if self == Self::Trains { port::TRAINS } else { port::ECHO }
    }

    /// Whether the row says something about this forwarder.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        if self.is_udp() {
            return kind.has_udp();
        }
        match self {
            Self::Idle | Self::Empty => kind != Kind::Direct && !kind.forks(),
            Self::Refusals => kind.refuses(),
            // A process for each connection.
            Self::Bulk8 | Self::Both8 | Self::Calls64Idle | Self::Calls1000 | Self::OpenLoop | Self::Accepts => {
                !kind.forks()
            }
            _ => true,
        }
    }

    pub(crate) fn quantities(self) -> &'static [Quantity] {
        use Quantity::{
            Anon, Broken, Busy, CalmStall, Cold, Corrupt, Cpu, Edits, EffectP50, EffectP99, Files, Left, Lost, P50,
            P99, P999, Rate, Refused, Rss, Stall, Sum, Warm,
        };
        match self {
            Self::Bulk1 | Self::Bulk8 | Self::Both8 => &[Rate, Cpu, Sum, Busy],
            Self::Calls64 | Self::Calls64Idle | Self::Calls1000 => &[Rate, Cpu, Sum, Busy, P50, P99],
            Self::OpenLoop => &[P50, P99, P999, Cpu, Sum, Lost],
            Self::Accepts | Self::Refusals => &[P50, P99, Lost],
            Self::Idle => &[Cold, Warm, Left, Files],
            Self::Empty => &[Anon, Rss],
            Self::Connections
            | Self::Udp1
            | Self::Udp100
            | Self::Udp1000
            | Self::Singles
            | Self::Bursts
            | Self::Trains => &[Rate, Cpu, Sum, Busy, Lost],
            Self::Changes | Self::ChangesPushed => {
                &[Edits, Broken, Refused, Corrupt, CalmStall, Stall, EffectP50, EffectP99]
            }
        }
    }

    /// What Portlane should reach beside the others.
    #[allow(clippy::match_same_arms, reason = "one row after the other")]
    pub(crate) fn goal(self, quantity: Quantity) -> Option<Goal> {
        use Goal::{Above, AtLeast, AtMost, Most, Of};
        use Quantity::{
            Anon, Broken, CalmStall, Cold, Corrupt, Cpu, EffectP99, Files, Lost, P99, P999, Rate, Refused, Rss, Stall,
            Warm,
        };
        Some(match (self, quantity) {
            (Self::Bulk1, Rate) => AtLeast(1.2),
            (Self::Bulk1, Cpu) => AtMost(0.8),
            (Self::Bulk8 | Self::Both8, Rate) => AtLeast(1.08),
            (Self::Bulk8 | Self::Both8 | Self::Connections, Cpu) => AtMost(0.9),
            (Self::Connections, Rate) => AtLeast(1.05),
            (Self::Calls64, Rate) => AtLeast(1.0),
            (Self::Calls64, Cpu) => AtMost(0.95),
            (Self::Calls64 | Self::Calls1000, P99) => AtMost(1.0),
            (Self::OpenLoop, P99 | P999) => AtMost(0.9),
            (Self::Accepts | Self::Refusals, P99) => Most(100e-6),
            (Self::Idle, Cold | Warm) => Most(1800.0),
            (Self::Idle, Files) => Most(2.0),
            (Self::Empty, Anon) => Most(1.5 * MIB),
            (Self::Empty, Rss) => Most(8.0 * MIB),
            (Self::Udp1, Rate) => AtLeast(1.1),
            (Self::Udp1, Cpu) => AtMost(0.8),
            (Self::Udp100 | Self::Udp1000, Rate) => AtLeast(1.2),
            (Self::Udp100 | Self::Udp1000, Cpu) => AtMost(0.7),
            (Self::Udp1000, Lost) | (Self::Changes | Self::ChangesPushed, Broken | Refused | Corrupt) => Most(0.0),
            (Self::Trains, Cpu) => Of(Self::Singles, 0.3),
            (Self::Changes | Self::ChangesPushed, Stall) => Above(CalmStall, 2e-3),
            (Self::Changes | Self::ChangesPushed, EffectP99) => Most(10e-3),
            _ => return None,
        })
    }

    pub(crate) fn unit(self, quantity: Quantity) -> Unit {
        match quantity {
            Quantity::Rate if self.is_bulk() => Unit::GibPerSecond,
            Quantity::Rate => Unit::PerSecond,
            Quantity::Cpu | Quantity::Sum if self.is_bulk() => Unit::SecondsPerGib,
            Quantity::Cpu | Quantity::Sum | Quantity::P50 | Quantity::P99 | Quantity::P999 => Unit::Micros,
            Quantity::Busy | Quantity::Lost => Unit::Percent,
            Quantity::Cold | Quantity::Warm | Quantity::Left => Unit::Bytes,
            Quantity::Anon | Quantity::Rss => Unit::Mebibytes,
            Quantity::CalmStall | Quantity::Stall | Quantity::EffectP50 | Quantity::EffectP99 => Unit::Millis,
            Quantity::Files | Quantity::Edits | Quantity::Broken | Quantity::Refused | Quantity::Corrupt => {
                Unit::Number
            }
        }
    }
}

impl Section {
    pub(crate) const ALL: [Self; 8] = [
        Self::Compared,
        Self::Models,
        Self::Workers,
        Self::AccessLog,
        Self::Limits,
        Self::Listeners,
        Self::Changes,
        Self::ChangesPushed,
    ];

    /// Name for `--rows`; the rows of the first table have names of their own.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::Models => "models",
            Self::Workers => "workers",
            Self::AccessLog => "access-log",
            Self::Limits => "limits",
            Self::Listeners => "listeners",
            Self::Changes => "changes",
            Self::ChangesPushed => "changes-pushed",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Compared => "Portlane beside other forwarders",
            Self::Models => "I/O models",
            Self::Workers => {
                "Workers, on the two CPUs that load and servers use too: what they cost, not how they scale"
            }
            Self::AccessLog => "The access log",
            Self::Limits => "Limits that are not reached",
            Self::Listeners => "Further listeners",
            Self::Changes => "Changes of one listener beside traffic, by file",
            Self::ChangesPushed => "Changes of one listener beside traffic, by the stream of an operator",
        }
    }

    /// Whether each cell has its goal beside it: nothing is compared.
    pub(crate) fn has_goals_in_cells(self) -> bool {
        matches!(self, Self::Changes | Self::ChangesPushed)
    }

    /// Whether a row of the table is measured with this forwarder. Models are compared in all rows but one, for which a
    /// process for each connection is too many.
    pub(crate) fn has(self, row: Row, kind: Kind) -> bool {
        row.suits(kind) || (self == Self::Models && row != Row::Calls64Idle)
    }

    pub(crate) fn rows(self) -> &'static [Row] {
        match self {
            Self::Compared => &Row::COMPARED,
            Self::Models => &[Row::Bulk8, Row::Connections, Row::Calls64, Row::Calls64Idle, Row::Idle],
            Self::Workers => &[Row::Bulk8, Row::Connections, Row::Calls64, Row::Empty],
            Self::AccessLog => &[Row::Connections],
            Self::Limits => &[Row::Bulk8, Row::Connections, Row::Calls64],
            Self::Listeners => &[Row::Connections, Row::Calls64, Row::Empty],
            Self::Changes => &[Row::Changes],
            Self::ChangesPushed => &[Row::ChangesPushed],
        }
    }

    pub(crate) fn kinds(self, glibc: bool) -> Vec<Kind> {
        let variants: &[Variant] = match self {
            Self::Compared => return Kind::compared(glibc),
            Self::Models => return Kind::models(),
            Self::Workers => &[Variant::Workers(1), Variant::Workers(2), Variant::Workers(4), Variant::Workers(8)],
            Self::AccessLog => &[Variant::Plain, Variant::AccessLog],
            Self::Limits => &[Variant::Plain, Variant::Rates, Variant::MaxConnections],
            Self::Listeners => &[Variant::Plain, Variant::Listeners(1000), Variant::Listeners(9000)],
            Self::Changes | Self::ChangesPushed => &[Variant::Plain, Variant::Listeners(9000)],
        };
        variants.iter().map(|variant| Kind::Portlane(*variant)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beside_streams_are_sampled_and_their_calls_are_not_counted() {
        let rows = [Row::Connections, Row::Accepts, Row::Refusals, Row::Idle];
        assert_eq!(rows.map(Row::has_operations), [true, true, true, false]);
        assert_eq!(rows.map(Row::has_calls_of_operations), [true, false, false, false]);
    }

    #[test]
    fn datagrams_are_answered_with_trains_in_the_row_of_trains_alone() {
        let rows = Row::COMPARED.into_iter().filter(|row| row.udp_server() == port::TRAINS);
        assert_eq!(rows.collect::<Vec<_>>(), [Row::Trains]);
    }

    #[test]
    fn a_forwarder_with_a_process_for_each_connection_has_no_row_with_a_thousand() {
        let rows = [Row::Calls64, Row::Calls64Idle, Row::Idle];
        assert_eq!(rows.map(|row| Section::Models.has(row, Kind::Socat)), [true, false, true]);
        assert!(rows.into_iter().all(|row| Section::Models.has(row, Kind::Rinetd)));
    }

    #[test]
    fn only_forwarders_that_refuse_by_address_have_the_row_of_refusals() {
        let kinds = Kind::compared(false).into_iter().filter(|kind| Section::Compared.has(Row::Refusals, *kind));
        let expected = [Kind::PLAIN, Kind::HaProxy, Kind::HaProxySplice, Kind::Nginx, Kind::Rinetd];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}
