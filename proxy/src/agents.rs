//! Connections and flows to targets behind agents. Workers request them from the thread of the tunnels, the only one
//! that speaks to agents, and get one end of a pair of sockets, or of a pair of datagram queues.

mod flow;
mod link;
mod news;
mod told;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
    oneshot,
};

pub use self::{
    flow::FlowEnd,
    link::{Link, Side},
    news::AgentNews,
    told::ForTunnels,
};
use crate::core::backends::address::AgentAddress;

/// Most requests that wait for the thread of the tunnels. One more fails, and counts as a failed attempt.
pub const QUESTIONS: usize = 256;

/// The channel to the thread of the tunnels.
#[derive(Clone, Debug)]
pub struct Agents(Option<Arc<Door>>);

/// State shared by workers, the thread of the tunnels and metrics.
#[derive(Debug)]
pub struct Door {
    questions: mpsc::Sender<Question>,
    /// Notified when the process is about to end.
    pub draining: Notify,
    seen: Mutex<Seen>,
    /// Bytes of datagrams that wait between workers and the thread of the tunnels.
    datagrams: Arc<AtomicUsize>,
}

/// A request for a connection or a flow.
#[derive(Debug)]
pub struct Question {
    /// The target.
    pub to: Arc<AgentAddress>,
    /// The client of the connection; `None` for a check.
    pub client: Option<SocketAddr>,
    /// The requested kind, and the channel to the worker.
    pub wanted: Wanted,
}

/// A connection or a flow for a worker. Once the worker has left, the attempt is given up.
#[derive(Debug)]
pub enum Wanted {
    /// A connection.
    Stream(oneshot::Sender<io::Result<Link>>),
    /// A flow, whose first datagrams may already wait at this end.
    Flow(FlowEnd),
}

/// Metrics of the tunnels, about a second old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Instances of agents with a connection.
    pub agents: usize,
    /// Streams and flows of all sessions.
    pub streams: usize,
    /// Bytes that sessions share, and the most that they may.
    pub memory: (u64, u64),
    /// Datagrams that sessions have dropped.
    pub dropped_datagrams: u64,
    /// Connections that are being handed over to other proxies of the gateway, and to sidecars.
    pub handed: usize,
    /// Connections that were closed before they carried a session, by reason.
    pub closed: BTreeMap<&'static str, u64>,
}

impl Agents {
    /// A channel for proxies to which no agent can connect.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Creates the channel, and its end at the thread of the tunnels.
    #[must_use]
    pub fn served() -> (Self, Arc<Door>, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let door =
            Arc::new(Door { questions, draining: Notify::new(), seen: Mutex::default(), datagrams: Arc::default() });
        (Self(Some(door.clone())), door, asked)
    }

    /// Whether agents can connect.
    #[must_use]
    pub fn can_connect(&self) -> bool {
        self.0.is_some()
    }

    /// Connects to a target for a client. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(&self, to: &Arc<AgentAddress>, client: SocketAddr) -> io::Result<Link> {
        self.ask(to, Some(client)).await
    }

    /// Connects to a target for a check.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn check(&self, to: &Arc<AgentAddress>) -> io::Result<Link> {
        self.ask(to, None).await
    }

    async fn ask(&self, to: &Arc<AgentAddress>, client: Option<SocketAddr>) -> io::Result<Link> {
        let (reply, answer) = oneshot::channel();
        self.door()?.put(Question { to: to.clone(), client, wanted: Wanted::Stream(reply) })?;
        answer.await.map_err(|_| ended())?
    }

    /// Begins a flow to a target for a client. Datagrams may be sent at once; a failure is known when the flow ends.
    ///
    /// # Errors
    /// Why there is no flow.
    pub fn open_flow(&self, to: &Arc<AgentAddress>, client: SocketAddr) -> io::Result<FlowEnd> {
        let door = self.door()?;
        let (near, far) = FlowEnd::pair(&door.datagrams);
        door.put(Question { to: to.clone(), client: Some(client), wanted: Wanted::Flow(far) })?;
        Ok(near)
    }

    fn door(&self) -> io::Result<&Door> {
        let none = || io::Error::new(io::ErrorKind::NotConnected, "agents cannot connect to this proxy");
        self.0.as_deref().ok_or_else(none)
    }

    /// Tells agents that no new sessions are taken, because the process is about to end. Streams continue.
    pub fn drain(&self) {
        if let Some(door) = &self.0 {
            door.draining.notify_one();
        }
    }

    /// The metrics of the tunnels.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.0.as_ref().map(|door| door.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }
}

impl Door {
    fn put(&self, question: Question) -> io::Result<()> {
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{QUESTIONS} connections to agents wait to be opened, which is the limit"),
            ),
            TrySendError::Closed(_) => ended(),
        })
    }

    /// Replaces the metrics of the tunnels.
    pub fn show(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the thread of the tunnels has stopped")
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn address() -> Arc<AgentAddress> {
        let (uid, agent, instance) = ("u".into(), "infra/home".into(), "pi4".into());
        Arc::new(AgentAddress { uid, agent, instance, host: "127.0.0.1".into(), port: 80 })
    }

    fn client() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    #[tokio::test]
    async fn without_tunnels_or_after_their_end_a_connection_fails() {
        let ended = Agents::served().0;
        assert!(ended.can_connect() && !Agents::none().can_connect());
        for agents in [Agents::none(), ended] {
            let error = agents.open(&address(), client()).await.expect_err("nobody answers");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            let error = agents.open_flow(&address(), client()).expect_err("nobody answers");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        }
    }

    #[tokio::test]
    async fn a_question_too_many_fails_at_once_and_one_that_nobody_waits_for_is_known_as_such() {
        let (agents, _door, mut asked) = Agents::served();
        let to = address();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> = (0..QUESTIONS).map(|_| Box::pin(agents.open(&to, client()))).collect();
        assert!(waiting.iter_mut().all(|attempt| attempt.as_mut().poll(&mut cx).is_pending()));
        let error = agents.open(&to, client()).await.expect_err("the queue is full");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(waiting);
        let first = asked.recv().await.expect("a question");
        let Wanted::Stream(reply) = first.wanted else { panic!("no connection is asked for") };
        assert!(reply.is_closed() && first.client == Some(client()));
        let mut next = Box::pin(agents.open(&to, client()));
        assert!(matches!(next.as_mut().poll(&mut cx), Poll::Pending), "there is room again");
    }
}
