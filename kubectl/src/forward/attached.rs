//! `kubectl portlane run`: local ports for the Service ports that manifests name. Each Service is followed by its own
//! task.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use kubectl_core::forward::{
    backends::{plan, unattached},
    mapping::{Local, Mapping, Remote},
    target::{Kind, Target},
};
use operator_core::{ObjectKey, ServiceBackend};
use portlane::{Found, Services};
use tokio::{
    sync::{Notify, watch},
    task::spawn_local,
    time::sleep,
};

use super::{Limits, followed::Followed, port::Shared, source::Source};
use crate::cluster::Cluster;

/// Time between two tries to follow a Service that cannot be read or does not exist.
const RETRY: Duration = Duration::from_secs(5);

/// The attached Services.
pub(crate) struct Attached {
    cluster: Cluster,
    limits: Limits,
    /// Sessions of all Services at present.
    live: Rc<Cell<usize>>,
    /// The ports that the task of each Service should open. The task closes all of them when the sender is dropped.
    services: BTreeMap<ObjectKey, watch::Sender<BTreeSet<u16>>>,
    board: Rc<Board>,
}

/// The local ports, as reported by the tasks.
#[derive(Default)]
struct Board {
    found: RefCell<BTreeMap<(ObjectKey, u16), Found>>,
    changed: Notify,
}

impl Board {
    fn set(&self, service: &ObjectKey, port: u16, found: &Found) {
        let before = self.found.borrow_mut().insert((service.clone(), port), found.clone());
        if before.as_ref() != Some(found) {
            self.changed.notify_one();
        }
    }

    fn get(&self, backend: &ServiceBackend) -> Option<Found> {
        self.found.borrow().get(&(backend.service.clone(), backend.port)).cloned()
    }

    /// Forgets all ports but these.
    fn keep_only(&self, services: &BTreeMap<ObjectKey, BTreeSet<u16>>) {
        let is_kept = |(service, port): &(ObjectKey, u16)| services.get(service).is_some_and(|it| it.contains(port));
        self.found.borrow_mut().retain(|key, _| is_kept(key));
    }
}

impl Attached {
    /// The state before any Service is attached.
    pub(crate) fn new(cluster: Cluster, limits: Limits) -> Self {
        let (live, board) = (Rc::default(), Rc::default());
        Self { cluster, limits, live, services: BTreeMap::new(), board }
    }

    /// Starts the task that follows a Service, in the caller's local set.
    fn start(&self, service: &ObjectKey, ports: BTreeSet<u16>) -> watch::Sender<BTreeSet<u16>> {
        let (sender, wanted) = watch::channel(ports);
        let label = format!("Service {service}");
        let shared = Rc::new(Shared::new(label, &self.limits, self.live.clone()));
        let mut cluster = self.cluster.clone();
        cluster.namespace.clone_from(&service.namespace);
        spawn_local(follow(cluster, service.clone(), wanted, shared, self.board.clone()));
        sender
    }
}

impl Services for Attached {
    fn find(&mut self, needed: &BTreeSet<ServiceBackend>) -> BTreeMap<ServiceBackend, Found> {
        let plan = plan(needed);
        self.services.retain(|service, _| plan.services.contains_key(service));
        self.board.keep_only(&plan.services);
        for (service, ports) in &plan.services {
            if let Some(sender) = self.services.get(service) {
                sender.send_if_modified(|wanted| {
                    let is_other = wanted != ports;
                    wanted.clone_from(ports);
                    is_other
                });
            } else {
                let sender = self.start(service, ports.clone());
                self.services.insert(service.clone(), sender);
            }
        }
        let answer = |backend: &ServiceBackend| match plan.refused.get(backend) {
            Some(why) => Found::Unreachable(why.clone()),
            None => self.board.get(backend).unwrap_or(Found::Attaching),
        };
        needed.iter().map(|backend| (backend.clone(), answer(backend))).collect()
    }

    fn changed(&mut self) -> impl Future<Output = ()> {
        self.board.changed.notified()
    }
}

/// Follows a Service until no port needs it any more and their sessions have ended.
async fn follow(
    cluster: Cluster,
    service: ObjectKey,
    mut wanted: watch::Receiver<BTreeSet<u16>>,
    shared: Rc<Shared>,
    board: Rc<Board>,
) {
    let Some(source) = source(&cluster, &service, &mut wanted, &board).await else { return };
    let mut followed = Followed::new(&cluster, source, shared);
    // After the loop, the board belongs to the successor of this task, if there is one.
    while wanted.has_changed().is_ok() {
        let ports = wanted.borrow_and_update().clone();
        followed.keep_only(&ports);
        for port in ports {
            board.set(&service, port, &attach(&mut followed, &service, port));
        }
        tokio::select! {
            // The condition of the loop reads the new value.
            _ = wanted.changed() => {}
            () = followed.step() => {}
        }
    }
    followed.keep_only(&BTreeSet::new());
    while !followed.is_idle() {
        followed.step().await;
    }
}

/// Returns the pods of a Service as soon as the Service can be followed; `None` if its ports are no longer needed.
async fn source(
    cluster: &Cluster,
    service: &ObjectKey,
    wanted: &mut watch::Receiver<BTreeSet<u16>>,
    board: &Board,
) -> Option<Source> {
    let target = Target { kind: Kind::Service, name: service.name.clone() };
    loop {
        let opened = Box::pin(Source::open(cluster, &target)).await;
        wanted.has_changed().ok()?;
        let why = match opened {
            Ok(source) => return Some(source),
            Err(error) => error.with_causes(),
        };
        let ports = wanted.borrow_and_update().clone();
        for port in ports {
            board.set(service, port, &Found::Unreachable(unattached(service, port, &why)));
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            changed = wanted.changed() => changed.ok()?,
        }
    }
}

/// Opens a local port for a port of a Service that does not have one.
fn attach(followed: &mut Followed, service: &ObjectKey, port: u16) -> Found {
    let remote = Remote::Number(port);
    let local = match followed.local(&remote) {
        Some(local) => Ok(local),
        None => followed.open(&Mapping { local: Local::Any, remote }),
    };
    match local {
        Ok(local) => Found::At(SocketAddr::from((Ipv4Addr::LOCALHOST, local))),
        Err(error) => Found::Unreachable(unattached(service, port, &error.with_causes())),
    }
}
