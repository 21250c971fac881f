//! The client of the API server, with deadlines: a request or a watch on a silently dead connection ends within 30 s,
//! not after the TCP timeouts of the kernel.

use std::time::Duration;

use kube::{Client, Config};

/// Timeout of connecting, including the TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence of a connection while a response is outstanding. Each piece of a response restarts the time, so
/// large lists may take longer. An API server itself ends requests other than watches after 60 s, and admission
/// webhooks are limited to 30 s.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for which a connection accepts no bytes of a request.
const STALL: Duration = Duration::from_secs(10);
/// Duration of one watch request, seconds. The API server ends a watch after this time, and a bookmark before the end
/// lets the next request continue there. The watcher gives up a connection that stays silent for five more seconds. So
/// a dead connection is noticed within 30 s, even if a load balancer keeps the connection open, which TCP keepalives
/// cannot detect.
pub const WATCH_SECONDS: u32 = 25;

/// Creates a client for requests and one for watches, from the `ServiceAccount` of the pod or from a kubeconfig.
///
/// # Errors
/// No API server is configured, or the configuration cannot be used.
pub async fn connect() -> Result<(Client, Client), kube::Error> {
    let config = bounded(Config::infer().await.map_err(kube::Error::InferConfig)?);
    let watches = Client::try_from(unrepeated(config.clone()))?;
    Ok((Client::try_from(config)?, watches))
}

/// The configuration with the deadlines of the operator.
#[must_use]
pub fn bounded(config: Config) -> Config {
    silent_for(SILENCE, config)
}

/// The configuration for watches. A client repeats a request up to 15 times while the status is 429, 503 or 504, with
/// pauses that grow to minutes. A load balancer without an API server sends these statuses. A request of a watch has no
/// deadline that would end these pauses, and the watch is retried after shorter ones.
fn unrepeated(mut config: Config) -> Config {
    config.default_retry = false;
    config
}

fn silent_for(silence: Duration, mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(silence);
    config.write_timeout = Some(STALL);
    // Otherwise, after the next request, the time that a pooled connection was idle would count as silence.
    config.reset_reader_on_write = true;
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    #[test]
    fn a_dead_connection_is_noticed_within_half_a_minute() {
        // C7: the watcher gives up five seconds after the end that it asked the API server for.
        assert!(Duration::from_secs(u64::from(WATCH_SECONDS) + 5) <= Duration::from_secs(30));
        let config = bounded(Config::new("http://127.0.0.1:1".parse().expect("an address")));
        assert!(config.read_timeout.is_some_and(|silence| silence <= Duration::from_secs(30)));
        assert!(config.connect_timeout.is_some_and(|connect| connect <= Duration::from_secs(30)));
        assert!(config.write_timeout.is_some_and(|stall| stall <= Duration::from_secs(30)));
    }

    // C7
    #[tokio::test]
    async fn a_request_that_is_never_answered_fails() {
        // The kernel completes connections to a listener that never accepts them.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(silent_for(Duration::from_millis(100), config)).expect("a client");
        let answer = timeout(Duration::from_secs(20), client.apiserver_version()).await;
        assert!(answer.expect("an end in time").is_err());
    }

    #[tokio::test]
    async fn a_load_balancer_without_an_api_server_fails_a_request_of_a_watch_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(unrepeated(bounded(config))).expect("a client");
        let unavailable = async {
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            for asked in 1.. {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                assert_eq!(asked, 1, "the client repeats the request");
                assert!(stream.read(&mut [0; 4096]).await.expect("a request") > 0);
                stream.write_all(answer).await.expect("an answer");
            }
        };
        let asking = timeout(Duration::from_secs(20), client.apiserver_version());
        tokio::select! {
            answer = asking => assert!(answer.expect("an end in time").is_err()),
            () = unavailable => {}
        }
    }
}
