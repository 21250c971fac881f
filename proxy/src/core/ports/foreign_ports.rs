//! Ports of the pod that other programs use. A sidecar that binds such a port while its app restarts would keep the app
//! from starting, so the proxy remembers the port and waits when it becomes free.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxy_api::SocketKey;

/// How long a port has to be in use before it counts as foreign: a socket that this proxy closed is gone sooner.
const SETTLED: Duration = Duration::from_secs(5);
/// The most ports that are remembered; others are tried each time.
const MOST: usize = 1024;

/// Ports that were found in use. Times are since the process started.
#[derive(Debug, Default)]
pub struct ForeignPorts {
    /// How long a foreign port is left alone after it became free; zero: no port is remembered.
    grace: Duration,
    ports: BTreeMap<SocketKey, State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In use since this time, too briefly to tell which program uses it.
    Busy(Duration),
    /// In use by another program.
    Foreign,
    /// Foreign, and free since this time.
    Free(Duration),
}

impl ForeignPorts {
    /// Leaves foreign ports alone for `grace` after they became free.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, ports: BTreeMap::new() }
    }

    /// Adds ports that an earlier run of this proxy found.
    #[must_use]
    pub fn known(self, ports: impl IntoIterator<Item = SocketKey>, now: Duration) -> Self {
        let ports = ports.into_iter().take(MOST).map(|port| (port, State::Free(now)));
        Self { ports: if self.grace.is_zero() { BTreeMap::new() } else { ports.collect() }, ..self }
    }

    /// Whether this port may be taken now, if it is free.
    #[must_use]
    pub fn may_bind(&self, port: SocketKey, now: Duration) -> bool {
        match self.ports.get(&port) {
            None | Some(State::Busy(_)) => true,
            Some(State::Foreign) => false,
            Some(State::Free(since)) => now.saturating_sub(*since) >= self.grace,
        }
    }

    /// Notes that the port is in use.
    pub fn in_use(&mut self, port: SocketKey, now: Duration) {
        if self.grace.is_zero() {
            return;
        }
        let next = match self.ports.get(&port) {
            None if self.ports.len() >= MOST => return,
            None => State::Busy(now),
            Some(State::Busy(since)) if now.saturating_sub(*since) < SETTLED => return,
            Some(State::Busy(_) | State::Foreign | State::Free(_)) => State::Foreign,
        };
        self.ports.insert(port, next);
    }

    /// Notes that the port is free.
    pub fn free(&mut self, port: SocketKey, now: Duration) {
        match self.ports.get(&port) {
            Some(State::Busy(_)) => drop(self.ports.remove(&port)),
            Some(State::Foreign) => drop(self.ports.insert(port, State::Free(now))),
            None | Some(State::Free(_)) => {}
        }
    }

    /// Notes that the proxy serves the port, so no other program uses it any more.
    pub fn served(&mut self, port: SocketKey) {
        self.ports.remove(&port);
    }

    /// Forgets ports in use that no listener needs any more: earlier time must not count if a listener needs them
    /// again.
    pub fn wanted(&mut self, ports: &BTreeSet<SocketKey>) {
        self.ports.retain(|port, state| !matches!(state, State::Busy(_)) || ports.contains(port));
    }

    /// The ports that other programs use.
    pub fn all(&self) -> impl Iterator<Item = SocketKey> {
        self.ports.iter().filter(|(_, state)| !matches!(state, State::Busy(_))).map(|(port, _)| *port)
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::{Bind, Transport};

    use super::*;

    const PORT: SocketKey = SocketKey { transport: Transport::Tcp, bind: Bind::All, port: 80 };

    /// A port in use for ten seconds, and the time.
    fn taken() -> (ForeignPorts, Duration) {
        let (mut ports, start) = (ForeignPorts::new(Duration::from_secs(60)), Duration::from_secs(1000));
        for second in 0..=10 {
            ports.in_use(PORT, start + Duration::from_secs(second));
        }
        (ports, start + Duration::from_secs(10))
    }

    #[test]
    fn a_port_that_was_in_use_is_left_alone_for_a_while_when_it_becomes_free() {
        let (mut ports, now) = taken();
        assert!(!ports.may_bind(PORT, now + Duration::from_secs(3600)), "in use, for however long");
        ports.free(PORT, now);
        ports.free(PORT, now + Duration::from_secs(59));
        assert!(!ports.may_bind(PORT, now + Duration::from_millis(59_999)));
        assert!(ports.may_bind(PORT, now + Duration::from_secs(60)));
        let others = [SocketKey { transport: Transport::Udp, ..PORT }, SocketKey { bind: Bind::Loopback, ..PORT }];
        assert!(others.iter().all(|port| ports.may_bind(*port, now)), "another socket is not concerned");
    }

    #[test]
    fn each_restart_of_the_app_has_the_whole_time() {
        let (mut ports, now) = taken();
        ports.free(PORT, now);
        ports.in_use(PORT, now + Duration::from_secs(30));
        ports.free(PORT, now + Duration::from_secs(40));
        assert!(!ports.may_bind(PORT, now + Duration::from_secs(99)));
        assert!(ports.may_bind(PORT, now + Duration::from_secs(100)));
    }

    #[test]
    fn a_port_in_use_for_a_moment_is_not_foreign() {
        let (mut ports, start) = (ForeignPorts::new(Duration::from_secs(60)), Duration::from_secs(1000));
        ports.in_use(PORT, start);
        ports.in_use(PORT, start + Duration::from_millis(4999));
        assert!(ports.may_bind(PORT, start) && ports.all().next().is_none());
        ports.free(PORT, start + Duration::from_secs(5));
        ports.in_use(PORT, start + Duration::from_secs(6));
        assert!(ports.may_bind(PORT, start + Duration::from_secs(6)), "the time counts from the last time it was free");
        ports.in_use(PORT, start + Duration::from_secs(11));
        assert!(!ports.may_bind(PORT, start + Duration::from_secs(11)));
        assert_eq!(ports.all().collect::<Vec<_>>(), [PORT]);
    }

    #[test]
    fn a_port_that_the_proxy_serves_is_nobody_elses_any_more() {
        let (mut ports, now) = taken();
        ports.free(PORT, now);
        ports.served(PORT);
        assert!(ports.all().next().is_none() && ports.may_bind(PORT, now));
        ports.in_use(PORT, now);
        assert!(ports.may_bind(PORT, now), "the five seconds count again");
    }

    #[test]
    fn the_time_of_a_port_that_nobody_asks_for_does_not_count() {
        let (mut ports, start) = (ForeignPorts::new(Duration::from_secs(60)), Duration::from_secs(1000));
        ports.in_use(PORT, start);
        ports.wanted(&BTreeSet::new());
        ports.in_use(PORT, start + Duration::from_secs(3600));
        assert!(ports.may_bind(PORT, start + Duration::from_secs(3600)));
        let (mut foreign, now) = taken();
        foreign.wanted(&BTreeSet::new());
        assert!(!foreign.may_bind(PORT, now), "a foreign port stays foreign");
    }

    #[test]
    fn ports_of_an_earlier_run_have_the_whole_time_too() {
        let start = Duration::from_secs(1000);
        let ports = ForeignPorts::new(Duration::from_secs(60)).known([PORT], start);
        assert!(!ports.may_bind(PORT, start + Duration::from_secs(59)));
        assert!(ports.may_bind(PORT, start + Duration::from_secs(60)));
    }

    #[test]
    fn without_a_grace_nothing_is_remembered_and_the_table_is_bounded() {
        let start = Duration::from_secs(1000);
        let mut none = ForeignPorts::new(Duration::ZERO).known([PORT], start);
        none.in_use(PORT, start);
        none.in_use(PORT, start + Duration::from_secs(9));
        assert!(none.may_bind(PORT, start) && none.all().next().is_none());
        let mut full = ForeignPorts::new(Duration::from_secs(1));
        for second in [0, 9] {
            (1..=2000).for_each(|port| full.in_use(SocketKey { port, ..PORT }, start + Duration::from_secs(second)));
        }
        assert_eq!(full.all().count(), MOST);
    }
}
