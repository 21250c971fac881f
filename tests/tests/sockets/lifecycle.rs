//! Start of the programs, their files, and the commands besides `run`.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    fs::File,
    io::{self, Write},
    process::{Command, Output, Stdio},
    time::Duration,
};

use harness::{
    Backend, Behaviour, Listener, Program, binary, connect, forward, free_port, http_get, round_trip, until,
};
use rustix::process::Signal;

/// The output of `portlane` with this standard input.
pub(super) fn portlane(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary("portlane"));
    command.args(arguments);
    fed(command, input)
}

/// What a program does with this standard input.
fn fed(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // The program may reject its arguments without reading.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ends")
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn validate_prints_file_line_object_field_and_reason_and_exits_with_one() {
    let good = forward("a", "", &[Listener::tcp("l", 1000).to(1)]);
    let output = portlane(&["validate", "-f", "-"], &good);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "1 PortForward valid\n");
    let bad = portlane(&["validate", "-f", "-"], &good.replace("port: 1000", "port: 70000"));
    assert_eq!(bad.status.code(), Some(1));
    let printed = text(&bad.stdout);
    let line = "<stdin>:8: PortForward default/a: spec.listeners[0].port: must be at most 65535, but is 70000";
    assert!(printed.contains(line), "{printed}");
    let read = portlane(&["validate", "-o", "json", "-f", "-"], &good.replace("port: 1000", "port: 70000"));
    let found: serde_json::Value = serde_json::from_slice(&read.stdout).expect("a document");
    assert_eq!((read.status.code(), &found["valid"]), (Some(1), &serde_json::json!(false)));
    assert_eq!(found["problems"][0]["field"], "spec.listeners[0].port", "{found}");
}

#[test]
fn the_plugin_of_kubectl_validates_without_a_cluster_in_the_same_words() {
    let plugin = |arguments: &[&str], input: &str| {
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", "/nosuch").args(arguments);
        fed(command, input)
    };
    let good = forward("a", "", &[Listener::tcp("l", 1000).to(1)]);
    let bad = good.replace("port: 1000", "port: 70000");
    for (arguments, input, code) in [
        (&["validate", "-"][..], good.as_str(), 0),
        (&["validate", "-f", "-", "-n", "shop"][..], bad.as_str(), 1),
        (&["validate", "nosuch.yaml"][..], "", 1),
        (&["validate"][..], "", 2),
    ] {
        let (own, other) = (portlane(arguments, input), plugin(arguments, input));
        assert_eq!(own.status.code(), Some(code), "{arguments:?}: {}", text(&own.stderr));
        assert_eq!((own.status.code(), text(&own.stdout)), (other.status.code(), text(&other.stdout)), "{arguments:?}");
        if code < 2 {
            assert_eq!(text(&own.stderr), text(&other.stderr), "{arguments:?}");
        }
    }
}

#[test]
fn validate_reports_conflicts_between_objects() {
    let one = forward("a", "", &[Listener::tcp("l", 1000).to(1)]);
    let two = forward("b", "", &[Listener::tcp("l", 1000).to(1)]);
    let output = portlane(&["validate", "-f", "-"], &format!("{one}{two}"));
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stdout);
    assert!(
        printed.contains("default/b: spec.listeners[0]: PortConflict: port 1000/TCP")
            && printed.contains("held by default/a"),
        "{printed}"
    );
}

