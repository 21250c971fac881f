//! The examples with `durable` carry messages on this machine. A test replaces ports and hosts, and nothing else.

use std::{io::Write, path::Path};

use harness::{Program, connect, free_port, send_relp, until};
use serde_json::json;
use tempfile::tempdir;

use super::{COUNT, Sink, http, messages, send_datagrams};
use crate::examples;

/// `portlane run` of an example with these replacements, with messages in this folder.
fn run(name: &str, swaps: &[(&str, String)], data: &Path) -> Program {
    examples::run(name, swaps, &["--data", data.to_str().expect("UTF-8")])
}

/// Sends these messages as lines over TCP.
fn send_lines(port: u16, messages: &[String]) {
    let mut client = connect(port).expect("a connection");
    client.write_all((messages.join("\n") + "\n").as_bytes()).expect("it is sent");
}

#[test]
fn the_example_of_syslog_carries_lines_to_a_sink_over_relp() {
    let (port, to, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let swaps = [("host: logs.example.com, port: 2514", examples::local(to)), ("port: 5514", format!("port: {port}"))];
    let _program = run("durable-syslog.yaml", &swaps, data.path());
    let (sink, sent) = (Sink::start(to), messages("<13>line"));
    send_lines(port, &sent);
    until("the sink has all messages", || sink.taken("").len() >= COUNT);
    assert_eq!(sink.taken(""), sent);
}

#[test]
fn the_example_of_a_gateway_with_claims_carries_relp_and_datagrams_to_a_sink() {
    let (relp, udp, to, data) = (free_port(), free_port(), free_port(), tempdir().expect("a folder"));
    let swaps = [
        ("host: 10.60.0.14, port: 20514", examples::local(to)),
        ("    port: 2514\n", format!("    port: {relp}\n")),
        ("port: 5514", format!("port: {udp}")),
    ];
    let _program = run("durable-gateway.yaml", &swaps, data.path());
    let (sink, datagrams) = (Sink::start(to), messages("datagram"));
    send_datagrams(udp, &datagrams);
    let (sent, mut answered) = (messages("answered"), 0);
    let next = |number: u64| sent.get(usize::try_from(number).expect("few")).cloned();
    send_relp(connect(relp).expect("a connection"), 8, 0, next, |through| answered = through + 1).expect("answers");
    assert_eq!(answered, COUNT as u64);
    until("the sink has all messages", || sink.taken("").len() >= 2 * COUNT);
    assert_eq!((sink.taken("datagram"), sink.taken("answered")), (datagrams, sent));
}

#[test]
fn the_example_of_a_forwarder_carries_syslog_to_a_sink_that_takes_objects() {
    let (port, data, sink) = (free_port(), tempdir().expect("a folder"), http::Sink::start());
    let swaps = [
        ("host: logs.example.com, port: 8080", examples::local(sink.backend.port)),
        ("port: 5514", format!("port: {port}")),
    ];
    let _program = run("durable-http.yaml", &swaps, data.path());
    let sent = messages("<34>Oct 11 22:14:15 web su: failed");
    send_lines(port, &sent);
    until("the sink has all messages", || sink.taken().len() >= COUNT);
    let taken = sink.taken();
    let got: Vec<&str> = taken.iter().filter_map(|object| object["message"].as_str()).collect();
    assert_eq!(got, sent);
    for object in taken {
        assert_eq!((&object["client"], &object["forward"]), (&json!("127.0.0.1"), &json!("shop/app-logs")), "{object}");
        assert!(object["receivedAt"].is_string() && object["pod"].is_string(), "{object}");
    }
}
