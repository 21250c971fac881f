//! Durations of single tests, from the lines that stable libtest prints when a test ends.
//!
//! libtest prints durations on nightly only. `RUSTC_BOOTSTRAP` would unlock the option, but tests run cargo, and build
//! scripts of dependencies run again when that variable changes. So a [`Clock`] follows libtest's schedule instead:
//! tests start in the order of `--list`, as many at once as there are threads, and each end starts the next test.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Duration of one test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TestTime {
    /// Path of the test in its program.
    pub(crate) name: String,
    /// From start to end.
    pub(crate) time: Duration,
}

/// The tests of a running program. Times are since its start.
#[derive(Debug)]
pub(crate) struct Clock {
    waiting: VecDeque<String>,
    /// Tests and when each started.
    running: BTreeMap<String, Duration>,
}

impl Clock {
    /// A program that starts now. `names` are in the order of `--list`.
    pub(crate) fn start(names: Vec<String>, threads: usize) -> Self {
        let mut waiting = VecDeque::from(names);
        let first = threads.min(waiting.len());
        let running = waiting.drain(..first).map(|name| (name, Duration::ZERO)).collect();
        Self { waiting, running }
    }

    /// Takes a line of the program's output. Returns the duration of the test that ended with this line.
    pub(crate) fn line(&mut self, line: &str, now: Duration) -> Option<TestTime> {
        let name = ended(line)?;
        let started = self.running.remove(name);
        if started.is_none() {
            // The line of an earlier end was unreadable, because a child process wrote into the line. The start of this
            // test is unknown.
            let place = self.waiting.iter().position(|waiting| waiting == name)?;
            self.waiting.remove(place);
        }
        if let Some(next) = self.waiting.pop_front() {
            self.running.insert(next, now);
        }
        Some(TestTime { name: name.to_owned(), time: now.saturating_sub(started?) })
    }
}

/// The name of the test whose end is reported by `line`, such as `test tcp::echoes ... ok`.
fn ended(line: &str) -> Option<&str> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let is_result = ["ok", "FAILED", "ignored"].iter().any(|word| result.starts_with(word));
    is_result.then(|| name.trim_end_matches(" - should panic").trim_end())
}

/// The names in the output of `--list`.
pub(crate) fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_the_end_of_a_test_is_an_end() {
        assert_eq!(ended("test tcp::echoes ... ok\n"), Some("tcp::echoes"));
        assert_eq!(ended("test tcp::echoes ... FAILED\n"), Some("tcp::echoes"));
        assert_eq!(ended("test tcp::echoes ... ignored, needs IPv6\n"), Some("tcp::echoes"));
        assert_eq!(ended("test tcp::panics - should panic ... ok\n"), Some("tcp::panics"));
        assert_eq!(ended("test tcp::echoes has been running for over 60 seconds\n"), None);
        assert_eq!(ended("test result: ok. 3 passed; 0 failed\n"), None);
        assert_eq!(ended("running 3 tests\n"), None);
    }

    #[test]
    fn the_list_has_tests_and_a_count() {
        assert_eq!(listed("a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n"), names(&["a::b", "c"]));
        assert!(listed("0 tests, 0 benchmarks\n").is_empty());
    }

    #[test]
    fn each_end_starts_the_next_test() {
        let mut clock = Clock::start(names(&["a", "b", "c", "d"]), 2);
        let mut end = |line: &str, seconds| clock.line(line, SECOND * seconds).map(|test| (test.name, test.time));
        assert_eq!(end("test b ... ok\n", 3), Some(("b".to_owned(), SECOND * 3)));
        assert_eq!(end("test c ... FAILED\n", 5), Some(("c".to_owned(), SECOND * 2)));
        assert_eq!(end("test a ... ok\n", 6), Some(("a".to_owned(), SECOND * 6)));
        assert_eq!(end("test d ... ok\n", 9), Some(("d".to_owned(), SECOND * 4)));
    }

    #[test]
    fn a_test_whose_start_is_unknown_has_no_time() {
        let mut clock = Clock::start(names(&["a", "b", "c"]), 1);
        // The end of `a` was unreadable.
        assert_eq!(clock.line("test b ... ok\n", SECOND * 2), None);
        let last = clock.line("test c ... ok\n", SECOND * 5);
        assert_eq!(last.map(|test| test.time), Some(SECOND * 3));
    }

    #[test]
    fn without_a_list_there_are_no_times() {
        let mut clock = Clock::start(Vec::new(), 4);
        assert_eq!(clock.line("test a ... ok\n", SECOND), None);
    }
}
