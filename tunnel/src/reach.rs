//! Connects to an endpoint, through an HTTP proxy of the network if there is one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::select;
use tokio::time::{sleep, timeout};
use tunnel_core::families::{HEAD_START, interleave};
use tunnel_core::join::Address;

use crate::options;
use crate::proxy_connect::{ConnectError, Proxy};

/// Why no address could be reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// There is no address.
    #[error("no address of an endpoint is known")]
    Nowhere,
    /// The address, or the proxy, does not answer.
    #[error("cannot connect to {address}: check the address and the network path to it")]
    Unreachable {
        /// The address that was dialled.
        address: Address,
        /// The error.
        source: io::Error,
    },
    /// The proxy made no connection.
    #[error(transparent)]
    Proxy(ConnectError),
}

/// Connects to the first of the addresses that answers, and returns that address, too. Each gets an equal part of the
/// time.
pub(crate) async fn reach(
    addresses: &[Address],
    proxy: Option<&Proxy>,
    within: Duration,
) -> Result<(TcpStream, Address), ReachError> {
    let each = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = ReachError::Nowhere;
    for address in addresses {
        match timeout(each, connect(address, proxy)).await {
            Ok(Ok(tcp)) => return Ok((tcp, address.clone())),
            Ok(Err(error)) => failure = error,
            Err(_) => {
                failure = ReachError::Unreachable { address: address.clone(), source: io::ErrorKind::TimedOut.into() };
            }
        }
    }
    Err(failure)
}

async fn connect(address: &Address, proxy: Option<&Proxy>) -> Result<TcpStream, ReachError> {
    let proxy = proxy.filter(|proxy| !proxy.leaves_out(address));
    let first = proxy.map_or(address, Proxy::address);
    let unreachable = |source| ReachError::Unreachable { address: first.clone(), source };
    let mut tcp = dial(first).await.map_err(unreachable)?;
    options::of_carrier(&tcp).map_err(unreachable)?;
    if let Some(proxy) = proxy {
        proxy.connect(&mut tcp, address).await.map_err(ReachError::Proxy)?;
    }
    Ok(tcp)
}

/// Connects to one of the addresses that a host has.
async fn dial(address: &Address) -> io::Result<TcpStream> {
    let found = lookup_host((address.host(), address.port())).await?;
    race(interleave(found), TcpStream::connect).await
}

/// Tries the addresses in their order. The next attempt begins when one has failed, or when none was answered for a
/// while. The first connection wins, and the other attempts are given up. The caller bounds the time.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut left = VecDeque::from(addresses);
    let mut running = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match left.pop_front() {
            Some(address) => running.push(Box::pin(connect(address))),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let answer = select! {
            biased;
            answer = answered(&mut running) => answer,
            () = sleep(HEAD_START), if !left.is_empty() => continue,
        };
        match answer {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
}

/// Waits for the first answer, and removes its attempt.
async fn answered<F: Future>(running: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        let ended = running.iter_mut().enumerate().find_map(|(at, attempt)| match attempt.as_mut().poll(cx) {
            Poll::Ready(answer) => Some((at, answer)),
            Poll::Pending => None,
        });
        let Some((at, answer)) = ended else { return Poll::Pending };
        drop(running.swap_remove(at));
        Poll::Ready(answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    const V6: &str = "[2001:db8::1]:1";
    const V4: &str = "192.0.2.1:1";

    fn addresses(of: &[&str]) -> Vec<SocketAddr> {
        of.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// Returns the address that wins, and after how long, if IPv6 answers as `of_v6` says, and IPv4 at once.
    async fn winner<F: Future<Output = io::Result<()>>>(of_v6: impl Fn() -> F) -> (String, Duration) {
        let began = Instant::now();
        let connect = |address: SocketAddr| {
            let answer = address.is_ipv6().then(&of_v6);
            async move {
                if let Some(answer) = answer {
                    answer.await?;
                }
                io::Result::Ok(address)
            }
        };
        let won = race(addresses(&[V6, V4]), connect).await.expect("a connection");
        (won.to_string(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_leads_nowhere_costs_a_quarter_of_a_second() {
        let (won, after) = winner(pending).await;
        assert_eq!(won, V4);
        assert!((HEAD_START..HEAD_START * 2).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_begins_as_soon_as_one_fails() {
        let (won, after) = winner(|| ready(Err(io::ErrorKind::NetworkUnreachable.into()))).await;
        assert_eq!((won.as_str(), after), (V4, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_answers_late_wins_where_no_other_does() {
        let tried = RefCell::new(Vec::new());
        let connect = |address: SocketAddr| {
            tried.borrow_mut().push(address.to_string());
            async move {
                if address.is_ipv4() {
                    pending::<()>().await;
                }
                sleep(HEAD_START * 3).await;
                io::Result::Ok(address)
            }
        };
        let won = race(addresses(&[V6, V4]), connect).await.expect("a connection");
        assert_eq!((won.to_string().as_str(), tried.into_inner()), (V6, vec![V6.to_owned(), V4.to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn if_no_address_answers_the_last_error_is_told() {
        let refuse = |address: SocketAddr| ready(Err::<(), _>(io::Error::other(address.to_string())));
        let error = race(addresses(&[V6, V4]), refuse).await.expect_err("refused");
        assert_eq!(error.to_string(), V4);
        let error = race(Vec::new(), refuse).await.expect_err("nothing to try");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
