//! The options of a carrier's socket.

use std::io;

#[cfg(any(target_os = "android", target_os = "linux"))]
use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes of a carrier that may wait unsent in the kernel. Datagrams and the answers to heartbeats wait behind them:
/// without a bound, the kernel takes megabytes of a stream before a slow link has sent them.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_BYTES: u32 = 128 * 1024;

/// Sets the options of a carrier's socket, at either end and where carriers are handed over.
pub(crate) fn of_carrier(tcp: &TcpStream) -> io::Result<()> {
    // A carrier works without this option.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES);
    tcp.set_nodelay(true)
}
