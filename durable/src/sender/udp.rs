//! Delivery to a sink over UDP: each message is a datagram.

use std::convert::Infallible;
use std::io;

use durable_core::send::{ANSWER_WITHIN, Outgoing, Silent, Udp, Verdict};
use rustix::io::Errno;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::work::Work;
use super::{DIAL_WITHIN, Dial, SenderEvent, SessionError};
use crate::Kept;

/// Sends messages from the cursor on, until the system refuses a datagram. It does so after the system of the sink has
/// reported that no socket has the port.
pub(super) async fn session<D, E, F>(dial: &D, work: &mut Work<E, F>) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    F: FnMut(&SenderEvent),
{
    let dialled = timeout(DIAL_WITHIN, dial.udp()).await;
    let socket = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut udp = Udp::default();
    let mut verdicts = Vec::new();
    loop {
        work.wait().await?;
        let messages = work.read(udp.room()).await?;
        let sent = send(&socket, &mut udp, messages, &mut verdicts).await;
        // The datagrams before a refused one are sent.
        work.settle(&mut verdicts, sent.is_err()).await?;
        sent?;
    }
}

async fn send(
    socket: &UdpSocket,
    udp: &mut Udp,
    messages: Vec<Outgoing>,
    verdicts: &mut Vec<Verdict>,
) -> Result<(), SessionError> {
    let mut datagram = Vec::new();
    for message in messages {
        datagram.clear();
        udp.push(message, &mut datagram);
        let sent = timeout(ANSWER_WITHIN, socket.send(&datagram)).await;
        match sent.map_err(|_| Silent)? {
            Ok(_) => udp.sent(verdicts),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => udp.too_long(verdicts),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
