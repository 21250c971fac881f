//! HTTP, websockets and QUIC: nginx, `HAProxy`, websocketd and ngtcp2 with their usual clients.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::fs;

use harness::{Listener, free_port};

use crate::server::{Server, Trial, certify, done, listens, open_folder, receives};

#[test]
fn nginx_serves_curl() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    done(&format!("head -c 3000000 /dev/urandom > {place}/page"));
    let configuration = format!(
        "daemon off;\nuser root;\npid {place}/pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n  access_log \
         off;\n  server {{ listen 127.0.0.1:{back}; root {place}; limit_rate 3m; }}\n}}\n"
    );
    fs::write(folder.path().join("nginx.conf"), configuration).expect("write");
    let line = format!("nginx -e {place}/error.log -c {place}/nginx.conf");
    let mut server = Server::start(folder.path(), &line, listens(back));
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("curl -sS --fail --range 0-99 http://127.0.0.1:{port}/page | cmp -n 100 - {place}/page"),
        // A download of a second.
        load: &format!("curl -sS --fail http://127.0.0.1:{port}/page | cmp - {place}/page"),
    }
    .run(&mut server);
}

#[test]
fn haproxy_serves_curl() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    let configuration = format!(
        "defaults\n  mode http\n  timeout client 30s\nfrontend f\n  bind 127.0.0.1:{back}\n  http-request return status \
         200 content-type text/plain string hello\n"
    );
    fs::write(folder.path().join("haproxy.cfg"), configuration).expect("write");
    let mut server = Server::start(folder.path(), &format!("haproxy -db -f {place}/haproxy.cfg"), listens(back));
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("test $(curl -sS --fail http://127.0.0.1:{port}/) = hello"),
        // Requests one after another on one connection.
        load: &format!("curl -sS --fail-early --fail --output /dev/null 'http://127.0.0.1:{port}/[1-1000]'"),
    }
    .run(&mut server);
}

/// Sends numbers through a websocket and expects each back.
const WEBSOCKET: &str = "\
import asyncio, sys, websockets
async def talk():
    async with websockets.connect(sys.argv[1]) as socket:
        for number in range(int(sys.argv[2])):
            await socket.send(str(number))
            assert await socket.recv() == str(number)
            await asyncio.sleep(0.005)
asyncio.run(talk())
";

#[test]
fn websocketd_serves_python() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    fs::write(folder.path().join("talk.py"), WEBSOCKET).expect("write");
    let line = format!("websocketd --address=127.0.0.1 --port={back} cat");
    let mut server = Server::start(folder.path(), &line, listens(back));
    // The interpreter of the distribution, which has its packages.
    let client = |messages: u32| format!("/usr/bin/python3 {place}/talk.py ws://127.0.0.1:{port}/ {messages}");
    Trial { listeners: &[Listener::tcp("l", port).to(back)], client: &client(1), load: &client(100) }.run(&mut server);
}

#[test]
fn quic_is_served_over_udp() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    certify(folder.path(), "localhost");
    done(&format!(
        "mkdir {place}/www && echo hello > {place}/www/small && head -c 3000000 /dev/urandom > {place}/www/big"
    ));
    let line = format!("gtlsserver -q -d {place}/www 127.0.0.1 {back} {place}/key.pem {place}/cert.pem");
    let mut server = Server::start(folder.path(), &line, receives(back));
    let client = |file: &str| {
        format!(
            "rm -rf {place}/{file}.d && mkdir {place}/{file}.d && timeout 5 gtlsclient -q --exit-on-all-streams-close \
             --timeout=1s --download {place}/{file}.d 127.0.0.1 {port} https://localhost/{file}; \
             cmp {place}/{file}.d/{file} {place}/www/{file}"
        )
    };
    let listener = Listener::udp("l", port).to(back);
    Trial { listeners: &[listener], client: &client("small"), load: &client("big") }.run(&mut server);
}
