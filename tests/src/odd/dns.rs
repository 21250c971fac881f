//! A name server that answers, delays, cuts, drops and lies as a test says, and remembers what it was asked.
//!
//! It writes its messages itself: a library would refuse to write some of them.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{
    Machine,
    records::{address_record, alias, beside, odd_records},
};

/// Longest UDP answer, in bytes: that of a server without EDNS.
const DATAGRAM: usize = 512;
/// Time to live of the records of a zone, in seconds.
const TTL: u32 = 300;
/// The bits of every answer: response, recursion desired and available.
const RESPONSE: u16 = 0x8180;
/// The bit of an answer that was cut.
const CUT: u16 = 0x0200;
/// The bits of the answer of a server that asks no others and is not responsible for the name: a response, no more.
const LAME: u16 = 0x8000;
/// The beginning of an OPT record: the root as name, and the type.
const OPT: [u8; 3] = [0, 0, 41];

/// Type of the records that a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    fn of_number(number: u16) -> Option<Self> {
        [Self::A, Self::Aaaa].into_iter().find(|kind| kind.number() == number)
    }
}

/// What a server does with a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Gives these addresses and this time to live in seconds. Over UDP an answer that is too long is cut.
    Addresses(Vec<IpAddr>, u32),
    /// Adds this address of a name that nobody asked for.
    Beside(IpAddr, Box<Self>),
    /// Gives these records as they are.
    Records(Vec<Vec<u8>>),
    /// Gives no records, is not responsible for the name and asks no others.
    Lame,
    /// Says that it failed.
    ServFail,
    /// Says that it does not understand the question.
    FormErr,
    /// Says that there is no such name.
    NoName,
    /// Says nothing.
    Silent,
    /// Replies so much later.
    Late(Duration, Box<Self>),
    /// Gives one of the addresses over UDP, marked as cut; all of them over TCP.
    Truncated(Box<Self>),
    /// Over UDP, sends the whole answer, however long it is.
    Uncut(Box<Self>),
    /// Over UDP, sends garbage and false answers first, from its own port and from another.
    Lies(Box<Self>),
    /// Over UDP, sends a datagram of one byte first, at which the C library gives up the server.
    Stub(Box<Self>),
}

impl Reply {
    /// These addresses with a time to live in seconds.
    ///
    /// # Panics
    /// One of them is no address.
    #[must_use]
    pub fn addresses(ttl: u32, addresses: &[&str]) -> Self {
        Self::Addresses(addresses.iter().map(|text| text.parse().expect("an address")).collect(), ttl)
    }
}

/// A question that a server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name in lower case, without the dot at its end.
    pub name: String,
    /// The type; `None`: neither of the two that are addresses.
    pub kind: Option<Kind>,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// Whether it says that long answers may come by UDP (EDNS).
    pub edns: bool,
    /// When it came.
    pub at: Instant,
}

/// A name server at port 53 of an address of a machine, over UDP and TCP. It runs until this process ends.
pub struct Dns(Server);

impl Dns {
    /// Starts a server. Each line of `zone` is a name with its addresses, or with `servfail`, `formerr`, `lame` or
    /// `silent`. Before one IPv4 address, `short` is a record with three bytes of an address, `cut` one that ends beyond the
    /// message, and `odd` an alias with bytes that no text holds, which has the address. `alias` alone is such an alias that
    /// leads to nothing. A name may begin with `*.` or be `*`; what has no line does not exist.
    #[must_use]
    pub fn start(machine: &Machine, address: &str, zone: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let (udp, stranger) =
            machine.within(|| Ok((UdpSocket::bind((address, 53))?, UdpSocket::bind((address, 0))?))).expect("bind");
        let tcp = machine.within(|| TcpListener::bind((address, 53))).expect("bind");
        let server =
            Server { zone: Arc::default(), asked: Arc::default(), udp: Arc::new(udp), stranger: Arc::new(stranger) };
        for line in zone.lines() {
            server.add(line);
        }
        let (datagrams, streams) = (server.clone(), server.clone());
        thread::spawn(move || datagrams.serve());
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let server = streams.clone();
                // A client that leaves is no failure.
                thread::spawn(move || server.stream(stream).is_ok());
            }
        });
        Self(server)
    }

    /// Replies so from now on to a question for this name and type.
    pub fn set(&self, name: &str, kind: Kind, reply: Reply) {
        let mut zone = self.0.zone.lock().expect("unpoisoned");
        let nothing = || [Reply::Addresses(Vec::new(), 1), Reply::Addresses(Vec::new(), 1)];
        let [a, aaaa] = zone.entry(name.to_owned()).or_insert_with(nothing);
        *(if kind == Kind::A { a } else { aaaa }) = reply;
    }

    /// All questions so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().expect("unpoisoned").clone()
    }

    /// How often this name and type were asked for so far.
    #[must_use]
    pub fn times(&self, name: &str, kind: Kind) -> usize {
        self.asked().iter().filter(|asked| asked.name == name && asked.kind == Some(kind)).count()
    }
}

