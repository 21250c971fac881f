//! The targets of streams. Each end of a tunnel has an allow list, and both must allow a target.
//!
//! An entry is `HOST:PORT` or `HOST:PORT-PORT`, with a prefix `udp/` for datagrams. The host is a name, an address or a
//! network; an IPv6 address is in brackets. Names are compared as requested, never by what they resolve to: an entry
//! with an address allows no name, and an entry with a name allows no address. An empty list allows nothing.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};
use proxy_api::Destinations;

use crate::open::{MAX_HOST, Protocol, Reason, Refusal, Target};
use crate::session::Side;

#[cfg(test)]
mod tests;

/// The largest number of entries in a list.
pub const MAX_ENTRIES: usize = 64;

/// Why a text is not a valid entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No port.
    #[error("has no port: write HOST:PORT or HOST:PORT-PORT, and an IPv6 address in brackets")]
    NoPort,
    /// Not a port, or not a range.
    #[error("has the port {0:?}: write a number from 1 to 65535, or two with a hyphen, the lower one first")]
    Port(String),
    /// Not a name, an address or a network.
    #[error(
        "has the host {0:?}: write a name, an address or a network such as 10.0.0.0/8, and IPv6 in brackets, without a \
         zone"
    )]
    Host(String),
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// One entry is wrong.
    #[error("entry {place} of the allowed targets, {text:?}, {error}")]
    Entry {
        /// Its position, from 1.
        place: usize,
        /// The entry, shortened.
        text: String,
        /// The fault of the entry.
        error: EntryError,
    },
    /// The list has too many entries.
    #[error("there are {0} allowed targets, and 64 may be listed: merge neighbours into networks and port ranges")]
    TooMany(usize),
}

/// The targets that an entry allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    protocol: Protocol,
    host: Host,
    ports: RangeInclusive<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// The name in lower case, without a trailing dot.
    Name(String),
    /// A network; a single address is a network of one address.
    Network(IpNet),
}

impl Host {
    fn of(text: &str) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = bracketed {
            let network = inner.parse::<Ipv6Net>().ok().map(IpNet::V6);
            let address = inner.parse::<Ipv6Addr>().ok().map(|ip| alone(ip.into()));
            return network.or(address).map(Self::network);
        }
        if text.contains(':') {
            return None;
        }
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(alone));
        network.map(Self::network).or_else(|| name(text).map(Self::Name))
    }

    fn network(net: IpNet) -> Self {
        Self::Network(if net.prefix_len() == net.max_prefix_len() { alone(net.addr()) } else { net })
    }
}

/// The network of one address. A mapped address counts as its IPv4 address.
fn alone(ip: IpAddr) -> IpNet {
    IpNet::from(ip.to_canonical())
}

/// Normalizes a name for comparison. Refuses a name whose last label is a number: it is a mistyped address, which
/// resolvers interpret differently.
fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = text.len() <= MAX_HOST && text.split('.').all(is_label) && !is_number;
    is_name.then(|| text.to_ascii_lowercase())
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| is_number && *port != 0)
    };
    let ports = match text.split_once('-') {
        Some((first, last)) => port(first)?..=port(last)?,
        None => port(text)?..=port(text)?,
    };
    (!ports.is_empty()).then_some(ports)
}

