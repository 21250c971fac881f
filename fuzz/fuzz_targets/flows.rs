//! The table of UDP flows: any sequence of datagrams, evictions and idle checks, held against a plain map.

#![no_main]

use std::{collections::HashMap, net::SocketAddr};

use libfuzzer_sys::fuzz_target;
use proxy::core::udp::flows::{FlowKey, FlowTable};

const LIMIT: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let mut table = FlowTable::new(LIMIT);
    let mut model: HashMap<FlowKey, (u8, u64)> = HashMap::new();
    let mut now = 0_u64;
    for step in bytes.chunks_exact(3) {
        now += u64::from(step[2]) * 16;
        let key = FlowKey { client: SocketAddr::from(([127, 0, 0, 1], u16::from(step[1] % 16))), local: None };
        match step[0] % 4 {
            0 => {
                let known = table.touch(&key, now).map(|value| *value);
                assert_eq!(known, model.get(&key).map(|(value, _)| *value));
                if let Some((_, used)) = model.get_mut(&key) {
                    *used = now;
                }
            }
            1 => insert(&mut table, &mut model, key, step[2], now),
            2 => {
                assert_eq!(table.remove(&key), model.remove(&key).map(|(value, _)| value));
            }
            _ => {
                let idle = u64::from(step[1]) * 32;
                let expired = std::iter::from_fn(|| table.expire(now, idle)).count();
                let before = model.len();
                model.retain(|_, (_, used)| now - *used < idle);
                assert_eq!(expired, before - model.len());
            }
        }
        assert_eq!(table.len(), model.len());
        assert!(table.len() <= LIMIT);
    }
});

/// The evicted flow is the least recently used one.
fn insert(table: &mut FlowTable<u8>, model: &mut HashMap<FlowKey, (u8, u64)>, key: FlowKey, value: u8, now: u64) {
    let is_new = !model.contains_key(&key);
    let oldest = model.values().map(|(_, used)| *used).min();
    if let Ok(evicted) = table.insert(key, value, now) {
        if is_new && model.len() == LIMIT {
            let value = evicted.expect("a full table evicts");
            let gone = model.iter().find(|(_, (of, used))| *of == value && Some(*used) == oldest).map(|(key, _)| *key);
            // Of flows used in the same millisecond any may be evicted.
            let gone = gone.expect("an oldest flow is evicted");
            if table.get(&gone).is_some() {
                let gone = model.keys().find(|key| table.get(key).is_none()).copied().expect("one flow is gone");
                model.remove(&gone);
            } else {
                model.remove(&gone);
            }
        }
        model.insert(key, (value, now));
    } else {
        // A full table of flows in use takes no other; the flow of the same key was removed first.
        model.remove(&key);
    }
}
