//! When to read the memory limit of the process again: Kubernetes may change it while the process runs.

/// Pause between two reads of the limit, in seconds.
const EVERY: u64 = 10;

/// When the next read is due.
#[derive(Debug)]
pub struct MemoryLooks {
    /// In seconds of the process clock.
    due: u64,
}

impl MemoryLooks {
    /// Schedules the first read one pause after `now` (seconds of the process clock): a process that starts has just
    /// read the limit.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { due: now.saturating_add(EVERY) }
    }

    /// Whether a read is due at `now`. The next one is due one pause later.
    pub const fn take_due(&mut self, now: u64) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now.saturating_add(EVERY);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_every_ten_seconds_and_a_late_one_is_not_made_up_for() {
        let mut looks = MemoryLooks::new(100);
        let due: Vec<u64> = (100..135).chain([158]).chain(160..180).filter(|now| looks.take_due(*now)).collect();
        assert_eq!(due, [110, 120, 130, 158, 168, 178]);
    }
}
