//! What `portlane run` shows to a person: on a terminal, in a pipe, and without a manifest.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    net::UdpSocket,
    process::{Command, Output, Stdio},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, Terminal, UdpEcho, binary, connect, forward, free_port, http_get,
    metric, round_trip, until,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// A terminal with `portlane run` on it, and the folder of its manifest.
fn run(manifest: &str, columns: u16, environment: &[(&str, &str)]) -> (Terminal, TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("forwards.yaml");
    std::fs::write(&path, manifest).expect("manifest");
    let mut command = Command::new(binary("portlane"));
    command.args(["run", "-f"]).arg(&path).env("TERM", "xterm");
    // What a machine that runs tests tells programs about colours.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.envs(environment.to_vec());
    (Terminal::start(command, columns), folder)
}

/// A text as it is seen, without colours.
fn seen(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').expect("a colour").1);
    }
    plain
}

const HINT: &str = "press Enter to show the table again";

fn tls(port: u16) -> String {
    let listener = |name: &str, host: &str| {
        Listener::tls(name, port).to(9).with(&format!("tls: {{hostnames: [{host}.example.com]}}"))
    };
    forward("f", "", &[listener("one", "first"), listener("a-listener-whose-name-is-rather-long", "second")])
}

#[test]
fn on_a_terminal_the_table_fits_has_colours_and_names_and_is_shown_again() {
    let (mut terminal, _folder) = run(&tls(free_port()), 70, &[]);
    let text = terminal.wait(HINT, 1);
    assert!(text.contains("\u{1b}[32mBound"), "{text:?}");
    let plain = seen(&text);
    let lines: Vec<&str> = plain.lines().collect();
    assert_eq!(lines.len(), 4, "{plain}");
    assert!(lines.iter().all(|line| line.chars().count() <= 70), "{plain}");
    assert!(lines[0].starts_with("LISTENER") && lines[0].contains("NAMES"), "{plain}");
    assert!(lines[1].contains("…") && lines[1].ends_with("Bound"), "{plain}");
    assert_eq!(lines[3], HINT);
    terminal.press(b"\n");
    terminal.wait("LISTENER", 2);
    terminal.signal(Signal::USR1);
    terminal.wait("LISTENER", 3);
    terminal.signal(Signal::TERM);
    assert!(terminal.end().success());
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (terminal, _folder) = run(&tls(free_port()), 120, &[(name, value)]);
        let text = terminal.wait(HINT, 1);
        assert!(text.contains("second.example.com") && !text.contains('\u{1b}'), "{name}: {text:?}");
    }
}

#[test]
fn a_pipe_gets_the_whole_table_without_colours() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("f.yaml");
    std::fs::write(&path, tls(free_port())).expect("write");
    let mut command = Command::new(binary("portlane"));
    command.args(["run", "-f"]).arg(&path).env_remove("CLICOLOR_FORCE");
    let program = Program::start(command, folder);
    let lines = || program.events().iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    until("the table is printed", || lines().len() >= 3);
    program.signal(Signal::USR1);
    until("the table is printed again", || lines().len() >= 6);
    let lines = lines();
    assert_eq!(lines[..3], lines[3..6]);
    assert!(lines[2].starts_with("default/f/a-listener-whose-name-is-rather-long  "), "{lines:?}");
    assert!(!lines.concat().contains(['\u{1b}', '…']) && !lines.concat().contains(HINT), "{lines:?}");
}

#[test]
fn a_log_of_json_lists_the_listeners_when_asked() {
    let port = free_port();
    let program = Program::run(&forward("f", "", &[Listener::tcp("l", port).to(9)]), free_port(), &["--quiet"]);
    program.signal(Signal::USR1);
    let told = program.wait("listener", "default/f/l");
    assert_eq!(told["message"], format!("127.0.0.1:{port}/TCP -> 127.0.0.1:9; Bound").as_str());
}

