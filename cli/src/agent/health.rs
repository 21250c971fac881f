//! The health address of an agent: /livez, /readyz and /metrics, with one request per connection.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use proxy::{
    clock::Clock,
    door::{Door, Place},
    http::{open, serve_texts},
};
use proxy_api::doors::{Bounds, Evict};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{spawn_local, yield_now},
    time::sleep,
};

use super::{counts::Counts, error::Error};

/// A newcomer always gets a place: a connection of the source with the most connections is evicted.
const DOOR: Bounds = Bounds { strangers: 16, per_source: 8, known: 0, evict: Evict::Any, rates: None };
/// The answer for an unknown path.
const KNOWN: &str = "the endpoints are /livez, /readyz and /metrics\n";
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
        // An evicted connection should close before the next one is accepted.
        yield_now().await;
    }
}

async fn converse(stream: TcpStream, place: Place, counts: Rc<Counts>) {
    serve_texts(stream, &place, KNOWN, |path| look(path, &counts)).await;
}

/// Returns the text at a path; an error is the description of a problem.
fn look(path: &str, counts: &Counts) -> Option<Result<String, String>> {
    let ok = || Ok("ok\n".to_owned());
    match path {
        "/livez" => Some(ok()),
        "/readyz" => Some(counts.lacks().map_or_else(ok, |why| Err(format!("{why}\n")))),
        "/metrics" => Some(Ok(counts.metrics())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::LocalSet,
        time::timeout,
    };

    use super::*;
    use crate::agent::counts::tests::connect;

    #[test]
    fn the_agent_is_ready_while_it_is_connected() {
        let counts = Counts::default();
        let before = look("/readyz", &counts).expect("a text").expect_err("not ready");
        assert!(before.contains("no tunnel server"), "{before}");
        assert_eq!(look("/livez", &counts), Some(Ok("ok\n".to_owned())));
        connect(&counts, "edge-0");
        assert_eq!(look("/readyz", &counts), Some(Ok("ok\n".to_owned())));
        let metrics = look("/metrics", &counts).expect("a text").expect("metrics");
        assert!(metrics.contains("\nportlane_agent_sessions 1\n"), "{metrics}");
        assert_eq!(look("/", &counts), None);
    }

    /// What a client is answered that sends this.
    async fn asked(address: SocketAddr, request: &str) -> String {
        let mut probe = TcpStream::connect(address).await.expect("connected");
        probe.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.expect("an answer");
        answer
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
            let answer = asked(address, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            let (name, text) = ("portlane_agent_http_connections_closed_total", counts.metrics());
            assert!(text.contains(name) && !text.contains(&format!("\n{name} 0\n")), "{text}");
            drop(silent);
        };
        LocalSet::new().run_until(timeout(Duration::from_secs(20), test)).await.expect("in time");
    }

    #[tokio::test]
    async fn a_connection_is_answered_once_and_closed_and_a_path_without_a_text_is_told_which_there_are() {
        let test = async {
            let (listener, address) = listen(([127, 0, 0, 1], 0).into()).expect("a port");
            spawn_local(serve(listener, Rc::default()));
            for (request, status, end) in [
                ("GET /livez", "200", "\r\n\r\nok\n"),
                ("GET /readyz", "503", " its log says why\n"),
                ("GET /", "404", "/metrics\n"),
                ("POST /livez", "405", "/livez answers GET, HEAD only\n"),
            ] {
                let answer = asked(address, &format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
                let begins = answer.starts_with(&format!("HTTP/1.1 {status} "));
                assert!(begins && answer.ends_with(end), "{request}: {answer}");
            }
        };
        LocalSet::new().run_until(timeout(Duration::from_secs(20), test)).await.expect("in time");
    }
}
