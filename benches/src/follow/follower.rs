//! Who follows a proxy, and the proxy for each of them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
};

use clap::ValueEnum;
use harness::{Listener, Program, connect, forward, free_port, http_get, until};
use proxy_api::{Configuration, ListenerId, MAX_LIVE, Origin, Selection};
use serde_json::json;

use crate::{image, listener, operator::Operator};

/// Sessions that a list has, as the page asks for.
const LISTED: &str = "/conns?limit=500";
/// Namespace of the forward.
const NAMESPACE: &str = "default";

/// A program that follows sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The page, which reads as `portlane top` does, and the states beside.
    Page,
    /// `kubectl portlane top`.
    Kubectl,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Page, Self::Kubectl];

    /// Heading of the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Page => "The page and `portlane top`, at the admin address",
            Self::Kubectl => "`kubectl portlane top`, by the operator's stream",
        }
    }

    /// The threads that serve the follower and no session.
    pub(crate) fn threads(self) -> &'static str {
        match self {
            Self::Page => "the control thread",
            Self::Kubectl => "control and main thread",
        }
    }

    /// Whether the first thread of the proxy serves the follower: it has the stream.
    pub(crate) fn is_served_by_main(self) -> bool {
        self == Self::Kubectl
    }

    /// Starts the proxy from this port to another one.
    pub(crate) fn start(self, port: u16, to: u16) -> (Program, Follower) {
        match self {
            Self::Page => page(port, to),
            Self::Kubectl => kubectl(port, to),
        }
    }
}

/// How the sessions of a proxy are read.
pub(crate) enum Follower {
    Page {
        /// Port of the admin address.
        admin: u16,
    },
    Kubectl {
        /// Asks the proxy. The thread of its stream is one of this process.
        operator: Box<Operator>,
    },
}

impl Follower {
    /// Lists the sessions once.
    pub(crate) fn list(&self) {
        match self {
            Self::Page { admin } => {
                let (status, _) = http_get(*admin, LISTED).expect("a list");
                assert_eq!(status, 200, "{LISTED}");
            }
            Self::Kubectl { operator } => {
                let live = operator.ask(together());
                let of_forward = live.origins.values().sum::<u64>();
                assert!(!live.sessions.is_empty() && of_forward == live.total, "{of_forward} of {}", live.total);
            }
        }
    }

    /// A connection for the states, if the follower reads them.
    pub(crate) fn states(&self) -> Option<TcpStream> {
        match self {
            Self::Page { admin } => Some(connect(*admin).expect("the admin address listens")),
            Self::Kubectl { .. } => None,
        }
    }
}

/// The inquiry of an operator for `kubectl portlane top` in a namespace with several forwards. Where there is one forward,
/// its sessions are not counted by object.
fn together() -> Selection {
    let namespace = Some(NAMESPACE.to_owned());
    Selection { namespace, by_origin: true, limit: MAX_LIVE, ..Selection::default() }
}

/// Follows states until the connection is shut down. Returns their number.
pub(crate) fn states(mut stream: TcpStream) -> u32 {
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").expect("a request");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("data:")).fold(0, |count, _| count + 1)
}

/// `portlane run` with an admin address.
fn page(port: u16, to: u16) -> (Program, Follower) {
    let (health, admin) = (free_port(), free_port());
    let manifest = forward("web", "accessLog: {mode: Disabled}", &[Listener::tcp("tcp", port).to(to)]);
    let program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
    (program, Follower::Page { admin })
}

/// The program of the image, which follows an operator.
fn kubectl(port: u16, to: u16) -> (Program, Follower) {
    let built = image::proxy().unwrap_or_else(|error| panic!("{error}"));
    let operator = Box::new(Operator::start(configuration(port, to), || {}));
    let (health, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
    let mut command = Command::new(built);
    command.args(operator.options(folder.path()));
    command.args(["--health-address", &format!("127.0.0.1:{health}"), "--admin-address", "none"]);
    let program = Program::start(command, folder);
    until("the proxy is ready", || http_get(health, "/readyz").is_ok_and(|(status, _)| status == 200));
    until("the first report", || operator.is_applied());
    (program, Follower::Kubectl { operator })
}

/// One listener from this port to another one.
fn configuration(port: u16, to: u16) -> Configuration {
    let socket = json!({"transport": "TCP", "bind": "Loopback", "port": port});
    let compiled: proxy_api::Listener =
        serde_json::from_value(listener::document(&socket, to)).expect("a document of a listener");
    let mut configuration = Configuration::default();
    let id = ListenerId::new(Origin::port_forward(NAMESPACE, "web"), "tcp");
    configuration.listeners.insert(id, compiled.sealed().into());
    configuration
}
