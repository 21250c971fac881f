//! Which files the command line reads, and when a proxy reads them again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::{Backend, Behaviour, Listener, Program, binary, connect, forward, free_port, round_trip, until};
use rustix::process::Signal;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n";

/// The output of a shell command in this folder, in which `$0` is `portlane`.
fn shell(folder: &Path, command: &str) -> Output {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(command).arg(binary("portlane")).current_dir(folder);
    shell.stdin(Stdio::null()).output().expect("bash runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn good() -> String {
    forward("f", "", &[Listener::tcp("l", 1000).to(1)])
}

// T22
#[test]
fn manifests_with_nothing_to_forward_are_an_error_that_says_what_there_is() {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("none")).expect("folder");
    fs::write(folder.path().join("empty.yaml"), "").expect("write");
    fs::write(folder.path().join("service.yaml"), SERVICE).expect("write");
    for (input, words) in [
        ("empty.yaml", "in empty.yaml"),
        ("none", "in none"),
        ("none -f service.yaml", "in none, service.yaml"),
        ("/dev/null", "in /dev/null"),
        ("- < /dev/null", "in standard input"),
        ("service.yaml", "skipped: 1 Service (other kinds)"),
        (".", "none (subfolder: -R reads it)"),
    ] {
        for command in ["validate", "translate", "run"] {
            let output = shell(folder.path(), &format!("timeout 30 \"$0\" {command} -f {input}"));
            let (printed, error) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{command} {input}: {printed}{error}");
            assert!(command == "run" || printed.is_empty(), "{command} {input}: {printed}");
            for words in [words, &format!("nothing to {command}"), "name a file or folder that has one"] {
                assert!(error.contains(words) && error.lines().count() == 1, "{command} {input}: {error}");
            }
        }
    }
}

#[test]
fn run_waits_for_an_edit_of_a_forward_that_is_suspended_left_out_or_refused_and_not_beside_a_gateway_alone() {
    let start = |manifest: &str, arguments: &[&str]| {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("forwards.yaml");
        fs::write(&path, manifest).expect("write");
        let mut command = Command::new(binary("portlane"));
        command.args(["run", "--log", "json", "-f"]).arg(&path).args(arguments);
        Program::start(command, folder)
    };
    for program in [start(&good(), &["--only", "g"]), start(&good().replace("port: 1000", "port: 70000"), &[])] {
        program.wait("waiting", "portlane");
    }
    let manifest = |spec: &str, port: u16| forward("f", spec, &[Listener::tcp("l", port).to(1)]);
    let port = free_port();
    let program = Program::run(&manifest("suspend: true", port), free_port(), &[]);
    program.edit_and_wait(&manifest("", port), "bound", "f/l");
    let gateway = "apiVersion: portlane.dev/v1alpha1\nkind: ForwardGateway\nmetadata: {name: edge}\nspec: {}\n";
    assert_eq!(start(gateway, &[]).wait_for_end(harness::PATIENCE).code(), Some(1));
}

#[test]
fn run_goes_on_after_an_edit_that_leaves_nothing_and_serves_what_comes_later() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let mut program = Program::run(&manifest, free_port(), &[]);
    program.edit_and_wait(SERVICE, "removed", "f/l");
    let seen = program.events().len();
    program.edit(&manifest);
    program.wait_after(seen, "bound", "f/l");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    assert!(program.is_running());
}

// T13
#[test]
fn manifests_are_read_from_files_pipes_and_standard_input() {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("sub")).expect("folder");
    fs::write(folder.path().join("sub/f.yaml"), good()).expect("write");
    for input in [
        "sub/f.yaml",
        "-f sub/f.yaml",
        "-f sub",
        "-R -f .",
        "-f - < sub/f.yaml",
        "-f /dev/stdin < sub/f.yaml",
        "-f <(cat sub/f.yaml)",
        "<(cat sub/f.yaml)",
    ] {
        let piped = format!("\"$0\" validate {input}");
        let output = shell(folder.path(), &piped);
        assert_eq!(text(&output.stdout), "1 PortForward valid\n", "{input}: {}", text(&output.stderr));
    }
    let output = shell(folder.path(), "cat sub/f.yaml | \"$0\" validate -f /dev/stdin");
    assert_eq!(text(&output.stdout), "1 PortForward valid\n", "{}", text(&output.stderr));
}

#[test]
fn an_option_for_a_service_that_no_backend_uses_names_those_that_are_used() {
    let folder = tempfile::tempdir().expect("folder");
    let listener = Listener::tcp("l", 1000).backend("service: {name: pg, port: 5432}");
    fs::write(folder.path().join("f.yaml"), forward("f", "", &[listener])).expect("write");
    let places = "--resolve pg.default=127.0.0.1:1 --resolve pq.default=127.0.0.1:1";
    let error = text(&shell(folder.path(), &format!("\"$0\" translate -f f.yaml {places}")).stderr);
    let words = "--resolve pq.default: no backend uses this Service; the manifests use pg.default\n";
    assert!(error.contains(words) && !error.contains("--resolve pg"), "{error}");
}

