//! Changes of listeners, one after the other: each must take effect, keep the sessions that it should keep, and end those
//! that it should end.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    backends::FIRST,
    exchange::{DEADLINE, Exchange, Fault, finish, open},
    proxy::{Proxy, World},
    random::Random,
    shared::Shared,
};

/// Longest wait for the effect of a change.
const EFFECT: Duration = Duration::from_secs(20);
/// Pause between two looks for it.
const LOOK: Duration = Duration::from_millis(5);
/// Milliseconds between two changes: from, to.
const PAUSE: (u64, u64) = (200, 1000);

/// What clients notice of a change.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// The backend of this name answers at this port.
    Serves(u16, u8),
    /// Nothing listens at this port.
    Refuses(u16),
}

/// Who changes the configuration.
#[derive(Debug)]
pub(crate) struct Changer {
    proxy: Arc<Proxy>,
    shared: Arc<Shared>,
    random: Random,
    /// Decides the bytes of sessions, of which nobody knows how many there are: the changes follow the seed.
    bytes: Random,
    world: World,
    /// A session of each listener that comes and goes.
    held: BTreeMap<u16, TcpStream>,
}

impl Changer {
    pub(crate) fn new(proxy: Arc<Proxy>, shared: Arc<Shared>, mut random: Random) -> Self {
        let (world, bytes) = (World::new(proxy.ports), Random::of_task(random.number(), 0));
        Self { proxy, shared, random, bytes, world, held: BTreeMap::new() }
    }

    /// Changes the configuration until the load stops, and restores it then.
    pub(crate) async fn run(mut self) {
        while !self.shared.is_stopped() {
            if let Err(why) = self.change().await {
                self.shared.fault("a change", &why);
            }
            self.shared.changes.fetch_add(1, Relaxed);
            sleep(self.random.millis(PAUSE.0, PAUSE.1)).await;
        }
        if let Err(why) = self.restore().await {
            self.shared.fault("the last change", &why);
        }
    }

    async fn change(&mut self) -> Result<(), String> {
        let ports = self.proxy.ports.fleeting().into_iter();
        let (present, absent): (Vec<u16>, Vec<u16>) = ports.partition(|port| self.world.fleeting.contains(port));
        let (added, removed) = (self.random.pick(&absent), self.random.pick(&present));
        match (self.random.below(4), added, removed) {
            (0, Some(port), _) | (1, Some(port), None) => self.add(port).await,
            (0 | 1, _, Some(port)) => self.remove(port).await,
            (2, ..) => self.transfer().await,
            _ => self.replace().await,
        }
    }

    /// Adds a listener.
    async fn add(&mut self, port: u16) -> Result<(), String> {
        self.world.fleeting.insert(port);
        self.apply(&[Effect::Serves(port, FIRST.1)]).await?;
        let stream = self.hold(port, FIRST.1).await?;
        self.held.insert(port, stream);
        Ok(())
    }

    /// Removes a listener, whose session is reset.
    async fn remove(&mut self, port: u16) -> Result<(), String> {
        self.world.fleeting.remove(&port);
        self.apply(&[Effect::Refuses(port)]).await?;
        // An earlier fault may have left none.
        let Some(mut stream) = self.held.remove(&port) else { return Ok(()) };
        match timeout(DEADLINE, stream.read(&mut [0; 1])).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            other => Err(format!("a session of a removed listener with onUpdate: Close was not reset: {other:?}")),
        }
    }

    /// Gives a listener another port. Its session stays.
    async fn transfer(&mut self) -> Result<(), String> {
        let from = self.world.moved_to;
        let others: Vec<u16> = self.proxy.ports.moves().into_iter().filter(|port| *port != from).collect();
        let Some(to) = self.random.pick(&others) else { return Ok(()) };
        let kept = self.hold(from, FIRST.1).await?;
        self.world.moved_to = to;
        self.apply(&[Effect::Serves(to, FIRST.1), Effect::Refuses(from)]).await?;
        self.is_kept(kept, FIRST.1).await
    }

    /// Replaces the backend of a listener. Its session stays at the earlier one.
    async fn replace(&mut self) -> Result<(), String> {
        let (port, name) = (self.proxy.ports.replaced, self.world.name());
        let kept = self.hold(port, name).await?;
        self.world.is_second = !self.world.is_second;
        self.apply(&[Effect::Serves(port, self.world.name())]).await?;
        self.is_kept(kept, name).await
    }

    /// Removes what is there no more than for a time.
    async fn restore(&mut self) -> Result<(), String> {
        self.held.clear();
        let gone: Vec<Effect> = self.world.fleeting.iter().map(|port| Effect::Refuses(*port)).collect();
        self.world = World::new(self.proxy.ports);
        self.apply(&gone).await?;
        let ports = self.proxy.ports;
        self.apply(&[Effect::Serves(ports.replaced, FIRST.1), Effect::Serves(self.world.moved_to, FIRST.1)]).await
    }

    /// Writes the document, and waits until all of this is noticed.
    async fn apply(&mut self, effects: &[Effect]) -> Result<(), String> {
        let changed = Instant::now();
        self.proxy.apply(&self.world).await.map_err(|error| format!("the document: {error}"))?;
        for effect in effects {
            while !self.is_seen(*effect).await {
                if changed.elapsed() > EFFECT {
                    return Err(format!("no effect within {EFFECT:?}: {effect:?}"));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn is_seen(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Serves(port, name) => match self.ask(port).await {
                Ok((stream, found)) => finish(stream).await.is_ok() && found == name,
                Err(_) => false,
            },
            Effect::Refuses(port) => {
                matches!(open(port).await, Err(Fault::Refused(error)) if error.kind() == ErrorKind::ConnectionRefused)
            }
        }
    }

    /// A session after its first exchange, and the name of its backend.
    async fn ask(&mut self, port: u16) -> Result<(TcpStream, u8), Fault> {
        let mut stream = open(port).await?;
        let name = self.exchange().run(&mut stream, false).await?;
        self.shared.sessions.fetch_add(1, Relaxed);
        Ok((stream, name))
    }

    fn exchange(&mut self) -> Exchange {
        Exchange { seed: self.bytes.number(), up: 100, down: 100, pause: 0 }
    }

    /// A session that stays open.
    async fn hold(&mut self, port: u16, name: u8) -> Result<TcpStream, String> {
        match self.ask(port).await {
            Ok((stream, found)) if found == name => Ok(stream),
            Ok((_, found)) => Err(format!("port {port}: the wrong backend ({})", char::from(found))),
            Err(fault) => Err(format!("port {port}: {fault}")),
        }
    }

    /// Whether a session is still one of this backend; it ends then.
    async fn is_kept(&mut self, mut stream: TcpStream, name: u8) -> Result<(), String> {
        let found = self.exchange().run(&mut stream, false).await;
        match found {
            Ok(found) if found == name => {
                finish(stream).await.map_err(|fault| format!("a session that stays: {fault}"))
            }
            Ok(found) => Err(format!("a session that stays has the wrong backend ({})", char::from(found))),
            Err(fault) => Err(format!("a session that stays: {fault}")),
        }
    }
}
