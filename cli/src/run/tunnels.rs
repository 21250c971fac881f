//! The options of `portlane run` for the agents that dial it, and for its stored data.

use std::{
    env,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueHint};

use crate::{options, state};

/// Most addresses in a join string.
const ADDRESSES: usize = 8;

/// The remedy if agents cannot connect.
pub(super) const REMEDY: &str = if cfg!(feature = "tunnels") {
    "start portlane run with --tunnel-address IP:PORT"
} else {
    "this build of portlane has no tunnels: install a build with tunnels"
};

/// Where agents connect, and what is kept of them.
#[derive(Args, Debug, Default)]
pub(crate) struct Tunnels {
    /// Address that agents (`ForwardAgent`) dial; port 0 is any free port. Absent: no agent can connect.
    #[arg(long, value_name = "IP:PORT", value_parser = options::socket)]
    pub(crate) tunnel_address: Option<SocketAddr>,
    /// Address at which agents reach --tunnel-address, for their join strings. Can be given up to 8 times. Absent:
    /// --tunnel-address itself.
    #[arg(long, value_name = "HOST:PORT", value_parser = options::advertised, requires = "tunnel_address")]
    tunnel_advertise: Vec<String>,
    /// Folder for the messages of durable listeners, and for keys and tokens of the tunnels; only this process uses it.
    /// Absent: durable listeners do not run, and tunnels use portlane in `$XDG_STATE_HOME` or in ~/.local/state.
    #[arg(long, value_name = "DIR", env = "PORTLANE_DATA", value_hint = ValueHint::DirPath)]
    pub(super) data: Option<PathBuf>,
    /// NATS credentials file, for durable listeners whose `store.jetStream` has `credentialsRef`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) jetstream_credentials: Option<PathBuf>,
    /// File with CA certificates, in PEM, that verify the servers of `store.jetStream`. Absent: those of the system.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) jetstream_ca: Option<PathBuf>,
}

impl Tunnels {
    /// Describes a conflict between arguments that are valid one by one.
    pub(crate) fn flaw(&self) -> Option<String> {
        let address = self.tunnel_address?;
        if cfg!(not(feature = "tunnels")) {
            return Some(format!("--tunnel-address: {REMEDY}"));
        }
        let advertised = self.tunnel_advertise.len();
        if advertised > ADDRESSES {
            return Some(format!(
                "--tunnel-advertise is given {advertised} times, but a join string has at most {ADDRESSES} addresses"
            ));
        }
        if address.ip().is_unspecified() && advertised == 0 {
            return Some(format!(
                "agents cannot dial {address}: say with --tunnel-advertise HOST:PORT where they reach this machine"
            ));
        }
        let remedy = "no folder for the keys of the tunnels, as HOME is not set: name one with --data DIR";
        self.folder().is_none().then(|| remedy.to_owned())
    }

    /// The settings of the proxy. Absent: no agent can connect.
    #[cfg(feature = "tunnels")]
    pub(super) fn settings(&self) -> Option<proxy::tunnels::Settings> {
        let (address, folder) = (self.tunnel_address?, self.folder()?);
        let (advertise, max_agents) = (self.tunnel_advertise.clone(), proxy::tunnels::MAX_AGENTS);
        let sidecar_port = proxy_api::SIDECAR_TUNNEL_PORT;
        Some(proxy::tunnels::Settings { address, advertise, folder, endpoint: None, max_agents, sidecar_port })
    }

    /// The folder of the tunnels.
    fn folder(&self) -> Option<PathBuf> {
        let [state, home] = ["XDG_STATE_HOME", "HOME"].map(env::var_os);
        Some(data(self.data.as_deref(), state, home)?.join("tunnels"))
    }
}

/// The folder for stored data: the named one, or that of the user.
fn data(named: Option<&Path>, state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Some(state::folder(state, home)?.join("portlane")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tunnels: Tunnels,
    }

    fn tunnels(words: &[&str]) -> Result<Tunnels, clap::Error> {
        Line::try_parse_from([&["run"][..], words].concat()).map(|line| line.tunnels)
    }

    #[test]
    fn data_is_kept_in_the_named_folder_or_in_that_of_the_user() {
        let some = |path: &str| Some(OsString::from(path));
        assert_eq!(data(Some(Path::new("here")), some("/state"), some("/home/u")), Some("here".into()));
        assert_eq!(data(None, some("/state"), some("/home/u")), Some("/state/portlane".into()));
        assert_eq!(data(None, None, some("")), None);
    }

    #[test]
    fn an_address_to_advertise_needs_the_address_that_agents_dial() {
        let error = tunnels(&["--tunnel-advertise", "a.example:1"]).expect_err("no address").to_string();
        assert!(error.contains("--tunnel-address <IP:PORT>"), "{error}");
        assert_eq!(tunnels(&["--data", "d"]).expect("valid").data, Some("d".into()));
        assert_eq!(tunnels(&[]).expect("valid").flaw(), None);
    }

    #[cfg(feature = "tunnels")]
    #[test]
    fn an_address_that_nobody_can_dial_needs_one_to_advertise() {
        let flaw = |words: &[&str]| tunnels(&[&["--data", "d"][..], words].concat()).expect("valid one by one").flaw();
        let all = ["--tunnel-address", "0.0.0.0:7443"];
        assert!(flaw(&all).is_some_and(|flaw| flaw.contains("agents cannot dial 0.0.0.0:7443: say with")));
        assert_eq!(flaw(&[&all[..], &["--tunnel-advertise", "home.example:7443"]].concat()), None);
        assert_eq!(flaw(&["--tunnel-address", "127.0.0.1:0"]), None);
        let nine = ["--tunnel-advertise", "home.example:7443"].repeat(9);
        assert!(flaw(&[&all[..], &nine[..]].concat()).is_some_and(|flaw| flaw.contains("9 times")));
    }
}
