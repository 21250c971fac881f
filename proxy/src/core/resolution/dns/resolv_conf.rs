//! `/etc/resolv.conf`, read as glibc reads it.
//!
//! Readable parts count. glibc ignores the rest silently; here it is listed, so that it can be logged.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{fits, is_name};

/// The most servers that are queried, as in glibc; further lines are ignored.
pub const MOST_SERVERS: usize = 3;
/// Most search domains. glibc has no bound.
pub const MOST_DOMAINS: usize = 32;
/// The largest `ndots`, as in glibc.
const MOST_DOTS: i64 = 15;
/// The largest `timeout`, in seconds, as in glibc.
const MOST_SECONDS: i64 = 30;
/// The largest `attempts`, as in glibc.
const MOST_ATTEMPTS: i64 = 5;
/// The most problems that are listed.
const MOST_PROBLEMS: usize = 8;
/// The most characters of a word that a problem quotes.
const QUOTED: usize = 64;

/// A name server, on port 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub ip: IpAddr,
    /// Zone of a link-local address: the name or the number of an interface.
    pub zone: Option<String>,
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// `rotate`: begin with another server for each query.
    Rotate,
    /// `single-request` and `single-request-reopen`: query one family after the other.
    SingleRequest,
    /// `use-vc`: query over TCP.
    UseVc,
    /// `edns0`: say that long answers may come over UDP.
    Edns0,
    /// `no-aaaa`: do not query IPv6 addresses.
    NoAaaa,
    /// `no-tld-query`: do not query a name without a dot as written.
    NoTldQuery,
}

/// The prefixes of option words, in the order in which glibc compares them.
const FLAGS: [(&str, Flag); 8] = [
    ("rotate", Flag::Rotate),
    ("edns0", Flag::Edns0),
    ("single-request-reopen", Flag::SingleRequest),
    ("single-request", Flag::SingleRequest),
    ("no_tld_query", Flag::NoTldQuery),
    ("no-tld-query", Flag::NoTldQuery),
    ("use-vc", Flag::UseVc),
    ("no-aaaa", Flag::NoAaaa),
];

/// How to query name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers, 1 to [`MOST_SERVERS`].
    pub servers: Vec<Server>,
    /// Search domains without a trailing dot; the root is empty.
    pub search: Vec<String>,
    /// A name with at least this many dots is queried as written first.
    pub ndots: usize,
    /// Time for the first server to answer.
    pub timeout: Duration,
    /// How often all servers are queried, at least once.
    pub attempts: u32,
    /// Options that are on.
    pub flags: BTreeSet<Flag>,
    /// The parts that could not be read.
    pub problems: Vec<String>,
}

impl ResolvConf {
    /// Reads a `resolv.conf`. The host name of the machine gives the search domain if no line does.
    #[must_use]
    pub fn parse(bytes: &[u8], hostname: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            flags: BTreeSet::new(),
            problems: Vec::new(),
        };
        let mut has_search = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.starts_with(b"#") || line.starts_with(b";") {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            // glibc recognizes a keyword only at the start of a line, and only before a blank.
            let Some((keyword, rest)) = line.split_once([' ', '\t']) else { continue };
            let mut words = rest.split([' ', '\t', '\r']).filter(|word| !word.is_empty()).peekable();
            match keyword {
                "nameserver" => conf.server(words.next().unwrap_or_default()),
                // A line without a domain leaves an earlier line in force.
                "domain" | "search" if words.peek().is_some() => {
                    let most = if keyword == "domain" { 1 } else { MOST_DOMAINS };
                    conf.domains(words.take(most));
                    has_search = true;
                }
                "options" => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(Server { ip: Ipv4Addr::LOCALHOST.into(), zone: None });
        }
        if let Some((_, domain)) = hostname.split_once('.').filter(|_| !has_search) {
            conf.domains(std::iter::once(domain));
        }
        conf
    }

    /// Whether an option is on.
    #[must_use]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    fn server(&mut self, word: &str) {
        match server(word) {
            Some(server) if self.servers.len() < MOST_SERVERS => self.servers.push(server),
            Some(_) => {}
            None => self.problem("nameserver", word, "cannot be read"),
        }
    }

    fn domains<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        self.search.clear();
        for word in words {
            // The root is ".", or the empty text after a dot, which glibc skips.
            let domain = word.strip_prefix('.').unwrap_or(word);
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            if domain.is_empty() || is_name(domain) {
                self.search.push(domain.to_owned());
            } else if fits(domain) {
                self.problem("search domain", word, "cannot be read");
            } else {
                // glibc cannot build a query from it, and skips all later domains.
                self.problem("search domain", word, "cannot be read and ends the search domains");
                break;
            }
        }
    }

    fn option(&mut self, word: &str) {
        if let Some(number) = word.strip_prefix("ndots:") {
            self.ndots = usize::try_from(number_of(number).clamp(0, MOST_DOTS)).unwrap_or_default();
        } else if let Some(number) = word.strip_prefix("timeout:") {
            let seconds = number_of(number).clamp(1, MOST_SECONDS);
            self.timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
        } else if let Some(number) = word.strip_prefix("attempts:") {
            self.attempts = u32::try_from(number_of(number).clamp(1, MOST_ATTEMPTS)).unwrap_or(1);
        } else if let Some((_, flag)) = FLAGS.iter().find(|(start, _)| word.starts_with(start)) {
            self.flags.insert(*flag);
        }
    }

    fn problem(&mut self, what: &str, word: &str, consequence: &str) {
        if self.problems.len() < MOST_PROBLEMS {
            let word: String = word.chars().take(QUOTED).collect();
            self.problems.push(format!("{what} {word:?} {consequence}"));
        }
    }
}

/// A server. The unspecified address means this machine, as it does for glibc's connect.
fn server(word: &str) -> Option<Server> {
    if let Ok(ip) = word.parse::<Ipv4Addr>() {
        let ip = if ip.is_unspecified() { Ipv4Addr::LOCALHOST } else { ip };
        return Some(Server { ip: ip.into(), zone: None });
    }
    let (ip, zone) = word.split_once('%').map_or((word, None), |(ip, zone)| (ip, Some(zone.to_owned())));
    let ip = ip.parse::<Ipv6Addr>().ok()?;
    let ip = if ip.is_unspecified() { Ipv6Addr::LOCALHOST } else { ip };
    Some(Server { ip: ip.into(), zone })
}

/// A number as `atoi` reads it: anything after the digits is ignored, and without digits it is 0.
fn number_of(text: &str) -> i64 {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = digits
        .bytes()
        .take_while(u8::is_ascii_digit)
        .fold(0_i64, |number, digit| number.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    number.saturating_mul(sign)
}
