//! Services of a network: unbound, chrony, snmpd and `WireGuard` with their usual clients.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{fs, path::Path, process};

use harness::{Listener, free_port};

use crate::server::{Server, Trial, done, listens, open_folder, receives};

/// unbound on both transports.
fn unbound(listener: fn(&str, u16) -> Listener, option: &str) {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    let configuration = format!(
        "server:\n  interface: 127.0.0.1@{back}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  pidfile: \
         \"\"\n  directory: \"{place}\"\n  use-syslog: no\n  local-zone: \"db.test.\" static\n  local-data: \"db.test. A \
         192.0.2.7\"\nremote-control:\n  control-enable: no\n"
    );
    fs::write(folder.path().join("unbound.conf"), configuration).expect("write");
    fs::write(folder.path().join("questions"), "db.test A\n".repeat(300)).expect("write");
    let line = format!("unbound -d -p -c {place}/unbound.conf");
    let is_ready = move || listens(back)() && receives(back)();
    let mut server = Server::start(folder.path(), &line, is_ready);
    let dig = |times: u32, rest: &str| {
        let dig = format!("dig @127.0.0.1 -p {port} +short +tries=1 +time=2 {option}");
        format!("test $({dig} {rest} | grep -c '^192.0.2.7$') = {times}")
    };
    Trial {
        listeners: &[listener("l", port).to(back)],
        client: &dig(1, "db.test"),
        // Each question comes from a port of its own.
        load: &dig(300, &format!("-f {place}/questions")),
    }
    .run(&mut server);
}

#[test]
fn unbound_serves_dig_over_udp() {
    unbound(Listener::udp, "");
}

#[test]
fn unbound_serves_dig_over_tcp() {
    unbound(Listener::tcp, "+tcp");
}

#[test]
fn chronyd_serves_chronyd() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    let configuration = format!(
        "port {back}\nbindaddress 127.0.0.1\nlocal stratum 8\nallow all\ncmdport 0\nbindcmdaddress /\npidfile \
         {place}/pid\n"
    );
    fs::write(folder.path().join("chrony.conf"), configuration).expect("write");
    // The server and the client only compare clocks (-x, -Q): nothing sets the time of this machine.
    let line = format!("rm -f {place}/pid; chronyd -d -x -u root -f {place}/chrony.conf");
    let mut server = Server::start(folder.path(), &line, receives(back));
    let client = format!(
        "chronyd -Q -t 2 -u root -f /dev/null 'pidfile {place}/client' 'server 127.0.0.1 port {port} iburst maxsamples 1'"
    );
    Trial { listeners: &[Listener::udp("l", port).to(back)], client: &client, load: &client }.run(&mut server);
}

#[test]
fn snmpd_serves_snmpget_and_snmpwalk() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    let configuration = format!("rocommunity public 127.0.0.1\nsysName portlane\nagentAddress udp:127.0.0.1:{back}\n");
    fs::write(folder.path().join("snmpd.conf"), configuration).expect("write");
    let variables = format!("SNMP_PERSISTENT_DIR={place}/state MIBS=");
    let line = format!("{variables} snmpd -f -Lo -C -c {place}/snmpd.conf -I -smux -p {place}/pid");
    let mut server = Server::start(folder.path(), &line, receives(back));
    let ask = |program: &str, object: &str| {
        format!("{variables} {program} -v2c -c public -t 2 -r 0 -Oqv 127.0.0.1:{port} {object}")
    };
    Trial {
        listeners: &[Listener::udp("l", port).to(back)],
        client: &format!("{} | grep portlane", ask("snmpget", ".1.3.6.1.2.1.1.5.0")),
        load: &ask("snmpwalk", ".1.3.6.1.2.1.1"),
    }
    .run(&mut server);
}

/// One end of a tunnel, as lines of shell. The interface moves into a network namespace of its own, where `then` runs;
/// the socket stays outside, so datagrams pass the forward.
///
/// Both wireguard-go and wg remove the socket that a killed wireguard-go has left, and the slower of the two fails: so
/// the lines remove it first.
fn tunnel(folder: &Path, name: &str, own: [&str; 2], set: &str, peer: &str, then: &str) -> String {
    let ([key, address], folder) = (own, folder.display());
    format!(
        "export WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1
rm -f /var/run/wireguard/{name}.sock
wireguard-go -f {name} &
until wg show {name} > /dev/null 2>&1; do sleep 0.02; done
wg set {name} {set} private-key {folder}/{key} peer $(cat {folder}/{peer})
unshare --net sh -c 'until ip link show {name}; do sleep 0.02; done
ip address add {address}/24 dev {name} && ip link set {name} up && {then}' &
inside=$!
until test $(readlink /proc/$inside/ns/net) != $(readlink /proc/$$/ns/net); do sleep 0.02; done
ip link set {name} netns $inside && wait $inside"
    )
}

#[test]
fn wireguard_tunnels_through_a_forward() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path();
    done(&format!(
        "cd {} && umask 077 && for end in server client; do wg genkey > $end && wg pubkey < $end > $end.pub; done && echo \
         \"$(cat server.pub) endpoint 127.0.0.1:{port} allowed-ips 10.213.0.2/32\" > to-server && echo \"$(cat \
         client.pub) allowed-ips 10.213.0.1/32\" > to-client",
        place.display()
    ));
    let (server_name, client_name) = (format!("ps{}", process::id()), format!("pc{}", process::id()));
    let own = ["server", "10.213.0.2"];
    let line = tunnel(place, &server_name, own, &format!("listen-port {back}"), "to-client", "sleep 600");
    let mut server = Server::start(place, &line, receives(back));
    let client = |pings: u32| {
        let ping = format!("ping -c {pings} -i 0.1 -W 1 10.213.0.2");
        let line = tunnel(place, &client_name, ["client", "10.213.0.1"], "", "to-server", &ping);
        fs::write(place.join(format!("ping{pings}")), line).expect("write");
        format!("unshare --pid --fork --kill-child --mount-proc sh {}/ping{pings}", place.display())
    };
    let listener = Listener::udp("l", port).to(back);
    Trial { listeners: &[listener], client: &client(2), load: &client(10) }.run(&mut server);
}
