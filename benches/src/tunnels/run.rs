//! Measures one row with one tunnel.

use std::time::{Duration, Instant};

use crate::{
    herd,
    kind::Kind,
    load::{Bulk, Calls, Connections, Done, Load},
    measure::{Meter, Usage, percentile},
    memory,
    namespace::Cpus,
    peers::Programs,
    poll::EventFlags,
    role::Servers,
    rows::{Quantity, Row},
    subject::{Ports, Subject},
};

const GIB: f64 = (1_u64 << 30) as f64;
/// Busy connections.
const CALLS: usize = 64;

/// What is the same for all rows.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) servers: Servers,
    pub(crate) cpus: Cpus,
    /// Time of one measurement, after a tenth of it as a warm-up.
    pub(crate) length: Duration,
    /// Agents of a herd.
    pub(crate) agents: u16,
}

impl Bench {
    /// Starts a tunnel and measures a row with it.
    ///
    /// # Panics
    /// The tunnel failed.
    pub(crate) fn measure(&self, kind: Kind, row: Row) -> Vec<(Quantity, f64)> {
        if row == Row::Herd {
            let further = self.agents.saturating_sub(1);
            let mut subject = Subject::serve(kind, &self.programs, &self.servers, self.cpus, further);
            return herd::measure(&mut subject, self.agents);
        }
        let further = if row == Row::Carrier { memory::AGENTS } else { 0 };
        let mut subject = Subject::start(kind, &self.programs, &self.servers, self.cpus, further);
        match row {
            Row::Carrier => memory::agents(&mut subject),
            Row::Stream => memory::streams(&subject),
            _ => self.operations(&subject, kind, row),
        }
    }

    fn operations(&self, subject: &Subject, kind: Kind, row: Row) -> Vec<(Quantity, f64)> {
        let mut load = load(row, subject.ports);
        load.run(Instant::now() + self.length / 10);
        let meter = Meter::start(&subject.processes);
        let done = load.run(Instant::now() + self.length);
        let found = figures(row, done, meter.stop());
        // Without a tunnel there is no CPU of a tunnel.
        let of_tunnel = |quantity| matches!(quantity, Quantity::Cpu | Quantity::Busy);
        found.into_iter().filter(|(it, _)| kind != Kind::NoTunnel || !of_tunnel(*it)).collect()
    }
}

fn load(row: Row, ports: Ports) -> Box<dyn Load> {
    match row {
        Row::Up1 => Box::new(Bulk::new(ports.sink, 1, EventFlags::OUT)),
        Row::Up8 => Box::new(Bulk::new(ports.sink, 8, EventFlags::OUT)),
        // This server sends whatever it receives.
        Row::Down1 => Box::new(Bulk::new(ports.both, 1, EventFlags::IN)),
        Row::Down8 => Box::new(Bulk::new(ports.both, 8, EventFlags::IN)),
        Row::Connections => Box::new(Connections::new(ports.echo)),
        Row::Calls => Box::new(Calls::new(ports.echo, CALLS, 0)),
        Row::Carrier | Row::Stream | Row::Herd => panic!("{} has no operations", row.title()),
    }
}

/// The quantities of a row, from what was done and used.
fn figures(row: Row, mut done: Done, usage: Usage) -> Vec<(Quantity, f64)> {
    let units = if row.is_bulk() { done.bytes as f64 / GIB } else { done.operations as f64 };
    assert!(units > 0.0, "nothing came through");
    let mut share = |thousandths| percentile(&mut done.latencies, thousandths).as_secs_f64();
    let (p50, p99) = (share(500), share(990));
    let value = |quantity| match quantity {
        Quantity::Rate => Some(units / usage.seconds),
        Quantity::Cpu => Some(usage.forwarder / units),
        Quantity::Sum => Some(usage.sum / units),
        Quantity::Busy => Some(usage.forwarder / usage.seconds),
        Quantity::P50 => Some(p50),
        Quantity::P99 => Some(p99),
        Quantity::Lost => Some(done.lost as f64 / (done.operations + done.lost) as f64),
        // Quantities of rows without operations.
        _ => None,
    };
    row.quantities().iter().filter_map(|quantity| Some((*quantity, value(*quantity)?))).collect()
}
