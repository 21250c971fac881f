//! Records as bytes, good and odd ones.

use std::net::IpAddr;

/// The name of the question, which is at byte 12 of the message.
const ASKED: &[u8] = &[0xc0, 12];
/// A name that no text holds.
const ODD: &[u8] = b"\x07a\r\n\0 .b\x04test\x00";
/// A name that is not asked for.
const FOREIGN: &[u8] = b"\x07foreign\x04test\x00";
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// An address of the name of the question.
pub(super) fn address_record(address: IpAddr, ttl: u32) -> Vec<u8> {
    address_of(ASKED, address, ttl)
}

/// An alias of the name of the question, for a name that no text holds.
pub(super) fn alias(ttl: u32) -> Vec<u8> {
    record(ASKED, CNAME, ttl, ODD)
}

/// The records of an answer that has an IPv4 address and something odd: see `Dns::start`.
pub(super) fn odd_records(word: &str, address: &str, ttl: u32) -> Vec<Vec<u8>> {
    let address: IpAddr = address.parse().expect("an address");
    let good = address_record(address, ttl);
    let short = record(ASKED, A, ttl, &[192, 0, 2]);
    match word {
        "short" => vec![short.clone(), good, short],
        "cut" => vec![good, short[..short.len() - 1].to_vec()],
        _ => vec![alias(ttl), address_of(ODD, address, ttl)],
    }
}

/// A message with one more answer: the address of another name.
pub(super) fn beside(mut message: Vec<u8>, address: IpAddr, ttl: u32) -> Vec<u8> {
    let count = u16::from_be_bytes([message[6], message[7]]) + 1;
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message.extend(address_of(FOREIGN, address, ttl));
    message
}

fn address_of(owner: &[u8], address: IpAddr, ttl: u32) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => record(owner, A, ttl, &address.octets()),
        IpAddr::V6(address) => record(owner, AAAA, ttl, &address.octets()),
    }
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a record is short");
    let numbers = [&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &length.to_be_bytes()].concat();
    [owner, &numbers, data].concat()
}
