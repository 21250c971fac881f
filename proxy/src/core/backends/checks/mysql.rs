//! The connection phase of the `MySQL` and `MariaDB` protocol, version 10.
//!
//! A server counts a client that leaves before it has answered the greeting as a connection error, and blocks the
//! client's host after `max_connect_errors` of them. A refused login is no such error. So the check logs in and waits
//! for the answer, with the account that the forward names or with one that does not exist.

use super::{LONGEST, Step, quoted};

/// The account of checks that name none. No server should have it.
const NOBODY: &str = "portlane-check";
/// Length of a packet's header: three bytes length, one byte number.
const HEADER: usize = 4;
/// Most questions of the server after the login that the check answers.
const MOST_QUESTIONS: u8 = 4;
/// Longest name of a method of authentication that the check repeats, in bytes.
const LONGEST_METHOD: usize = 64;
/// `COM_QUIT`, the first packet of a command.
const QUIT: [u8; 5] = [1, 0, 0, 0, 1];

/// Capabilities of the login: long passwords, protocol 4.1, authentication of 4.1.
const CAPABILITIES: u32 = 0x0000_0001 | PROTOCOL_41 | 0x0000_8000;
const PROTOCOL_41: u32 = 0x0000_0200;
/// The flag for a login that names its method of authentication.
const METHODS: u32 = 0x0008_0000;
/// The largest packet that the check would accept, in bytes; clients usually send this value.
const LARGEST_PACKET: u32 = 1 << 24;

/// Errors that refuse an account, not a client: access denied, method of authentication not supported, method not
/// loaded, access denied without a password, TLS required.
const REFUSED_ACCOUNT: [u16; 5] = [1045, 1251, 1524, 1698, 3159];

#[derive(Debug)]
pub(super) struct Mysql {
    user: Option<String>,
    /// Questions answered after the login; `None` before the greeting.
    answered: Option<u8>,
}

impl Mysql {
    pub(super) fn new(user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned), answered: None }
    }

    /// The packet that the server has to send now, in words.
    pub(super) fn awaited(&self) -> &'static str {
        if self.answered.is_none() { "the greeting of a MySQL server" } else { "an answer to the login" }
    }

    /// Takes the next packet from the received bytes.
    pub(super) fn next(&mut self, received: &mut Vec<u8>) -> Step {
        let Some([low, middle, high, number]) = received.first_chunk::<HEADER>().copied() else { return Step::Read };
        let length = usize::from(low) | (usize::from(middle) << 8) | (usize::from(high) << 16);
        let end = HEADER + length;
        if end > LONGEST {
            return Step::Failed(format!("is not a MySQL server: it sent {}", quoted(received)));
        }
        let Some(payload) = received.get(HEADER..end).map(<[u8]>::to_vec) else { return Step::Read };
        received.drain(..end);
        let number = number.wrapping_add(1);
        match (self.answered, payload.split_first()) {
            (_, Some((0xff, rest))) => self.refused(rest),
            (None, Some((10, rest))) => self.log_in(rest, number),
            (None, _) => Step::Failed(format!("is not a MySQL server: it greeted with {}", quoted(&payload))),
            (Some(_), Some((0, _))) => Step::Passed(QUIT.to_vec()),
            (Some(answered), _) if answered == MOST_QUESTIONS => {
                Step::Failed(format!("asked more than {MOST_QUESTIONS} questions after the login"))
            }
            (Some(answered), _) => {
                self.answered = Some(answered + 1);
                Step::Send(packet(number, answer(&payload)))
            }
        }
    }

    /// Answers the greeting with a login without a password.
    fn log_in(&mut self, greeting: &[u8], number: u8) -> Step {
        let Some(Greeting { capabilities, charset, method }) = Greeting::read(greeting) else {
            return Step::Failed(format!("is not a MySQL server: it greeted with {}", quoted(greeting)));
        };
        if capabilities & PROTOCOL_41 == 0 {
            return Step::Failed("is a MySQL server older than 4.1".to_owned());
        }
        self.answered = Some(0);
        let mut login = (CAPABILITIES | (capabilities & METHODS)).to_le_bytes().to_vec();
        login.extend(LARGEST_PACKET.to_le_bytes());
        login.push(charset);
        login.extend([0; 23]);
        login.extend(self.user.as_deref().unwrap_or(NOBODY).bytes().filter(|byte| *byte != 0));
        // The terminator of the name, and the length of the proof.
        login.extend([0, 0]);
        if capabilities & METHODS != 0 {
            login.extend(method);
            login.push(0);
        }
        Step::Send(packet(number, login))
    }

    /// The step for an error of the server, which concerns the server itself, this host, or the account.
    fn refused(&self, error: &[u8]) -> Step {
        let (code, text) = match error {
            [low, high, b'#', _, _, _, _, _, text @ ..] | [low, high, text @ ..] => {
                (u16::from_le_bytes([*low, *high]), text)
            }
            _ => (0, error),
        };
        if self.answered.is_some() && self.user.is_none() && REFUSED_ACCOUNT.contains(&code) {
            return Step::Passed(Vec::new());
        }
        Step::Failed(format!("MySQL error {code}: {}", quoted(text)))
    }
}

/// The fields of a greeting that a login needs.
struct Greeting<'a> {
    capabilities: u32,
    charset: u8,
    /// Method of authentication that the server prefers.
    method: &'a [u8],
}

impl<'a> Greeting<'a> {
    /// Reads a greeting after its version.
    fn read(greeting: &'a [u8]) -> Option<Self> {
        let version = greeting.iter().position(|byte| *byte == 0)?;
        // Number of the connection, start of the challenge, filler.
        let rest = greeting.get(version + 1 + 4 + 8 + 1..)?;
        let [first, second, rest @ ..] = rest else { return None };
        let [charset, _, _, third, fourth, challenge, rest @ ..] = rest else {
            // The short form of old servers.
            let capabilities = u32::from_le_bytes([*first, *second, 0, 0]);
            return Some(Self { capabilities, charset: 8, method: &[] });
        };
        let capabilities = u32::from_le_bytes([*first, *second, *third, *fourth]);
        // Reserved bytes, and the rest of the challenge, which has at least 13 bytes.
        let after = 10 + usize::from(*challenge).saturating_sub(8).max(13);
        let method = rest.get(after..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
        let method = method.get(..LONGEST_METHOD).unwrap_or(method);
        Some(Self { capabilities, charset: *charset, method })
    }
}

/// Answers a request of the server: to use another method (`0xfe` and its name), or for more data.
///
/// Servers pick the method for an account that does not exist from those of other accounts. An answer of the wrong
/// length is a connection error; one of the right length is a wrong password.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = question.strip_prefix(&[0xfe]).and_then(|rest| rest.split(|byte| *byte == 0).next());
    match name {
        Some(b"mysql_native_password" | b"") => Vec::new(),
        // A signature of Ed25519.
        Some(b"client_ed25519") => vec![0; 64],
        // An empty text: the password of caching_sha2_password, sha256_password, mysql_clear_password and PAM.
        _ => vec![0],
    }
}

/// Builds a packet with this number. Packets of checks are far shorter than the 16 MiB that need several packets.
fn packet(number: u8, payload: Vec<u8>) -> Vec<u8> {
    let [low, middle, high, ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut packet = vec![low, middle, high, number];
    packet.extend(payload);
    packet
}
