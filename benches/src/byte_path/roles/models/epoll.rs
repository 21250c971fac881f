//! One thread for all connections, with epoll: tokio's runtime, and a task for each connection. Bytes get from one
//! socket to the other in a buffer, or in a pipe without a copy.

use std::{
    cell::RefCell,
    future::pending,
    io,
    net::{Ipv4Addr, Shutdown},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Builder,
    task::spawn,
    try_join,
};

/// What bytes are carried in, one for each direction of a connection.
#[derive(Clone, Copy)]
pub(super) enum Carrier {
    Buffer {
        bytes: usize,
        /// Whether the buffer of an earlier connection is taken, if there is one.
        is_reused: bool,
    },
    Pipe {
        bytes: usize,
    },
}

thread_local! {
    /// Buffers of connections that have ended: as many as there were connections at the same time, at most.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Forwards until the process ends. The listeners do not block.
pub(super) fn run(pairs: Vec<(std::net::TcpListener, u16)>, carrier: Carrier) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (listener, to) in pairs {
            spawn(accept(TcpListener::from_std(listener).expect("a listener"), to, carrier));
        }
        pending::<()>().await;
    });
}

async fn accept(listener: TcpListener, to: u16, carrier: Carrier) {
    loop {
        // Without files there is nothing to do but to try again.
        let Ok((client, _)) = listener.accept().await else { continue };
        spawn(async move {
            let _ = forward(client, to, carrier).await;
        });
    }
}

/// Moves bytes both ways until both have ended, or one has failed.
async fn forward(mut client: TcpStream, to: u16, carrier: Carrier) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    match carrier {
        Carrier::Pipe { bytes } => {
            try_join!(by_pipe(&client, &server, bytes), by_pipe(&server, &client, bytes))?;
        }
        Carrier::Buffer { bytes, is_reused } => {
            let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
            let (mut up, mut down) = (take(bytes, is_reused), take(bytes, is_reused));
            let done = try_join!(copy(from_client, to_server, &mut up), copy(from_server, to_client, &mut down));
            if is_reused {
                FREE.with_borrow_mut(|free| free.extend([up, down]));
            }
            done?;
        }
    }
    Ok(())
}

fn take(bytes: usize, is_reused: bool) -> Vec<u8> {
    let found = if is_reused { FREE.with_borrow_mut(Vec::pop) } else { None };
    found.unwrap_or_else(|| vec![0; bytes])
}

/// Moves bytes until the end, which is passed on.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer).await? {
            0 => return to.shutdown().await,
            read => to.write_all(&buffer[..read]).await?,
        }
    }
}

/// The same through a pipe of this size. It is empty before each read, so that a call that would block says which
/// socket is not ready.
async fn by_pipe(from: &TcpStream, to: &TcpStream, bytes: usize) -> io::Result<()> {
    let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    fcntl_setpipe_size(&inlet, bytes)?;
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let fill = || splice(from, None, &inlet, None, bytes, flags).map_err(io::Error::from);
        let mut left = from.async_io(Interest::READABLE, fill).await?;
        if left == 0 {
            return SockRef::from(to).shutdown(Shutdown::Write);
        }
        while left > 0 {
            let drain = || splice(&outlet, None, to, None, left, flags).map_err(io::Error::from);
            let drained = to.async_io(Interest::WRITABLE, drain).await?;
            left -= drained;
        }
    }
}
