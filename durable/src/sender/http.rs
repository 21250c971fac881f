//! Delivery to a sink over HTTP/1.1.

use std::convert::Infallible;
use std::time::Duration;

use durable_core::send::{ANSWER_WITHIN, Http, HttpAnswer, HttpOutcome, Silent};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::work::Work;
use super::{Dial, HttpSettings, SenderEvent, SessionError, connect};
use crate::{Kept, StoreError};

/// The longest head of an answer, and the most bytes of its body that are read. A longer one costs the connection.
const ANSWER_BYTES: usize = 16 * 1024;
/// How long the body of an answer is awaited: its head says all.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Posts messages from the cursor on, over one connection after another, until the store fails.
pub(super) async fn session<D, E, C, F>(
    dial: &D,
    settings: &HttpSettings,
    chance: &mut C,
    work: &mut Work<E, F>,
) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    C: FnMut() -> f64,
    F: FnMut(&SenderEvent),
{
    let http = Http::new(settings.batches());
    Session { client: Client { dial, settings, link: None }, chance, work, http, started: Instant::now(), again: 0 }
        .run()
        .await
}

struct Session<'a, D, E, C, F> {
    client: Client<'a, D>,
    chance: &'a mut C,
    work: &'a mut Work<E, F>,
    http: Http,
    started: Instant,
    /// How many waiting messages, from the first on, were posted before.
    again: usize,
}

impl<D, E, C, F> Session<'_, D, E, C, F>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    C: FnMut() -> f64,
    F: FnMut(&SenderEvent),
{
    async fn run(&mut self) -> Result<Infallible, SessionError> {
        loop {
            let due = self.http.due();
            if due.is_some_and(|due| due <= self.started.elapsed()) {
                self.post().await?;
                continue;
            }
            select! {
                there = self.work.wait(), if self.http.room() > 0 => {
                    there?;
                    for message in self.work.read(self.http.room()).await? {
                        self.http.push(message, self.started.elapsed());
                    }
                    let owes = self.owes();
                    self.work.settle(&mut Vec::new(), owes).await?;
                }
                () = sleep_until(self.started + due.unwrap_or_default()), if due.is_some() => {}
            }
        }
    }

    /// Posts the next batch, and takes the answer of the sink.
    async fn post(&mut self) -> Result<(), StoreError> {
        let (mut body, mut verdicts) = (Vec::new(), Vec::new());
        let count = self.http.post(self.started.elapsed(), &mut body, &mut verdicts);
        if count > 0 {
            self.work.resends(self.again.min(count));
            let answer = self.client.post(body).await;
            let (now, chance) = (self.started.elapsed(), (self.chance)());
            let outcome = match &answer {
                Ok(answer) => self.http.answered(&answer.heard(), now, chance, &mut verdicts),
                Err(error) => HttpOutcome::Retried { at: self.http.failed(now, chance), why: error.to_string() },
            };
            self.again = match outcome {
                HttpOutcome::Settled => self.again.saturating_sub(count),
                // Nothing was sent.
                _ if matches!(answer, Err(SessionError::Io(_))) => self.again,
                _ => self.again.max(count),
            };
            if let HttpOutcome::Retried { at, why } = outcome {
                self.work.tell(&SenderEvent::Ended { error: why, pause: at.saturating_sub(now) });
            }
        }
        let owes = self.owes();
        self.work.settle(&mut verdicts, owes).await
    }

    /// Whether there are messages without a verdict.
    fn owes(&self) -> bool {
        self.http.waits() || self.http.due().is_some()
    }
}

/// The HTTP client of a sender.
struct Client<'a, D> {
    dial: &'a D,
    settings: &'a HttpSettings,
    /// The connection of the last request, if its answer was read to the end.
    link: Option<Link>,
}

struct Link {
    /// The header `Host` of its requests.
    host: String,
    requests: SendRequest<Full<Bytes>>,
    /// The task that reads and writes. It ends when this is dropped.
    _driver: JoinSet<()>,
}

/// The parts of an answer that matter.
struct Answer {
    status: u16,
    retry_after: Option<String>,
    /// The start of the body.
    body: Vec<u8>,
}

impl Answer {
    fn heard(&self) -> HttpAnswer<'_> {
        HttpAnswer { status: self.status, retry_after: self.retry_after.as_deref(), body: &self.body }
    }
}

impl<D: Dial> Client<'_, D> {
    async fn post(&mut self, body: Vec<u8>) -> Result<Answer, SessionError> {
        let mut link = self.link().await?;
        let request = Request::post(self.settings.path.as_str())
            .header(HOST, link.host.as_str())
            .header(CONTENT_TYPE, self.settings.format.content_type())
            .header(USER_AGENT, "portlane")
            .body(Full::new(Bytes::from(body)))?;
        let answered = timeout(ANSWER_WITHIN, link.requests.send_request(request)).await;
        let (head, mut body) = answered.map_err(|_| Silent)??.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Answer { status: head.status.as_u16(), retry_after, body: Vec::new() };
        let read = timeout(BODY_WITHIN, read_start(&mut body, &mut answer.body)).await;
        if matches!(read, Ok(true)) {
            self.link = Some(link);
        }
        Ok(answer)
    }

    /// The connection of the last request, or a new one if that is closed.
    async fn link(&mut self) -> Result<Link, SessionError> {
        if let Some(mut link) = self.link.take() {
            let ready = timeout(BODY_WITHIN, link.requests.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Ok(link);
            }
        }
        let stream = connect(self.dial).await?;
        // Requests are written whole.
        stream.set_nodelay(true)?;
        let mut builder = Builder::new();
        builder.max_buf_size(ANSWER_BYTES);
        let (requests, connection) = builder.handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The request fails with the same error.
            let _ = connection.await;
        });
        Ok(Link { host: self.dial.host(), requests, _driver: driver })
    }
}

/// Reads the start of a body. Returns whether that is all of it.
async fn read_start(body: &mut Incoming, start: &mut Vec<u8>) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        if let Some(data) = frame.data_ref() {
            let left = ANSWER_BYTES.saturating_sub(start.len());
            start.extend_from_slice(data.get(..left).unwrap_or(data));
            if data.len() > left {
                return false;
            }
        }
    }
    true
}
