//! Messages of the stream in both directions, and the assembly of updates from their parts. Each line is one message.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use proxy_api::{Assembler, Configuration, FromProxy, Held, MAX_AGENTS, MAX_PEERS, MAX_SIDECARS, PARTS, ToProxy};

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
            assert_eq!(assembler.digest(), current.digest());
            assert!(current.agents.len() <= MAX_AGENTS && current.tunnels.peers.len() <= MAX_PEERS);
            assert!(current.tunnels.sidecars.len() <= MAX_SIDECARS);
            assert_whole(&current);
        }
    }
});

/// A proxy that holds nothing reaches the same agents, peers, sidecars and digest, and one that holds all is sent nothing.
fn assert_whole(configuration: &Configuration) {
    let (nothing, mut assembler) = (Configuration::default(), Assembler::default());
    let parts = configuration.changes_from(&Held::default(), &BTreeSet::new(), PARTS);
    let reached = parts.into_iter().find_map(|part| assembler.take(&nothing, part).expect("in order"));
    let reached = reached.expect("a commit");
    assert_eq!((&reached.agents, &reached.tunnels), (&configuration.agents, &configuration.tunnels));
    assert_eq!(assembler.digest(), configuration.digest());
    let parts = configuration.changes_from(&configuration.held(), &BTreeSet::new(), PARTS);
    assert!(parts.len() == 1 && parts[0].agents.is_empty() && parts[0].agent_removals.is_empty());
    assert!(parts[0].peers.is_empty() && parts[0].peer_removals.is_empty());
    assert!(parts[0].sidecars.is_empty() && parts[0].sidecar_removals.is_empty());
}
