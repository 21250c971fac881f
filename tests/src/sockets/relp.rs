//! Both ends of RELP: a sink, and a client that sends numbered messages.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

use durable_core::{
    intake::{
        Limits, Oversize,
        relp::{Received, Server},
    },
    send::{Outgoing, Relp, Verdict},
};

/// Answers each message once `take` has it, until the client has left or `goes_on` says no. A read that times out is
/// repeated.
pub fn serve_relp(mut stream: TcpStream, goes_on: impl Fn() -> bool, mut take: impl FnMut(String)) {
    let mut server = Server::new(Limits { max_message_bytes: 1 << 16, oversize: Oversize::Drop });
    let mut buffer = [0; 4096];
    while goes_on() {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        let (mut received, mut out) = (Vec::new(), Vec::new());
        server.feed(&buffer[..count], &mut received, &mut out).expect("the client speaks RELP");
        for Received { transaction, payload } in received {
            take(String::from_utf8(payload).expect("text"));
            server.answer(transaction, &mut out);
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// Sends the messages from the number `first` on, no more than `window` without an answer, for as long as `message` has
/// one, and waits until all of them are answered. `answered` hears through which number they are.
///
/// # Errors
/// The connection ended before that, or the other end does not speak RELP.
pub fn send_relp(
    mut stream: TcpStream,
    window: usize,
    first: u64,
    message: impl Fn(u64) -> Option<String>,
    mut answered: impl FnMut(u64),
) -> io::Result<()> {
    let mut out = Vec::new();
    let mut relp = Relp::open(window, &mut out);
    let (mut buffer, mut verdicts, mut next) = ([0; 4096], Vec::new(), first);
    while relp.waits() {
        stream.write_all(&out)?;
        out.clear();
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        relp.received(&buffer[..count], &mut verdicts).map_err(io::Error::other)?;
        for verdict in verdicts.drain(..) {
            if let Verdict::Delivered { through } = verdict {
                answered(through);
            }
        }
        while relp.room() > 0
            && let Some(payload) = message(next)
        {
            relp.push(Outgoing { number: next, payload: payload.into_bytes() }, &mut out);
            next += 1;
        }
    }
    Ok(())
}
