//! `portlane status`, `conns`, `top` and `config` of a process on this machine, and the words that need a cluster.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::{
    Backend, Behaviour, Event, Listener, Program, Terminal, binary, connect, forward, free_port, round_trip, until,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// `portlane` with these words about the process at this admin port.
fn command(admin: u16, words: &[&str]) -> Command {
    let mut command = Command::new(binary("portlane"));
    command.args(words).args(["--admin-address", &format!("127.0.0.1:{admin}")]);
    command.env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

fn portlane(admin: u16, words: &[&str]) -> Output {
    command(admin, words).output().expect("runs")
}

/// Exit code, standard output and standard error.
fn seen(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a verb prints for programs.
fn json(admin: u16, words: &[&str]) -> Event {
    let output = portlane(admin, &[words, &["-o", "json"]].concat());
    let (code, text, error) = seen(&output);
    assert_eq!(code, Some(0), "{words:?}: {text}{error}");
    serde_json::from_str(&text).expect("JSON")
}

/// `portlane run` of a forward to an echo server, with a session.
struct Running {
    _backend: Backend,
    _program: Program,
    _session: TcpStream,
    port: u16,
    health: u16,
    admin: u16,
}

impl Running {
    fn start() -> Self {
        let backend = Backend::start(Behaviour::Echo);
        let (port, health, admin) = (free_port(), free_port(), free_port());
        let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
        let program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
        let mut session = connect(port).expect("connect");
        round_trip(&mut session, b"hello").expect("echo");
        Self { _backend: backend, _program: program, _session: session, port, health, admin }
    }
}

#[test]
fn a_live_session_is_in_conns_status_and_top_and_its_listener_in_config() {
    let bed = Running::start();
    until("the bytes of the session are counted", || {
        let list = json(bed.admin, &["conns"]);
        let session = &list["sessions"][0];
        list["total"] == 1 && session["listener"] == "default/f/l" && session["bytesUp"] == 5
    });
    let (code, list, _) = seen(&portlane(bed.admin, &["conns", "f", "-n", "default", "--client", "127.0.0.0/8"]));
    assert_eq!(code, Some(0), "{list}");
    assert!(list.contains("LISTENER") && list.ends_with("\n1 session, 1 match\n"), "{list}");
    assert!(!list.contains("POD"), "the process is no pod: {list}");

    let (code, status, error) = seen(&portlane(bed.admin, &["status", "-o", "wide"]));
    assert_eq!(code, Some(0), "{status}{error}");
    let address = format!("answers at 127.0.0.1:{}", bed.admin);
    let lines = [address.as_str(), "the newest", "all is well"];
    assert!(lines.iter().all(|line| status.contains(line)), "{status}");
    assert!(status.contains(&format!("127.0.0.1:{}/TCP", bed.port)), "{status}");
    let row = &json(bed.admin, &["status"])["forwards"][0];
    assert!(row["name"] == "f" && row["reason"] == "Bound" && row["sessions"] == 1, "{row}");
    assert_eq!(row["listeners"][0]["port"], format!("{}/TCP", bed.port).as_str());

    let top = json(bed.admin, &["top", "--once"]);
    assert!(top["total"]["sessions"] == 1 && top["forwards"][0]["name"] == "default/f", "{top}");
    assert_eq!(top["pods"].as_array().map(Vec::len), Some(0), "{top}");

    let config = json(bed.admin, &["config"]);
    assert_eq!(config["listeners"][0]["outcome"], "Ok", "{config}");
    assert_eq!(config["config"]["listeners"][0]["spec"]["socket"]["port"], bed.port, "{config}");
}

#[test]
fn a_forward_whose_port_is_taken_fails_the_status() {
    let taken = TcpListener::bind(("127.0.0.1", free_port())).expect("bind");
    let port = taken.local_addr().expect("an address").port();
    let (health, admin) = (free_port(), free_port());
    let listeners = [Listener::tcp("taken", port).to(9), Listener::tcp("free", free_port()).to(9)];
    let admin_address = format!("127.0.0.1:{admin}");
    let program = Program::run(&forward("f", "", &listeners), health, &["--admin-address", &admin_address]);
    let (code, status, error) = seen(&portlane(admin, &["status"]));
    assert_eq!(code, Some(1), "{status}{error}");
    assert!(status.contains("AddressInUse") && status.contains("listener taken: "), "{status}");
    drop(program);
}

/// What gives the terminal back that `top` has taken over.
const LEAVE: &str = "\u{1b}[?1049l";

/// `portlane top` on a terminal with so many columns, once it shows something.
fn top(admin: u16, columns: u16) -> Terminal {
    let mut command = command(admin, &["top"]);
    command.env("TERM", "xterm");
    let terminal = Terminal::start(command, columns);
    terminal.wait("s sort: sessions", 1);
    terminal
}

#[test]
fn on_a_terminal_top_follows_within_its_width_and_sorts_at_a_key() {
    let bed = Running::start();
    let mut terminal = top(bed.admin, 30);
    let text = terminal.wait("1 session", 1);
    assert!(text.contains("FORWARD") && text.contains("default/f"), "{text:?}");
    terminal.press(b"<");
    terminal.wait("FORWARD↑", 1);
    let _second = connect(bed.port).expect("connect");
    terminal.wait("2 sessions", 1);
    terminal.press(b"q");
    assert!(terminal.end().success());
    terminal.wait(LEAVE, 1);
}

#[test]
fn each_end_of_top_gives_the_terminal_back() {
    let bed = Running::start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut terminal = top(bed.admin, 80);
        terminal.signal(signal);
        assert!(terminal.end().success());
        terminal.wait(LEAVE, 1);
    }
    let mut terminal = top(bed.admin, 80);
    terminal.press(b"\x03");
    assert!(terminal.end().success(), "Ctrl-C");
    terminal.wait(LEAVE, 1);
    let mut terminal = top(bed.admin, 80);
    drop(bed);
    assert_eq!(terminal.end().code(), Some(2), "the process has ended");
    terminal.wait(LEAVE, 1);
}

#[test]
fn what_cannot_be_shown_is_one_line_with_the_next_step() {
    let nobody = free_port();
    for verb in ["status", "conns", "top", "lag", "config"] {
        let (code, text, error) = seen(&portlane(nobody, &[verb]));
        assert_eq!((code, text.as_str(), error.lines().count()), (Some(2), "", 1), "{verb}: {error}");
        let address = format!("nothing answers at 127.0.0.1:{nobody}");
        let told = [address.as_str(), "portlane run --admin-address", "kubectl portlane"];
        assert!(told.iter().all(|words| error.contains(words)), "{verb}: {error}");
    }
    let bed = Running::start();
    let (code, _, error) = seen(&portlane(bed.health, &["status"]));
    assert!(code == Some(2) && error.contains("status 404") && error.contains("admin address"), "{error}");
    let (code, _, error) = seen(&portlane(bed.admin, &["conns", "ff"]));
    assert!(code == Some(2) && error.contains("runs no forward ff; did you mean f?"), "{error}");
}

/// A folder with `portlane` and without a plugin beside it. It is where the programs are, so that a link will do.
fn alone() -> TempDir {
    let program = binary("portlane");
    let folder = tempfile::tempdir_in(program.parent().expect("a folder")).expect("a folder");
    fs::hard_link(&program, folder.path().join("portlane")).expect("a link");
    fs::create_dir(folder.path().join("path")).expect("a folder");
    folder
}

/// `portlane` of that folder with these words, and nothing else on the PATH.
fn alone_in(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(folder.join("portlane"));
    command.args(words).current_dir(folder).env("PATH", folder.join("path"));
    command
}

#[test]
fn words_that_need_a_cluster_run_the_plugin_on_the_same_terminal_or_say_what_to_install() {
    let folder = alone();
    let folder = folder.path();
    let output = alone_in(folder, &["describe", "db"]).stdin(Stdio::null()).output().expect("runs");
    let (code, _, error) = seen(&output);
    assert!(code == Some(2) && error.contains("`portlane describe`") && error.contains("install"), "{error}");
    // A shell in place of the plugin takes the verb for the file of its commands.
    symlink("/bin/sh", folder.join("path/kubectl-portlane")).expect("a link");
    let script = "printf '%s|' \"$@\"\ntest -t 0 && test -t 1 && printf terminal\nexit 7\n";
    for verb in ["describe", "run"] {
        fs::write(folder.join(verb), script).expect("written");
    }
    let mut terminal = Terminal::start(alone_in(folder, &["describe", "db", "-o", "json", "--help"]), 80);
    terminal.wait("db|-o|json|--help|terminal", 1);
    assert_eq!(terminal.end().code(), Some(7));
    let words = ["run", "-f", "a.yaml", "--context", "kind"];
    let output = alone_in(folder, &words).stdin(Stdio::null()).output().expect("runs");
    let (code, text, _) = seen(&output);
    assert_eq!((code, text.as_str()), (Some(7), "-f|a.yaml|--context|kind|"));
}

#[test]
fn help_and_completion_have_the_words_of_a_cluster() {
    let words = |words: &[&str]| seen(&Command::new(binary("portlane")).args(words).output().expect("runs"));
    let (_, help, _) = words(&["--help"]);
    assert!(help.contains("In a cluster: kubectl portlane describe"), "{help}");
    let (_, script, _) = words(&["completion", "bash"]);
    assert!(["conns", "describe", "trace"].iter().all(|verb| script.contains(verb)), "{script}");
    let (code, _, error) = words(&["descrbe"]);
    assert!(code == Some(2) && error.contains("'describe'"), "{error}");
}
