//! Calls: SIP on one port and RTP on a range, between `SIPp` and two servers, with `examples/rtp.yaml`.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{Event, Program, free_port, free_range, until};

use crate::server::is_bound;

const EXAMPLE: &str = include_str!("../../../examples/rtp.yaml");
const SERVERS: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
/// Position in the range of the port that the servers use for voice.
const OFFSET: u16 = 16;
/// 400 ms of voice, a packet every 20 ms, with 12 bytes of header each.
const VOICE: usize = 3200;
const VOICE_ON_THE_WIRE: u64 = 20 * (160 + 12);

/// A running `SIPp`.
struct Sipp(Child);

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Sipp {
    fn start(folder: &Path, scenario: &str, own: (&str, u16, u16), arguments: &[&str]) -> Self {
        let (ip, port, media) = (own.0, own.1.to_string(), own.2.to_string());
        let mut command = Command::new("sipp");
        command.current_dir(folder).args(["-sf", scenario, "-nostdin", "-i", ip, "-p", &port]);
        command.args(["-mi", ip, "-mp", &media]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the program is installed by cargo xtask setup node"))
    }

    /// A server that answers calls and echoes the voice.
    fn server(folder: &Path, ip: &str, port: u16, media: u16) -> Self {
        let server = Self::start(folder, "answers.xml", (ip, port, media), &["-rtp_echo"]);
        until("the server has its ports", || [port, media].into_iter().all(|port| is_bound(ip, port)));
        server
    }
}

/// The example with ports and addresses of this test.
fn manifest(sip: u16, range: u16, backend_sip: u16, backend_range: u16) -> String {
    let last = range + 99;
    let swaps = [
        ("port: 5060\n", format!("port: {sip}\n")),
        ("port: 16384\n", format!("port: {range}\n")),
        ("endPort: 16483", format!("endPort: {last}")),
        ("port: 5060}", format!("port: {backend_sip}}}")),
        ("port: 16384}", format!("port: {backend_range}}}")),
        ("10.50.0.1", SERVERS[0].to_owned()),
        ("10.50.0.2", SERVERS[1].to_owned()),
        ("udpIdleSeconds: 300", "udpIdleSeconds: 10".to_owned()),
    ];
    swaps.into_iter().fold(EXAMPLE.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "the example does not contain {old:?}");
        text.replace(old, &new)
    })
}

/// Client and server, without ports, of each ended flow of a listener.
fn ways(events: &[Event], listener: &str) -> BTreeSet<(String, String)> {
    let host = |value: &serde_json::Value| value.as_str().unwrap_or("").split(':').next().unwrap_or("").to_owned();
    let ended = events.iter().filter(|event| event["event"] == "session_closed" && event["listener"] == listener);
    ended.map(|event| (host(&event["client"]), host(&event["endpoint"]))).collect()
}

#[test]
fn the_voice_of_a_call_goes_to_the_server_that_answered_it_and_comes_back_whole() {
    let (sip, range, backend_sip, backend_range) = (free_port(), free_range(100), free_port(), free_range(100));
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("write");
    let answers = include_str!("rtp/answers.xml").replace("PROXY", &sip.to_string());
    write("answers.xml", &answers.replace("MEDIA", &(range + OFFSET).to_string()));
    write("calls.xml", include_str!("rtp/calls.xml"));
    fs::write(folder.path().join("voice"), [0x55; VOICE]).expect("write");
    let _servers = SERVERS.map(|ip| Sipp::server(folder.path(), ip, backend_sip, backend_range + OFFSET));
    let program = Program::run(&manifest(sip, range, backend_sip, backend_range), free_port(), &[]);

    let callers: Vec<String> = (11..19).map(|last| format!("127.0.0.{last}")).collect();
    let to = format!("127.0.0.1:{sip}");
    let call = |ip: &String| Sipp::start(folder.path(), "calls.xml", (ip, free_port(), free_port()), &["-m", "1", &to]);
    for mut caller in callers.iter().map(call).collect::<Vec<_>>() {
        let mut status = None;
        until("the call ends", || {
            status = caller.0.try_wait().expect("sipp runs");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "a call failed: {status:?}");
    }

    until("all flows of voice have ended", || ways(&program.events(), "rtp").len() == callers.len());
    until("all flows of signalling have ended", || ways(&program.events(), "sip").len() == callers.len());
    let events = program.events();
    assert_eq!(ways(&events, "rtp"), ways(&events, "sip"), "voice and signalling of a caller must have one server");
    let servers: BTreeSet<String> = ways(&events, "rtp").into_iter().map(|(_, server)| server).collect();
    assert_eq!(servers.len(), SERVERS.len(), "callers must be spread over the servers");
    for event in events.iter().filter(|event| event["listener"] == "rtp" && event["event"] == "session_closed") {
        assert_eq!(event["bytesUp"], VOICE_ON_THE_WIRE, "{event}");
        assert_eq!(event["bytesDown"], VOICE_ON_THE_WIRE, "{event}");
    }
}
