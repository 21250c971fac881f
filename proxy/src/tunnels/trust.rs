//! The signer of the tunnels' certificates: this process with a root of its own, or the operator.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use proxy_api::{Agent, AgentsReport, ConnectedInstance, MAX_CONNECTED, with_causes};
use tokio::{net::TcpListener, sync::watch, task::spawn_local, time::Instant};
use tunnel::{
    endpoint::{Endpoint, View, listen_holding},
    local::{Local, system_clock},
    remote::{Operator, Remote},
};
use tunnel_core::{
    identity::EndpointId,
    join::{Address, AddressError},
    notices::Notice,
    registry::Policy,
};

use super::{
    ID, Settings, TunnelsError,
    joins::{Joins, Maker},
};
use crate::{
    core::logging::fault::Fault,
    files::Files,
    lives::{Guard, Lives},
    log::{Level, Log},
    signing::{Asks, ToOperator},
};

/// The name in logs of the task that serves agents.
pub(super) const PORT: &str = "the port for agents";

/// The signer.
pub(super) enum Trust {
    /// This process.
    Own(Box<Own>),
    /// The operator, which also learns which agents are connected.
    Operator {
        /// Asks the operator.
        remote: Rc<Remote<Asks>>,
        /// The report for the operator.
        connected: watch::Sender<AgentsReport>,
    },
}

/// A root in a folder, beside the join strings for agents.
pub(super) struct Own {
    local: Local,
    joins: Joins,
    /// The addresses at which agents reach the server.
    addresses: Vec<Address>,
}

impl Operator for Asks {
    async fn ask(&self, applicant: proxy_api::Applicant, request: String) -> Option<proxy_api::SignOutcome> {
        Asks::ask(self, applicant, request).await
    }
}

impl Trust {
    /// `bound` is the address that agents dial; `policy` returns the policy for the agent of a uid.
    pub(super) fn open(
        settings: &Settings,
        bound: SocketAddr,
        to: ToOperator,
        log: &Log,
        policy: impl Fn(&str) -> Option<Policy> + 'static,
    ) -> Result<Self, TunnelsError> {
        if let Some(id) = settings.endpoint.clone() {
            let ToOperator { asks, connected } = to;
            let remote = Rc::new(Remote::open(&settings.folder, id, system_clock(), asks)?);
            return Ok(Self::Operator { remote, connected });
        }
        let local = Local::open(&settings.folder, EndpointId::new(ID)?, system_clock(), policy)?;
        if local.has_other_root() {
            let message = format!(
                "the tokens in {} belong to another root than root.pem, which was removed or replaced: all agents have to \
                 enrol again, with new join strings",
                settings.folder.display()
            );
            log.notice(Level::Warn, "tunnels", "the root of this server", message);
        }
        let (joins, addresses) = (Joins::default(), addresses(&settings.advertise, bound)?);
        Ok(Self::Own(Box::new(Own { local, joins, addresses })))
    }

    /// Serves agents at the port, within a `LocalSet`.
    pub(super) fn listen(
        &self,
        endpoint: Rc<Endpoint>,
        port: TcpListener,
        files: Arc<Files>,
        log: &Log,
        lives: &Arc<Lives>,
    ) {
        // Connections of agents take files even when few are free, because the sessions of clients need them; their
        // number is bounded.
        let hold = move || files.take_anyway(1);
        match self {
            Self::Own(own) => {
                spawn_local(lives.clone().watch(PORT, listen_holding(endpoint, port, own.local.tls(), hold)));
            }
            Self::Operator { remote, .. } => {
                spawn_local(lives.clone().watch(PORT, listen_holding(endpoint, port, remote.tls(), hold)));
                let subject = "the certificate of this proxy";
                spawn_local(keep(remote.clone(), log.clone(), subject, lives.guard(subject), || {}));
            }
        }
    }

    /// Applies the agents of a new configuration.
    pub(super) fn apply(&mut self, log: &Log, agents: &BTreeMap<String, Agent>) {
        if let Self::Own(own) = self {
            let Own { local, joins, addresses } = &mut **own;
            joins.apply(Maker { local, addresses, log, now: Instant::now() }, agents);
        }
    }

    /// Runs once a second: does the work that is due, and reports changes to the operator.
    pub(super) fn look(&mut self, log: &Log, views: &[View]) {
        match self {
            Self::Own(own) => {
                let Own { local, joins, addresses } = &mut **own;
                joins.look(Maker { local, addresses, log, now: Instant::now() });
                if let Err(error) = local.renew() {
                    log.notice(Level::Error, "tunnels", "the certificate of this server", with_causes(&error));
                }
                for Notice { kind, subject, message } in local.notices() {
                    log.notice(Level::Error, kind, subject, message);
                }
            }
            Self::Operator { connected, .. } => tell(connected, views),
        }
    }
}

/// Keeps a valid certificate from the operator, and calls `signed` for each new one. A lasting failure is logged once.
/// `guard` reports a panic: without this task, the certificate would expire.
pub(super) async fn keep<S>(
    remote: Rc<Remote<Asks, S>>,
    log: Log,
    subject: &'static str,
    guard: Guard,
    signed: impl Fn(),
) {
    let mut fault = Fault::default();
    remote
        .run(|renewed| match renewed {
            Ok(()) => {
                signed();
                if fault.works() {
                    log.notice(Level::Info, "tunnels", subject, "was signed by the operator");
                }
            }
            Err(error) => {
                let why = with_causes(error);
                if fault.fails(&why) {
                    log.notice(Level::Error, "tunnels", subject, format!("{why}; will retry every few seconds"));
                }
            }
        })
        .await;
    drop(guard);
}

/// Reports the connected instances to the operator if they have changed.
pub(super) fn tell(connected: &watch::Sender<AgentsReport>, views: &[View]) {
    let report = report(views);
    connected.send_if_modified(|told| {
        let differs = *told != report;
        *told = report;
        differs
    });
}

/// The connected instances, for the operator. Instances that leave are omitted: they take no streams.
fn report(views: &[View]) -> AgentsReport {
    let mut agents = BTreeMap::<String, Vec<ConnectedInstance>>::new();
    let connected = views.iter().filter(|view| view.attached && !view.leaving);
    for view in connected.take(MAX_CONNECTED) {
        let instance = ConnectedInstance { instance: view.instance.clone(), version: view.program.clone() };
        agents.entry(view.identity.uid().to_owned()).or_default().push(instance);
    }
    AgentsReport { agents }
}

/// The addresses for join strings.
fn addresses(advertised: &[String], bound: SocketAddr) -> Result<Vec<Address>, AddressError> {
    if advertised.is_empty() {
        return Ok(vec![Address::new(&bound.ip().to_string(), bound.port())?]);
    }
    advertised.iter().map(|text| text.parse()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::tests::view;

    #[test]
    fn the_operator_is_told_of_instances_with_a_connection() {
        let views = [
            view("a", "lost", false, false),
            view("a", "one", true, false),
            view("a", "two", true, false),
            view("b", "leaves", true, true),
        ];
        let named = |instance: &str| ConnectedInstance { instance: instance.to_owned(), version: "0.9.0".to_owned() };
        let expected = BTreeMap::from([("a".to_owned(), vec![named("one"), named("two")])]);
        assert_eq!(report(&views).agents, expected);
    }
}
