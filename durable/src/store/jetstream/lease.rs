//! The consumer of a stream, which one process has at a time.
//!
//! Each process answers on a subject of its own. A process that finds the consumer of another one asks there, and
//! removes the consumer of a process that is gone. The server would do so, too (`inactive_threshold`), but only after
//! the time in which messages have to be acknowledged, which is long, as a sink may be away.

use std::future::pending;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use durable_core::stream::{Answer, HELD, Way, consumer, process};
use futures_util::StreamExt;
use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Keeper;
use super::server::{Link, holder_subject};

/// The time after which the server gives a message again. It is long, as a new consumer gives all messages after a
/// break.
const GIVE_AGAIN: Duration = Duration::from_secs(3600);
/// The pause between two questions to the process that has the consumer.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// The time within which that process must answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// After this many answers the consumers are looked up again.
const LOOK_AFTER: u32 = 10;

/// The outcome of an attempt to get the consumer.
enum Tried {
    /// This process has the consumer.
    Taken(Box<PullConsumer>),
    /// Another process has the consumer: this one, if it is known.
    Held(Option<String>),
}

impl Keeper {
    /// Answers processes that ask whether this one is alive. This never ends, even if it cannot answer: the process
    /// then counts as gone, and loses its consumer.
    pub(super) async fn answer(&self) {
        if let Ok(mut questions) = self.client.subscribe(holder_subject(&self.settings, &self.id)).await {
            while let Some(question) = questions.next().await {
                if let Some(reply) = question.reply {
                    // The asking process asks again.
                    let _ = self.client.publish(reply, Bytes::new()).await;
                }
            }
        }
        pending::<()>().await;
    }

    /// Waits until this process can have the consumer, and creates it. `None`: the connection changed before.
    pub(super) async fn lease(&self, links: &mut watch::Receiver<Link>) -> Result<Option<PullConsumer>, String> {
        loop {
            let holder = match Box::pin(self.try_lease()).await? {
                Tried::Taken(consumer) => {
                    self.follows.set(false);
                    return Ok(Some(*consumer));
                }
                Tried::Held(holder) => holder,
            };
            self.follows.set(true);
            self.let_go();
            self.works(Way::Out);
            select! {
                () = self.outlast(holder.as_deref()) => {}
                _ = links.changed() => return Ok(None),
            }
        }
    }

    async fn try_lease(&self) -> Result<Tried, String> {
        let there = self.consumers_there().await?;
        let mut is_kept = false;
        for name in &there {
            match process(name) {
                None => {
                    let what = format!("its consumer {name} was not created by Portlane; remove it");
                    return Err(self.words("read", &what));
                }
                Some(id) if id == self.id => {
                    let held = self.holds.borrow().as_ref() == Some(name);
                    is_kept |= self.remove(name).await? && held;
                }
                Some(id) => {
                    if !self.is_gone(id).await {
                        return Ok(Tried::Held(Some(id.to_owned())));
                    }
                    self.remove(name).await?;
                }
            }
        }
        // Without a consumer of its own meanwhile, this process does not know what others have read.
        if !is_kept {
            self.let_go();
        }
        self.take_consumer().await
    }