/// The part of a text that an error repeats.
fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let (protocol, rest) = match (text.strip_prefix("udp/"), text.strip_prefix("tcp/")) {
            (Some(rest), _) => (Protocol::Udp, rest),
            (None, rest) => (Protocol::Tcp, rest.unwrap_or(text)),
        };
        // The port of an IPv6 address without brackets cannot be distinguished from the address.
        if rest.ends_with(']') || rest.parse::<IpAddr>().is_ok() || rest.parse::<IpNet>().is_ok() {
            return Err(EntryError::NoPort);
        }
        let (host, port) = rest.rsplit_once(':').ok_or(EntryError::NoPort)?;
        let host = Host::of(host).ok_or_else(|| EntryError::Host(short(host)))?;
        let ports = ports(port).ok_or_else(|| EntryError::Port(short(port)))?;
        Ok(Self { protocol, host, ports })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(prefix(self.protocol))?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Network(net) => {
                let is_alone = net.prefix_len() == net.max_prefix_len();
                let text = if is_alone { net.addr().to_string() } else { net.to_string() };
                match net {
                    IpNet::V4(_) => f.write_str(&text)?,
                    IpNet::V6(_) => write!(f, "[{text}]")?,
                }
            }
        }
        let (first, last) = (self.ports.start(), self.ports.end());
        if first == last { write!(f, ":{first}") } else { write!(f, ":{first}-{last}") }
    }
}

fn prefix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "udp/",
    }
}

/// The targets that one end allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    side: Side,
    entries: Vec<Entry>,
    /// Which link-local and metadata addresses a name may lead to: those that an entry lists.
    destinations: Destinations,
}

impl AllowList {
    /// Creates an empty list for one end, which allows nothing.
    #[must_use]
    pub fn nothing(side: Side) -> Self {
        Self::new(side, Vec::new())
    }

    /// Parses the list of one end.
    pub fn parse<T: AsRef<str>>(side: Side, entries: &[T]) -> Result<Self, AllowError> {
        if entries.len() > MAX_ENTRIES {
            return Err(AllowError::TooMany(entries.len()));
        }
        let read = entries.iter().enumerate().map(|(index, text)| {
            let text = text.as_ref();
            text.parse::<Entry>().map_err(|error| AllowError::Entry { place: index + 1, text: short(text), error })
        });
        Ok(Self::new(side, read.collect::<Result<Vec<Entry>, AllowError>>()?))
    }

    /// Builds the list of one end.
    fn new(side: Side, entries: Vec<Entry>) -> Self {
        let networks = entries.iter().filter_map(|entry| match &entry.host {
            Host::Network(net) => Some(*net),
            Host::Name(_) => None,
        });
        let destinations = Destinations { refuse_local: true, cidrs: networks.collect() };
        Self { side, entries, destinations }
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether a stream may lead to this target, as requested.
    pub fn check(&self, target: &Target) -> Result<(), Refusal> {
        let ip = target.host.parse::<IpAddr>().map(|ip| ip.to_canonical()).ok();
        let asked = name(&target.host);
        let allows = |entry: &Entry| {
            let matches = match (&entry.host, ip) {
                (Host::Network(net), Some(ip)) => net.contains(&ip),
                (Host::Name(name), None) => asked.as_ref() == Some(name),
                (Host::Network(_), None) | (Host::Name(_), Some(_)) => false,
            };
            matches && entry.protocol == target.protocol && entry.ports.contains(&target.port)
        };
        if self.entries.iter().any(allows) { Ok(()) } else { Err(self.refusal(target)) }
    }

    /// Whether a connection may be made to this address of an allowed target. Link-local addresses and the metadata
    /// services of clouds must be listed themselves: a name or a wide network does not allow them.
    pub fn check_address(&self, ip: IpAddr) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        if ip.is_loopback() || self.destinations.refuses_endpoint(ip).is_none() {
            return Ok(());
        }
        let detail = format!(
            "the target resolves to {ip}, a link-local address or a cloud metadata service: these are allowed only if \
             the address itself is on the list of allowed targets"
        );
        Err(Refusal { reason: Reason::NotAllowed, detail })
    }

    fn refusal(&self, target: &Target) -> Refusal {
        let prefix = prefix(target.protocol);
        let detail = match self.side {
            Side::Dialler => format!("the agent does not allow this target: start it with --allow {prefix}{target}"),
            Side::Listener => format!("spec.targets of the ForwardAgent does not list {prefix}{target}: add it"),
        };
        Refusal { reason: Reason::NotAllowed, detail }
    }
}