#[test]
fn what_translate_prints_the_proxy_serves_and_follows() {
    let (one, two) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let translate = |target: u16| {
        let manifest = forward("f", "", &[Listener::tcp("l", port).to(target)]);
        let output = portlane(&["translate", "-f", "-"], &manifest);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let program = Program::proxy(&translate(one.port), health, admin, &[]);
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    program.replace("config.yaml", &translate(two.port));
    program.wait("swapped", "f/l");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    assert_eq!(two.count(), 1);
    // An incomplete file is refused whole, and the last good one stays in force.
    program.replace("config.yaml", &translate(one.port)[..200]);
    program.wait("refused", "configuration");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    assert_eq!(two.count(), 2);
    let (_, metrics) = http_get(health, "/metrics").expect("metrics");
    assert!(metrics.contains("portlane_config_refused_total 1"), "{metrics}");
    let (status, config) = http_get(admin, "/config").expect("config");
    assert!(status == 200 && config.contains(&two.port.to_string()), "{config}");
    let mut live = connect(port).expect("connect");
    round_trip(&mut live, b"x").expect("echo");
    let (_, conns) = http_get(admin, "/conns").expect("conns");
    assert!(conns.contains("\"listener\":\"default/f/l\""), "{conns}");
    let mut program = program;
    program.signal(Signal::TERM);
    until("no new connection", || connect(port).is_err());
    round_trip(&mut live, b"x").expect("the proxy drains too");
    drop(live);
    assert!(program.wait_for_end(Duration::from_secs(10)).success());
}

#[test]
fn a_listener_that_the_proxy_does_not_understand_fails_alone() {
    let backend = Backend::start(Behaviour::Echo);
    let (good, newer, health, admin) = (free_port(), free_port(), free_port(), free_port());
    let manifest = forward(
        "f",
        "",
        &[Listener::tcp("good", good).to(backend.port), Listener::tcp("newer", newer).to(backend.port)],
    );
    let document = text(&portlane(&["translate", "-f", "-"], &manifest).stdout);
    let at = document.find("default/f/newer").expect("there");
    let document = format!(
        "{}{}",
        &document[..at],
        document[at..].replacen("policy:", "quotas: {maxConnections: 1}\n    policy:", 1)
    );
    let program = Program::proxy(&document, health, admin, &[]);
    let failed = program.wait("failed", "f/newer");
    assert!(failed["message"].as_str().is_some_and(|text| text.contains("`quotas`")), "{failed}");
    round_trip(&mut connect(good).expect("connect"), b"x").expect("the other listener serves");
    connect(newer).expect_err("never run without the unknown restriction");
    let (_, listeners) = http_get(admin, "/listeners").expect("listeners");
    assert!(listeners.contains("Unsupported"), "{listeners}");
}

#[test]
fn laptop_options_move_ports_and_place_services() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, mapped) = (free_port(), free_port());
    let service = format!("service: {{name: pg, port: {}}}", backend.port);
    let listeners =
        [Listener::tcp("mapped", 1).backend(&service), Listener::tcp("shifted", port - 100).backend(&service)];
    let map = format!("f/mapped={mapped}");
    let arguments = ["--resolve", "pg.default=127.0.0.1", "--map", &map, "--port-offset", "100"];
    let _program = Program::run(&forward("f", "", &listeners), free_port(), &arguments);
    for port in [port, mapped] {
        round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    }
}

#[test]
fn only_picks_one_of_two_forwards_that_clash_on_a_laptop() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let one = forward("one", "", &[Listener::tcp("l", port).to(backend.port)]);
    let two = forward("two", "", &[Listener::tcp("l", port).to(backend.port)]);
    let both = format!("{one}{two}");
    let program = Program::run(&both, free_port(), &[]);
    let event = program.wait("refused", "");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("--only")), "{event}");
    drop(program);
    let program = Program::run(&both, free_port(), &["--only", "two"]);
    program.wait("bound", "two/l");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
}

#[test]
fn the_first_screen_is_a_table() {
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(9)])
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("f.yaml"), manifest).expect("write");
    let mut child = Command::new(binary("portlane"))
        .args(["run", "-f"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    until("the listener is bound", || connect(port).is_ok());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("runs");
    let status = child.wait().expect("ends");
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut printed).expect("text");
    assert!(status.success());
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("LISTENER") && lines[0].ends_with("STATE"), "{printed}");
    assert!(lines[1].starts_with("default/f/l ") && lines[1].ends_with("Bound"), "{printed}");
    assert_eq!(lines[2], "skipped: 1 Service (other kinds)");
}

