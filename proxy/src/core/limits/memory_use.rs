//! Whether the memory of a control group leaves room for more sessions.
//!
//! The room for sessions is an estimate. What the system buffers for their sockets counts towards the memory limit, too,
//! and peers that do not read can let it grow to some MiB per session. So the memory in use also decides.

/// Percent of the limit from which on there are no more sessions.
const SHORT_FROM: u64 = 90;
/// Percent of the limit below which there are sessions again. The distance leaves room for many of them before memory is
/// short once more.
const ENOUGH_BELOW: u64 = 80;

/// Memory of a control group, without what other programs have allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in use.
    pub used: u64,
    /// Limit in bytes.
    pub limit: u64,
}

impl MemoryUse {
    /// Whether there is memory for more sessions, even right after a shortage.
    #[must_use]
    pub const fn is_enough(self) -> bool {
        self.used < part(self.limit, ENOUGH_BELOW)
    }

    /// Bytes to free until there is memory for more sessions, even right after a shortage.
    #[must_use]
    pub const fn excess(self) -> u64 {
        self.used.saturating_add(1).saturating_sub(part(self.limit, ENOUGH_BELOW))
    }

    /// Whether there is no memory for more sessions. `was_short`: the answer before; `sessions`: those in use, in any
    /// unit. Without sessions, none can end and give memory back, so one that begins is better than waiting for ever.
    #[must_use]
    pub const fn is_short(self, was_short: bool, sessions: usize) -> bool {
        if sessions == 0 || self.is_enough() {
            return false;
        }
        was_short || self.used >= part(self.limit, SHORT_FROM)
    }
}

/// Some percent of the limit. The division comes first, so that no limit is too large.
const fn part(limit: u64, percent: u64) -> u64 {
    limit / 100 * percent
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory(used: u64) -> MemoryUse {
        MemoryUse { used: used * MIB, limit: 500 * MIB }
    }

    #[test]
    fn memory_is_short_from_nine_tenths_of_the_limit_until_it_is_below_eight() {
        let mut is_short = false;
        let short = [0, 449, 450, 449, 400, 399, 449, 450, 600, 0].map(|used| {
            is_short = memory(used).is_short(is_short, 1);
            is_short
        });
        assert_eq!(short, [false, false, true, true, true, false, false, true, true, false]);
    }

    #[test]
    fn memory_that_is_enough_ends_every_shortage() {
        for used in [0, 399, 400, 449, 450, 600] {
            assert_eq!(memory(used).is_enough(), !memory(used).is_short(true, 1), "{used} MiB");
        }
    }

    #[test]
    fn without_its_excess_memory_is_enough() {
        assert_eq!(memory(450).excess(), 50 * MIB + 1);
        for used in [0, 399, 400, 401, 600] {
            let of = memory(used);
            let freed = MemoryUse { used: of.used - of.excess(), ..of };
            assert!(freed.is_enough() && (of.excess() == 0) == of.is_enough(), "{used} MiB");
        }
    }

    #[test]
    fn a_process_without_sessions_is_not_short_because_none_could_end() {
        assert!(!memory(600).is_short(false, 0) && !memory(600).is_short(true, 0));
        assert!(memory(600).is_short(false, 1));
    }

    #[test]
    fn the_largest_and_the_smallest_limit_have_their_marks() {
        let most = MemoryUse { used: u64::MAX, limit: u64::MAX };
        assert!(most.is_short(false, 1) && MemoryUse { used: 0, ..most }.is_enough());
        assert!(MemoryUse { used: 0, limit: 0 }.is_short(false, 1));
    }
}
