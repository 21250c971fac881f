//! A test process that holds a cluster, so that it can be killed.

use std::{
    env,
    io::{self, BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// Set in the process that holds.
const HOLDER: &str = "PORTLANE_TEST_HOLDER";

/// The same test, run again in a process of its own that only holds a cluster. The process is killed on drop.
#[derive(Debug)]
pub struct Holder {
    process: Child,
    line: String,
}

impl Holder {
    /// Runs the test of this name in a process of its own, and waits for its line about the cluster.
    ///
    /// # Panics
    /// The process ended without that line.
    pub fn start(test: &str) -> Self {
        let mut process = Command::new(env::current_exe().expect("own path"))
            .args(["--exact", test, "--nocapture"])
            .env(HOLDER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the holder starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let line =
            lines.find_map(|line| line.strip_prefix("held: ").map(str::to_owned)).expect("a line about the cluster");
        Self { process, line }
    }

    /// Whether this process is the holder.
    pub fn is_this() -> bool {
        env::var_os(HOLDER).is_some()
    }

    /// Prints a line for [`Self::line`], and holds what the caller has until this process is killed or its parent is
    /// gone.
    pub fn hold(words: &str) -> ! {
        println!("held: {words}");
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    }

    /// The holder's line about its cluster.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Kills the holder (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}
