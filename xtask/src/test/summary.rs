//! The table at the end of a test run: seconds of each step, and the slowest tests.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::clock::TestTime;
use crate::tier::Tier;

/// Number of slow tests that are shown.
const SLOWEST: usize = 10;
/// The shortest step in the table: shorter ones would be shown as 0.0 s.
const SHORTEST: Duration = Duration::from_millis(50);

/// Durations of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    steps: Vec<(String, Duration)>,
    tests: Vec<(Tier, TestTime)>,
}

impl Summary {
    /// Runs a step and adds its duration, whether the step fails or not.
    pub(crate) fn measure<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = step();
        self.step(name, started.elapsed());
        done
    }

    /// Adds a step that has ended.
    pub(crate) fn step(&mut self, name: &str, time: Duration) {
        if time >= SHORTEST {
            self.steps.push((name.to_owned(), time));
        }
    }

    /// Adds tests that have ended.
    pub(crate) fn tests(&mut self, tier: Tier, tests: Vec<TestTime>) {
        self.tests.extend(tests.into_iter().map(|test| (tier, test)));
    }

    /// The slowest tests, the slowest first.
    fn slowest(&self) -> Vec<&(Tier, TestTime)> {
        let mut tests: Vec<_> = self.tests.iter().collect();
        tests.sort_by(|(_, one), (_, other)| other.time.cmp(&one.time).then_with(|| one.name.cmp(&other.name)));
        tests.truncate(SLOWEST);
        tests
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  seconds  step")?;
        for (name, time) in &self.steps {
            writeln!(f, "{:>9.1}  {name}", time.as_secs_f64())?;
        }
        if !self.tests.is_empty() {
            writeln!(f, "\n  seconds  slowest tests")?;
        }
        for (tier, test) in self.slowest() {
            writeln!(f, "{:>9.1}  {:<4}  {}", test.time.as_secs_f64(), tier.name(), test.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, seconds: u64) -> TestTime {
        TestTime { name: name.to_owned(), time: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_ten_slowest_tests_of_all_tiers_are_shown() {
        let mut summary = Summary::default();
        summary.tests(Tier::Pure, (1..=9).map(|seconds| test(&format!("p{seconds}"), seconds)).collect());
        summary.tests(Tier::Api, vec![test("b", 5), test("a", 5), test("slow", 60)]);
        let names: Vec<&str> = summary.slowest().into_iter().map(|(_, test)| test.name.as_str()).collect();
        assert_eq!(names, ["slow", "p9", "p8", "p7", "p6", "a", "b", "p5", "p4", "p3"]);
    }

    #[test]
    fn the_table_has_a_line_for_each_step_and_test() {
        let mut summary = Summary::default();
        summary.step("compile", Duration::from_millis(1_300));
        summary.step("nothing to do", Duration::from_millis(4));
        summary.tests(Tier::Api, vec![test("operator::moves", 61)]);
        let expected = "
  seconds  step
      1.3  compile

  seconds  slowest tests
     61.0  api   operator::moves
";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn a_run_without_test_times_shows_steps_only() {
        assert_eq!(Summary::default().to_string(), "\n  seconds  step\n");
    }
}
