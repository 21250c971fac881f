//! A thread for each direction of a connection: reads and writes block.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
};

/// Bytes of the buffer of a direction.
const BUFFER: usize = 16 << 10;

/// Forwards until the process ends.
pub(super) fn run(pairs: Vec<(TcpListener, u16)>) {
    thread::scope(|scope| {
        for (listener, to) in pairs {
            scope.spawn(move || accept(&listener, to));
        }
    });
}

fn accept(listener: &TcpListener, to: u16) {
    listener.set_nonblocking(false).expect("option");
    loop {
        // Without files there is nothing to do but to try again.
        let Ok((client, _)) = listener.accept() else { continue };
        // Without threads the connection is closed.
        let _ = thread::Builder::new().spawn(move || forward(&client, to));
    }
}

/// This thread has the direction to the client, and another one that to the server.
fn forward(client: &TcpStream, to: u16) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, || direction(client, &server))?;
        direction(&server, client);
        Ok(())
    })
}

/// Moves bytes until the end, which is passed on. An error ends the other direction too, which may wait in a call.
fn direction(from: &TcpStream, to: &TcpStream) {
    if copy(from, to).and_then(|()| to.shutdown(Shutdown::Write)).is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}