#[test]
fn a_folder_does_not_fail_because_of_the_files_of_other_tools_and_names_them() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, content) in [
        ("f.yaml", good()),
        ("service.yaml", SERVICE.to_owned()),
        ("values.yaml", "replicas: 2\n".to_owned()),
        ("kustomization.yaml", "resources: [f.yaml]\n".to_owned()),
        ("compose.yaml", "services: {}\n".to_owned()),
        ("f.yaml~", "[".to_owned()),
    ] {
        fs::write(folder.path().join(name), content).expect("write");
    }
    let output = shell(folder.path(), "\"$0\" validate -f .");
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "1 PortForward valid");
    for words in [
        "1 Service (other kinds)",
        "./kustomization.yaml, ./values.yaml (file of Helm or Kustomize)",
        "./compose.yaml (not a Kubernetes manifest)",
        "./f.yaml~ (not .json, .yaml or .yml)",
    ] {
        assert!(lines.len() == 2 && lines[1].contains(words), "{words:?} is not in {printed}");
    }
}

#[test]
fn a_file_without_an_object_is_named_beside_a_valid_one() {
    let nothing = ["", "# comments\n---\n# only\n", "null\n", "{apiVersion: v1, kind: List, items: []}\n"];
    for content in nothing {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("f.yaml"), good()).expect("write");
        fs::write(folder.path().join("g.yaml"), content).expect("write");
        for input in ["-f f.yaml -f g.yaml", "-f .", "-f f.yaml -f - < g.yaml"] {
            let output = shell(folder.path(), &format!("\"$0\" validate {input}"));
            let printed = text(&output.stdout);
            let name = if input.contains('<') { "<stdin>" } else { "g.yaml" };
            let (first, rest) = printed.split_once('\n').unwrap_or_default();
            assert_eq!(first, "1 PortForward valid", "{content:?} {input}: {}", text(&output.stderr));
            let is_named = rest.contains(name) && rest.contains("(no object)");
            assert!(rest.starts_with("skipped: ") && is_named, "{content:?} {input}: {printed}");
        }
    }
}

#[test]
fn a_forward_that_would_be_left_out_fails_beside_a_valid_one() {
    let folder = tempfile::tempdir().expect("folder");
    let list = "apiVersion: v1\nkind: List\n";
    for (content, message) in [
        (format!("{list}items: {{a: b}}\n"), "g.yaml:3: List: items: must be a list"),
        (format!("{list}item: []\n"), "g.yaml:3: List: item: unknown field; did you mean 'items'?"),
        (
            format!("{list}items:\n- {{apiVersion: v1, kind: List, items: []}}\n"),
            "g.yaml:4: List: must not be an item of a List; move its items into the outer List",
        ),
        (
            "apiVersion: v1alpha1\nkind: PortForward\n".to_owned(),
            "g.yaml:1: apiVersion: 'v1alpha1' of PortForward has no API group; did you mean 'portlane.dev/v1alpha1'?",
        ),
    ] {
        fs::write(folder.path().join("f.yaml"), good()).expect("write");
        fs::write(folder.path().join("g.yaml"), &content).expect("write");
        let output = shell(folder.path(), "\"$0\" validate -f f.yaml -f g.yaml");
        let printed = text(&output.stdout);
        assert!(output.status.code() == Some(1) && printed.contains(message), "{content}: {printed}");
    }
}

// T10
#[test]
fn a_file_that_is_emptied_keeps_running_what_it_had() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest, free_port(), &[]);
    for nothing in ["", "# comments\n---\n# only\n", "null\n", "{apiVersion: v1, kind: List, items: []}\n"] {
        let seen = program.events().len();
        program.edit(nothing);
        let told = program.wait_after(seen, "refused", "forwards.yaml");
        let message = told["message"].as_str().unwrap_or_default();
        assert!(message.contains("keeps running") || message.contains("keep running"), "{told}");
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
        let seen = program.events().len();
        program.edit(&manifest);
        program.wait_after(seen, "accepted", "forwards.yaml");
    }
    let seen = program.events().len();
    fs::remove_file(program.path("forwards.yaml")).expect("remove");
    program.wait_after(seen, "removed", "f/l");
    until("no new connection", || connect(port).is_err());
}

#[test]
fn a_folder_that_is_moved_away_keeps_running_what_it_had_until_it_is_back() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let path = folder.path().join("forwards");
    fs::create_dir(&path).expect("folder");
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    fs::write(path.join("f.yaml"), manifest).expect("write");
    let mut command = Command::new(binary("portlane"));
    command.args(["run", "--log", "json", "-f"]).arg(&path);
    let program = Program::start(command, folder);
    program.wait("bound", "f/l");
    let mut live = connect(port).expect("connect");
    fs::rename(&path, program.path("away")).expect("move");
    let told = program.wait("refused", "forwards:1");
    let message = told["message"].as_str().unwrap_or_default();
    for words in ["the folder no longer exists", "keep running", "restore it", "delete the manifests in it"] {
        assert!(message.contains(words), "{words:?} is not in {told}");
    }
    round_trip(&mut live, b"x").expect("the session continues");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("new sessions too");
    fs::rename(program.path("away"), &path).expect("move");
    assert_eq!(program.wait("accepted", "forwards")["message"], "the folder: the problem is fixed");
    let count = |event: &str| program.events().iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("refused"), count("removed")), (1, 0), "{:#?}", program.events());
    fs::remove_file(path.join("f.yaml")).expect("remove");
    program.wait("removed", "f/l");
    until("no new connection", || connect(port).is_err());
}

