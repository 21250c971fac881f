//! A test process that holds a cluster, so that it can be killed.

use std::{
    env,
    io::{self, BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// Set in the process that holds.
const HOLDER: &str = "PORTLANE_TEST_HOLDER";

/// The same test, run again in a process of its own that only holds a cluster. It is killed when this goes.
#[derive(Debug)]
pub struct Holder {
    process: Child,
    said: String,
}

impl Holder {
    /// Runs the test of this name in a process of its own, and waits for what it says of its cluster.
    ///
    /// # Panics
    /// It ended without a word.
    pub fn start(test: &str) -> Self {
        let mut process = Command::new(env::current_exe().expect("own path"))
            .args(["--exact", test, "--nocapture"])
            .env(HOLDER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let said =
            lines.find_map(|line| line.strip_prefix("held: ").map(str::to_owned)).expect("it says what it holds");
        Self { process, said }
    }

    /// Whether this process is the one that holds.
    pub fn is_this() -> bool {
        env::var_os(HOLDER).is_some()
    }

    /// Says something to whoever started this process, and holds what the caller has until it is killed or its own holder
    /// is gone.
    pub fn hold(words: &str) -> ! {
        println!("held: {words}");
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    }

    /// What it said.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Ends it as nothing can be prepared for.
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
