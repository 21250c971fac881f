//! The page of a proxy and of a cluster in a real Chromium, at 360 and 1,600 pixels, dark and light.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, round_trip};
use serde_json::{Value, json};

use crate::{server::open_folder, site};

/// Drives the browser; stands beside this file.
const SCRIPT: &str = include_str!("admin_page.py");

/// What the page gets of a cluster, which tests of `kubectl/core` compare with its types.
const CLUSTER: &str = include_str!("../../../kubectl/core/tests/page/shop.json");
/// Pause between two states of the cluster.
const STATE: Duration = Duration::from_millis(500);

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
    is_followed(folder.path(), &[&url, "default/f", &address, "1 session connected"], || drop(program.kill()));
}

#[test]
fn the_page_of_a_cluster_shows_what_proxies_do_not_report_as_unknown() {
    let folder = open_folder();
    let stopped = Arc::new(AtomicBool::new(false));
    let server = cluster(stopped.clone());
    let url = format!("http://127.0.0.1:{}/", server.port);
    let texts = [
        "namespace shop",
        "cannot get pods.live.portlane.dev/config in namespace shop",
        "counted by the proxies",
        "all healthy",
        "Suspended",
        "1 session opened",
        "endpoints are known to the proxies",
    ];
    let arguments = [&[url.as_str(), "shop/db", "10.1.0.4:5432"][..], &texts].concat();
    is_followed(folder.path(), &arguments, || {
        stopped.store(true, Relaxed);
        drop(server);
    });
}

/// Follows the page, and then its loss once `end` has ended its server. `arguments`: the address of the page, a forward,
/// its backend, and texts of the page.
fn is_followed(folder: &Path, arguments: &[&str], end: impl FnOnce()) {
    let place = folder.display().to_string();
    let (url, more) = arguments.split_first().expect("the address of the page");
    let mut script = Script::start(folder, &[&[*url, place.as_str()][..], more].concat());
    let mut output = BufReader::new(script.0.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("output");
    assert_eq!(line.trim(), "followed", "is Chromium installed (cargo xtask setup node)?");
    end();
    script.0.stdin.take().expect("piped").write_all(b"\n").expect("the script waits");
    assert!(script.0.wait().expect("an end").success(), "the page does not report that its server is gone");
}

/// A server of the page for a cluster, as `kubectl portlane ui` serves it. Its streams end once it has `stopped`.
fn cluster(stopped: Arc<AtomicBool>) -> Backend {
    let shown: Value = serde_json::from_str(CLUSTER).expect("JSON");
    site::serve(move |path, stream| match path.split('?').next().unwrap_or_default() {
        "/events" => follow(&shown, &stopped, stream),
        "/conns" => site::whole(stream, &[("Content-Type", "application/json")], &shown["sessions"].to_string()),
        path => {
            let file = portlane_page::file(path).ok_or_else(|| io::Error::other(format!("no file {path}")))?;
            let headers = [&[("Content-Type", file.content_type)][..], &portlane_page::HEADERS].concat();
            site::whole(stream, &headers, file.content)
        }
    })
}

/// Sends the notices, and then states, each with more bytes than the one before.
fn follow(shown: &Value, stopped: &AtomicBool, stream: &mut TcpStream) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    write!(stream, "event: notices\ndata: {}\n\n", json!({"notices": shown["notices"]}))?;
    let mut state = shown["state"].clone();
    let (mut at, mut up) = (12_000_u64, 596_u64);
    while !stopped.load(Relaxed) {
        (at, up) = (at + 500, up + at);
        state["at"] = json!(at);
        state["totals"]["up"] = json!(up);
        write!(stream, "event: state\ndata: {state}\n\n")?;
        thread::park_timeout(STATE);
    }
    Ok(())
}
