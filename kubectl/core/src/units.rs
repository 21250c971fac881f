//! Formats numbers for people.

pub use proxy_api::count;

/// Formats bytes in the largest unit that has a whole number: `512B`, `1.5KiB`, `12MiB`.
pub fn bytes(count: u64) -> String {
    let (mut whole, mut tenth, mut unit) = (count, 0, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if whole < 1024 {
            break;
        }
        (tenth, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, larger);
    }
    if whole < 10 && unit != "B" { format!("{whole}.{tenth}{unit}") } else { format!("{whole}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_at_least_and_one_unit() {
        for (number, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (9, "9B"),
            ((10 << 10) - 1, "9.9KiB"),
            (10 << 10, "10KiB"),
            ((1 << 20) - 1, "1023KiB"),
            (1 << 20, "1.0MiB"),
            (12 << 20, "12MiB"),
            (u64::MAX, "15EiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }
}
