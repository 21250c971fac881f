//! Connects to targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tunnel_core::allow::AllowList;
use tunnel_core::{Reason, Refusal, Target};

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses of an allowed target.
pub(super) async fn addresses(
    allow: &AllowList,
    target: &Target,
    within: Duration,
) -> Result<Vec<SocketAddr>, Refusal> {
    allow.check(target)?;
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        allow.check_address(ip)?;
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let lookup = timeout(within, lookup_host((target.host.as_str(), target.port))).await;
    let Ok(Ok(found)) = lookup else { return Err(unknown(target)) };
    let found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    let mut refusal = unknown(target);
    let mut allowed = Vec::new();
    for address in found {
        match allow.check_address(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(why) => refusal = why,
        }
    }
    if allowed.is_empty() { Err(refusal) } else { Ok(allowed) }
}

/// Connects to the first address of an allowed target that answers.
pub(super) async fn connect(allow: &AllowList, target: &Target, within: Duration) -> Result<TcpStream, Refusal> {
    let addresses = addresses(allow, target, within).await?;
    let each = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut refusal = unknown(target);
    for address in addresses {
        let failure = match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => match tcp.set_nodelay(true) {
                Ok(()) => return Ok(tcp),
                Err(error) => error,
            },
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        refusal = unreachable(target, &failure);
    }
    Err(refusal)
}

fn unknown(target: &Target) -> Refusal {
    let detail = format!("the agent's machine cannot resolve {}: check the name and its resolver", target.host);
    Refusal { reason: Reason::UnknownName, detail }
}

/// The refusal for an error of the network.
pub(super) fn unreachable(target: &Target, error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::TimedOut {
        let detail = format!("no answer in time: check that the agent's machine reaches {target}");
        return Refusal { reason: Reason::TimedOut, detail };
    }
    let detail = format!("the agent cannot connect ({error}): check that something listens at {target}");
    Refusal { reason: Reason::Unreachable, detail }
}
