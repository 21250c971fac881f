//! Options of `portlane-proxy` with a form of their own.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use proxy::{
    draining::{Draining, LeftError},
    tunnels,
};
use proxy_api::SIDECAR_TUNNEL_PORT;
use tunnel_core::identity::EndpointId;

/// Where durable listeners keep messages.
#[derive(Args, Debug)]
pub(crate) struct Messages {
    /// Folder for the messages of durable listeners; only this process uses it. Absent: durable listeners do not run.
    #[arg(long, value_name = "DIR", env = "PORTLANE_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Maximum size of all logs in this folder together, in bytes: a listener whose bounds do not fit fails. Absent:
    /// the sum of the bounds of all listeners.
    #[arg(long = "data-bytes", value_name = "BYTES", env = "PORTLANE_DATA_BYTES", requires = "data")]
    pub(crate) bytes: Option<u64>,
    /// Maximum time to send waiting messages before the process exits. 0: messages that are not sent stay in the
    /// folder.
    #[arg(
        long = "data-drain-seconds",
        value_name = "0..=86400",
        default_value_t = 0,
        env = "PORTLANE_DATA_DRAIN_SECONDS",
        value_parser = clap::value_parser!(u32).range(0..=86400)
    )]
    pub(crate) drain: u32,
    /// Listen on no port, send the messages in this folder to the sinks of their listeners, and exit once the sinks
    /// have all. The exit code is 0 only if no message and no dead letter is left.
    #[arg(long = "drain-only", env = "PORTLANE_DRAIN_ONLY", requires = "data")]
    pub(crate) drain_only: bool,
    /// NATS credentials file, for durable listeners with `store.jetStream`. Absent: only servers that require no
    /// credentials can be used.
    #[arg(long, value_name = "FILE", env = "PORTLANE_JETSTREAM_CREDENTIALS")]
    pub(crate) jetstream_credentials: Option<PathBuf>,
    /// File with CA certificates, in PEM, that verify the NATS servers. Absent: those of the system.
    #[arg(long, value_name = "FILE", env = "PORTLANE_JETSTREAM_CA")]
    pub(crate) jetstream_ca: Option<PathBuf>,
}

impl Messages {
    /// The remainder in the folder, if this proxy only drains it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn draining(&self) -> Result<Option<Draining>, LeftError> {
        self.data.as_deref().filter(|_| self.drain_only).map(Draining::find).transpose()
    }
}

/// Lowest level of log records.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Info,
    Warn,
    Error,
}

/// Format of log records.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Log {
    Text,
    Json,
}

/// Where agents dial this pod, and which endpoint it is for them.
#[derive(Args, Debug)]
pub(crate) struct Tunnels {
    /// Listen address for agents, or none; the operator signs the certificates. Absent: no agent can connect.
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "PORTLANE_TUNNEL_ADDRESS",
        value_parser = address,
        requires = "operator",
        requires = "pod_uid"
    )]
    tunnel_address: Option<MaybeAddress>,
    /// UID of this pod, by which agents tell the proxies of a gateway apart.
    #[arg(long, value_name = "UID", env = "PORTLANE_POD_UID", value_parser = endpoint)]
    pod_uid: Option<EndpointId>,
    /// Maximum number of connected instances of agents.
    #[arg(long, value_name = "1..=1024", default_value_t = 1024, env = "PORTLANE_MAX_AGENTS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_agents: u16,
    /// IP address of this pod. A sidecar listens there on port 9182 for the agents of its forwards; the operator signs
    /// the certificates. Absent: no agent can connect to a sidecar.
    #[arg(long, value_name = "IP", env = "PORTLANE_POD_IP")]
    pod_ip: Option<IpAddr>,
}

impl Tunnels {
    /// The settings of the proxy, with a folder in the state directory. `None`: no agent can connect.
    pub(crate) fn settings(&self, state: &Path) -> Option<tunnels::Settings> {
        let (address, endpoint) = (self.tunnel_address?.0?, self.pod_uid.clone()?);
        let (folder, max_agents) = (state.join("tunnels"), self.max_agents.into());
        Some(tunnels::Settings {
            address,
            advertise: Vec::new(),
            folder,
            endpoint: Some(endpoint),
            max_agents,
            sidecar_port: SIDECAR_TUNNEL_PORT,
        })
    }

    /// The settings of a sidecar, with a folder in the state directory. `None`: no agent can connect to it.
    pub(crate) fn sidecar(&self, state: &Path) -> Option<tunnels::sidecar::Settings> {
        let address = SocketAddr::new(self.pod_ip?, SIDECAR_TUNNEL_PORT);
        Some(tunnels::sidecar::Settings { address, folder: state.join("tunnels") })
    }
}

