//! Messages that are too long for the server. The bound of the listener fits when the store is opened, but the server
//! may come back with a lower one, and the stream may be changed.

use async_nats::jetstream::stream::Config;

use super::{HEADERS, Keeper};
use crate::Incoming;

/// The most bytes of a message and its headers that a stream takes.
pub(super) fn most_of(stream: &Config) -> usize {
    match usize::try_from(stream.max_message_size) {
        // A stream without a bound says -1, or nothing.
        Err(_) | Ok(0) => usize::MAX,
        Ok(most) => most,
    }
}

/// The longest message that connections may bring, if the server takes `takes` bytes with the headers. Headers have
/// less than half of these unless that is very little.
fn longest_of(takes: usize) -> usize {
    takes.saturating_sub(HEADERS).max(takes / 2).max(1)
}

impl Keeper {
    /// The most bytes of a message and its headers that the server, as it said on connecting, and the stream take.
    fn takes(&self) -> usize {
        self.client.max_payload().min(self.stream_takes.get())
    }

    /// Whether the server takes a message, whatever its headers are.
    pub(super) fn surely_takes(&self, message: &Incoming) -> bool {
        message.payload.len().saturating_add(HEADERS) <= self.takes()
    }

    /// The bound of the server, in words. An answer that says that a message is too long does not say what is not, so
    /// the bound is looked up unless it `is_known`.
    pub(super) async fn look_up_bound(&self, is_known: bool) -> String {
        // Without an answer, a message is given up all the same.
        if !is_known && let Ok(info) = self.info().await {
            self.stream_takes.set(most_of(&info.config));
        }
        // The bound is shown before clients are notified, so that it applies to one that reconnects.
        self.show_bound();
        self.words_of_bound()
    }

    /// Shows how long messages may be, if that is less than in the settings.
    pub(super) fn show_bound(&self) {
        let longest = longest_of(self.takes());
        self.figures().longest = (longest < self.settings.max_message_bytes).then_some(longest);
    }

    /// The bound of the server or the stream, and the remedy.
    fn words_of_bound(&self) -> String {
        let (url, stream) = (&self.settings.url, &self.settings.stream);
        let (server, of_stream) = (self.client.max_payload(), self.stream_takes.get());
        let way = "or lower maxMessageBytes of the listener";
        if of_stream < server {
            return format!(
                "the stream {stream} of {url} accepts at most {of_stream} bytes for a message and its headers; raise \
                 its max_msg_size, {way}"
            );
        }
        format!(
            "{url} accepts at most {server} bytes for a message and its headers; raise max_payload of the server, {way}"
        )
    }

    /// Records messages that were given up, as they are too long. The longest one has `longest` bytes.
    pub(super) fn gave_up(&self, messages: usize, longest: usize) {
        self.long.borrow_mut().come(messages as u64, longest, self.words_of_bound());
        self.tell_long();
    }

    /// Reports messages that are too long, if that is due.
    pub(super) fn tell_long(&self) {
        if let Some(event) = self.long.borrow_mut().due(self.opened.elapsed()) {
            self.figures().events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_messages_of_any_length_unless_it_has_a_bound() {
        let of = |max_message_size| most_of(&Config { max_message_size, ..Config::default() });
        assert_eq!([-1, 0, 1024].map(of), [usize::MAX, usize::MAX, 1024]);
    }

    #[test]
    fn connections_bring_messages_that_the_server_takes_with_their_headers() {
        assert_eq!([1 << 20, 6144, 3000, 0].map(longest_of), [(1 << 20) - HEADERS, 4096, 1500, 1]);
    }
}
