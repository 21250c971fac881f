//! The health address of an agent: /livez, /readyz and /metrics, one request a connection.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use proxy::{
    clock::Clock,
    door::{Door, Place},
    http::open,
};
use proxy_api::doors::{Bounds, Evict};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
    task::{spawn_local, yield_now},
    time::{sleep, timeout},
};

use super::{counts::Counts, error::Error};

/// A newcomer always gets a place: the source with the most connections loses one.
const DOOR: Bounds = Bounds { strangers: 16, per_source: 8, known: 0, evict: Evict::Any, rates: None };
/// Longest head of a request.
const HEAD: usize = 8 << 10;
/// Time for a request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at an address. Returns the address with the port that was chosen, if it is 0.
pub(super) fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let bound = open(address).and_then(TcpListener::from_std).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| Error::Health { address, source })
}

/// Serves an address until the future is dropped.
pub(super) async fn serve(listener: TcpListener, counts: Rc<Counts>) {
    let door = Door::new(DOOR, Clock::start());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Ok(place) = door.enter(peer.ip()) {
                    spawn_local(converse(stream, place, counts.clone()));
                }
            }
            Err(_) => sleep(PAUSE).await,
        }
        counts.set_closed(door.closed().map(|(_, count)| count).sum());
        // Let a connection whose place was taken back close before the next one is accepted.
        yield_now().await;
    }
}

async fn converse(mut stream: TcpStream, place: Place, counts: Rc<Counts>) {
    let talk = async {
        let head = head(&mut stream).await?;
        place.asks();
        stream.write_all(answer(&head, &counts).as_bytes()).await?;
        stream.shutdown().await
    };
    select! {
        biased;
        () = place.taken_back() => {}
        // A client may disconnect at any time.
        _ = timeout(PATIENCE, talk) => {}
    }
}

/// The head of a request, with its empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut part).await?;
        if count == 0 || head.len() + count > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&part[..count]);
    }
    Ok(head)
}

/// The whole answer to a request.
fn answer(head: &[u8], counts: &Counts) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/livez") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", "/readyz") => match counts.lacks() {
            None => ("200 OK", "ok\n".to_owned()),
            Some(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        ("GET" | "HEAD", "/metrics") => ("200 OK", counts.metrics()),
        ("GET" | "HEAD", _) => ("404 Not Found", "the endpoints are /livez, /readyz and /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "the methods are GET and HEAD\n".to_owned()),
    };
    let length = body.len();
    let sent = if method == "HEAD" { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Allow: GET, HEAD\r\nConnection: close\r\n\r\n{sent}"
    )
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::agent::counts::tests::connect;

    fn asked(request: &str, counts: &Counts) -> String {
        answer(request.as_bytes(), counts)
    }

    #[test]
    fn the_agent_is_ready_while_it_is_connected() {
        let counts = Counts::default();
        let ready = "GET /readyz HTTP/1.1\r\n\r\n";
        let before = asked(ready, &counts);
        assert!(before.starts_with("HTTP/1.1 503 ") && before.contains("no tunnel server"), "{before}");
        assert!(asked("GET /livez HTTP/1.1\r\n\r\n", &counts).starts_with("HTTP/1.1 200 "));
        connect(&counts, "edge-0");
        assert!(
            asked(ready, &counts).ends_with("Content-Length: 3\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\nok\n")
        );
        let head = asked("HEAD /readyz?verbose HTTP/1.1\r\n\r\n", &counts);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(asked("GET /metrics HTTP/1.1\r\n\r\n", &counts).contains("\nportlane_agent_sessions 1\n"));
    }

    #[test]
    fn other_paths_and_methods_are_told_what_there_is() {
        let counts = Counts::default();
        for (request, status) in
            [("GET / HTTP/1.1\r\n\r\n", "404"), ("POST /livez HTTP/1.1\r\n\r\n", "405"), ("\r\n\r\n", "405")]
        {
            let answer = asked(request, &counts);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    // D2
    #[tokio::test]
    async fn silent_clients_keep_no_probe_out() {
        let test = async {
            let (listener, address) = listen(([127, 0, 0, 1], 0).into()).expect("a port");
            let counts = Rc::<Counts>::default();
            spawn_local(serve(listener, counts.clone()));
            let mut silent = Vec::new();
            for _ in 0..DOOR.strangers * 2 {
                silent.push(TcpStream::connect(address).await.expect("connected"));
            }
            let mut probe = TcpStream::connect(address).await.expect("connected");
            probe.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.expect("written");
            let mut answer = Vec::new();
            probe.read_to_end(&mut answer).await.expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
            let (name, text) = ("portlane_agent_http_connections_closed_total", counts.metrics());
            assert!(text.contains(name) && !text.contains(&format!("\n{name} 0\n")), "{text}");
            drop(silent);
        };
        LocalSet::new().run_until(timeout(Duration::from_secs(20), test)).await.expect("in time");
    }

    #[tokio::test]
    async fn a_connection_is_answered_and_closed_and_a_long_head_is_not_read() {
        let test = async {
            let (listener, address) = listen(([127, 0, 0, 1], 0).into()).expect("a port");
            spawn_local(serve(listener, Rc::default()));
            for (request, expected) in [
                ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "HTTP/1.1 200 OK"),
                (format!("GET /livez HTTP/1.1\r\nA: {}", "a".repeat(HEAD)), ""),
            ] {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                stream.write_all(request.as_bytes()).await.expect("written");
                let mut answer = Vec::new();
                // What was not read makes the end a reset.
                let _ = stream.read_to_end(&mut answer).await;
                assert!(answer.starts_with(expected.as_bytes()) && answer.is_empty() == expected.is_empty());
            }
        };
        LocalSet::new().run_until(timeout(Duration::from_secs(20), test)).await.expect("in time");
    }
}
