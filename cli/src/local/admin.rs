//! A client of the admin address of a process on this machine.

use std::{io, net::SocketAddr, time::Duration};

use proxy_api::MAX_DOCUMENT_BYTES;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::error::Error;

/// Timeout of reading a document. The process answers at once, or hangs.
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads a document of the process.
pub(super) async fn get<T: DeserializeOwned>(address: SocketAddr, path: &'static str) -> Result<T, Error> {
    let failed = |why: String| Error::Admin { address, path, why };
    let answered = timeout(DEADLINE, exchange(address, path)).await;
    let answer = answered.map_err(|_| failed(format!("no answer within {} s", DEADLINE.as_secs())))??;
    let body = body(&answer).map_err(failed)?;
    serde_json::from_slice(body).map_err(|error| failed(error.to_string()))
}

/// Reads the whole answer of the process.
async fn exchange(address: SocketAddr, path: &'static str) -> Result<Vec<u8>, Error> {
    let mut stream = TcpStream::connect(address).await.map_err(|why| Error::NotRunning { address, why })?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    if stream.local_addr().ok() == Some(address) {
        return Err(Error::NotRunning { address, why: io::ErrorKind::ConnectionRefused.into() });
    }
    let failed = |error: io::Error| Error::Admin { address, path, why: error.to_string() };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: portlane\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_DOCUMENT_BYTES as u64).read_to_end(&mut answer).await.map_err(failed)?;
    Ok(answer)
}

/// Returns the body of a complete HTTP response, or why there is none.
fn body(answer: &[u8]) -> Result<&[u8], String> {
    const END: &[u8] = b"\r\n\r\n";
    let no_http = || "the answer is not HTTP".to_owned();
    let end = answer.windows(END.len()).position(|bytes| bytes == END).ok_or_else(no_http)?;
    let (head, rest) = answer.split_at(end);
    let body = rest.get(END.len()..).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)).ok_or_else(no_http)?;
    if status != "200" {
        return Err(format!("status {status}"));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    if length == Some(body.len()) {
        return Ok(body);
    }
    Err(format!("the answer is incomplete, or has more than {} MiB", MAX_DOCUMENT_BYTES >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_there_is_none() {
        let of = |answer: &str| body(answer.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"), Ok(b"[]".to_vec()));
        for (answer, why) in [
            ("", "not HTTP"),
            ("SSH-2.0-server\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[]", "is incomplete"),
            ("HTTP/1.1 200 OK\r\n\r\n[]", "is incomplete"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        ] {
            assert!(of(answer).is_err_and(|told| told.contains(why)), "{answer}");
        }
    }
}
