//! A configuration document: a file of a laptop or a ConfigMap, JSON or YAML.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_api::Configuration;

fuzz_target!(|bytes: &[u8]| {
    let Ok(configuration) = Configuration::decode(bytes) else { return };
    // What was read can be written, and reads as the same.
    let written = configuration.encode().expect("a configuration encodes");
    if let Ok(read) = Configuration::decode(&written) {
        assert_eq!(read, configuration);
    }
});