#[test]
fn help_has_examples_and_completions_are_printed() {
    let help = text(&portlane(&["run", "--help"], "").stdout);
    assert!(help.contains("Examples:") && help.contains("--resolve"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = portlane(&["completions", shell], "").stdout;
        assert!(script.len() > 1000, "{shell}");
        assert_eq!(portlane(&["completion", shell], "").stdout, script, "{shell}: the word of kubectl");
    }
}

#[test]
fn every_example_is_valid_and_compiles_to_a_document_that_decodes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("examples") {
        let path = entry.expect("entry").path();
        let path = path.to_str().expect("a name");
        let holds_ours = || std::fs::read_to_string(path).is_ok_and(|text| text.contains("kind: PortForward"));
        if !holds_ours() {
            continue;
        }
        let validated = portlane(&["validate", "-f", path], "");
        assert!(validated.status.success(), "{path}: {}", text(&validated.stdout));
        // Places the Services that some examples name; unused options are rejected.
        let services = [
            ("database.yaml", "pg.shop=127.0.0.1:15432"),
            ("fleet.yaml", "web.default=127.0.0.1:18000"),
            ("/sidecar.yaml", "db.default=127.0.0.1:15432"),
            ("tenants.yaml", "orders.shop=127.0.0.1:18443"),
        ];
        let resolve = services.iter().filter(|(file, _)| path.ends_with(file)).flat_map(|(_, to)| ["--resolve", to]);
        let translated = portlane(&[&["translate", "-f", path][..], &resolve.collect::<Vec<_>>()].concat(), "");
        assert!(translated.status.success(), "{path}: {}", text(&translated.stderr));
        assert!(text(&translated.stdout).contains("revision:"), "{path} compiles to nothing");
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} examples found");
}

#[test]
fn a_listener_that_a_person_edits_is_applied_although_its_revision_is_as_before() {
    let (one, two) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(one.port)]);
    let document = text(&portlane(&["translate", "-f", "-"], &manifest).stdout);
    let program = Program::proxy(&document, health, admin, &[]);
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    // The port of the backend is in its identity, and in its target.
    let place = |before: char, port: u16| format!("{before}{port}\n");
    let edited = [':', ' '].into_iter().fold(document, |text, before| {
        assert!(text.contains(&place(before, one.port)), "{text}");
        text.replace(&place(before, one.port), &place(before, two.port))
    });
    program.replace("config.yaml", &edited);
    program.wait("swapped", "f/l");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    assert_eq!((one.count(), two.count()), (1, 1));
}

#[test]
fn a_manifest_is_no_configuration_and_stops_nothing() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let document = text(&portlane(&["translate", "-f", "-"], &manifest).stdout);
    let program = Program::proxy(&document, health, admin, &[]);
    program.replace("config.yaml", &manifest);
    let refused = program.wait("refused", "configuration");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("portlane translate")), "{refused}");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
}

#[test]
fn translate_prints_no_document_if_anything_is_refused() {
    let good = forward("a", "", &[Listener::tcp("l", 1000).to(1)]);
    let bad = forward("b", "", &[Listener::tcp("l", 1001).backend("service: {name: pg, port: 1}")]);
    let output = portlane(&["translate", "-f", "-"], &format!("{good}{bad}"));
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(text(&output.stderr).contains("--resolve pg.default"), "{}", text(&output.stderr));
}

#[test]
fn output_that_nobody_reads_is_no_crash() {
    for command in ["completions bash", "validate -f -", "--help"] {
        let script = format!("\"$0\" {command} </dev/null | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}");
        let output = Command::new("bash").arg("-c").arg(script).arg(binary("portlane")).output().expect("runs");
        assert!(!text(&output.stderr).contains("panicked"), "{command}: {}", text(&output.stderr));
    }
    // The reader of the pipe is gone at once.
    let nobody = || Stdio::from(io::pipe().expect("a pipe").1);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("a device"));
    for (program, words, code) in [
        ("portlane", ["validate", "/nosuch"], 1),
        ("portlane", ["translate", "/nosuch"], 1),
        ("kubectl-portlane", ["validate", "/nosuch"], 1),
        ("kubectl-portlane", ["status", "--kubeconfig=/nosuch"], 2),
    ] {
        for errors in [nobody(), full()] {
            let status = Command::new(binary(program)).args(words).stderr(errors).status().expect("runs");
            assert_eq!(status.code(), Some(code), "{program} {words:?}: a panic is 101");
        }
    }
    for (program, words) in [("portlane", ["completions", "bash"]), ("kubectl-portlane", ["completion", "bash"])] {
        let status = Command::new(binary(program)).args(words).stdout(nobody()).status().expect("runs");
        assert!(status.success(), "{program} {words:?}: {status}");
    }
}
