//! The protocol of a connection: the machines of [`durable_core::intake`], in one form.

use durable_core::intake::relp::{Received, Server};
use durable_core::intake::{Counts, Decoder, Framing, Limits};

/// The protocol of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Messages one after the other, which nobody answers.
    Framed(Framing),
    /// RELP: messages are answered when they are synced.
    Relp,
}

/// The state of one connection.
pub(super) enum Wire {
    Framed(Decoder),
    Relp(Box<Server>),
}

/// Messages that were received, and answers to the sender.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) messages: Vec<Vec<u8>>,
    /// Transactions of RELP to answer once the messages are synced.
    pub(super) transactions: Vec<u32>,
    pub(super) out: Vec<u8>,
}

impl Wire {
    pub(super) fn new(protocol: Protocol, limits: Limits) -> Self {
        match protocol {
            Protocol::Framed(framing) => Self::Framed(Decoder::new(framing, limits)),
            Protocol::Relp => Self::Relp(Box::new(Server::new(limits))),
        }
    }

    /// Takes the next bytes. After an error the connection is of no more use; messages that were taken before count.
    pub(super) fn feed(&mut self, bytes: &[u8], taken: &mut Taken) -> Result<(), String> {
        match self {
            Self::Framed(decoder) => decoder.feed(bytes, &mut taken.messages).map_err(|error| error.to_string()),
            Self::Relp(server) => {
                let mut received = Vec::new();
                let fed = server.feed(bytes, &mut received, &mut taken.out);
                for Received { transaction, payload } in received {
                    taken.transactions.push(transaction);
                    taken.messages.push(payload);
                }
                fed.map_err(|violation| violation.to_string())
            }
        }
    }

    /// Ends the stream, as the sender has ended its side.
    pub(super) fn end(&mut self, taken: &mut Taken) -> Result<(), String> {
        match self {
            Self::Framed(decoder) => decoder.end(&mut taken.messages).map_err(|error| error.to_string()),
            Self::Relp(server) => server.end().map_err(|violation| violation.to_string()),
        }
    }

    /// Whether the sender waits for the sync of its messages.
    pub(super) const fn answers(&self) -> bool {
        matches!(self, Self::Relp(_))
    }

    /// Answers the messages, which are synced.
    pub(super) fn synced(&mut self, taken: &mut Taken) {
        if let Self::Relp(server) = self {
            for transaction in taken.transactions.drain(..) {
                server.answer(transaction, &mut taken.out);
            }
        }
    }

    /// Whether both sides have closed the session.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Framed(_) => false,
            Self::Relp(server) => server.is_closed(),
        }
    }

    /// Bytes of memory that hold the message which has not ended.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Framed(decoder) => decoder.held(),
            Self::Relp(server) => server.held(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::Framed(decoder) => decoder.counts(),
            Self::Relp(server) => server.counts(),
        }
    }
}