#[test]
fn the_command_line_decides_which_sessions_are_logged() {
    let backend = Backend::start(Behaviour::Echo);
    let closed = "portlane_connections_closed_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",\
                  listener=\"l\",reason=\"Finished\"}";
    for (mode, arguments, expected) in [
        ("Disabled", &["--access-log", "all"][..], &["session_opened", "session_closed"][..]),
        ("OpenAndClose", &["--access-log", "close"][..], &["session_closed"][..]),
        ("OpenAndClose", &["--access-log", "off"][..], &[][..]),
        ("OpenAndClose", &["--quiet"][..], &[][..]),
        ("Disabled", &["--quiet", "--access-log", "close"][..], &["session_closed"][..]),
    ] {
        let (port, health) = (free_port(), free_port());
        let spec = format!("accessLog: {{mode: {mode}}}");
        let manifest = forward("f", &spec, &[Listener::tcp("l", port).to(backend.port)]);
        let program = Program::run(&manifest, health, arguments);
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
        until("the session is closed", || {
            http_get(health, "/metrics").is_ok_and(|(_, text)| metric(&text, closed) == Some(1.0))
        });
        // The log has an order: what the session logs comes before this.
        let told = program.edit_and_wait("kind: PortForward\n", "refused", "forwards.yaml");
        assert_eq!(told["level"], "error");
        let events = program.events();
        let sessions = events.iter().filter_map(|event| event["event"].as_str());
        let sessions: Vec<&str> = sessions.filter(|event| event.starts_with("session_")).collect();
        assert_eq!(sessions, expected, "{arguments:?}");
        if arguments.contains(&"--quiet") {
            assert!(events.iter().all(|event| event["event"] != "bound"), "{events:?}");
        }
    }
}

#[test]
fn a_change_in_place_names_the_setting() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = |spec: &str| forward("f", spec, &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest(""), free_port(), &[]);
    let told = program.edit_and_wait(&manifest("timeouts: {idleSeconds: 600}"), "swapped", "f/l");
    assert_eq!(told["message"], "settings changed in place: timeouts.idleSeconds 3600 -> 600");
}

/// The output of `portlane` with these arguments.
fn portlane(arguments: &[&str]) -> Output {
    Command::new(binary("portlane")).args(arguments).stdin(Stdio::null()).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_forward_needs_no_manifest() {
    let (backend, server) = (Backend::start(Behaviour::Echo), UdpEcho::start());
    let (port, other) = (free_port(), free_port());
    let mut command = Command::new(binary("portlane"));
    command.args(["run", "--log", "json", &format!("{port}:127.0.0.1:{}", backend.port)]);
    command.arg(format!("127.0.0.1:{other}:127.0.0.1:{}/udp", server.port));
    let program = Program::start(command, tempfile::tempdir().expect("folder"));
    program.wait("bound", &format!("tcp-{port}/tcp"));
    program.wait("bound", &format!("udp-{other}/udp"));
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("option");
    socket.send_to(b"x", ("127.0.0.1", other)).expect("send");
    assert_eq!(socket.recv(&mut [0; 9]).expect("an answer"), 1);
}

#[test]
fn a_forward_on_the_command_line_stands_for_a_manifest() {
    let printed = portlane(&["run", "--print", "5432:db.example.com:5432", "*:53:192.0.2.1:53/udp"]).stdout;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("f.yaml");
    std::fs::write(&path, &printed).expect("write");
    let path = path.to_str().expect("a name");
    assert_eq!(text(&portlane(&["validate", path]).stdout), "2 PortForwards valid\n", "{}", text(&printed));
    let translated = |arguments: &[&str]| text(&portlane(&[&["translate"][..], arguments].concat()).stdout);
    let document = translated(&[path]);
    assert!(document.contains("host: db.example.com"), "{document}");
    assert_eq!(document, translated(&["5432:db.example.com:5432", "*:53:192.0.2.1:53/udp"]));
}

#[test]
fn a_forward_that_cannot_run_ends_the_program_with_the_reason() {
    let output = portlane(&["run", "5432:db.example.com"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("a port or the host is missing") && error.contains("[BIND:]PORT:HOST:PORT"), "{error}");
    let port = free_port();
    let output = portlane(&["run", &format!("{port}:127.0.0.1:{port}")]);
    let (told, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}{error}");
    assert!(told.contains("<command line>:1") && told.contains("BackendLoop"), "{told}");
    assert!(error.contains("nothing to run"), "{error}");
    let output = portlane(&["run", "--print", "nowhere.yaml"]);
    assert!(text(&output.stderr).contains("--print shows"), "{}", text(&output.stderr));
}
