//! The agents of a herd: those of the library, all on one thread, each with a key and a certificate of its own.

use std::{
    fs, io,
    rc::Rc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    runtime::Builder,
    select,
    sync::{Semaphore, watch},
    task::{JoinSet, LocalSet},
    time::sleep,
};
use tunnel::{
    agent::{Connector, Event, Observer, Settings, run_observed},
    enrol::{Way, enrol},
    identity::{
        agent::{AgentFolder, Enrolled},
        tls::agent_config,
    },
    local::system_clock,
    secure::{AgentStream, AgentTls},
};
use tunnel_core::{
    Dialler, Limits, Side,
    allow::AllowList,
    hello::{Boot, Instance},
    identity::Dial,
    join::{Address, JoinString},
};

use super::seen::Seen;
use crate::{process::prefer_this_thread, subject::Home};

/// Agents that enrol at once: fewer than a server lets in as strangers of one address.
const AT_ONCE: usize = 16;
/// Time to enrol, as in `portlane agent`.
const ENROL_WITHIN: Duration = Duration::from_secs(20);
/// Time to connect to an endpoint, as in `portlane agent`.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The most endpoints of an agent, as in `portlane agent`.
const ENDPOINTS: usize = 32;

/// The running agents. They end on drop.
pub(super) struct Agents {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Agents {
    /// Starts an agent for each of these folders. They enrol first.
    pub(super) fn start(homes: Vec<Home>, seen: Seen) -> Self {
        let (stop, stopped) = watch::channel(false);
        let run = move || {
            // What the agents note is late whenever they have to wait for their CPU.
            prefer_this_thread();
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, live(homes, seen, stopped));
        };
        let thread = thread::Builder::new().name("agents".to_owned()).spawn(run).expect("a thread");
        Self { stop, thread: Some(thread) }
    }

    /// Returns true.
    ///
    /// # Panics
    /// An agent has ended.
    pub(super) fn are_running(&self) -> bool {
        assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "an agent of the herd has ended");
        true
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed.
            let _ = thread.join();
        }
    }
}

/// Runs the agents until they are stopped. None drains: there are no streams.
async fn live(homes: Vec<Home>, seen: Seen, mut stopped: watch::Receiver<bool>) {
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let mut agents = JoinSet::new();
    for (at, home) in homes.into_iter().enumerate() {
        agents.spawn_local(agent(at, home, turns.clone(), seen.clone(), stopped.clone()));
    }
    select! {
        biased;
        _ = stopped.changed() => {}
        ended = agents.join_next() => panic!("an agent has ended: {ended:?}"),
    }
}

async fn agent(at: usize, home: Home, turns: Rc<Semaphore>, seen: Seen, stopped: watch::Receiver<bool>) {
    let join = fs::read_to_string(&home.join).expect("a join string");
    let folder = AgentFolder::open(&home.folder).expect("a folder");
    let enrolled = {
        let _turn = turns.acquire().await.expect("turns for all");
        Box::pin(enrolled(&join, &folder)).await
    };
    let key = folder.key().expect("a key");
    let tls = AgentTls::new(agent_config(&key, &enrolled, system_clock()).expect("a usable certificate"));
    let addresses = JoinString::parse(&join).expect("a join string").addresses().to_vec();
    let notes = seen.clone();
    let observer: Observer = Rc::new(move |event: &Event<'_>| match event {
        Event::Connected { .. } => notes.notes().gained(at, Instant::now()),
        Event::Disconnected { .. } => notes.notes().lost(at),
        _ => {}
    });
    run_observed(settings(at, addresses), Noted { tls, seen }, boot(), stopped, observer).await;
}

/// Redeems a join string, however often the server is too busy.
async fn enrolled(join: &str, folder: &AgentFolder) -> Enrolled {
    let way = Way { proxy: None, within: ENROL_WITHIN, clock: system_clock() };
    let mut dialler = Dialler::default();
    loop {
        match enrol(join, folder, &way).await {
            Ok(enrolled) => return enrolled,
            Err(error) => {
                assert!(!error.is_final(), "an agent cannot enrol: {}", harness::chain(&error));
                sleep(dialler.pause(None, chance())).await;
            }
        }
    }
}

/// TLS of an agent, with notes of what it does.
struct Noted {
    tls: AgentTls,
    seen: Seen,
}

impl Connector for Noted {
    type Io = AgentStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<AgentStream> {
        self.seen.notes().dialled(Instant::now());
        let stream = self.tls.secure(tcp, dial).await?;
        self.seen.notes().shook_hands(Instant::now());
        Ok(stream)
    }
}

/// The settings of `portlane agent`.
fn settings(at: usize, addresses: Vec<Address>) -> Settings {
    Settings {
        addresses,
        proxy: None,
        instance: Instance::new(&format!("i{at}")).expect("a name"),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        allow: AllowList::nothing(Side::Dialler),
        limits: Limits::default(),
        max_endpoints: ENDPOINTS,
        connect_within: CONNECT_WITHIN,
        drain_within: Duration::ZERO,
        chance,
        // There are no streams.
        unacknowledged: |_| 0,
    }
}

/// A name for this run of an agent.
fn boot() -> Boot {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers");
    Boot(bytes)
}

/// A random number from 0 up to, but not including, 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().expect("random numbers")) / (f64::from(u32::MAX) + 1.0)
}
