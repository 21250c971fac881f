//! A herd: agents that lose their server at the same moment, and come back once it runs again.

mod agents;
mod seen;

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    agents::Agents,
    seen::{Back, Seen},
};
use crate::{
    measure::{Meter, Processes, percentile, status_bytes},
    poll::rest,
    rows::Quantity,
    subject::Subject,
};

/// Time for which all agents are connected before the server is killed. Those whose carrier did not last dial again
/// after longer pauses.
const SETTLE: Duration = Duration::from_secs(3);
/// Open files of bench and server each, beside the connections of agents.
const FILES: u64 = 1024;

/// Lets this process, and what it starts, open the files that a herd needs.
///
/// # Errors
/// The limit of open files is too low and stays.
pub(crate) fn raise_file_limit(agents: u16) -> Result<(), String> {
    // An agent may hold a second connection while it replaces the first.
    let needed = FILES + 2 * u64::from(agents);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None`: there is no limit.
    let Some(present) = current.filter(|present| *present < needed) else { return Ok(()) };
    let raised = Rlimit { current: Some(needed), maximum: maximum.map(|maximum| maximum.max(needed)) };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        format!(
            "a herd of {agents} agents needs {needed} open files, but the limit is {present} and cannot be raised: \
             {error}; raise it with `ulimit -n`, or name fewer --agents"
        )
    })
}

/// Connects the agents, kills their server, starts it again at once, and measures until all of them are back.
pub(crate) fn measure(subject: &mut Subject, agents: u16) -> Vec<(Quantity, f64)> {
    let (began, seen) = (Instant::now(), Seen::of(agents.into()));
    let herd = Agents::start((0..agents).map(|at| subject.home(at)).collect(), seen.clone());
    subject.until("all agents are connected", |_| herd.are_running() && seen.notes().are_back(began));
    rest(SETTLE);
    subject.kill_server();
    let killed = Instant::now();
    subject.start_server();
    subject.until("the server takes connections", |_| herd.are_running() && seen.notes().reached(killed).is_some());
    let server = subject.server_id();
    let processes = Processes { forwarder: vec![server], servers: Vec::new() };
    let (meter, peak) = (Meter::start(&processes), Cell::new(0.0_f64));
    subject.until("all agents are back", |_| {
        peak.set(peak.get().max(status_bytes(server, "RssAnon")));
        herd.are_running() && seen.notes().are_back(killed)
    });
    let usage = meter.stop();
    let Back { mut times, handshakes, connections } = seen.notes().back(killed);
    let mut share = |thousandths| percentile(&mut times, thousandths).as_secs_f64();
    vec![
        (Quantity::HalfBack, share(500)),
        (Quantity::MostBack, share(990)),
        (Quantity::AllBack, share(1000)),
        (Quantity::Handshakes, handshakes as f64),
        (Quantity::Dialled, connections as f64),
        (Quantity::ServerBusy, usage.forwarder / usage.seconds),
        (Quantity::Peak, peak.get()),
    ]
}
