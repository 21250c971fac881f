//! Computes the load from counters at two points in time.

use std::collections::BTreeMap;

use proxy_api::{Load, MAX_LOADS, Work};

/// Counters of one forward, summed over its listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live sessions.
    pub live: u64,
    /// Sessions opened.
    pub begun: u64,
    /// Bytes, both directions together.
    pub bytes: u64,
}

/// Counters by forward, `NAMESPACE/NAME`.
pub type ByForward = BTreeMap<String, Counts>;

/// The load between two measurements `seconds` apart. Intervals below a second count as a whole second, because they
/// carry too little information about a single one.
#[must_use]
pub fn load(before: &ByForward, now: &ByForward, seconds: f64) -> Load {
    let rate = |before: u64, now: u64| {
        // Removed listeners take their counters with them.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate"
        )]
        let rate = (now.saturating_sub(before) as f64 / seconds.max(1.0)).round() as u64;
        rate
    };
    let mut load = Load::default();
    for (forward, now) in now {
        let before = before.get(forward).copied().unwrap_or_default();
        let work = Work {
            connections: now.live,
            new_per_second: rate(before.begun, now.begun),
            bytes_per_second: rate(before.bytes, now.bytes),
        };
        load.sum.connections += work.connections;
        load.sum.new_per_second += work.new_per_second;
        load.sum.bytes_per_second += work.bytes_per_second;
        load.forwards.insert(forward.clone(), work);
    }
    if load.forwards.len() > MAX_LOADS {
        load.forwards.clear();
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_and_many_forwards_are_told_as_one() {
        let at = |live, begun, bytes| ByForward::from([("ns/a".to_owned(), Counts { live, begun, bytes })]);
        let measured = load(&at(1, 10, 1000), &at(4, 30, 5000), 2.0);
        assert_eq!(measured.sum, Work { connections: 4, new_per_second: 10, bytes_per_second: 2000 });
        assert_eq!(measured.forwards["ns/a"], measured.sum);
        let measured = load(&at(1, 10, 1000), &at(2, 11, 1400), 0.005);
        assert_eq!(
            measured.sum,
            Work { connections: 2, new_per_second: 1, bytes_per_second: 400 },
            "right after a reconnect"
        );
        assert_eq!(load(&at(1, 10, 1000), &at(0, 0, 0), 2.0).sum, Work::default(), "a recreated listener");
        let many: ByForward =
            (0..=MAX_LOADS).map(|n| (format!("ns/{n}"), Counts { live: 1, begun: 1, bytes: 0 })).collect();
        let measured = load(&ByForward::new(), &many, 1.0);
        assert_eq!((measured.sum.connections, measured.forwards.len()), (MAX_LOADS as u64 + 1, 0));
    }
}
