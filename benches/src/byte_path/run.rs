//! Measures one row with one forwarder.

use std::time::{Duration, Instant};

use crate::{
    load::{
        Accepts, Bulk, Calls, Connections, Datagrams, Done, Load, OpenLoop, Trains, changes_beside_traffic,
        idle_connections,
    },
    measure::{Meter, Usage, percentile, status_bytes},
    namespace::Cpus,
    poll::EventFlags,
    profile::{self, Shares},
    rows::{Quantity, Row},
    subject::{Kind, Ports, Programs, Servers, Subject},
    syscalls::{self, Calls as SystemCalls},
    unit::MIB,
};

const GIB: f64 = (1_u64 << 30) as f64;
/// Requests of the open loop.
const PER_SECOND: u32 = 10_000;
/// Datagrams on their way for each flow. All together fit into a receive buffer of usual size, but those of 1,000 flows.
const WINDOWS: [u64; 3] = [32, 2, 1];
/// Bytes of a small datagram.
const SMALL: usize = 64;

/// What is the same for all rows.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) servers: Servers,
    pub(crate) cpus: Cpus,
    /// Time of one measurement, after a tenth of it as a warm-up.
    pub(crate) length: Duration,
}

impl Bench {
    /// Starts a forwarder and measures a row with it.
    ///
    /// # Panics
    /// The forwarder failed.
    pub(crate) fn measure(&self, kind: Kind, row: Row) -> Vec<(Quantity, f64)> {
        let subject = self.start(kind, row);
        let _preferred =
            matches!(row, Row::Accepts | Row::Changes | Row::ChangesPushed).then(|| self.servers.prefer_echoes());
        match row {
            Row::Idle => idle_connections(&subject),
            Row::Empty => empty(&subject),
            Row::Changes | Row::ChangesPushed => changes_beside_traffic(&subject, kind.variant(), self.length),
            _ => self.operations(&subject, row),
        }
    }

    fn start(&self, kind: Kind, row: Row) -> Subject {
        Subject::start(kind, row.source(), row.udp_server(), &self.programs, &self.servers, self.cpus)
    }

    fn operations(&self, subject: &Subject, row: Row) -> Vec<(Quantity, f64)> {
        let mut load = load(row, subject.ports);
        load.run(Instant::now() + self.length / 10);
        let meter = Meter::start(&subject.processes);
        let done = load.run(Instant::now() + self.length);
        let usage = meter.stop();
        let found = figures(row, done, usage);
        // Without a forwarder there is no CPU of a forwarder.
        let of_forwarder = |quantity| matches!(quantity, Quantity::Cpu | Quantity::Busy);
        found.into_iter().filter(|(it, _)| subject.kind != Kind::Direct || !of_forwarder(*it)).collect()
    }

    /// Counts the system calls of a forwarder for each operation of a row.
    ///
    /// # Panics
    /// The forwarder or strace failed.
    pub(crate) fn system_calls(&self, kind: Kind, row: Row) -> SystemCalls {
        let subject = self.start(kind, row);
        let mut load = load(row, subject.ports);
        load.run(Instant::now() + self.length / 10);
        let (done, counted) = syscalls::count(&subject, || load.run(Instant::now() + self.length));
        let operations = if row.is_bulk() { done.bytes as f64 / MIB } else { done.operations as f64 };
        counted.into_iter().map(|(name, calls)| (name, calls as f64 / operations)).collect()
    }

    /// Samples where the CPU time of a forwarder goes in a row.
    ///
    /// # Panics
    /// The forwarder or perf failed.
    pub(crate) fn profile(&self, kind: Kind, row: Row) -> Shares {
        let subject = self.start(kind, row);
        let _preferred = matches!(row, Row::Accepts).then(|| self.servers.prefer_echoes());
        let mut load = load(row, subject.ports);
        load.run(Instant::now() + self.length / 10);
        profile::sample(&subject, || {
            load.run(Instant::now() + self.length);
        })
    }
}

fn load(row: Row, ports: Ports) -> Box<dyn Load> {
    let [one, hundred, thousand] = WINDOWS;
    match row {
        Row::Bulk1 => Box::new(Bulk::new(ports.sink, 1, EventFlags::OUT)),
        Row::Bulk8 => Box::new(Bulk::new(ports.sink, 8, EventFlags::OUT)),
        Row::Both8 => Box::new(Bulk::new(ports.both, 8, EventFlags::IN | EventFlags::OUT)),
        Row::Connections => Box::new(Connections::new(ports.echo)),
        Row::Calls64 => Box::new(Calls::new(ports.echo, 64, 0)),
        Row::Calls64Idle => Box::new(Calls::new(ports.echo, 64, 1000)),
        Row::Calls1000 => Box::new(Calls::new(ports.echo, 1000, 0)),
        Row::OpenLoop => Box::new(OpenLoop::new(ports.echo, 200, PER_SECOND)),
        Row::Accepts => Box::new(Accepts::answered(Bulk::new(ports.sink, 8, EventFlags::OUT), ports.echo)),
        Row::Refusals => Box::new(Accepts::refused(Bulk::new(ports.sink, 8, EventFlags::OUT), ports.denied)),
        Row::Udp1 => Box::new(Datagrams::new(ports.udp, 1, one, SMALL)),
        Row::Udp100 => Box::new(Datagrams::new(ports.udp, 100, hundred, SMALL)),
        Row::Udp1000 => Box::new(Datagrams::new(ports.udp, 1000, thousand, SMALL)),
        // As many datagrams of the same size at a time as in a train, but no two of one flow.
        Row::Singles => Box::new(Datagrams::new(ports.udp, Trains::DATAGRAMS, 1, Trains::BYTES.into())),
        Row::Bursts => Box::new(Trains::new(ports.udp, false)),
        Row::Trains => Box::new(Trains::new(ports.udp, true)),
        Row::Idle | Row::Empty | Row::Changes | Row::ChangesPushed => panic!("{} has no operations", row.name()),
    }
}

/// The quantities of a row, from what was done and used.
fn figures(row: Row, mut done: Done, usage: Usage) -> Vec<(Quantity, f64)> {
    let units = if row.is_bulk() { done.bytes as f64 / GIB } else { done.operations as f64 };
    assert!(units > 0.0, "nothing came through");
    let mut share = |thousandths| percentile(&mut done.latencies, thousandths).as_secs_f64();
    let (p50, p99, p999) = (share(500), share(990), share(999));
    let value = |quantity| match quantity {
        Quantity::Rate => Some(units / usage.seconds),
        Quantity::Cpu => Some(usage.forwarder / units),
        Quantity::Sum => Some(usage.sum / units),
        Quantity::Busy => Some(usage.forwarder / usage.seconds),
        Quantity::P50 => Some(p50),
        Quantity::P99 => Some(p99),
        Quantity::P999 => Some(p999),
        Quantity::Lost => Some(done.lost as f64 / (done.operations + done.lost) as f64),
        _ => None,
    };
    row.quantities().iter().filter_map(|quantity| Some((*quantity, value(*quantity)?))).collect()
}

/// Memory of a forwarder that has served one connection.
fn empty(subject: &Subject) -> Vec<(Quantity, f64)> {
    let of = |field: &str| subject.ids().map(|pid| status_bytes(pid, field)).sum::<f64>();
    vec![(Quantity::Anon, of("RssAnon")), (Quantity::Rss, of("VmRSS"))]
}