#[test]
fn sighup_ends_nothing_while_a_pipe_is_being_read() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("pipe");
    assert!(shell(folder.path(), "mkfifo pipe").status.success());
    // Open for both, so that neither end waits for the other.
    let mut pipe = fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let mut command = Command::new(binary("portlane"));
    command.args(["run", "--log", "json", "-f"]).arg(&path);
    let program = Program::start(command, folder);
    let descriptors = format!("/proc/{}/fd", program.id());
    until("the pipe is being read", || {
        let mut open = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        open.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.ends_with("pipe")))
    });
    program.signal(Signal::HUP);
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    pipe.write_all(manifest.as_bytes()).expect("write");
    drop(pipe);
    until("the manifest runs", || connect(port).is_ok());
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
}

// T11
#[test]
fn sighup_reads_the_files_again_and_ends_nothing() {
    let backend = Backend::start(Behaviour::Echo);
    let (one, two) = (free_port(), free_port());
    let manifest = |port: u16| forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let translated = {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("f.yaml"), manifest(two)).expect("write");
        text(&shell(folder.path(), "\"$0\" translate f.yaml").stdout)
    };
    let run = Program::run(&manifest(one), free_port(), &[]);
    let proxy = Program::proxy(&translated, free_port(), free_port(), &[]);
    for (mut program, port) in [(run, one), (proxy, two)] {
        let mut live = connect(port).expect("connect");
        round_trip(&mut live, b"x").expect("echo");
        program.signal(Signal::HUP);
        let told = program.wait("reading", "");
        assert!(told["message"].as_str().is_some_and(|text| text.contains("SIGHUP")), "{told}");
        round_trip(&mut live, b"x").expect("the session continues");
        round_trip(&mut connect(port).expect("connect"), b"x").expect("new sessions too");
        assert!(program.is_running());
    }
}

/// Waits until a program has threads, and returns the signals that it handled then, as a bit mask.
#[cfg(target_os = "linux")]
fn handled_with_threads(program: &Program) -> u64 {
    let path = format!("/proc/{}/status", program.id());
    let began = std::time::Instant::now();
    // The start takes milliseconds: without a pause, no step of it is missed.
    while began.elapsed() < harness::PATIENCE {
        let status = fs::read_to_string(&path).expect("the program runs");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        if field("Threads:") != "1" {
            return u64::from_str_radix(field("SigCgt:"), 16).expect("a mask");
        }
        std::thread::yield_now();
    }
    panic!("the program has no threads");
}

#[cfg(target_os = "linux")]
#[test]
fn sighup_ends_nothing_during_the_start() {
    let backend = Backend::start(Behaviour::Echo);
    let (one, two) = (free_port(), free_port());
    let start = |name: &str, arguments: &[&str], content: &str| {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f.yaml");
        fs::write(&path, content).expect("write");
        let mut command = Command::new(binary(name));
        command.args(arguments).arg(&path);
        Program::start(command, folder)
    };
    let manifest = |port: u16| forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let translated = {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("f.yaml"), manifest(two)).expect("write");
        text(&shell(folder.path(), "\"$0\" translate f.yaml").stdout)
    };
    let run = ["run", "--log", "json", "-f"].as_slice();
    let proxy = ["--health-address", "none", "--admin-address", "none", "--config"].as_slice();
    for (name, arguments, content, port) in
        [("portlane", run, manifest(one), one), ("portlane-proxy", proxy, translated, two)]
    {
        let mut program = start(name, arguments, &content);
        assert_eq!(handled_with_threads(&program) & 1, 1, "{name} handles SIGHUP before it has threads");
        program.signal(Signal::HUP);
        until("the forward runs", || connect(port).is_ok());
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
        assert!(program.is_running());
    }
}

#[test]
fn a_link_that_led_nowhere_for_a_while_serves_again_once_it_is_back() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let program = Program::run(&forward("f", "", &[Listener::tcp("l", port).to(backend.port)]), free_port(), &[]);
    let (link, fresh, file) = (program.path("forwards.yaml"), program.path(".link"), program.path("file.txt"));
    fs::copy(&link, &file).expect("copy");
    let lead_to = |target: &Path| {
        std::os::unix::fs::symlink(target, &fresh).expect("link");
        fs::rename(&fresh, &link).expect("rename");
    };
    // The unchanged file comes back to where it was.
    lead_to(&file);
    let seen = program.events().len();
    lead_to(Path::new("nowhere"));
    program.wait_after(seen, "removed", "f/l");
    let seen = program.events().len();
    lead_to(&file);
    program.wait_after(seen, "bound", "f/l");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
}
