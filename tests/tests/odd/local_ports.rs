//! A machine with few local ports for sockets that name none.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use harness::{Listener, Machine, UdpEcho, forward, until};

use crate::{LISTEN, QUICK, SERVE};

/// These ports: 200.
const RANGE: &str = "30000 30199";
/// Flows of the flood, more than there are ports.
const FLOOD: u16 = 300;
/// Port of the first client, outside of the range.
const CLIENT: u16 = 40_000;
/// How long a client waits for an answer before it asks again.
const ASKS_AGAIN: Duration = Duration::from_secs(1);
/// No flow ends by itself during the test.
const SPEC: &str = "accessLog: {mode: Disabled}\ntimeouts: {udpIdleSeconds: 3600}";

#[test]
fn one_source_with_more_flows_than_there_are_local_ports_keeps_no_other_source_out() {
    let machine = Machine::start(b"", QUICK);
    machine.within(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", RANGE)).expect("a setting of the network");
    let _server = machine.within(|| Ok(UdpEcho::start_on(SERVE))).expect("a server");
    let _program = machine.run(&forward("f", SPEC, &[Listener::udp("u", LISTEN).to(SERVE)]));
    let flood = clients(&machine, 2, FLOOD);
    let floods = || flood.iter().for_each(|socket| assert_eq!(socket.send(b"flood").expect("send"), 5));
    until("the flood has the room of all flows", || {
        floods();
        lacks_room(&machine)
    });
    for other in [3, 4].into_iter().flat_map(|last| clients(&machine, last, 1)) {
        until("another source is answered beside the flood", || {
            floods();
            other.send(b"question").expect("send");
            other.recv(&mut [0; 16]).is_ok_and(|length| length == b"question".len())
        });
    }
}

/// Clients of an address of the machine, each with a port of its own.
fn clients(machine: &Machine, last: u8, count: u16) -> Vec<UdpSocket> {
    let client = |port: u16| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], port)))?;
        socket.connect(("127.0.0.1", LISTEN))?;
        socket.set_read_timeout(Some(ASKS_AGAIN))?;
        Ok(socket)
    };
    machine.within(|| (CLIENT..CLIENT + count).map(client).collect()).expect("sockets")
}

/// Whether datagrams were dropped because no other flow fits into the process.
fn lacks_room(machine: &Machine) -> bool {
    let text = machine.get("/metrics").map(|(_, text)| text).unwrap_or_default();
    let is_it =
        |line: &&str| line.starts_with("portlane_datagrams_dropped_total{") && line.contains("reason=\"SessionLimit\"");
    text.lines().filter(is_it).any(|line| !line.ends_with(" 0"))
}
