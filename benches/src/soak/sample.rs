//! What the proxy uses at one time, seen from outside.

use std::{collections::BTreeSet, fs, sync::atomic::Ordering::Relaxed, time::Instant};

use harness::{http_get, metric};

use crate::{
    flat::Quiet,
    measure::{files, status_bytes},
    shared::Shared,
    unit::Unit,
};

/// States of TCP in the tables of the system.
const ESTABLISHED: &str = "01";
const FIN_WAIT_2: &str = "05";
const CLOSE_WAIT: &str = "08";

/// Sockets of a process by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) established: usize,
    pub(crate) fin_wait_2: usize,
    pub(crate) close_wait: usize,
}

impl States {
    fn of(pid: u32) -> Self {
        let own = sockets(pid);
        let mut states = Self::default();
        for family in ["tcp", "tcp6"] {
            states.add(&fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default(), &own);
        }
        states
    }

    /// Counts the sockets of a table that have one of these inodes.
    fn add(&mut self, table: &str, own: &BTreeSet<u64>) {
        for line in table.lines().skip(1) {
            let mut words = line.split_whitespace().skip(3);
            let (state, inode) =
                (words.next().unwrap_or_default(), words.nth(5).and_then(|inode| inode.parse::<u64>().ok()));
            if inode.is_none_or(|inode| !own.contains(&inode)) {
                continue;
            }
            match state {
                ESTABLISHED => self.established += 1,
                FIN_WAIT_2 => self.fin_wait_2 += 1,
                CLOSE_WAIT => self.close_wait += 1,
                _ => {}
            }
        }
    }
}

/// Inodes of the sockets of a process.
fn sockets(pid: u32) -> BTreeSet<u64> {
    let Ok(all) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    all.flatten().filter_map(|file| inode(fs::read_link(file.path()).ok()?.to_str()?)).collect()
}

/// The inode in a link such as `socket:[4711]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What the proxy uses, and what the load has done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the load began.
    pub(crate) second: f64,
    pub(crate) sessions: u64,
    pub(crate) changes: u64,
    /// Private memory, in bytes.
    pub(crate) anon: f64,
    pub(crate) rss: f64,
    pub(crate) files: usize,
    pub(crate) threads: usize,
    pub(crate) states: States,
    /// Live sessions, as the proxy counts them.
    pub(crate) live: u64,
    /// Pipes for splicing, which the proxy keeps, up to a bound.
    pub(crate) pipes: usize,
}

impl Sample {
    /// # Panics
    /// The proxy has ended, or does not answer.
    pub(crate) fn take(pid: u32, health: u16, shared: &Shared, began: Instant) -> Self {
        // Before the connection for the metrics.
        let (files, states) = (files(pid), States::of(pid));
        let (_, metrics) = http_get(health, "/metrics").expect("the proxy answers");
        Self {
            second: began.elapsed().as_secs_f64(),
            sessions: shared.sessions.load(Relaxed),
            changes: shared.changes.load(Relaxed),
            anon: status_bytes(pid, "RssAnon"),
            rss: status_bytes(pid, "VmRSS"),
            files,
            threads: fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
            states,
            live: gauge(&metrics, "portlane_sessions ") as u64,
            pipes: gauge(&metrics, "portlane_pipes "),
        }
    }

    /// What is there without load. Each pipe has two ends, which are no files of the load.
    pub(crate) fn quiet(&self) -> Quiet {
        Quiet {
            files: self.files.saturating_sub(2 * self.pipes),
            sessions: self.live,
            close_wait: self.states.close_wait,
        }
    }

    /// Heading of the table.
    pub(crate) fn heading() -> String {
        let names = [
            "minutes",
            "sessions so far",
            "changes so far",
            "RssAnon, MiB",
            "RSS, MiB",
            "files",
            "threads",
            "live sessions",
            "ESTABLISHED",
            "FIN_WAIT2",
            "CLOSE_WAIT",
        ];
        format!("| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()))
    }

    /// A line of the table.
    pub(crate) fn line(&self) -> String {
        let Self { sessions, changes, files, threads, live, .. } = self;
        let States { established, fin_wait_2, close_wait } = self.states;
        let [anon, rss] = [self.anon, self.rss].map(|bytes| Unit::Mebibytes.show(bytes));
        format!(
            "| {:.1} | {sessions} | {changes} | {anon} | {rss} | {files} | {threads} | {live} | {established} | \
             {fin_wait_2} | {close_wait} |",
            self.second / 60.0
        )
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn gauge(metrics: &str, series: &str) -> usize {
    metric(metrics, series).expect("a gauge of the process") as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_the_process_count_by_their_state() {
        let line = |state: &str, inode: u64| {
            format!(
                "   0: 0100007F:1B59 0100007F:4E20 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 \
                 20 4 30 10 -1\n"
            )
        };
        let mut table =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
                .to_owned();
        for (state, inode) in [("01", 1), ("01", 2), ("08", 3), ("08", 99), ("05", 4), ("0A", 5), ("06", 0)] {
            table += &line(state, inode);
        }
        let mut states = States::default();
        states.add(&table, &BTreeSet::from([1, 2, 3, 4, 5]));
        assert_eq!(states, States { established: 2, fin_wait_2: 1, close_wait: 1 });
    }

    #[test]
    fn only_links_to_sockets_have_an_inode_of_one() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        assert_eq!(inode("pipe:[4711]"), None);
        assert_eq!(inode("anon_inode:[eventpoll]"), None);
    }
}
