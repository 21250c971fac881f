//! One row of the table.

use std::{fmt, time::Duration};

use super::{objects::Layout, operator::Cost};

/// Results of one setting.
pub(crate) struct Row(String);

impl Row {
    /// The head of the table, as in `docs/performance.md`.
    pub(crate) const HEAD: &str = "\
| layout | proxies | forwards | cold start | apply to last report p50 | p99 | apply to `Programmed` p50 | p99 | operator CPU \
         per change | memory | peak | bytes sent per change | writes per change | translation |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    #[allow(clippy::too_many_arguments, reason = "one for each column")]
    pub(super) fn new(
        layout: Layout,
        proxies: usize,
        forwards: usize,
        cold_start: Duration,
        reported: Vec<Duration>,
        programmed: Vec<Duration>,
        before: &Cost,
        after: &Cost,
    ) -> Self {
        let changes = reported.len() as f64;
        let each = |part: fn(&Cost) -> f64| (part(after) - part(before)) / changes;
        let (translations, seconds) =
            (after.translations.0 - before.translations.0, after.translations.1 - before.translations.1);
        let [r50, r99] = percentiles(reported);
        let [p50, p99] = percentiles(programmed);
        Self(format!(
            "| {} | {proxies} | {forwards} | {:.1} s | {r50} ms | {r99} ms | {p50} ms | {p99} ms | {:.1} ms | {:.0} MiB | {:.0} MiB | \
             {:.0} | {:.2} | {:.2} ms |",
            layout.name(),
            cold_start.as_secs_f64(),
            each(|cost| cost.cpu) * 1000.0,
            after.memory,
            after.peak_memory,
            each(|cost| cost.bytes),
            each(|cost| cost.writes),
            seconds / translations.max(1.0) * 1000.0,
        ))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The 50th and the 99th percentile, in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> [u128; 2] {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_millis();
    [at(50), at(99)]
}
