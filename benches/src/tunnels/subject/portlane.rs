//! Portlane: a `ForwardAgent` for every 64 instances, the most that one may have, and a `PortForward` through the first.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Place, local, plain, port};

/// Most instances of an agent.
const INSTANCES: u16 = 64;
/// How a join string begins.
const JOIN: &str = "portlane-join-1.";

/// Name of the agent of an instance.
fn name(at: u16) -> String {
    format!("home{}", at / INSTANCES)
}

/// The file with the join string for an instance.
pub(super) fn join(folder: &Path, at: u16) -> PathBuf {
    folder.join("server/tunnels/join").join(format!("default.{}", name(at)))
}

/// The folder of an instance.
pub(super) fn data(folder: &Path, at: u16) -> PathBuf {
    folder.join(format!("agent{at}"))
}

/// Whether the join strings of all instances are there.
pub(super) fn can_join(place: &Place) -> bool {
    let is_there = |at| fs::read_to_string(join(place.folder(), at)).is_ok_and(|text| text.starts_with(JOIN));
    (0..=place.further).step_by(INSTANCES.into()).all(is_there)
}

fn manifests(place: &Place) -> String {
    let target = |port: u16| format!("{{host: 127.0.0.1, port: {port}}}");
    let targets = [port::ECHO, port::SINK, port::BOTH].map(target).join(", ");
    let mut text = String::new();
    for at in (0..=place.further).step_by(INSTANCES.into()) {
        let name = name(at);
        let _ = writeln!(
            text,
            "apiVersion: portlane.dev/v1alpha1\nkind: ForwardAgent\nmetadata: {{name: {name}}}\nspec:\n  \
             targets: [{targets}]\n  maxInstances: {INSTANCES}\n  enrolment: {{redemptions: 100}}\n---"
        );
    }
    text += "apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {name: bench}\nspec:\n  \
             placement: {sidecar: {selector: {}}}\n  listeners:\n";
    for (name, from, to) in place.ports.forwarded() {
        let _ = writeln!(
            text,
            "  - name: {name}\n    protocol: TCP\n    port: {from}\n    backends: [{{tunnel: {{agent: home0, host: 127.0.0.1, \
             port: {to}}}}}]"
        );
    }
    text
}

/// The command of the server: one worker, and a thread for all agents.
pub(super) fn server(place: &Place) -> Command {
    let mut command = plain(&place.programs.portlane);
    command.args(["run", "--quiet", "--workers", "1", "-f"]).arg(place.write("manifests.yaml", &manifests(place)));
    command.arg("--data").arg(place.folder().join("server"));
    command.args(["--tunnel-address", &local(place.ports.carrier), "--health-address", &local(place.ports.health)]);
    command
}

/// The command of an agent, which enrols first.
pub(super) fn agent(place: &Place, at: u16) -> Command {
    let mut command = plain(&place.programs.portlane);
    command.args(["agent", "--log", "json", "--name", &format!("i{at}")]);
    command.arg("--data").arg(data(place.folder(), at));
    command.arg("--join-file").arg(join(place.folder(), at));
    if at == 0 {
        command.args(["--health-address", &local(place.ports.agent_health)]);
    }
    for (_, _, to) in place.ports.forwarded() {
        command.args(["--allow", &local(to)]);
    }
    command
}
