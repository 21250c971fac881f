//! What a client sends before its session, at the bounds of the formats: a `ClientHello` and a PROXY header.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::net::SocketAddr;

use proxy::core::sessions::{
    client_hello::{self, Hello},
    proxy_header::{self, Decoded, encode},
};
use proxy_api::{SendHeader, SessionId};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// A version 2 header for IPv4 with this many bytes of addresses and extensions.
fn binary(rest: u16) -> Vec<u8> {
    let addresses = (address("192.0.2.1:1"), address("192.0.2.2:2"));
    let mut header = encode(SendHeader::V2, Some(addresses), None);
    header[14..16].copy_from_slice(&rest.to_be_bytes());
    header.resize(16 + usize::from(rest), 0);
    header
}

#[test]
fn a_record_of_16_kib_is_the_longest() {
    assert_eq!(client_hello::read(&[22, 3, 1, 0x40, 0x00]), Hello::Incomplete);
    assert_eq!(client_hello::read(&[22, 3, 1, 0x40, 0x01]), Hello::NotTls);
}

#[test]
fn a_client_hello_that_announces_more_than_16_kib_is_refused_before_it_arrives() {
    assert_eq!(client_hello::read(&[22, 3, 1, 0, 200, 1, 0, 0x3f, 0xfc]), Hello::Incomplete);
    assert_eq!(client_hello::read(&[22, 3, 1, 0, 200, 1, 0, 0x3f, 0xfd]), Hello::NotTls);
    assert_eq!(client_hello::read(&[22, 3, 1, 0, 200, 1, 1, 0, 9]), Hello::NotTls);
}

#[test]
fn no_more_than_32_kib_are_awaited_for_the_longest_client_hello() {
    assert_eq!((client_hello::LONGEST, client_hello::LONGEST_IN_RECORDS), (16_384, 32_768));
    // Records of one byte each, of a message that is never complete.
    let record = |byte: u8| [22, 3, 1, 0, 1, byte];
    let start = [1, 0, 0x3f, 0xfc].map(record).concat();
    let mut bytes: Vec<u8> = start.into_iter().chain(std::iter::repeat_n(0, 6000).flat_map(record)).collect();
    bytes.truncate(32_767);
    assert_eq!(client_hello::read(&bytes), Hello::Incomplete);
    bytes.push(3);
    assert_eq!(client_hello::read(&bytes), Hello::NotTls);
}

#[test]
fn a_client_hello_with_bytes_after_its_extensions_is_not_tls() {
    // Version, random, no session, one cipher suite, no compression, no extensions.
    let body: Vec<u8> = [&[3_u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &[0, 0]].concat();
    let record = |body: &[u8]| {
        let length = u8::try_from(body.len()).expect("a short message");
        [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], body].concat()
    };
    assert_eq!(client_hello::read(&record(&body)), Hello::NoName);
    assert_eq!(client_hello::read(&record(&[&body[..], &[0]].concat())), Hello::NotTls);
}

#[test]
fn a_line_without_its_end_is_refused_at_107_bytes() {
    let line = [&b"PROXY UNKNOWN "[..], &[b'x'; 120]].concat();
    assert_eq!(proxy_header::decode(&line[..106]), Decoded::Incomplete);
    assert!(matches!(proxy_header::decode(&line[..107]), Decoded::Invalid(_)));
}

#[test]
fn a_binary_header_has_at_most_4096_bytes_of_addresses_and_extensions() {
    let longest = binary(4096);
    assert_eq!((longest.len(), proxy_header::LONGEST), (4112, 4112));
    let named = Some((address("192.0.2.1:1"), address("192.0.2.2:2")));
    assert_eq!(proxy_header::decode(&longest), Decoded::Header(4112, named));
    assert_eq!(proxy_header::decode(&longest[..4111]), Decoded::Incomplete);
    assert!(matches!(proxy_header::decode(&binary(4097)), Decoded::Invalid(_)));
}

#[test]
fn headers_are_written_as_the_specification_has_them_and_not_at_all_if_disabled() {
    let four = Some((address("192.0.2.1:258"), address("192.0.2.2:2")));
    let six = Some((address("[2001:db8::1]:1"), address("[2001:db8::2]:2")));
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    assert!(encode(SendHeader::Disabled, four, None).is_empty() && encode(SendHeader::Disabled, None, None).is_empty());
    assert_eq!(encode(SendHeader::V1, four, None), b"PROXY TCP4 192.0.2.1 192.0.2.2 258 2\r\n");
    assert_eq!(encode(SendHeader::V1, six, None), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    let expected = [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 0, 2]].concat();
    assert_eq!(encode(SendHeader::V2, four, None), expected);
    assert_eq!(encode(SendHeader::V2, None, None), [&signature[..], &[0x20, 0, 0, 0]].concat());
    let binary = encode(SendHeader::V2, six, None);
    assert_eq!((binary.len(), &binary[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
}

#[test]
fn a_binary_header_ends_with_the_id_of_the_session_which_a_receiver_skips() {
    let session = Some(SessionId(0x0123_4567_89ab_cdef));
    let four = (address("192.0.2.1:258"), address("192.0.2.2:2"));
    let six = (address("[2001:db8::1]:1"), address("[2001:db8::2]:2"));
    let id = [&[0x05, 0, 16][..], b"0123456789abcdef"].concat();
    for (addresses, length) in [(four, 31), (six, 55)] {
        let without = encode(SendHeader::V2, Some(addresses), None);
        let with = encode(SendHeader::V2, Some(addresses), session);
        assert_eq!((&with[..14], &with[14..16]), (&without[..14], &[0, length][..]));
        assert_eq!(with[16..], [&without[16..], &id].concat());
        assert_eq!(proxy_header::decode(&with), Decoded::Header(with.len(), Some(addresses)));
        // Another implementation reads the extension.
        let read = ppp::v2::Header::try_from(&with[..]).expect("a header");
        let extensions: Vec<_> = read.tlvs().collect::<Result<_, _>>().expect("whole extensions");
        assert_eq!(extensions.len(), 1);
        assert_eq!((extensions[0].kind, &*extensions[0].value), (0x05, &b"0123456789abcdef"[..]));
        assert_eq!(encode(SendHeader::V1, Some(addresses), session), encode(SendHeader::V1, Some(addresses), None));
    }
    assert_eq!(encode(SendHeader::V2, None, session), encode(SendHeader::V2, None, None), "of no client's session");
}
