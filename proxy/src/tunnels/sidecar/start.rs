//! Starts the thread, even if the system has no room for it at first.

use std::{
    io,
    sync::{
        Arc, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use proxy_api::with_causes;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::LocalSet,
    time::{Instant, sleep_until},
};

use super::{Settings, Started, Thread};
use crate::{
    agents::{ForTunnels, Question},
    log::{Level, Log},
    signing::ToOperator,
    tunnels::{Shared, TunnelsError, answer::refuse},
};

/// The subject of log lines.
const SUBJECT: &str = "the agents of this sidecar";
/// Pause after the first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The inputs of the thread.
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) shared: Shared,
    pub(super) to_operator: ToOperator,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) configured: watch::Receiver<Arc<ForTunnels>>,
}

/// A thread, which waits for its inputs.
pub(super) type Begun = (SyncSender<Parts>, thread::JoinHandle<()>);

/// Begins the thread. It gets its parts later, so that an attempt that fails does not consume them.
pub(super) fn begin() -> io::Result<Begun> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (give, given) = sync_channel::<Parts>(1);
    let run = move || {
        let Ok(Parts { settings, shared, to_operator, questions, configured }) = given.recv() else { return };
        let life = shared.lives.begin("tunnels");
        LocalSet::new().block_on(&runtime, async move {
            Thread::new(settings, shared, to_operator).run(questions, configured, life).await;
        });
    };
    Ok((give, thread::Builder::new().name("tunnels".into()).spawn(run)?))
}

/// Starts the thread with the first configuration that has agents.
pub(super) async fn start(mut parts: Parts, started: Started, begin: impl FnMut() -> io::Result<Begun>) {
    let has_agents = |told: &Arc<ForTunnels>| told.agents.values().any(|agent| agent.gateway.is_some());
    if parts.configured.wait_for(has_agents).await.is_err() {
        return;
    }
    parts.shared.memory.begin();
    let log = parts.shared.log.clone();
    let ready = until_started(&log, &mut parts.questions, &mut parts.configured, begin).await;
    let Some((give, thread)) = ready else { return };
    parts.configured.mark_changed();
    *started.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    // The thread waits for its parts.
    let _ = give.send(parts);
}

/// The result of `start`. A failure, such as too many processes or open files in the pod, is logged, and `start` is
/// called again after a pause. Requests meanwhile are refused. `None`: nobody is left to change `configured`.
async fn until_started<T>(
    log: &Log,
    questions: &mut mpsc::Receiver<Question>,
    configured: &mut watch::Receiver<Arc<ForTunnels>>,
    mut start: impl FnMut() -> io::Result<T>,
) -> Option<T> {
    let mut pause = PAUSE;
    loop {
        match start() {
            Ok(started) => {
                if pause > PAUSE {
                    log.notice(Level::Info, "tunnels", SUBJECT, "the thread of the tunnels has started");
                }
                return Some(started);
            }
            Err(error) => {
                let why = with_causes(&TunnelsError::Thread(error));
                let message = format!("{why}; will retry in {} s", pause.as_secs());
                log.notice(Level::Error, "tunnels", SUBJECT, message);
            }
        }
        let again = Instant::now() + pause;
        loop {
            select! {
                Some(question) = questions.recv() => refuse(question),
                has_ended = ends(configured) => if has_ended { return None },
                () = sleep_until(again) => break,
            }
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Waits for a change. Returns whether none can follow.
async fn ends(configured: &mut watch::Receiver<Arc<ForTunnels>>) -> bool {
    configured.changed().await.is_err()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::timeout;

    use super::*;
    use crate::{agents::Agents, clock::Clock, core::backends::address::AgentAddress, lives::Lives, log::LogFormat};

    fn log() -> Log {
        let guard = Lives::new(Clock::start()).guard("log");
        Log::start(LogFormat::Text, Level::Info, 16, Box::new(io::sink()), guard).expect("a thread").0
    }

    fn no_room() -> io::Error {
        io::Error::from(io::ErrorKind::WouldBlock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_cannot_start_is_told_and_tried_again_until_it_starts() {
        let (log, began) = (log(), Instant::now());
        let (_agents, _door, mut questions) = Agents::served();
        let (sender, mut configured) = watch::channel(Arc::default());
        let mut tries = Vec::new();
        let start = || {
            tries.push(began.elapsed().as_secs());
            // An agent comes or goes meanwhile.
            sender.send_replace(Arc::default());
            if tries.len() < 9 { Err(no_room()) } else { Ok("started") }
        };
        assert_eq!(until_started(&log, &mut questions, &mut configured, start).await, Some("started"));
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        let told = log.recent();
        assert!(told.iter().all(|told| told.subject == SUBJECT));
        let is_failure = |message: &str| message.starts_with("cannot start the thread of the tunnels");
        assert_eq!(told.iter().filter(|told| is_failure(&told.message)).count(), 8);
        assert!(told.first().is_some_and(|told| told.message.ends_with("; will retry in 1 s")), "{told:?}");
        assert!(told.last().is_some_and(|told| told.level == Level::Info), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_meanwhile_is_refused_at_once_and_nothing_is_tried_after_the_end() {
        let (agents, _door, mut questions) = Agents::served();
        let (sender, mut configured) = watch::channel(Arc::default());
        let (uid, agent, instance) = ("u".into(), "infra/home".into(), "pi4".into());
        let to = Arc::new(AgentAddress { uid, agent, instance, host: "127.0.0.1".into(), port: 80 });
        let client = SocketAddr::from(([127, 0, 0, 1], 9));
        let log = log();
        let starts = until_started(&log, &mut questions, &mut configured, || Err::<(), _>(no_room()));
        let asks = async {
            let began = Instant::now();
            let error = agents.open(&to, client).await.expect_err("there is no thread");
            assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::PermissionDenied, Duration::ZERO));
            drop(sender);
        };
        let (started, ()) =
            timeout(Duration::from_secs(600), async { tokio::join!(starts, asks) }).await.expect("an end");
        assert_eq!(started, None);
        assert_eq!(log.recent().len(), 1);
    }
}
