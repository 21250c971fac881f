//! A sink over HTTP: the messages in one request, and the meaning of its answer.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Backoff, Outgoing, Verdict, delivered, said};

mod body;
mod status;

pub use body::Format;

use status::Meaning;

/// The bounds of requests to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The format of bodies.
    pub format: Format,
    /// The longest body, unless one message alone is longer.
    pub batch_bytes: usize,
    /// The most messages in a body.
    pub batch_messages: usize,
    /// How long a body that is not full waits for more messages, from the first one on.
    pub linger: Duration,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAnswer<'a> {
    /// The status code.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// The start of the body.
    pub body: &'a [u8],
}

/// The consequence of an answer, beside the verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpOutcome {
    /// The sink has all messages of the request, or the only one in it is poison.
    Settled,
    /// One of the messages is poison. Fewer are posted next, at once, to find it.
    Bisected {
        /// The answer of the sink, for people.
        why: String,
    },
    /// The messages are posted again.
    Retried {
        /// When they are posted, on the clock of the call.
        at: Duration,
        /// The answer of the sink and the remedy, for people.
        why: String,
    },
}

/// Batches of messages to a sink over HTTP, one request after another, over any number of connections.
/// A message is delivered when the sink has answered 2xx to its request.
///
/// A batch that the sink refuses because of its contents is posted again in halves, until the message that it refuses
/// is alone. Halves are posted in order, so no message passes another.
#[derive(Debug)]
pub struct Http {
    settings: HttpSettings,
    /// Messages without a verdict, in order.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// How many waiting messages, from the first on, are in the request that is on its way.
    posted: usize,
    /// How many waiting messages, from the first on, include at least one that the sink refuses. 0: none is known.
    suspects: usize,
    /// The time before which nothing is posted.
    retry_at: Option<Duration>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Waiting {
    message: Outgoing,
    since: Duration,
    /// Why the format cannot carry the message.
    fault: Option<&'static str>,
}

impl Http {
    /// A sink that nothing was posted to.
    pub fn new(settings: HttpSettings) -> Self {
        Self {
            settings,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            posted: 0,
            suspects: 0,
            retry_at: None,
            backoff: Backoff::default(),
        }
    }

    /// How many messages may be pushed now, so that at most two batches wait. Ask before each push: long messages leave
    /// less room.
    pub fn room(&self) -> usize {
        let most = self.most_messages().saturating_mul(2);
        let has_bytes = self.waiting_bytes >= self.settings.batch_bytes.saturating_mul(2);
        if has_bytes { 0 } else { most.saturating_sub(self.waiting.len()) }
    }

    /// Adds a message to those that wait. `now` is the steady clock.
    pub fn push(&mut self, message: Outgoing, now: Duration) {
        let fault = self.settings.format.fault(&message.payload);
        self.waiting_bytes = self.waiting_bytes.saturating_add(message.payload.len());
        self.waiting.push_back(Waiting { message, since: now, fault });
    }

    /// When the next request is to be made. `None`: one is on its way, or no message waits.
    pub fn due(&self) -> Option<Duration> {
        let first = self.waiting.front().filter(|_| self.posted == 0)?;
        let full = self.waiting.len() >= self.most_messages() || self.waiting_bytes >= self.settings.batch_bytes;
        let at_once = full || self.suspects > 0 || first.fault.is_some();
        let due = if at_once { first.since } else { first.since.saturating_add(self.settings.linger) };
        Some(self.retry_at.map_or(due, |retry_at| retry_at.max(due)))
    }

    /// Makes `body` the next body and returns how many messages are in it. 0: there is nothing to post now. Pass the
    /// answer to [`Http::answered`], or call [`Http::failed`].
    pub fn post(&mut self, now: Duration, body: &mut Vec<u8>, verdicts: &mut Vec<Verdict>) -> usize {
        body.clear();
        if self.due().is_none_or(|due| due > now) {
            return 0;
        }
        self.pass_faulty(verdicts);
        let most = if self.suspects > 0 { (self.suspects / 2).max(1) } else { self.most_messages() };
        let format = self.settings.format;
        for Waiting { message, fault, .. } in self.waiting.iter().take(most) {
            let fits = body.len().saturating_add(message.payload.len() + body::AROUND) <= self.settings.batch_bytes;
            if fault.is_some() || (self.posted > 0 && !fits) {
                break;
            }
            format.add(&message.payload, body);
            self.posted += 1;
        }
        if self.posted > 0 {
            format.end(body);
        }
        self.posted
    }

    /// Takes the sink's answer. `chance` is from 0 up to, but not including, 1.
    pub fn answered(
        &mut self,
        answer: &HttpAnswer<'_>,
        now: Duration,
        chance: f64,
        verdicts: &mut Vec<Verdict>,
    ) -> HttpOutcome {
        let why = status::words(answer.status, &said(answer.body));
        match status::meaning(answer.status) {
            Meaning::Delivered => {
                self.answers();
                let posted = self.posted;
                self.settle(posted, verdicts);
                self.suspects = self.suspects.saturating_sub(posted);
                HttpOutcome::Settled
            }
            Meaning::Poison => {
                self.answers();
                self.refused(why, verdicts)
            }
            Meaning::Retry => {
                let asked = answer.retry_after.and_then(status::retry_after).unwrap_or_default();
                HttpOutcome::Retried { at: self.retry(now, chance, asked), why }
            }
        }
    }

    /// Takes a failure: there was no connection, or it broke before the answer. Returns when to post again.
    pub fn failed(&mut self, now: Duration, chance: f64) -> Duration {
        self.retry(now, chance, Duration::ZERO)
    }

    /// Whether the sink owes an answer.
    pub fn waits(&self) -> bool {
        self.posted > 0
    }

    fn most_messages(&self) -> usize {
        self.settings.batch_messages.max(1)
    }

    fn answers(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
    }

    fn retry(&mut self, now: Duration, chance: f64, asked: Duration) -> Duration {
        self.posted = 0;
        let at = now.saturating_add(self.backoff.pause(chance).max(asked));
        self.retry_at = Some(at);
        at
    }

    /// Takes the sink's refusal of the posted messages.
    fn refused(&mut self, why: String, verdicts: &mut Vec<Verdict>) -> HttpOutcome {
        if self.posted > 1 {
            self.suspects = self.posted;
            self.posted = 0;
            return HttpOutcome::Bisected { why };
        }
        let is_alone = self.posted == 1;
        self.suspects = 0;
        self.posted = 0;
        if is_alone && let Some(message) = self.pop() {
            verdicts.push(Verdict::Poison { number: message.number, reason: why });
        }
        HttpOutcome::Settled
    }

    fn settle(&mut self, posted: usize, verdicts: &mut Vec<Verdict>) {
        self.posted = 0;
        for _ in 0..posted {
            if let Some(message) = self.pop() {
                delivered(verdicts, message.number);
            }
        }
    }

    /// Passes the first messages if the format cannot carry them.
    fn pass_faulty(&mut self, verdicts: &mut Vec<Verdict>) {
        while let Some(fault) = self.waiting.front().and_then(|first| first.fault) {
            if let Some(message) = self.pop() {
                verdicts.push(Verdict::Poison { number: message.number, reason: fault.to_owned() });
            }
        }
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let message = self.waiting.pop_front()?.message;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(message.payload.len());
        Some(message)
    }
}

#[cfg(test)]
mod tests;
