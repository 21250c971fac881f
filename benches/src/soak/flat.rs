//! Whether what a process uses stays the same under a load that stays the same: from numbers alone.

/// The part of the samples, one of so many, that is a warm-up.
const WARM_UP: usize = 5;
/// The parts of the samples after the warm-up. The last one is compared with the second.
const PARTS: usize = 4;
/// The least number of samples of a part.
const LEAST: usize = 3;
/// Growth of memory that is none: this share, and so many bytes.
const MEMORY: (f64, f64) = (0.03, 262_144.0);

/// A value and the second at which it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) second: f64,
    pub(crate) value: f64,
}

/// Growth from one part to another that is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Slack {
    /// Of memory, in bytes.
    Memory,
    /// Of a number that goes up and down with the load: as far as its quartiles lie apart in the earlier part, and no less
    /// than this.
    Load(f64),
}

/// What became of a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// The median of the second part.
    pub(crate) before: f64,
    /// The median of the last part.
    pub(crate) after: f64,
    /// The most that the last median may be.
    pub(crate) most: f64,
    /// The slope of the line of least squares through all points after the warm-up.
    pub(crate) per_hour: f64,
}

impl Trend {
    /// `None`: there are too few points.
    pub(crate) fn of(points: &[Point], slack: Slack) -> Option<Self> {
        let warm = points.get(points.len().div_ceil(WARM_UP)..)?;
        let length = warm.len() / PARTS;
        if length < LEAST {
            return None;
        }
        let part = |at: usize| -> Option<Vec<f64>> {
            // What the division leaves over belongs to the first part.
            let first = warm.len() - (PARTS - at) * length;
            let mut values: Vec<f64> = warm.get(first..first + length)?.iter().map(|point| point.value).collect();
            values.sort_by(f64::total_cmp);
            Some(values)
        };
        let (second, last) = (part(1)?, part(PARTS - 1)?);
        let (before, after) = (quantile(&second, 0.5)?, quantile(&last, 0.5)?);
        let growth = match slack {
            Slack::Memory => before * MEMORY.0 + MEMORY.1,
            Slack::Load(floor) => (quantile(&second, 0.75)? - quantile(&second, 0.25)?).max(floor),
        };
        Some(Self { before, after, most: before + growth, per_hour: slope(warm) * 3600.0 })
    }

    /// What becomes less is flat, too.
    pub(crate) fn is_flat(&self) -> bool {
        self.after <= self.most
    }
}

/// The value at this share of sorted values, between two of them if need be.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the values")]
    let lower = at.floor() as usize;
    let first = *sorted.get(lower)?;
    let next = sorted.get(lower + 1).copied().unwrap_or(first);
    Some(first + (next - first) * at.fract())
}

/// The slope of the line of least squares, per second. Without a stretch of time: 0.
fn slope(points: &[Point]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (second, value) = (mean(|point| point.second), mean(|point| point.value));
    let spread: f64 = points.iter().map(|point| (point.second - second).powi(2)).sum();
    let common: f64 = points.iter().map(|point| (point.second - second) * (point.value - value)).sum();
    if spread > 0.0 { common / spread } else { 0.0 }
}

/// What is there before the load, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quiet {
    /// Files without those of pipes for splicing.
    pub(crate) files: usize,
    pub(crate) sessions: u64,
    pub(crate) close_wait: usize,
}

impl Quiet {
    /// What is left of the load, in words. Empty: nothing.
    pub(crate) fn left(self, before: Self) -> Vec<String> {
        let mut left = Vec::new();
        if self.files > before.files {
            left.push(format!("{} files, {} before the load", self.files, before.files));
        }
        if self.sessions > before.sessions {
            left.push(format!("{} sessions, {} before the load", self.sessions, before.sessions));
        }
        if self.close_wait > 0 {
            left.push(format!("{} sockets in CLOSE_WAIT", self.close_wait));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// A point every ten seconds.
    fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        values.into_iter().enumerate().map(|(at, value)| Point { second: at as f64 * 10.0, value }).collect()
    }

    fn is_flat(values: impl IntoIterator<Item = f64>, slack: Slack) -> bool {
        Trend::of(&points(values), slack).expect("enough points").is_flat()
    }

    #[test]
    fn what_stays_the_same_is_flat() {
        assert!(is_flat([20.0 * MIB; 180], Slack::Memory));
        assert!(is_flat([40.0; 180], Slack::Load(0.0)));
    }

    #[test]
    fn growth_of_the_warm_up_does_not_count() {
        let values = (0..180).map(|at| f64::from(at.min(36)) * MIB);
        let trend = Trend::of(&points(values), Slack::Memory).expect("enough points");
        assert!(trend.is_flat() && trend.per_hour == 0.0, "{trend:?}");
    }

    #[test]
    fn a_leak_of_memory_is_found_at_its_bound() {
        // From the middle of the second part to that of the last there are 72 samples.
        let leak = |whole: f64| (0..180).map(move |at| 20.0 * MIB + whole * f64::from(at) / 72.0);
        let allowed = 20.0 * MIB * 0.03 + 262_144.0;
        assert!(is_flat(leak(allowed * 0.95), Slack::Memory));
        assert!(!is_flat(leak(allowed * 1.1), Slack::Memory));
    }

    #[test]
    fn a_number_may_move_as_far_as_the_load_moves_it() {
        let wave = |at: i32| f64::from(at % 10);
        assert!(is_flat((0..180).map(|at| 100.0 + wave(at)), Slack::Load(0.0)));
        // One more every 100 seconds: seven more from part to part.
        assert!(!is_flat((0..180).map(|at| 100.0 + wave(at) + f64::from(at / 10)), Slack::Load(0.0)));
    }

    #[test]
    fn a_number_that_the_load_does_not_move_has_its_least_slack() {
        let step = |height: f64| (0..180).map(move |at| if at < 120 { 10.0 } else { 10.0 + height });
        assert!(is_flat(step(2.0), Slack::Load(2.0)));
        assert!(!is_flat(step(3.0), Slack::Load(2.0)));
    }

    #[test]
    fn what_becomes_less_is_flat() {
        assert!(is_flat((0..180).map(|at| f64::from(200 - at)), Slack::Load(0.0)));
    }

    #[test]
    fn one_high_sample_decides_nothing() {
        let values = (0..180).map(|at| if at == 170 { 1e9 } else { 5.0 });
        assert!(is_flat(values, Slack::Load(0.0)));
    }

    #[test]
    fn a_slope_is_per_hour() {
        let trend = Trend::of(&points((0..180).map(f64::from)), Slack::Memory).expect("enough points");
        assert!((trend.per_hour - 360.0).abs() < 1e-6, "{trend:?}");
    }

    #[test]
    fn few_samples_decide_nothing() {
        assert_eq!(Trend::of(&points([1.0; 14]), Slack::Memory), None);
        assert!(Trend::of(&points([1.0; 15]), Slack::Memory).is_some());
        assert_eq!(Trend::of(&[], Slack::Memory), None);
    }

    #[test]
    fn what_is_left_of_the_load_is_named() {
        let before = Quiet { files: 30, sessions: 0, close_wait: 0 };
        assert!(before.left(before).is_empty());
        assert!(Quiet { files: 29, ..before }.left(before).is_empty());
        let after = Quiet { files: 31, sessions: 1, close_wait: 1 };
        assert_eq!(after.left(before).len(), 3);
    }
}
