//! The server name of a TLS `ClientHello`, cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::core::sessions::client_hello::{Hello, LONGEST_IN_RECORDS, candidates, read};

fuzz_target!(|bytes: &[u8]| {
    let hello = read(bytes);
    assert!(bytes.len() < LONGEST_IN_RECORDS || hello != Hello::Incomplete, "a ClientHello has an end");
    if let Hello::Name(name) = &hello {
        assert!(!name.is_empty() && name.len() < 256 && !name.ends_with('.'), "{name}");
        assert!(candidates(name).count() < 256);
    }
    // What is decided stays decided when more bytes arrive.
    if hello != Hello::Incomplete && bytes.len() < LONGEST_IN_RECORDS {
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(read(&longer), hello);
    }
});
