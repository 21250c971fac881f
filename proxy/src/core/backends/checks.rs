//! The bytes that active checks send to a server, and the meaning of its answers: bytes in, the next step out.
//!
//! A dialogue reads no more than [`LONGEST`] bytes, answers no more than a few times, and accepts any bytes.

mod exchange;
mod mysql;
mod postgres;
#[cfg(test)]
mod tests;

use proxy_api::Probe;

use self::{exchange::Exchange, mysql::Mysql, postgres::Postgres};

/// Most bytes of an answer that a check reads.
pub const LONGEST: usize = 4096;
/// The most bytes of a server's text that a message quotes.
const QUOTED: usize = 200;

/// The next step of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The check waits for more of the answer.
    Read,
    /// The check sends these bytes and waits for an answer.
    Send(Vec<u8>),
    /// The server works; these bytes end the connection as the protocol requires.
    Passed(Vec<u8>),
    /// The server does not work, and why.
    Failed(String),
}

/// The conversation of one check with one server.
#[derive(Debug)]
pub struct Dialogue {
    kind: Kind,
    /// Bytes that the server sent and the protocol has not consumed yet.
    received: Vec<u8>,
    /// Bytes received so far.
    total: usize,
}

#[derive(Debug)]
enum Kind {
    Exchange(Exchange),
    Mysql(Mysql),
    Postgres(Postgres),
}

impl Dialogue {
    /// The dialogue of a check; `None` for checks that only connect, and for checks over HTTP.
    #[must_use]
    pub fn of(probe: &Probe) -> Option<Self> {
        let kind = match probe {
            Probe::Tcp | Probe::Http { .. } => return None,
            Probe::Exchange { send, expect } => Kind::Exchange(Exchange::new(send.bytes(), expect.bytes())),
            Probe::Mysql { user } => Kind::Mysql(Mysql::new(user.as_deref())),
            Probe::Postgres { user } => Kind::Postgres(Postgres::new(user.as_deref())),
        };
        Some(Self { kind, received: Vec::new(), total: 0 })
    }

    /// The bytes that the check sends first; often none.
    #[must_use]
    pub fn opening(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Exchange(exchange) => exchange.opening(),
            Kind::Mysql(_) => Vec::new(),
            Kind::Postgres(postgres) => postgres.opening(),
        }
    }

    /// Processes bytes from the server.
    pub fn take(&mut self, bytes: &[u8]) -> Step {
        self.total = self.total.saturating_add(bytes.len());
        let room = LONGEST.saturating_sub(self.received.len());
        self.received.extend(bytes.iter().take(room));
        let step = match &mut self.kind {
            Kind::Exchange(exchange) => exchange.next(&self.received),
            Kind::Mysql(mysql) => mysql.next(&mut self.received),
            Kind::Postgres(postgres) => postgres.next(&self.received),
        };
        match step {
            Step::Read | Step::Send(_) if self.total >= LONGEST => {
                Step::Failed(self.lacking(&format!("in its first {LONGEST} bytes")))
            }
            step => step,
        }
    }

    /// Why a check failed when the server ended the connection.
    #[must_use]
    pub fn ended(&self) -> String {
        self.lacking("before it ended the connection")
    }

    /// Why a check failed when its time ran out.
    #[must_use]
    pub fn late(&self, seconds: u32) -> String {
        self.lacking(&format!("within {seconds} s"))
    }

    fn lacking(&self, when: &str) -> String {
        let wanted = match &self.kind {
            Kind::Exchange(_) => "the expected answer",
            Kind::Mysql(mysql) => mysql.awaited(),
            Kind::Postgres(_) => "an answer of a PostgreSQL server",
        };
        if self.received.is_empty() {
            return format!("did not send {wanted} {when}");
        }
        format!("did not send {wanted} {when}, but {}", quoted(&self.received))
    }
}

/// The start of bytes from a stranger, in quotes, as printable ASCII.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for byte in bytes.iter().take(QUOTED) {
        if matches!(byte, b' '..=b'[' | b']'..=b'~') {
            text.push(char::from(*byte));
        } else {
            text.extend(byte.escape_ascii().map(char::from));
        }
    }
    text.push_str(if bytes.len() > QUOTED { "…'" } else { "'" });
    text
}
