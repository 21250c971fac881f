//! Has sessions reset while memory is short: those of the sources that hold most of it.

use std::{mem, net::IpAddr};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::notices::notice;
use crate::{
    commands::{Command, WorkerHandle},
    core::{
        limits::{
            memory_use::MemoryUse,
            relief::{Held, Patience, choose},
        },
        logging::waits::Waits,
    },
    log::{Level, Notice},
    worker::SessionAt,
};

/// A session, with the position of its worker.
type OfWorker = (usize, SessionAt);
/// The answer of a worker, to come.
type Answer = oneshot::Receiver<Vec<Held<SessionAt>>>;

/// The relief of shortages. Workers are asked at one look, and their answers are used at the next one or later, so that
/// the control thread never waits for them.
#[derive(Debug, Default)]
pub(super) struct Relief {
    patience: Patience,
    /// The workers that have not answered yet.
    asked: Vec<(usize, Answer)>,
    /// The sessions of those that have.
    held: Vec<Held<OfWorker>>,
    /// Number of sessions that were reset.
    count: u64,
    /// The last notice of them.
    waits: Waits,
}

impl Relief {
    /// Has sessions of `workers` reset if `memory` is short at `now` (seconds of the process clock), once it has been for
    /// a while and all workers have answered; `None`: it is not short. Returns a notice if one is due. `memory` was read
    /// after [`Self::take_answers`].
    pub(super) async fn look(
        &mut self,
        memory: Option<MemoryUse>,
        workers: &[WorkerHandle],
        now: u64,
    ) -> Option<Notice> {
        self.patience.look(memory.is_some());
        let Some(memory) = memory else {
            (self.asked, self.held) = (Vec::new(), Vec::new());
            return None;
        };
        if !self.asked.is_empty() {
            return None;
        }
        let held = mem::take(&mut self.held);
        let least = self.patience.least(memory.limit);
        let chosen = least.map(|least| choose(held, memory.excess(), least)).unwrap_or_default();
        reset(workers, &chosen).await;
        self.ask(workers).await;
        self.count = self.count.saturating_add(chosen.len() as u64);
        let largest = chosen.first()?.client;
        self.waits.is_due(self.count, now).then(|| told(&chosen, largest))
    }

    /// Takes the answers that have arrived. A worker that has ended has no sessions. One that answers has ended the
    /// sessions that were to be reset before.
    pub(super) fn take_answers(&mut self) {
        let Self { asked, held, .. } = self;
        asked.retain_mut(|(worker, answer)| match answer.try_recv() {
            Ok(sessions) => {
                let of_worker = |Held { session, client, bytes }| Held { session: (*worker, session), client, bytes };
                held.extend(sessions.into_iter().map(of_worker));
                false
            }
            Err(TryRecvError::Closed) => false,
            Err(TryRecvError::Empty) => true,
        });
    }

    /// Asks the workers what their sessions hold.
    async fn ask(&mut self, workers: &[WorkerHandle]) {
        for (at, worker) in workers.iter().enumerate() {
            let (reply, answer) = oneshot::channel();
            if worker.send(Command::Weigh(reply)).await {
                self.asked.push((at, answer));
            }
        }
    }
}

/// Has the workers reset these sessions.
async fn reset(workers: &[WorkerHandle], chosen: &[Held<OfWorker>]) {
    for (at, worker) in workers.iter().enumerate() {
        let own = chosen.iter().filter(|held| held.session.0 == at);
        let own: Vec<SessionAt> = own.map(|held| held.session.1).collect();
        if !own.is_empty() {
            worker.send(Command::Reset(own)).await;
        }
    }
}

