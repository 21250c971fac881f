//! The client of kubelet's exec probes: asks a process of the same pod through its unix socket, so no client on the
//! network can delay a probe. The proxy and the operator are probed in this way.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Timeout of a probe. Kubelet has its own, which is shorter and counts: a process at its CPU limit may need seconds
/// for an answer. This one ends a probe that outlived kubelet's wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer came.
    #[error("no answer from {}", .socket.display())]
    Silent {
        /// The unix socket.
        socket: PathBuf,
        /// Why there was none.
        #[source]
        source: io::Error,
    },
    /// The text of an answer that says what is wrong.
    #[error("{0}")]
    Failed(String),
}

/// Requests an HTTP path at a unix socket.
///
/// # Errors
/// No answer came, or its status is not 200.
pub fn probe(socket: &Path, path: &str) -> Result<(), ProbeError> {
    let answer = ask(socket, path).map_err(|source| ProbeError::Silent { socket: socket.to_owned(), source })?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let words = answer.split_once("\r\n\r\n").map_or("", |(_, words)| words.trim());
    Err(ProbeError::Failed(words.to_owned()))
}

fn ask(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
