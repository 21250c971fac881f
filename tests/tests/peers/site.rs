//! A web server of a test, which answers each path as a function says.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    sync::Arc,
};

use harness::{Backend, Behaviour};

/// Starts a server. The function writes the answer to a request for a path, and may take its time.
pub(super) fn serve(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Backend {
    Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        // A client that leaves early is not an error of the server.
        let _ = requested(&stream).and_then(|path| answer(&path, &mut stream));
    })))
}

/// The path of a request, whose head is read to its end.
fn requested(stream: &TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Writes a whole answer with these headers.
pub(super) fn whole(stream: &mut TcpStream, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n{body}")
}