    /// Creates a consumer, unless another process has been faster.
    async fn take_consumer(&self) -> Result<Tried, String> {
        if self.ask(&self.id).await != Answer::Here {
            let subject = holder_subject(&self.settings, "*");
            let what = format!("its user may not publish and subscribe to {subject}, or to _INBOX.>");
            return Err(self.words("read", &what));
        }
        let name = consumer(&self.id, self.consumers.replace(self.consumers.get() + 1));
        let config = pull::Config {
            durable_name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: GIVE_AGAIN,
            max_ack_pending: i64::try_from(HELD).unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        let made = Box::pin(self.context.create_consumer_on_stream(config, self.settings.stream.as_str())).await;
        let taken = match made {
            Ok(consumer) => consumer,
            Err(error) if code(&error) == Some(ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED) => {
                return Ok(Tried::Held(None));
            }
            Err(error) => return Err(self.words("read", &error)),
        };
        let info = self.info().await?;
        self.figures().bytes = info.state.bytes;
        let has_lost = self.window.borrow().is_past(info.state.last_sequence);
        if has_lost {
            self.let_go();
        }
        *self.holds.borrow_mut() = Some(name);
        self.see_ahead(&info);
        Ok(Tried::Taken(Box::new(taken)))
    }

    /// The names of all consumers.
    pub(super) async fn consumers_there(&self) -> Result<Vec<String>, String> {
        let name = self.settings.stream.as_str();
        let stream = self.context.get_stream_no_info(name).await.map_err(|error| self.words("read", &error))?;
        let (mut there, mut names) = (Vec::new(), stream.consumer_names());
        while let Some(name) = names.next().await {
            there.push(name.map_err(|error| self.words("read", &error))?);
        }
        Ok(there)
    }

    /// Removes a consumer. Returns whether the consumer was there until now.
    async fn remove(&self, name: &str) -> Result<bool, String> {
        let stream = self.settings.stream.as_str();
        match Box::pin(self.context.delete_consumer_from_stream(name, stream)).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(ErrorCode::CONSUMER_NOT_FOUND) => Ok(false),
            Err(error) => Err(self.words("read", &error)),
        }
    }

    /// Lets go of the messages in the window, as this process has no consumer: they are for another process.
    fn let_go(&self) {
        self.holds.borrow_mut().take();
        self.window.borrow_mut().let_go();
        self.ahead.set(0);
        self.figures().bytes = 0;
        self.show();
    }

    /// Waits until `holder`, which has the consumer, is gone, or it is time to look again.
    async fn outlast(&self, holder: Option<&str>) {
        for _ in 0..LOOK_AFTER {
            sleep(ASK_AFTER).await;
            let Some(holder) = holder else { return };
            if self.is_gone(holder).await {
                return;
            }
        }
    }

    async fn is_gone(&self, process: &str) -> bool {
        let answer = self.ask(process).await;
        self.patience.borrow_mut().hears(process, answer)
    }

    /// Asks a process whether it is alive.
    async fn ask(&self, process: &str) -> Answer {
        let request = Request::new().timeout(Some(ANSWERS_WITHIN));
        let asked = Box::pin(self.client.send_request(holder_subject(&self.settings, process), request)).await;
        heard(asked.err().map(|error| error.kind()), self.is_connected())
    }

    /// Sends the remaining acknowledgements, and gives the consumer up, so that another process need not wait.
    pub(super) async fn leave(&self) {
        self.send_waiting_acks().await;
        let last = self.last_ack.borrow_mut().take();
        if let Some(way) = last {
            // The last acknowledgement is sent once more, as a request: once it is answered, the server has all before
            // it.
            let _ = Box::pin(self.client.request(way, Bytes::new())).await;
        }
        let held = self.holds.borrow_mut().take();
        if let Some(name) = held {
            // Otherwise the next process finds out that this one is gone.
            let _ = self.remove(&name).await;
        }
    }
}

/// The answer of a process, by how the request to it ended. Without a connection, it is unknown whether it is silent.
fn heard(failed: Option<RequestErrorKind>, is_connected: bool) -> Answer {
    match failed {
        None => Answer::Here,
        Some(RequestErrorKind::NoResponders) => Answer::Gone,
        Some(RequestErrorKind::TimedOut) if is_connected => Answer::Silent,
        Some(_) => Answer::Unknown,
    }
}

/// The code of an error of the server.
fn code(error: &ConsumerError) -> Option<ErrorCode> {
    match error.kind() {
        ConsumerErrorKind::JetStream(error) => Some(error.error_code()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_if_the_server_says_so_and_silent_if_it_had_the_question_and_its_time_ran_out() {
        assert_eq!(heard(None, false), Answer::Here);
        assert_eq!(heard(Some(RequestErrorKind::NoResponders), true), Answer::Gone);
        assert_eq!(heard(Some(RequestErrorKind::TimedOut), true), Answer::Silent);
        assert_eq!(heard(Some(RequestErrorKind::TimedOut), false), Answer::Unknown, "the question may not have left");
        assert_eq!(heard(Some(RequestErrorKind::Other), true), Answer::Unknown);
    }
}
