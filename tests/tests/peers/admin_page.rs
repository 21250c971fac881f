//! The page of the admin address in a real Chromium, at 360 and 1,600 pixels, dark and light.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, round_trip};

use crate::server::open_folder;

/// Drives the browser; stands beside this file.
const SCRIPT: &str = include_str!("admin_page.py");

/// The script, ended with its browser on drop.
struct Script(Child);

impl Script {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let script = folder.join("page.py");
        fs::write(&script, SCRIPT).expect("write");
        // The script ends its browser; `timeout` ends both if it hangs, by the signal that Python turns into an exception.
        let mut command = Command::new("timeout");
        command.args(["--signal=INT", "--kill-after=10", "150", "/usr/bin/python3"]).arg(script);
        command.args(arguments).env("HOME", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("timeout"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Without its input, the script ends by itself.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_person_with_a_keyboard_or_a_screen_reader_follows_the_forwards() {
    let (folder, backend) = (open_folder(), Backend::start(Behaviour::Echo));
    let (port, admin) = (free_port(), free_port());
    // The second listener has a port that is taken, so that the page has a failure to show.
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = holder.local_addr().expect("an address").port();
    let listeners = [Listener::tcp("l", port).to(backend.port), Listener::tcp("taken", taken).to(backend.port)];
    let manifest = forward("f", "", &listeners);
    let program = Program::run(&manifest, free_port(), &["--admin-address", &format!("127.0.0.1:{admin}")]);
    let mut session = connect(port).expect("connect");
    round_trip(&mut session, b"x").expect("echo");
    let (url, address) = (format!("http://127.0.0.1:{admin}/"), format!("127.0.0.1:{}", backend.port));
    let place = folder.path().display().to_string();
    let mut script = Script::start(folder.path(), &[&url, &place, "default/f", &address]);
    let mut output = BufReader::new(script.0.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("output");
    assert_eq!(line.trim(), "followed", "is Chromium installed (cargo xtask setup node)?");
    drop(program.kill());
    script.0.stdin.take().expect("piped").write_all(b"\n").expect("the script waits");
    assert!(script.0.wait().expect("an end").success(), "the page does not report that the proxy is gone");
}
