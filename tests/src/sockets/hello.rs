//! What a TLS client says first.

/// The smallest `ClientHello` with a server name (RFC 8446, 4.1.2; RFC 6066, 3).
///
/// # Panics
/// The name is longer than a record.
pub fn client_hello(name: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let names = sized(&[&[0][..], &sized(name)].concat());
    let extension = [&[0, 0][..], &sized(&names)].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 0x01]), &[1, 0], &sized(&extension)].concat();
    let handshake = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&handshake)].concat()
}