/// A notice of sessions that are reset, the first of them of this client.
fn told(chosen: &[Held<OfWorker>], largest: IpAddr) -> Notice {
    let bytes: u64 = chosen.iter().map(|held| held.bytes).sum();
    let message = format!(
        "reset {} that held {} MiB, because memory is short and peers do not read (reason Shortage); the source that \
         held most is that of client {largest}; find out why its sessions are not read, or raise the memory limit",
        proxy_api::count(chosen.len() as u64, "session"),
        bytes >> 20,
    );
    notice(Level::Warn, "memory", "process", message)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        num::NonZeroUsize,
        sync::{Arc, atomic::Ordering::Relaxed},
        thread,
        time::{Duration, Instant},
    };

    use arc_swap::ArcSwap;
    use tokio::task::yield_now;

    use super::*;
    use crate::{
        core::{
            backends::{
                balance::{Entry, Targets},
                endpoint::Endpoint,
            },
            limits::memory_looks::MemoryLooks,
            sessions::end::EndReason,
        },
        memory::Group,
        net::OsSocket,
        route::Served,
        settings::Settings,
        shared::Shared,
        supervisor::{
            Supervisor,
            fixtures::{id, listener, supervisor},
            shortages::Shortages,
        },
        threads::Workers,
        udp::SocketId,
    };

    /// Longest wait for anything.
    const PATIENCE: Duration = Duration::from_secs(20);
    const KIB: u64 = 1 << 10;
    /// The limit of the memory in the tests.
    const LIMIT: u64 = 1000 * KIB;

    #[test]
    fn a_notice_tells_what_is_reset_and_whose_it_is() {
        let held = |session: u64, last: u8, bytes: u64| Held {
            session: (0, SessionAt { place: 0, id: proxy_api::SessionId(session) }),
            client: IpAddr::from([192, 0, 2, last]),
            bytes,
        };
        let chosen = [held(1, 7, 5 << 20), held(2, 8, 4 << 20)];
        let notice = told(&chosen, chosen[0].client);
        assert_eq!((notice.level, notice.event), (Level::Warn, "memory"));
        assert!(notice.message.starts_with("reset 2 sessions that held 9 MiB"), "{}", notice.message);
        assert!(notice.message.contains("client 192.0.2.7;"), "{}", notice.message);
        assert!(notice.message.contains("(reason Shortage)"), "{}", notice.message);
    }

    /// A look at memory of which this much is in use, or which is not short.
    async fn look(relief: &mut Relief, used: Option<u64>, workers: &[WorkerHandle], now: u64) -> Option<Notice> {
        relief.take_answers();
        relief.look(used.map(memory), workers, now).await
    }

    /// Memory of which this much is in use.
    fn memory(used: u64) -> MemoryUse {
        MemoryUse { used, limit: LIMIT }
    }

    #[tokio::test]
    async fn a_worker_is_asked_once_until_it_has_answered_and_not_without_a_shortage() {
        let (worker, mut queue) = WorkerHandle::with_queue();
        let (workers, mut relief) = ([worker], Relief::default());
        let short = Some(950 * KIB);
        assert!(look(&mut relief, None, &workers, 0).await.is_none() && queue.try_recv().is_err());
        for now in 1..9 {
            assert!(look(&mut relief, short, &workers, now).await.is_none());
        }
        let Ok(Command::Weigh(reply)) = queue.try_recv() else { panic!("it is asked") };
        assert!(queue.try_recv().is_err(), "once");
        let at = |place| SessionAt { place, id: proxy_api::SessionId(7) };
        let held = |place, bytes| Held { session: at(place), client: [192, 0, 2, 1].into(), bytes };
        reply.send(vec![held(0, 100 * KIB), held(1, 200 * KIB)]).expect("the relief waits");
        assert!(look(&mut relief, short, &workers, 10).await.is_some());
        assert!(matches!(queue.try_recv(), Ok(Command::Reset(reset)) if reset == [at(1)]), "that is enough");
        let Ok(Command::Weigh(reply)) = queue.try_recv() else { panic!("it is asked again") };
        assert!(look(&mut relief, None, &workers, 11).await.is_none());
        assert!(reply.is_closed(), "the shortage is over");
    }

    #[tokio::test]
    async fn sources_that_hold_little_of_the_limit_keep_their_sessions_until_the_shortage_has_lasted() {
        let (worker, mut queue) = WorkerHandle::with_queue();
        let (workers, mut relief) = ([worker], Relief::default());
        let held = |last: u8| Held {
            session: SessionAt { place: last.into(), id: proxy_api::SessionId(7) },
            client: [192, 0, 2, last].into(),
            bytes: 30 * KIB,
        };
        for now in 0..5 {
            assert!(look(&mut relief, Some(950 * KIB), &workers, now).await.is_none());
            let Ok(Command::Weigh(reply)) = queue.try_recv() else { panic!("nothing is reset") };
            reply.send((0..6).map(held).collect()).expect("the relief waits");
        }
        assert!(look(&mut relief, Some(950 * KIB), &workers, 5).await.is_some());
        assert!(matches!(queue.try_recv(), Ok(Command::Reset(reset)) if reset.len() == 6));
    }

    /// A server that answers the first byte of each connection: by that byte, or by bytes without end if it is `f`.
    fn serve(server: TcpListener) {
        thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
                        while byte == *b"f" && stream.write_all(&[0; 1 << 14]).is_ok() {}
                    }
                });
            }
        });
    }

    /// A client that has sent this byte and has got the first byte of the answer.
    fn client(address: SocketAddr, byte: u8) -> TcpStream {
        let mut client = TcpStream::connect_timeout(&address, PATIENCE).expect("a place in the queue");
        client.set_read_timeout(Some(PATIENCE)).expect("an option");
        round_trip(&mut client, byte);
        client
    }

    fn round_trip(client: &mut TcpStream, byte: u8) {
        let mut answer = [0];
        client.write_all(&[byte]).expect("connected");
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [byte]);
    }

    /// A supervisor with one worker, which serves a listener at this address.
    async fn serving(backend: SocketAddr) -> (Supervisor, Arc<Shared>, SocketAddr) {
        let (mut it, _told) = supervisor();
        let settings = Settings { workers: NonZeroUsize::MIN, ..Settings::default() };
        it.workers = Workers::start(&settings, &it.process).expect("a thread");
        let shared = Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default());
        let endpoints = vec![Arc::new(Endpoint::new(backend))];
        let entry = Entry { id: "b".into(), weight: 1, priority: 0, endpoints, stats: Arc::default() };
        shared.targets.store(Arc::new(Targets::new(vec![entry])));
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("an option");
        let address = socket.local_addr().expect("bound");
        let route = Arc::new(ArcSwap::new(Arc::new(Served::One(shared.clone()))));
        let command = Command::Listen { id: SocketId(1), socket: OsSocket::Tcp(Arc::new(socket)), route };
        assert!(it.workers.handles[0].send(command).await);
        (it, shared, address)
    }

    // D7
    #[tokio::test]
    async fn the_client_that_fills_the_buffers_is_reset_and_a_client_that_reads_stays() {
        let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = backend.local_addr().expect("bound");
        serve(backend);
        let (mut it, shared, address) = serving(to).await;
        // The control group of the test stays.
        it.memory_looks = MemoryLooks::new(u64::MAX);
        let mut reads = client(address, b'e');
        let _does_not_read = client(address, b'f');
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        // The least receive buffer of a connection, 128 KiB, holds more than what has to be freed.
        let limit = LIMIT / 2;
        write("memory.current", format!("{}\n", limit - 45 * KIB));
        write("memory.stat", "inactive_file 0\n".to_owned());
        write("status", "RssAnon:\t0 kB\n".to_owned());
        it.shortages = Shortages::new(Group::open(folder.path(), &folder.path().join("status"), limit).map(Some));
        let ended = || shared.counters.closed[EndReason::Shortage.index()].load(Relaxed);
        for _ in 0..2 {
            it.look().await;
            assert_eq!(ended(), 0, "it may be slow for a moment");
        }
        let deadline = Instant::now() + PATIENCE;
        while ended() == 0 {
            assert!(Instant::now() < deadline, "the session is not reset");
            it.look().await;
            yield_now().await;
        }
        assert!(it.process.is_short_of_memory());
        round_trip(&mut reads, b'e');
        assert_eq!(ended(), 1);
        for worker in &it.workers.handles {
            assert!(worker.send(Command::Drain { millis: 0 }).await);
        }
        drop(reads);
        let Supervisor { workers, .. } = it;
        workers.join();
    }
}
