//! A test program: the report of cargo about it, and a run of its tests.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::clock::{self, Clock, TestTime};
use crate::{error::TaskError, tier::Tier};

/// Longest wait for output after the end of a program. A process that outlives its test may keep the pipe open.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// The program that starts nodes.
const NODE: &str = "tests: node";

/// The program whose tests run in two parts, and the module that is the second part: a hostile pod takes CPU time that
/// other tests, and the attacked programs, need within their deadlines.
const PARTED: (&str, &str) = (NODE, "hostile::");

/// Tests of one program that run at once: their name in the summary, and the arguments that select them.
pub(crate) type Part = (String, Vec<&'static str>);

/// A compiled test program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TestBinary {
    /// Package and target, such as `tests: api`.
    pub(crate) label: String,
    pub(crate) tier: Tier,
    /// Sources of a library that has documentation tests enabled.
    pub(crate) library: Option<PathBuf>,
    /// The folder of the package, in which the tests run.
    folder: PathBuf,
    executable: PathBuf,
}

impl TestBinary {
    /// The test program in a line of `cargo test --no-run --message-format=json`. `None`: the line is about something
    /// else.
    pub(crate) fn parse(line: &str, workspace: &Path) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let executable = PathBuf::from(message["executable"].as_str()?);
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let target = &message["target"];
        let name = target["name"].as_str()?;
        let library = target["doctest"] == true;
        let sources = Path::new(target["src_path"].as_str()?).parent()?;
        let package = folder.strip_prefix(workspace).unwrap_or(&folder).display().to_string();
        Some(Self {
            label: format!("{package}: {name}"),
            tier: Tier::of(&package, name),
            library: library.then(|| sources.to_owned()),
            folder,
            executable,
        })
    }

    /// Whether tests of the program start nodes, which run the images.
    pub(crate) fn starts_nodes(&self) -> bool {
        self.label == NODE
    }

    /// The parts of the program, which run one after the other.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let (label, alone) = PARTED;
        if self.label != label {
            return vec![(self.label.clone(), Vec::new())];
        }
        vec![(self.label.clone(), vec!["--skip", alone]), (format!("{label} {alone}"), vec![alone])]
    }

    /// Runs the tests of a part and passes their output on. `programs` is the folder of the programs under test. Returns the times
    /// of the tests that ended, also after a failure.
    pub(crate) fn run(
        &self,
        (label, chosen): &Part,
        threads: usize,
        programs: &Path,
    ) -> (Vec<TestTime>, Result<(), TaskError>) {
        let names = self.names(chosen);
        if names.as_ref().is_some_and(Vec::is_empty) {
            return (Vec::new(), Ok(()));
        }
        let mut command = self.command();
        command.env(harness::FRESH_PROGRAMS, programs);
        command.args(chosen).arg(format!("--test-threads={threads}")).stdout(Stdio::piped());
        println!("\n     Running {label} ({})", self.executable.display());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return (Vec::new(), Err(TaskError::Start(label.clone(), error))),
        };
        let started = Instant::now();
        let mut clock = Clock::start(names.unwrap_or_default(), threads);
        let (sender, ended) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                pass_on(output, |line| {
                    if let Some(test) = clock.line(line, started.elapsed()) {
                        let _ = sender.send(test);
                    }
                });
            });
        }
        let done = match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(TaskError::Tests(label.clone(), status)),
            Err(error) => Err(TaskError::Start(label.clone(), error)),
        };
        let mut times = Vec::new();
        while let Ok(test) = ended.recv_timeout(LAST_OUTPUT) {
            times.push(test);
        }
        (times, done)
    }

    /// The tests in the order in which they start. `None`: the program does not list its tests.
    fn names(&self, chosen: &[&str]) -> Option<Vec<String>> {
        let listed =
            self.command().args(chosen).arg("--list").output().ok().filter(|listed| listed.status.success())?;
        Some(clock::listed(&String::from_utf8_lossy(&listed.stdout)))
    }

    /// The program in the environment that cargo would give to its tests.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        // `cargo xtask` has variables about the package of this task.
        let cargo = images::cargo();
        for (name, value) in cargo.get_envs() {
            if value.is_none() {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Copies a program's output to standard output and shows each line to `seen`.
fn pass_on(output: impl Read, mut seen: impl FnMut(&str)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        seen(&String::from_utf8_lossy(&line));
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(folder: &str, target: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{folder}#0.1.0",
            "manifest_path":"/w/{folder}/Cargo.toml","target":{{"kind":["lib"],"crate_types":["lib"],"name":"{target}",
            "src_path":"/w/{folder}/src/lib.rs","edition":"2024","doc":true,"doctest":true,"test":true}},
            "profile":{{"opt_level":"0","test":{test}}},"features":[],"filenames":[],"executable":{executable},
            "fresh":true}}"#
        )
    }

    #[test]
    fn a_test_program_has_its_package_and_tier() {
        let line = artifact("operator/core", "operator_core", true, r#""/w/target/debug/deps/operator_core-1""#);
        let binary = TestBinary::parse(&line, Path::new("/w")).expect("a test program");
        let expected = TestBinary {
            label: "operator/core: operator_core".to_owned(),
            tier: Tier::Pure,
            library: Some(PathBuf::from("/w/operator/core/src")),
            folder: PathBuf::from("/w/operator/core"),
            executable: PathBuf::from("/w/target/debug/deps/operator_core-1"),
        };
        assert_eq!(binary, expected);
        let line = artifact("tests", "api", true, r#""/w/target/debug/deps/api-1""#);
        assert_eq!(TestBinary::parse(&line, Path::new("/w")).map(|binary| binary.tier), Some(Tier::Api));
    }

    #[test]
    fn the_attack_runs_by_itself() {
        let parts = |target| {
            let line = artifact("tests", target, true, r#""/w/target/debug/deps/tests-1""#);
            let parts = TestBinary::parse(&line, Path::new("/w")).expect("a test program").parts();
            parts.into_iter().map(|(_, chosen)| chosen).collect::<Vec<_>>()
        };
        assert_eq!(parts("node"), [vec!["--skip", "hostile::"], vec!["hostile::"]]);
        assert_eq!(parts("peers"), [Vec::<&str>::new()]);
    }

    #[test]
    fn of_the_programs_of_the_node_tier_one_waits_for_images() {
        let starts_nodes = |target| {
            let line = artifact("tests", target, true, r#""/w/target/debug/deps/tests-1""#);
            TestBinary::parse(&line, Path::new("/w")).expect("a test program").starts_nodes()
        };
        assert_eq!(["odd", "peers", "node"].map(starts_nodes), [false, false, true]);
    }

    #[test]
    fn other_artifacts_and_messages_are_no_test_programs() {
        let parse = |line: &str| TestBinary::parse(line, Path::new("/w"));
        assert_eq!(parse(&artifact("operator", "operator", false, "null")), None);
        assert_eq!(parse(&artifact("cli", "portlane", false, r#""/w/target/debug/portlane""#)), None);
        assert_eq!(parse(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(parse("no JSON"), None);
    }

    #[test]
    fn output_is_seen_line_by_line() {
        let mut lines = Vec::new();
        pass_on(&b"one\ntwo\nthree"[..], |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one\n", "two\n", "three"]);
    }
}
