use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let any_port = 0_u16..=65535;
    let four = (any::<[u8; 4]>(), any_port.clone()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let six = (any::<[u8; 16]>(), any_port).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    prop_oneof![(four.clone(), four), (six.clone(), six)]
}

/// Asserts that every truncation is incomplete and that the bytes after the header are ignored.
fn cut_at_every_byte(header: &[u8], expected: Option<(SocketAddr, SocketAddr)>) {
    for cut in 0..header.len() {
        assert_eq!(decode(&header[..cut]), Decoded::Incomplete, "cut at {cut}");
    }
    let followed = [header, b"\r\nPROXY more"].concat();
    assert_eq!(decode(&followed), Decoded::Header(header.len(), expected));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_and_cut_at_every_byte_it_is_incomplete((source, destination) in addresses()) {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        for version in [SendHeader::V1, SendHeader::V2] {
            let header = encode(version, Some((source, destination)), None);
            cut_at_every_byte(&header, Some((plain(source), plain(destination))));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), begins in 0_usize..3) {
        let start: &[u8] = [&b""[..], b"PROXY TCP4 ", v2::PROTOCOL_PREFIX][begins];
        let bytes = [start, &bytes].concat();
        if let Decoded::Header(length, _) = decode(&bytes) {
            prop_assert!(length <= bytes.len() && length <= LONGEST);
        }
    }
}

#[test]
fn connections_of_the_sender_itself_name_nobody() {
    cut_at_every_byte(&encode(SendHeader::V1, None, None), None);
    cut_at_every_byte(&encode(SendHeader::V2, None, None), None);
    cut_at_every_byte(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None);
    // LOCAL with arbitrary addresses.
    let mut local = encode(SendHeader::V2, Some((address("192.0.2.1:1"), address("192.0.2.2:2"))), None);
    local[12] = 0x20;
    cut_at_every_byte(&local, None);
}

#[test]
fn extensions_are_skipped() {
    let mut header = encode(SendHeader::V2, Some((address("192.0.2.1:1"), address("192.0.2.2:2"))), None);
    header.extend([0x03, 0, 4, 1, 2, 3, 4]);
    header[15] += 7;
    cut_at_every_byte(&header, Some((address("192.0.2.1:1"), address("192.0.2.2:2"))));
}

#[test]
fn mapped_addresses_are_plain_and_two_families_are_written_as_one() {
    let mixed = encode(SendHeader::V1, Some((address("192.0.2.1:1"), address("[2001:db8::1]:2"))), None);
    assert_eq!(mixed, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    cut_at_every_byte(&mixed, Some((address("192.0.2.1:1"), address("[2001:db8::1]:2"))));
}

#[test]
fn what_is_no_header_is_told_at_once() {
    let lying = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0, 11], &[0; 11]].concat();
    let endless = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
    let long = [b"PROXY UNKNOWN ", &[b'x'; 120][..]].concat();
    let bad: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\n",
        b"PROXZ",
        b"proxy TCP4",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        &lying,
        &endless,
        &long,
    ];
    for bytes in bad {
        assert!(matches!(decode(bytes), Decoded::Invalid(_)), "{:?}", String::from_utf8_lossy(bytes));
    }
}
