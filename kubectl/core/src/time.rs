//! Ages for people.

use k8s_openapi::jiff::Timestamp;

/// Seconds from `then` to `now`; 0 if `then` is later.
pub fn seconds(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second().saturating_sub(then.as_second()).max(0)
}

/// An age in its largest unit, as kubectl prints it: `5s`, `3m`, `2h`, `4d`.
pub fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, expected) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_799, "47h"), (172_800, "2d")]
        {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn a_time_in_the_future_is_no_time_ago() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        assert_eq!((seconds(at(5), at(9)), seconds(at(9), at(9)), seconds(at(9), at(5))), (4, 0, 0));
    }
}
