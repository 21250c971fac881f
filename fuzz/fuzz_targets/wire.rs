//! Messages of the stream in both directions, and the assembly of updates from their parts. Each line is one message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_api::{Assembler, Configuration, FromProxy, ToProxy};

fuzz_target!(|bytes: &[u8]| {
    let mut assembler = Assembler::default();
    let mut current = Configuration::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        // An operator reads what a proxy sends.
        let _ = serde_json::from_slice::<FromProxy>(line);
        // A proxy reads what an operator sends.
        let Ok(message) = serde_json::from_slice::<ToProxy>(line) else { continue };
        let Some(change) = message.change else { continue };
        if let Ok(Some(next)) = assembler.take(&current, change) {
            assert!(next.version.epoch != current.version.epoch || next.version.number >= current.version.number);
            current = next;
        }
    }
});
