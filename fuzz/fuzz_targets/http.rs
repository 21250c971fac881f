//! The HTTP addresses of a proxy and that of an agent: what a client sends on one connection. The first byte picks the
//! address, and whether the client closes its side after the last byte or stays silent.

#![no_main]

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use proxy::{
    clock::Clock,
    core::control::reports::Published,
    door::Door,
    http::{Role, Startup, View, serve_stream, serve_texts},
    lives::Lives,
    log::{Level, Log, LogFormat},
    metrics::Metrics,
    process::Process,
    settings::Settings,
    supervisor::Control,
};
use proxy_api::{
    Configuration, LiveSessions,
    doors::{Bounds, Evict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::{mpsc, watch},
};

/// The address of either end.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Bytes on their way in each direction.
const PIPE: usize = 16 << 10;
/// Most bytes of an answer: the metrics of a proxy without listeners.
const ANSWER: usize = 256 << 10;
/// Longest connection, by the clock of the runtime.
const LONGEST: Duration = Duration::from_secs(11);
/// How much longer a connection is whose client follows events.
const FOLLOWED: Duration = Duration::from_secs(300);
/// Type of an answer that follows what happens.
const EVENTS: &[u8] = b"text/event-stream";
/// Most times that the server looks at a connection, beside once for each byte that the client sends.
const LOOKS: usize = 1000;

/// A proxy without listeners and workers.
static PROXY: LazyLock<(Process, Arc<Metrics>)> = LazyLock::new(|| {
    let lives = Lives::new(Clock::start());
    let guard = lives.guard("log");
    let log = Log::start(LogFormat::Text, Level::Error, 1, Box::new(std::io::sink()), guard).expect("a thread").0;
    let process = Process::new(&Settings::default(), None, None, lives, log);
    (process.clone(), Metrics::new(process))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, sent)) = bytes.split_first() else { return };
    let role = match (first & 64, first % 3) {
        (0, 0) => Some(Role::Health),
        (0, 1) => Some(Role::Admin),
        (0, _) => Some(Role::Local),
        // An agent.
        _ => None,
    };
    // The clock moves on when nothing else is left to do, so that a timeout takes no time.
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let answer = runtime.block_on(converse(role, first & 8 != 0, sent));
    assert!(answer.len() <= ANSWER, "{} bytes", answer.len());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
});

/// One connection from its first byte to its end; gives what the client has read.
async fn converse(role: Option<Role>, closes: bool, sent: &[u8]) -> Vec<u8> {
    let began = tokio::time::Instant::now();
    let (control, requests) = mpsc::channel(4);
    tokio::spawn(control_thread(requests));
    let (process, metrics) = PROXY.clone();
    let report = watch::channel(Published::default()).1;
    let startup = Startup { since: Instant::now(), patience: Duration::ZERO, beside_app: true };
    let view = View::new(process, metrics, report, control, startup);
    let (client, server) = duplex(PIPE);
    let (mut reader, mut writer) = split(client);
    let mut served: Pin<Box<dyn Future<Output = ()>>> = match role {
        Some(role) => Box::pin(serve_stream(server, (HERE, HERE), role, view)),
        None => Box::pin(agent(server)),
    };
    let mut looks = 0_usize;
    let serve = poll_fn(|cx| {
        looks += 1;
        served.as_mut().poll(cx)
    });
    let ask = async {
        // The server may have closed the connection.
        let _ = writer.write_all(sent).await;
        if closes {
            let _ = writer.shutdown().await;
        }
    };
    let read = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        answer
    };
    let ((), (), answer) = tokio::join!(serve, ask, read);
    let follows = answer.windows(EVENTS.len()).any(|part| part == EVENTS);
    let longest = if follows { LONGEST + FOLLOWED } else { LONGEST };
    assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
    assert!(looks <= LOOKS + sent.len(), "{looks} looks at {} bytes", sent.len());
    answer
}

/// Serves as an agent does, which is connected to no server.
async fn agent(stream: DuplexStream) {
    let bounds = Bounds { strangers: 1, per_source: 1, known: 0, evict: Evict::Any, rates: None };
    let place = Door::new(bounds, Clock::start()).enter(HERE).expect("a place");
    serve_texts(stream, &place, "the endpoints are /livez and /readyz\n", |path| match path {
        "/livez" => Some(Ok("ok\n".to_owned())),
        "/readyz" => Some(Err("no server\n".to_owned())),
        _ => None,
    })
    .await;
}

/// Answers as the control thread of a proxy without a configuration.
async fn control_thread(mut requests: mpsc::Receiver<Control>) {
    while let Some(request) = requests.recv().await {
        match request {
            Control::Current(reply) => drop(reply.send(Configuration::default())),
            Control::Inspect(_, reply) => drop(reply.send(LiveSessions::default())),
            Control::Apply { .. } | Control::Refused(_) | Control::Drain(_) => {}
        }
    }
}