/// Replies to questions for A and AAAA, by name.
type Zone = HashMap<String, [Reply; 2]>;

#[derive(Clone)]
struct Server {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    udp: Arc<UdpSocket>,
    /// A socket at another port.
    stranger: Arc<UdpSocket>,
}

impl Server {
    fn add(&self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return };
        let words: Vec<&str> = words.collect();
        let replies = match words.as_slice() {
            ["servfail"] => [Reply::ServFail, Reply::ServFail],
            ["silent"] => [Reply::Silent, Reply::Silent],
            ["formerr"] => [Reply::FormErr, Reply::FormErr],
            ["lame"] => [Reply::Lame, Reply::Lame],
            ["alias"] => [Reply::Records(vec![alias(TTL)]), Reply::addresses(TTL, &[])],
            [word @ ("short" | "cut" | "odd"), address] => {
                [Reply::Records(odd_records(word, address, TTL)), Reply::addresses(TTL, &[])]
            }
            addresses => {
                let of = |six| addresses.iter().copied().filter(|text| text.contains(':') == six).collect::<Vec<_>>();
                [Reply::addresses(TTL, &of(false)), Reply::addresses(TTL, &of(true))]
            }
        };
        self.zone.lock().expect("unpoisoned").insert(name.to_owned(), replies);
    }

    /// The reply to a question, which is remembered.
    fn reply(&self, question: &Question, tcp: bool) -> Reply {
        let Question { name, kind, edns, .. } = question;
        let asked = Asked { name: name.clone(), kind: *kind, tcp, edns: *edns, at: Instant::now() };
        self.asked.lock().expect("unpoisoned").push(asked);
        let zone = self.zone.lock().expect("unpoisoned");
        let wildcards = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..])).chain(["*".to_owned()]);
        match [name.clone()].into_iter().chain(wildcards).find_map(|key| zone.get(&key)) {
            None => Reply::NoName,
            Some([a, aaaa]) => match kind {
                Some(Kind::A) => a.clone(),
                Some(Kind::Aaaa) => aaaa.clone(),
                None => Reply::Addresses(Vec::new(), TTL),
            },
        }
    }

    fn serve(&self) {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, client)) = self.udp.recv_from(&mut buffer) else { continue };
            let Some(question) = Question::read(&buffer[..length]) else { continue };
            let (reply, server) = (self.reply(&question, false), self.clone());
            thread::spawn(move || server.send(&question, reply, client));
        }
    }

    fn send(&self, question: &Question, reply: Reply, client: SocketAddr) {
        match reply {
            Reply::Late(by, then) => {
                pause(by);
                self.send(question, *then, client);
            }
            Reply::Lies(truth) => {
                self.lie(question, client);
                self.send(question, *truth, client);
            }
            Reply::Stub(then) => {
                let _ = self.udp.send_to(&[0], client);
                self.send(question, *then, client);
            }
            reply => {
                if let Some(bytes) = question.datagram(reply) {
                    let _ = self.udp.send_to(&bytes, client);
                }
            }
        }
    }

    /// Sends what no client may take for the answer.
    fn lie(&self, question: &Question, client: SocketAddr) {
        let lie = |question: &Question| {
            let false_address = match question.kind {
                Some(Kind::Aaaa) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x666)),
                _ => IpAddr::from([192, 0, 2, 66]),
            };
            question.answer(0, &[false_address], TTL)
        };
        let other_id = Question { id: question.id.map(|byte| !byte), ..question.clone() };
        let mut other_name = question.clone();
        // The first letter of the name.
        other_name.section[1] ^= 1;
        for bytes in [vec![0xff; 40], lie(&other_id), lie(&other_name)] {
            let _ = self.udp.send_to(&bytes, client);
        }
        let _ = self.stranger.send_to(&lie(question), client);
    }

    fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut packet = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut packet)?;
            let Some(question) = Question::read(&packet) else { return Ok(()) };
            let reply = self.reply(&question, true);
            if let Some(bytes) = question.whole(reply) {
                let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
                stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "an answer that comes late is what the test is about")]
