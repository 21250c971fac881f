//! Time of an event among few others and among many that it does not concern: in one thread, without sockets.
//!
//! `cargo run --release -p portlane-benches --bin events`. Tests assert the counts of work (`docs/performance.md`).
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that fails panics")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use clap::Parser;
use operator_core::{Changes, ObjectKey, Pod, Translator, World};
use proxy::core::resolution::{dns::families::Resolution, names::Names};
use proxy_api::{
    ListenerId, Origin, Version,
    doors::{Admission, Places, StreamPort},
};
use serde_json::json;

/// Measure how the time of an event depends on others that it does not concern.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Times that each event happens; the median and the maximum are printed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
    rounds: u16,
}

/// The forward that changes, joins and leaves.
const OWN: u16 = 0;
/// DNS names that are asked for.
const NAMES: u16 = 500;

fn main() {
    let rounds = Args::parse().rounds;
    println!("| event | others | median | maximum |\n|---|---|---|---|");
    for others in [10, 1000] {
        let mut pods = Pods::with(others);
        row("a change of a forward, among those that select its pods", others, rounds, |round| {
            pods.set(Some(2 + round))
        });
        row("a forward that leaves those that select its pods, or joins them", others, rounds, |round| {
            pods.set((round % 2 == 1).then_some(1))
        });
    }
    for listeners in [NAMES, 10_000] {
        let mut names = names(listeners);
        let event = "an answer for one of 500 names that changes nothing, among listeners";
        row(event, listeners, rounds, |round| {
            let (host, answer) = (host(round), answer());
            timed(|| names.learn(&host, answer, 5))
        });
    }
    for proxies in [500, 5000] {
        let (mut door, lost) = door(proxies);
        let event = "a connection of a herd, until it is admitted or refused, among proxies";
        row(event, proxies, rounds, |proxy| timed(|| door.admit(source(proxy), lost)));
    }
}

/// Prints the times of an event.
fn row(event: &str, others: u16, rounds: u16, happen: impl FnMut(u16) -> Duration) {
    let mut times: Vec<Duration> = (0..rounds).map(happen).collect();
    times.sort_unstable();
    let micros = |at: usize| times[at].as_secs_f64() * 1_000_000.0;
    let (median, most) = (micros(times.len() / 2), micros(times.len() - 1));
    println!("| {event} | {others} | {median:.1} µs | {most:.1} µs |");
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    black_box(work());
    began.elapsed()
}

/// Two pods with their forwards, and the translation.
#[derive(Default)]
struct Pods {
    world: World,
    translator: Translator,
    number: u64,
}

impl Pods {
    /// The own forward and this many others, which select the same pods.
    fn with(others: u16) -> Self {
        let mut pods = Self::default();
        (0..=others).for_each(|at| pods.put(at, 1));
        for name in ["a", "b"] {
            let labels = [("app".to_owned(), "shop".to_owned())].into();
            pods.world.pods.insert(key(name), Pod { labels, carries: true, ..Pod::default() });
        }
        pods.translate(&Changes::all());
        pods
    }

    fn put(&mut self, at: u16, backend_port: u16) {
        let name = format!("f{at:04}");
        let forward = json!({
            "metadata": {"name": name, "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "placement": {"sidecar": {"selector": {"matchLabels": {"app": "shop"}}}},
                "listeners": [{
                    "name": "l", "protocol": "TCP", "port": 10_000 + at,
                    "backends": [{"address": {"host": "192.0.2.1", "port": backend_port}}],
                }],
            },
        });
        self.world.forwards.insert(key(&name), serde_json::from_value(forward).expect("a forward"));
    }

    /// Sets the port of the own forward's backend; `None` deletes the forward. Returns the time of the translation.
    fn set(&mut self, backend_port: Option<u16>) -> Duration {
        let own = key(&format!("f{OWN:04}"));
        match backend_port {
            Some(port) => self.put(OWN, port),
            None => drop(self.world.forwards.remove(&own)),
        }
        self.translate(&Changes { forwards: [own].into(), ..Changes::default() })
    }

    fn translate(&mut self, changes: &Changes) -> Duration {
        self.number += 1;
        let version = Version { epoch: "bench".to_owned(), number: self.number };
        timed(|| self.translator.update(&self.world, changes, &version))
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

/// The names of this many listeners, all of them known.
fn names(listeners: u16) -> Names {
    let mut names = Names::default();
    for at in 0..listeners {
        let id = ListenerId::new(Origin::port_forward("ns", format!("f{at:05}")), "l");
        names.set(&id, [host(at)].into());
    }
    for at in 0..NAMES {
        names.learn(&host(at), answer(), 0);
    }
    names
}

/// The name that the listener of this number uses.
fn host(at: u16) -> String {
    format!("db{}", at % NAMES)
}

fn answer() -> Resolution {
    Resolution { addresses: Some(vec![Ipv4Addr::LOCALHOST.into()]), ..Resolution::default() }
}

/// The port for streams of a leader that has just lost this many proxies, and the time of the loss.
fn door(proxies: u16) -> (Places, Duration) {
    let mut door = Places::new(StreamPort::DEFAULT.bounds());
    let mut now = Duration::ZERO;
    let mut places = Vec::new();
    for proxy in 0..proxies {
        now += Duration::from_millis(10);
        let Admission::Admit(place) = door.admit(source(proxy), now) else { panic!("proxy {proxy} is not admitted") };
        door.authenticate(place, now).expect("a place");
        places.push(place);
    }
    for place in places {
        door.release(place, now);
    }
    (door, now)
}

fn source(proxy: u16) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::from(proxy)).into()
}
