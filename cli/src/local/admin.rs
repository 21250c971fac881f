//! A client of the admin address of a process on this machine.

use std::{io, net::SocketAddr, time::Duration};

use proxy::http::ENDING;
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
/// Most characters of the reason for a refusal.
const REASON: usize = 200;

/// Why an answer has no document.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The process is shutting down.
    Ending,
    /// Any other problem.
    Unusable(String),
}

/// Reads a document of the process.
pub(super) async fn get<T: DeserializeOwned>(address: SocketAddr, path: &'static str) -> Result<T, Error> {
    let failed = |why: String| Error::Admin { address, path, why };
    let answered = timeout(DEADLINE, exchange(address, path)).await;
    let answer = answered.map_err(|_| failed(format!("no answer within {} s", DEADLINE.as_secs())))??;
    let body = body(&answer).map_err(|fault| match fault {
        Fault::Ending => Error::Ending { address, path },
        Fault::Unusable(why) => failed(why),
    })?;
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
fn body(answer: &[u8]) -> Result<&[u8], Fault> {
    const END: &[u8] = b"\r\n\r\n";
    let no_http = || Fault::Unusable("the answer is not HTTP".to_owned());
    let end = answer.windows(END.len()).position(|bytes| bytes == END).ok_or_else(no_http)?;
    let (head, rest) = answer.split_at(end);
    let body = rest.get(END.len()..).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next();
    let status = first.and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)).ok_or_else(no_http)?;
    let is_whole = header(&head, "content-length").and_then(|length| length.parse::<usize>().ok()) == Some(body.len());
    if status != "200" {
        let is_text = header(&head, "content-type").is_some_and(|kind| kind.starts_with("text/plain"));
        return Err(refusal(status, reason(body).filter(|_| is_whole && is_text)));
    }
    if is_whole {
        return Ok(body);
    }
    Err(Fault::Unusable(format!("the answer is incomplete, or has more than {} MiB", MAX_DOCUMENT_BYTES >> 20)))
}

/// The value of a header.
fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case(wanted) { Some(value.trim()) } else { None }
    })
}

/// The reason in the body of a refusal, if it is one line.
fn reason(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.is_empty() && !text.contains('\n')).then_some(text)
}

/// Describes a refusal. Another program may have refused, whose reason can have any length.
fn refusal(status: &str, reason: Option<&str>) -> Fault {
    match reason {
        Some(ENDING) if status == "503" => Fault::Ending,
        Some(reason) => {
            let reason: String = reason.chars().take(REASON).collect();
            Fault::Unusable(format!("status {status}: {reason}"))
        }
        None => Fault::Unusable(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_there_is_none() {
        let of = |answer: &str| body(answer.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"), Ok(b"[]".to_vec()));
        for (answer, expected) in [
            ("", "not HTTP"),
            ("SSH-2.0-server\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[]", "is incomplete"),
            ("HTTP/1.1 200 OK\r\n\r\n[]", "is incomplete"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        ] {
            let told = of(answer);
            assert!(matches!(&told, Err(Fault::Unusable(why)) if why.contains(expected)), "{answer}: {told:?}");
        }
    }

    /// The fault of an answer with this status, type and body.
    fn fault(status: &str, kind: &str, text: &str) -> Fault {
        let length = text.len();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        body(format!("{head}{text}").as_bytes()).map(<[u8]>::to_vec).expect_err("no document")
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_and_a_process_that_ends_as_that() {
        let plain = "text/plain; charset=utf-8";
        let ending = format!("{ENDING}\n");
        assert_eq!(fault("503", plain, &ending), Fault::Ending);
        let other = |status: &str, kind: &str, text: &str| match fault(status, kind, text) {
            Fault::Unusable(why) => why,
            Fault::Ending => panic!("{text}"),
        };
        assert_eq!(other("500", plain, &ending), format!("status 500: {ENDING}"));
        assert_eq!(other("404", plain, "no endpoint /config\n"), "status 404: no endpoint /config");
        assert_eq!(other("503", plain, &"x".repeat(5000)), format!("status 503: {}", "x".repeat(REASON)));
        for (kind, text) in [("text/html", "<p>no</p>"), (plain, "one\ntwo\n"), (plain, "\n")] {
            assert_eq!(other("503", kind, text), "status 503", "{text}");
        }
    }
}