fn pause(time: Duration) {
    thread::sleep(time);
}

#[derive(Clone)]
struct Question {
    id: [u8; 2],
    name: String,
    kind: Option<Kind>,
    /// The section of the message: name, type and class.
    section: Vec<u8>,
    /// Whether an OPT record follows.
    edns: bool,
}

impl Question {
    fn read(packet: &[u8]) -> Option<Self> {
        let id = packet.get(..2)?.try_into().ok()?;
        let (mut labels, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
        let section = packet.get(12..at + 4)?.to_vec();
        let edns = packet.get(at + 4..at + 7) == Some(OPT.as_slice());
        Some(Self { id, name: labels.join("."), kind: Kind::of_number(kind), section, edns })
    }

    /// A reply as a message that fits into a datagram.
    fn datagram(&self, reply: Reply) -> Option<Vec<u8>> {
        let (reply, is_cut) = match reply {
            Reply::Truncated(whole) => (*whole, true),
            reply => (reply, false),
        };
        match reply {
            Reply::Addresses(addresses, ttl) => {
                let bytes = self.answer(0, &addresses, ttl);
                if !is_cut && bytes.len() <= DATAGRAM {
                    return Some(bytes);
                }
                Some(self.answer(CUT, &addresses[..addresses.len().min(1)], ttl))
            }
            reply => self.whole(reply),
        }
    }

    /// A reply as a message of any length.
    fn whole(&self, reply: Reply) -> Option<Vec<u8>> {
        match reply {
            Reply::Addresses(addresses, ttl) => Some(self.answer(0, &addresses, ttl)),
            Reply::Beside(address, then) => Some(beside(self.whole(*then)?, address, TTL)),
            Reply::Records(records) => Some(self.message(RESPONSE, &records)),
            Reply::Lame => Some(self.message(LAME, &[])),
            Reply::ServFail => Some(self.answer(2, &[], 0)),
            Reply::FormErr => Some(self.answer(1, &[], 0)),
            Reply::NoName => Some(self.answer(3, &[], 0)),
            Reply::Silent => None,
            Reply::Late(by, then) => {
                pause(by);
                self.whole(*then)
            }
            Reply::Truncated(whole) | Reply::Uncut(whole) | Reply::Lies(whole) | Reply::Stub(whole) => {
                self.whole(*whole)
            }
        }
    }

    /// An answer with these bits and addresses, all of the name of the question.
    fn answer(&self, bits: u16, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
        let records: Vec<_> = addresses.iter().map(|address| address_record(*address, ttl)).collect();
        self.message(RESPONSE | bits, &records)
    }

    /// A message with these bits and answers.
    fn message(&self, bits: u16, answers: &[Vec<u8>]) -> Vec<u8> {
        let count = u16::try_from(answers.len()).expect("a message has fewer records");
        let mut bytes = self.id.to_vec();
        for word in [bits, 1, count, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.section);
        bytes.extend(answers.concat());
        bytes
    }
}
