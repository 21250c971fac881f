//! PROXY headers of both versions at the start of a connection.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::core::sessions::proxy_header::{Decoded, LONGEST, decode};

fuzz_target!(|bytes: &[u8]| {
    let decoded = decode(bytes);
    assert!(bytes.len() < LONGEST || decoded != Decoded::Incomplete, "a header has an end");
    let Decoded::Header(length, _) = &decoded else { return };
    assert!(*length <= bytes.len().min(LONGEST));
    // The header is the same whatever follows, and incomplete without its last byte.
    assert_eq!(decode(&bytes[..*length]), decoded);
    assert_eq!(decode(&bytes[..length - 1]), Decoded::Incomplete);
});
