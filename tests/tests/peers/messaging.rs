//! Messages: mosquitto and rsyslog with their usual clients.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::fs;

use harness::{Listener, free_port};

use crate::server::{Server, Trial, listens, open_folder, receives};

#[test]
fn mosquitto_serves_publishers_and_subscribers() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    fs::write(
        folder.path().join("mosquitto.conf"),
        format!("user root\nlistener {back} 127.0.0.1\nallow_anonymous true\n"),
    )
    .expect("write");
    let line = format!("mosquitto -c {place}/mosquitto.conf");
    let mut server = Server::start(folder.path(), &line, listens(back));
    // A retained message says that the subscriber is there; then a hundred messages come in half a second.
    let load = format!(
        "topic=$(cat /proc/sys/kernel/random/uuid); to=\"-h 127.0.0.1 -p {port} -q 1 -t $topic\"; mosquitto_pub $to -r -m \
         first; mosquitto_sub $to -C 101 -W 20 > {place}/got & until grep -q first {place}/got; do sleep 0.05; done; \
         for n in $(seq 100); do echo $n; sleep 0.005; done | mosquitto_pub $to -l; wait $! && (echo first; seq 100) | \
         cmp - {place}/got"
    );
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("mosquitto_pub -h 127.0.0.1 -p {port} -q 1 -t door -m open"),
        load: &load,
    }
    .run(&mut server);
}

/// rsyslog on both transports, which appends what it receives to a file.
fn rsyslog(transport: &str, listener: fn(&str, u16) -> Listener) {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    let configuration = format!(
        "global(workDirectory=\"{place}\")\nmodule(load=\"imudp\")\nmodule(load=\"imtcp\")\ninput(type=\"imudp\" \
         address=\"127.0.0.1\" port=\"{back}\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" \
         port=\"{back}\")\ntemplate(name=\"message\" type=\"string\" string=\"%msg%\\n\")\naction(type=\"omfile\" \
         file=\"{place}/messages\" template=\"message\")\n"
    );
    fs::write(folder.path().join("rsyslog.conf"), configuration).expect("write");
    fs::write(folder.path().join("messages"), "").expect("write");
    let line = format!("rsyslogd -n -f {place}/rsyslog.conf -i NONE");
    let is_ready = move || listens(back)() && receives(back)();
    let mut server = Server::start(folder.path(), &line, is_ready);
    // logger succeeds whether somebody receives or not, so the client looks at what was received.
    let client = |messages: u32, deadline: u32| {
        format!(
            "id=$(cat /proc/sys/kernel/random/uuid); for n in $(seq {messages}); do echo $id $n; sleep 0.005; done | \
             logger --{transport} --server 127.0.0.1 --port {port} --tag test; timeout {deadline} sh -c \"until test \
             \\$(grep -c $id {place}/messages) = {messages}; do sleep 0.05; done\""
        )
    };
    Trial { listeners: &[listener("l", port).to(back)], client: &client(1, 2), load: &client(100, 10) }
        .run(&mut server);
}

#[test]
fn rsyslog_receives_from_logger_over_tcp() {
    rsyslog("tcp", Listener::tcp);
}

#[test]
fn rsyslog_receives_from_logger_over_udp() {
    rsyslog("udp", Listener::udp);
}
