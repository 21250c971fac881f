//! Options of an agent as its owner gives them: in a file, as an argument, and by a variable.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use harness::{Backend, Behaviour, free_port, until};

use super::{
    bed::{Agent, Server, command, manifests},
    cutter::Cutter,
    session,
};

#[test]
fn an_agent_with_its_options_in_a_file_enrols_and_serves_under_the_name_that_the_file_has() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health, folder) = (free_port(), free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    server.join("");
    let options = format!(
        "join-file: {}\nallow: ['127.0.0.1:{}']\ndata: {}\nname: pi4\nhealth-address: 127.0.0.1:{health}\nlog: json\n",
        server.join_file().display(),
        backend.port,
        folder.path().display()
    );
    let agent = Agent::with_config(&options, health);
    until("the agent is connected", || agent.is_connected());
    drop(session(port));
    let closed = server.program.wait("session_closed", "l");
    assert_eq!(closed["endpoint"], format!("agent/default/home/pi4/127.0.0.1:{}", backend.port));
}

#[test]
fn an_agent_enrols_with_a_join_string_in_its_arguments() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let mut command = command(folder.path(), &[backend.port]);
    command.args(["--join", &server.join("")]);
    let _agent = Agent::start_as(command, "one", None);
    drop(session(port));
}

/// The head of a request, with the empty line at its end.
fn head(mut client: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[test]
fn an_agent_whose_only_way_to_its_server_is_an_http_proxy_enrols_and_serves_through_it() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    // No name server has this name: only the proxy knows where it leads.
    let server = Server::start(&manifests(port, backend.port, ""), &["--tunnel-advertise", "tunnels.invalid:7443"]);
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = requests.clone();
    let proxy = Cutter::start_with(0, usize::MAX, move |mut client| {
        let request = head(client)?;
        noted.lock().expect("unpoisoned").push(request);
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    });
    proxy.lead_to(server.tunnel);
    let mut command = command(folder.path(), &[backend.port]);
    command.env("HTTPS_PROXY", format!("http://pi4:secret@127.0.0.1:{}", proxy.port()));
    let _agent = Agent::start_as(command, "one", Some(&server.join("")));
    drop(session(port));
    let requests = requests.lock().expect("unpoisoned");
    // pi4:secret
    let expected = "CONNECT tunnels.invalid:7443 HTTP/1.1\r\nHost: tunnels.invalid:7443\r\n\
                    Proxy-Authorization: Basic cGk0OnNlY3JldA==\r\n\r\n";
    assert!(requests.len() > 1, "one to enrol, and one for sessions: {requests:?}");
    assert!(requests.iter().all(|request| request == expected), "{requests:?}");
}
