//! Sinks over HTTP that refuse one message, fail, ask for a pause, or do not answer.

use std::{
    io::Write,
    process::Command,
    sync::{Arc, Mutex, mpsc::sync_channel},
    time::{Duration, Instant},
};

use harness::{Backend, Listener, Program, binary, connect, forward, free_port, until};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::{
    figure,
    http::{sink, status},
    run, until_kept,
};

/// Lines of a test of many.
const MANY: usize = 10_000;

/// A program that posts the lines of its port to a sink.
struct Scene {
    program: Program,
    port: u16,
    health: u16,
    data: TempDir,
}

impl Scene {
    fn start(sink: &Backend) -> Self {
        let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
        let durable = "durable: {syncMillis: 0, store: {disk: {maxBytes: 16777216}}, deadLetter: {maxBytes: 16777216}, \
                       send: {http: {lingerMillis: 0}}}";
        let manifests = forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(durable)]);
        Self { program: run(&manifests, health, data.path()), port, health, data }
    }

    fn send(&self, lines: &[String]) {
        let mut client = connect(self.port).expect("a connection");
        client.write_all((lines.join("\n") + "\n").as_bytes()).expect("it is sent");
    }

    /// The dead letters that a program prints.
    fn letters(&self, program: &str) -> Vec<Value> {
        let mut command = Command::new(binary(program));
        command.args(["letters", "default/f/l", "--data"]).arg(self.data.path());
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Bodies that a sink took, and when each request came.
#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    requests: Vec<Instant>,
}

fn line(number: usize) -> String {
    format!("{{\"number\":{number}}}")
}

#[test]
fn one_message_of_ten_thousand_that_a_sink_refuses_holds_none_of_the_others() {
    let seen = Arc::<Mutex<Seen>>::default();
    let kept = seen.clone();
    let refused = line(4_321);
    let sink = sink(move |body| {
        if body.contains(&refused) {
            return status(400, "");
        }
        kept.lock().expect("unpoisoned").lines.extend(body.lines().map(str::to_owned));
        status(200, "")
    });
    let scene = Scene::start(&sink);
    let lines: Vec<String> = (0..MANY).map(line).collect();
    scene.send(&lines);
    until("the sink has the others", || seen.lock().expect("unpoisoned").lines.len() >= MANY - 1);
    let others: Vec<String> = (0..MANY).filter(|number| *number != 4_321).map(line).collect();
    assert!(seen.lock().expect("unpoisoned").lines == others, "once, and in order");
    until("it is put aside", || figure(scene.health, "dead_lettered_total", "l", "") == Some(1));
    let told = scene.program.wait("sink", "default/f/l").to_string();
    assert!(told.contains("put aside") && told.contains("the sink answers 400"), "{told}");
    until_kept(scene.health, "l", 0);
    for program in ["portlane", "portlane-proxy"] {
        let letters = scene.letters(program);
        let [letter] = letters.as_slice() else { panic!("{program}: {letters:?}") };
        assert_eq!((&letter["listener"], &letter["client"]), (&json!("default/f/l"), &json!("127.0.0.1")));
        assert_eq!((&letter["number"], &letter["message"]), (&json!(4_321), &json!(line(4_321))));
        assert!(letter["reason"].as_str().is_some_and(|why| why.contains("the sink answers 400")), "{letter}");
    }
}

#[test]
fn a_sink_that_takes_no_message_now_gets_it_later_and_its_answer_is_told_with_a_remedy() {
    let cases = [
        (status(401, ""), "the sink answers 401: it requires credentials", Duration::ZERO),
        (status(404, ""), "correct send.http.path", Duration::ZERO),
        (
            status(429, "Retry-After: 1\r\n"),
            "the sink answers 429: it limits the rate of requests",
            Duration::from_secs(1),
        ),
        (status(500, ""), "the sink answers 500: it failed: see its log", Duration::ZERO),
    ];
    // The log has one such line in ten seconds, so each case has a program of its own.
    for (answer, words, wait) in cases {
        let (seen, answer) = (Arc::<Mutex<Seen>>::default(), Mutex::new(Some(answer)));
        let kept = seen.clone();
        let sink = sink(move |body| {
            let mut kept = kept.lock().expect("unpoisoned");
            kept.requests.push(Instant::now());
            answer.lock().expect("unpoisoned").take().unwrap_or_else(|| {
                kept.lines.extend(body.lines().map(str::to_owned));
                status(200, "")
            })
        });
        let scene = Scene::start(&sink);
        scene.send(&[line(0)]);
        let told = scene.program.wait("sink", "default/f/l").to_string();
        assert!(told.contains(words), "{told}");
        until("it is logged that the sink takes messages", || {
            let events = scene.program.events();
            events.iter().any(|event| event.to_string().contains("the sink accepts messages again"))
        });
        let seen = seen.lock().expect("unpoisoned");
        assert_eq!(seen.lines, [line(0)]);
        assert_eq!(seen.requests.len(), 2, "{words}");
        let pause = seen.requests[1].duration_since(seen.requests[0]);
        assert!(pause >= wait, "{words}: {pause:?}");
    }
}

#[test]
fn clients_are_served_while_a_sink_never_answers_and_its_message_is_sent_again() {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let kept = lines.clone();
    let (breaks, silent) = sync_channel::<()>(0);
    let first = Arc::new(Mutex::new(Some(silent)));
    let silent = first.clone();
    let sink = sink(move |body| {
        let silent = silent.lock().expect("unpoisoned").take();
        if let Some(silent) = silent {
            // Until the test has seen enough. What is no answer ends the connection.
            let _ = silent.recv();
            return "no answer\r\n\r\n".to_owned();
        }
        kept.lock().expect("unpoisoned").extend(body.lines().map(str::to_owned));
        status(200, "")
    });
    let scene = Scene::start(&sink);
    scene.send(&[line(0)]);
    until("the sink is asked", || first.lock().expect("unpoisoned").is_none());
    scene.send(&[line(1)]);
    until_kept(scene.health, "l", 2);
    drop(breaks);
    until("both messages arrive", || lines.lock().expect("unpoisoned").len() >= 2);
    assert_eq!(*lines.lock().expect("unpoisoned"), [line(0), line(1)]);
    let told = scene.program.wait("sink", "default/f/l").to_string();
    assert!(told.contains("the sink aborted a request"), "{told}");
}