/// The endpoint id of a pod: its uid without hyphens, as the operator has it.
fn endpoint(uid: &str) -> Result<EndpointId, String> {
    EndpointId::new(&uid.replace('-', "")).map_err(|error| error.to_string())
}

/// An address, or `none`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaybeAddress(pub(crate) Option<SocketAddr>);

/// Parses an address with port. In pods the address is composed from the pod IP, so IPv6 has no brackets.
pub(crate) fn address(text: &str) -> Result<MaybeAddress, String> {
    if text == "none" {
        return Ok(MaybeAddress(None));
    }
    let apart = || text.rsplit_once(':').and_then(|(ip, port)| Some((ip.parse().ok()?, port.parse().ok()?)));
    let whole = text.parse().ok().or_else(|| apart().map(|(ip, port): (IpAddr, u16)| SocketAddr::new(ip, port)));
    whole
        .map(|address| MaybeAddress(Some(address)))
        .ok_or_else(|| "expected an address such as 192.0.2.1:9180, or none".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(long)]
        operator: Option<String>,
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        tunnels: Tunnels,
    }

    const POD: [&str; 4] = ["--operator", "operator:9443", "--pod-uid", "0f3a0c1e-7f8e-4d9b-8a46-1b1f0c9d2e3f"];

    fn settings(words: &[&str]) -> Option<tunnels::Settings> {
        let line = Line::try_parse_from([&["portlane-proxy"][..], words].concat()).expect("valid");
        assert!(line.operator.is_some());
        line.tunnels.settings(Path::new("/state"))
    }

    #[test]
    fn a_pod_is_the_endpoint_of_its_uid_without_hyphens() {
        let settings = settings(&[&POD[..], &["--tunnel-address", "[::]:7443", "--max-agents", "7"]].concat());
        let settings = settings.expect("agents can connect");
        let id = settings.endpoint.expect("an endpoint of a cluster");
        assert_eq!(id.as_str(), "0f3a0c1e7f8e4d9b8a461b1f0c9d2e3f");
        assert_eq!((settings.address.port(), settings.max_agents), (7443, 7));
        assert_eq!(settings.folder, Path::new("/state/tunnels"));
    }

    #[test]
    fn no_agent_can_connect_unless_an_address_is_given() {
        assert!(settings(&POD).is_none());
        assert!(settings(&[&POD[..], &["--tunnel-address", "none"]].concat()).is_none());
    }

    #[test]
    fn room_for_messages_is_room_in_a_folder() {
        let line = |words: &[&str]| Line::try_parse_from([&["portlane-proxy"][..], words].concat());
        let words = ["--data", "/data", "--data-bytes", "7", "--data-drain-seconds", "20"];
        let all = line(&words).expect("valid").messages;
        assert_eq!((all.data, all.bytes, all.drain), (Some("/data".into()), Some(7), 20));
        assert!(line(&["--data-bytes", "7"]).is_err());
        let none = line(&[]).expect("valid").messages;
        assert_eq!((none.data, none.bytes, none.drain), (None, None, 0));
    }

    #[test]
    fn only_a_folder_can_be_drained() {
        let line = |words: &[&str]| Line::try_parse_from([&["portlane-proxy"][..], words].concat());
        assert!(line(&["--drain-only"]).is_err());
        assert!(line(&["--data", "/data", "--drain-only"]).expect("valid").messages.drain_only);
        assert!(!line(&["--data", "/data"]).expect("valid").messages.drain_only);
    }

    #[test]
    fn a_sidecar_listens_for_agents_at_the_address_of_its_pod() {
        let sidecar = |words: &[&str]| {
            let line = Line::try_parse_from([&["portlane-proxy"][..], words].concat()).expect("valid");
            line.tunnels.sidecar(Path::new("/state"))
        };
        let settings = sidecar(&["--pod-ip", "2001:db8::1"]).expect("an address");
        assert_eq!(settings.address.to_string(), "[2001:db8::1]:9182");
        assert_eq!(settings.folder, Path::new("/state/tunnels"));
        assert!(sidecar(&[]).is_none());
    }

    #[test]
    fn tunnels_need_an_operator_and_the_uid_of_the_pod() {
        for words in [&POD[..2], &POD[2..]] {
            let words = [&["portlane-proxy", "--tunnel-address", "[::]:7443"][..], words].concat();
            assert!(Line::try_parse_from(words).is_err());
        }
    }
}
