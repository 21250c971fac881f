//! Messages that are longer than the server takes. The bound of the listener fits when the store is opened, but the server
//! may come back with a lower one, and so may the stream be changed.

use async_nats::jetstream::stream::Config;

use super::{HEADERS, Keeper};
use crate::Incoming;

/// Bytes of a message and its headers that a stream takes.
pub(super) fn most_of(stream: &Config) -> usize {
    match usize::try_from(stream.max_message_size) {
        // A stream without a bound says -1, or nothing.
        Err(_) | Ok(0) => usize::MAX,
        Ok(most) => most,
    }
}

/// Bytes of the longest message that connections may bring, where the server takes so many with the headers. Headers have
/// less than half of them unless that is very little.
fn longest_of(takes: usize) -> usize {
    takes.saturating_sub(HEADERS).max(takes / 2).max(1)
}

impl Keeper {
    /// Bytes of a message and its headers that the server takes, as it said when the connection was made, and its stream.
    fn takes(&self) -> usize {
        self.client.max_payload().min(self.stream_takes.get())
    }

    /// Whether the server takes a message, whatever its headers are.
    pub(super) fn surely_takes(&self, message: &Incoming) -> bool {
        message.payload.len().saturating_add(HEADERS) <= self.takes()
    }

    /// What the server takes, in words. An answer that says that a message is too long does not say what is not, so that is
    /// looked up unless it `is_known`.
    pub(super) async fn look_up_bound(&self, is_known: bool) -> String {
        // Without an answer, a message is given up all the same.
        if !is_known && let Ok(info) = self.info().await {
            self.stream_takes.set(most_of(&info.config));
        }
        // Before clients are notified: one that reconnects has the bound then.
        self.show_bound();
        self.words_of_bound()
    }

    /// Shows how long messages may be, if that is less than what the settings say.
    pub(super) fn show_bound(&self) {
        let longest = longest_of(self.takes());
        self.figures().longest = (longest < self.settings.max_message_bytes).then_some(longest);
    }

    /// What the server takes, and what is to be changed.
    fn words_of_bound(&self) -> String {
        let (url, stream) = (&self.settings.url, &self.settings.stream);
        let (server, of_stream) = (self.client.max_payload(), self.stream_takes.get());
        let way = "or lower maxMessageBytes of the listener";
        if of_stream < server {
            return format!(
                "the stream {stream} of {url} takes {of_stream} bytes with the headers; raise its max_msg_size, {way}"
            );
        }
        format!("{url} takes {server} bytes with the headers; raise max_payload of the server, {way}")
    }

    /// Messages were given up, as they are too long: so many, and the longest one of them has so many bytes.
    pub(super) fn gave_up(&self, messages: usize, longest: usize) {
        self.long.borrow_mut().come(messages as u64, longest, self.words_of_bound());
        self.tell_long();
    }

    /// Tells of messages that are too long, if it is time to.
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
