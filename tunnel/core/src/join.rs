//! The join string: everything that an agent needs to enrol, in one word.
//!
//! ```text
//! portlane-join-1.BASE64URL
//!
//! length u16 | check of the length u8 | root SHA-256 [32] | token [32] | expires u64
//! namespace | name | count of addresses u8 | (host | port u16)... | first 4 bytes of the SHA-256 of the rest
//! ```
//!
//! Numbers are big-endian, and a text is preceded by its length in one byte. The total length comes first: it
//! distinguishes a truncated string from a corrupted one.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use data_encoding::BASE64URL_NOPAD;

use crate::identity::{AgentName, Fingerprint};

#[cfg(test)]
mod tests;

/// Most characters of a join string.
pub const LONGEST: usize = 1024;
/// Most addresses in a join string.
pub const ADDRESSES: usize = 8;

/// How join strings of every version begin.
const FAMILY: &str = "portlane-join-";
const VERSION: &str = "1";
/// Longest host.
const HOST: usize = 253;
/// Bytes of the length and its check.
const HEADER: usize = 3;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// Why a text is not a join string, or why none can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The text does not look like a join string.
    #[error(
        "this is not a join string, as it does not begin with \"portlane-join-\": copy it from where it was issued"
    )]
    Foreign,
    /// The end of the string is missing.
    #[error("the join string is cut off: copy it again, complete and as one word")]
    Cut,
    /// The string has a space, a line break or another foreign character.
    #[error("character {0} does not belong in a join string: copy it as one word, without spaces and line breaks")]
    Character(usize),
    /// The checksum does not match.
    #[error("the join string is damaged, a character was changed or added: copy it again")]
    Damaged,
    /// The string has a version that this program does not know.
    #[error("the join string has version {0}, and this agent reads version 1: install a newer portlane here")]
    Newer(u32),
    /// The string is whole, but its content is not valid.
    #[error("the {0} in the join string is not valid: issue a new join string on the server")]
    Content(&'static str),
    /// There is no address, or too many.
    #[error("a join string has 1 to 8 addresses, not {0}: advertise fewer addresses of the server")]
    Addresses(usize),
    /// The addresses are too long for a join string.
    #[error("the join string would have {0} characters, and 1024 are allowed: advertise fewer or shorter addresses")]
    TooLong(usize),
}

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a tunnel server: write host:port, and an IPv6 address as [address]:port")]
pub struct AddressError(String);

/// An address at which agents reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The address of a host: a name, or an IP address without brackets.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let is_name = || host.len() <= HOST && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label);
        if port == 0 || !(host.parse::<IpAddr>().is_ok() || is_name()) {
            let host: String = host.chars().take(HOST).collect();
            return Err(AddressError(format!("{host}:{port}")));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(HOST).collect());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok()),
            None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':')),
        }
        .ok_or_else(wrong)?;
        Self::new(host, port.parse().map_err(|_| wrong())?).map_err(|_| wrong())
    }
}

/// A secret for one enrolment, or as many as its ledger allows. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Wraps these bytes as a token. They must be unpredictable.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret itself.
    pub const fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret as base64url without padding, for the stream between a proxy and its operator.
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// Reads the text of [`Token::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        <[u8; 32]>::try_from(bytes).ok().map(Self)
    }

    /// The fingerprint of the token, which is all that a server stores of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The content of a join string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinString {
    addresses: Vec<Address>,
    root: Fingerprint,
    agent: AgentName,
    expires: u64,
    token: Token,
}

