//! frp: streams of yamux in one connection, by default over TLS with a certificate that the agent does not verify.

use std::{fmt::Write as _, path::Path, process::Command};

use super::{FURTHER, Place, plain};
use crate::{kind::Carrier, peers::FRP_PROGRAMS};

/// The command of the server, which takes both carriers.
pub(super) fn server(place: &Place) -> Command {
    let text = format!(
        "bindAddr = \"127.0.0.1\"\nbindPort = {}\nproxyBindAddr = \"127.0.0.1\"\nlog.level = \"error\"\n",
        place.ports.carrier
    );
    let [program, _] = FRP_PROGRAMS;
    command(place, program, &place.write("frps.toml", &text))
}

/// The command of an agent.
pub(super) fn agent(place: &Place, carrier: Carrier, at: u16) -> Command {
    let mut text = format!(
        "serverAddr = \"127.0.0.1\"\nserverPort = {}\nlog.level = \"error\"\ntransport.tls.enable = {}\n",
        place.ports.carrier,
        carrier == Carrier::Tls
    );
    let mut add = |name: &str, from: u16, to: u16| {
        let _ = writeln!(
            text,
            "[[proxies]]\nname = \"{name}\"\ntype = \"tcp\"\nlocalIP = \"127.0.0.1\"\nlocalPort = {to}\nremotePort = {from}"
        );
    };
    let forwarded = place.ports.forwarded();
    if at == 0 {
        for (name, from, to) in &forwarded {
            add(name, *from, *to);
        }
    } else {
        let [(_, _, echo), ..] = forwarded;
        add(&format!("further{at}"), FURTHER + at, echo);
    }
    let [_, program] = FRP_PROGRAMS;
    command(place, program, &place.write(&format!("frpc{at}.toml"), &text))
}

fn command(place: &Place, program: &str, file: &Path) -> Command {
    let folder = place.programs.frp.as_ref().expect("programs that were built");
    let mut command = plain(&folder.join(program));
    command.arg("-c").arg(file);
    command
}