impl JoinString {
    /// A join string for `agent` that pins the root certificate with the fingerprint `root`. It is valid until
    /// `expires`, seconds since 1970.
    pub fn new(
        addresses: Vec<Address>,
        root: Fingerprint,
        agent: AgentName,
        expires: u64,
        token: Token,
    ) -> Result<Self, JoinError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES {
            return Err(JoinError::Addresses(addresses.len()));
        }
        let made = Self { addresses, root, agent, expires, token };
        let length = made.encode().len();
        if length > LONGEST { Err(JoinError::TooLong(length)) } else { Ok(made) }
    }

    /// Reads a join string. Surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Self, JoinError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(FAMILY) else {
            let is_begun = !text.is_empty() && FAMILY.starts_with(text);
            return Err(if is_begun { JoinError::Cut } else { JoinError::Foreign });
        };
        let Some((version, body)) = rest.split_once('.') else {
            let is_begun = rest.len() <= 9 && rest.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if is_begun { JoinError::Cut } else { JoinError::Damaged });
        };
        if version != VERSION {
            let number = version.parse().ok().filter(|number: &u32| number.to_string() == version);
            return Err(number.map_or(JoinError::Damaged, JoinError::Newer));
        }
        if text.len() > LONGEST {
            return Err(JoinError::Damaged);
        }
        let is_foreign = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
        if let Some(at) = body.chars().position(is_foreign) {
            return Err(JoinError::Character(text.len() - body.len() + at + 1));
        }
        Self::read(&decode(body)?)
    }

    /// Reads the content from the bytes before the checksum.
    fn read(bytes: &[u8]) -> Result<Self, JoinError> {
        let content = |what: &'static str| move || JoinError::Content(what);
        let mut reader = Reader(bytes);
        reader.take(HEADER).ok_or_else(content("length"))?;
        let root = Fingerprint::from_bytes(reader.array().ok_or_else(content("fingerprint"))?);
        let token = Token::new(reader.array().ok_or_else(content("token"))?);
        let expires = u64::from_be_bytes(reader.array().ok_or_else(content("time"))?);
        let namespace = reader.text().ok_or_else(content("namespace"))?;
        let name = reader.text().ok_or_else(content("name"))?;
        let agent = AgentName::new(namespace, name).map_err(|_| JoinError::Content("name of an agent"))?;
        let count = reader.array::<1>().map(|[count]| usize::from(count));
        let count = count.filter(|count| (1..=ADDRESSES).contains(count)).ok_or_else(content("count of addresses"))?;
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            addresses.push(reader.address().ok_or_else(content("address"))?);
        }
        if !reader.0.is_empty() {
            return Err(JoinError::Content("end"));
        }
        Ok(Self { addresses, root, agent, expires, token })
    }

    /// Encodes the join string. It contains the token: it belongs in a Secret or a terminal, never in a log.
    pub fn encode(&self) -> String {
        let mut bytes = vec![0_u8; HEADER];
        bytes.extend(self.root.as_bytes());
        bytes.extend(self.token.secret());
        bytes.extend(self.expires.to_be_bytes());
        put_text(&mut bytes, self.agent.namespace());
        put_text(&mut bytes, self.agent.name());
        bytes.push(u8::try_from(self.addresses.len()).unwrap_or(u8::MAX));
        for address in &self.addresses {
            put_text(&mut bytes, &address.host);
            bytes.extend(address.port.to_be_bytes());
        }
        // Names and addresses are bounded to some 2,300 bytes.
        let length = u16::try_from(bytes.len() + CHECKSUM).unwrap_or(u16::MAX).to_be_bytes();
        for (to, from) in bytes.iter_mut().zip([length[0], length[1], check(length)]) {
            *to = from;
        }
        bytes.extend(checksum(&bytes));
        format!("{FAMILY}{VERSION}.{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// The addresses of the server, in the order in which to try them.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Fingerprint of the root certificate of the tunnels.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// The agent that may enrol.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// When the join string expires, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// The token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Whether the join string has expired.
    pub fn expired(&self, now: u64) -> bool {
        now >= self.expires
    }
}

impl fmt::Display for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join string of agent {} for ", self.agent)?;
        for (at, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
}

/// The check of the length. Without it, a typing error in the length would make a damaged string look truncated.
fn check(length: [u8; 2]) -> u8 {
    !(length[0] ^ length[1])
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let [one, two, three, four, ..] = *Fingerprint::of(bytes).as_bytes();
    [one, two, three, four]
}

/// Decodes a complete string to the bytes before its checksum.
fn decode(body: &str) -> Result<Vec<u8>, JoinError> {
    let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| JoinError::Damaged);
    let head = bytes(body.get(..4).ok_or(JoinError::Cut)?)?;
    let Ok([high, low, third]) = <[u8; HEADER]>::try_from(head) else { return Err(JoinError::Damaged) };
    if third != check([high, low]) {
        return Err(JoinError::Damaged);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if body.len() < BASE64URL_NOPAD.encode_len(length) {
        return Err(JoinError::Cut);
    }
    let mut bytes = bytes(body)?;
    let stated = bytes.split_off(bytes.len().saturating_sub(CHECKSUM));
    if bytes.len() + stated.len() != length || stated != checksum(&bytes) {
        return Err(JoinError::Damaged);
    }
    Ok(bytes)
}

/// Reads values from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = self.array::<1>()?;
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn address(&mut self) -> Option<Address> {
        let host = self.text()?;
        Address::new(host, u16::from_be_bytes(self.array()?)).ok()
    }
}
