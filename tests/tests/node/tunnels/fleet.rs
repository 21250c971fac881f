//! A fleet of three pods and two instances of an agent, each of which has a carrier to every pod. The proxy of a pod is
//! killed: no session of another pod breaks. Carriers, a pod, the operator and an instance go away under load: no session
//! breaks, and no visitor is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    thread,
    time::Instant,
};

use crds::ForwardAgent;
use harness::{Namespace, Node, OPERATOR, Outpost, PATIENCE, Program, greeting, http_get_on, metric, until};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;

use super::{
    load::{Sessions, benchmark, visitors},
    scene::{self, TUNNELS},
};
use crate::{
    fleet::{proxies, wait_for},
    outage::kill_proxy,
};

/// Port of the service that greets, on the machine of each instance.
const GREETER: u16 = 7777;
/// Port of redis-server there, and of its listener.
const REDIS: u16 = 6379;
/// Port of health and metrics of a proxy.
const HEALTH: u16 = 9180;
/// Pods of the fleet.
const PODS: usize = 3;
/// Numbers of the machines.
const MACHINES: [u8; 2] = [78, 79];

/// The agent, and a forward to both services on its machines.
const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: ForwardAgent
metadata: {name: home}
spec:
  gateway: {name: edge}
  enrolment: {redemptions: 2}
  targets: [{host: 127.0.0.1, port: 7777}, {host: 127.0.0.1, port: 6379}]
---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: web}
spec:
  placement: {gateway: {name: edge}}
  listeners:
  - {name: tcp, protocol: TCP, port: 80, backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 7777}}]}
  - {name: redis, protocol: TCP, port: 6379, backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 6379}}]}
";

#[test]
fn a_fleet_loses_carriers_pods_the_operator_and_an_instance_and_only_sessions_of_a_killed_proxy_break() {
    let Some((node, _turn)) = scene::node() else { return };
    let begun = Instant::now();
    let mut fleet = Fleet::start(node);
    let mut held = Held::new();
    fleet.fill(&mut held, PODS);
    let names: BTreeSet<&String> = held.values().flat_map(|sessions| &sessions.names).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["one: ", "two: "], "both instances serve");
    // Visitors of the Service may come to the pod while its proxy is gone, so they begin later.
    fleet.a_proxy_is_killed(&mut held);
    let visitors = visitors(node, SocketAddr::new(fleet.gateway.ip(), 80));
    let benchmark = benchmark(node, fleet.gateway.ip(), REDIS);
    // A failure of the load says how long it has run.
    let loaded = Instant::now();
    let done = |what: &str| eprintln!("after {:?} of load: {what}", loaded.elapsed());
    fleet.carriers_are_cut(&held);
    done("carriers were cut");
    fleet.a_pod_is_deleted(&mut held);
    done("a pod was deleted, and another one took its place");
    fleet.the_operator_is_away(&held);
    done("the operator was away, and is back");
    fleet.the_fleet_shrinks(&mut held);
    done("the fleet has shrunk");
    fleet.fill(&mut held, PODS);
    done("the fleet has grown");
    fleet.an_instance_stops(held);
    done("an instance has stopped");
    let (served, runs) = (visitors.stop(), benchmark.stop());
    eprintln!("{served} visitors and {runs} runs of redis-benchmark were served, in {:?}", begun.elapsed());
    assert!(served > 20 && runs > 2, "there was load all the time: {served} visitors, {runs} runs of redis-benchmark");
}

/// Sessions on each pod, by its name.
type Held = BTreeMap<String, Sessions>;

/// An instance of the agent, on a machine of its own.
struct Instance {
    agent: Program,
    _services: [Program; 2],
    outpost: Outpost,
}

impl Instance {
    fn start(node: &Node, name: &str, machine: u8, join: &str) -> Self {
        let outpost = Outpost::numbered(node, machine);
        let services = [scene::echo(&outpost, GREETER, &format!("{name}: ")), redis(&outpost)];
        let agent = scene::agent(&outpost, name, &[GREETER, REDIS], join);
        Self { agent, _services: services, outpost }
    }
}

/// redis-server on the machine of an instance.
fn redis(outpost: &Outpost) -> Program {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = outpost.command("redis-server");
    command.args(["--port", &REDIS.to_string(), "--bind", "127.0.0.1", "--save", ""]).current_dir(folder.path());
    let redis = Program::start(command, folder);
    until("redis-server listens", || {
        redis.events().iter().any(|line| line.to_string().contains("Ready to accept connections"))
    });
    redis
}

/// `replicas` and `drainSeconds` of the gateway.
fn size(pods: usize) -> String {
    format!("replicas: {pods}, drainSeconds: 60")
}

/// What the test has. If the test fails, status and logs are printed.
struct Fleet {
    node: &'static Node,
    namespace: Namespace<'static>,
    /// Where agents dial.
    gateway: SocketAddr,
    instances: [Instance; 2],
}

impl Fleet {
    fn start(node: &'static Node) -> Self {
        let namespace = scene::namespace(node, "tunnel-fleet");
        let gateway = scene::ready_gateway(&namespace, &size(PODS));
        namespace.apply(FORWARD);
        let join = scene::join(&namespace);
        let [one, two] = MACHINES;
        let instances = [("one", one), ("two", two)].map(|(name, machine)| Instance::start(node, name, machine, &join));
        wait_for(&namespace, "portforward/web");
        Self { node, namespace, gateway, instances }
    }

    /// Waits for what can be seen of the fleet. Panics with the agent, everything in the namespace, events and logs.
    #[track_caller]
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        self.namespace.until::<ForwardAgent>("home", what, |_| done());
    }

    /// Waits until the status of the agent has these instances, with their carriers, and no others.
    #[track_caller]
    fn until_told(&self, expected: &[(&str, &str)]) {
        let is_told = |agent: &ForwardAgent| {
            let instances = agent.status.as_ref().map(|status| status.instances.as_slice()).unwrap_or_default();
            instances.iter().map(|it| (it.name.as_str(), it.carriers.as_str())).eq(expected.iter().copied())
        };
        self.namespace.until::<ForwardAgent>("home", &format!("has the instances {expected:?}"), is_told);
    }

    /// The pods that stay, with the addresses of their listeners.
    fn pods(&self) -> BTreeMap<String, SocketAddr> {
        let stays = |name: &str| {
            let pod = self.namespace.get::<Pod>(name);
            pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
        };
        proxies(&self.namespace).into_iter().filter(|(name, _)| stays(name)).collect()
    }

    fn is_ready(&self, pod: &str) -> bool {
        let conditions = self.namespace.get::<Pod>(pod).and_then(|pod| pod.status?.conditions).unwrap_or_default();
        conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
    }

    /// The instances that a pod counts in its metrics.
    fn counted(&self, pod: IpAddr) -> Option<f64> {
        let page = self.node.connect(SocketAddr::new(pod, HEALTH)).ok()?;
        let (_, text) = http_get_on(page, "/metrics").ok()?;
        metric(&text, "portlane_tunnel_agents ")
    }

    fn resize(&self, pods: usize) {
        scene::resize(&self.namespace, &size(pods), self.gateway);
    }

    /// The fleet has so many pods, both instances have a carrier to each of them, and each has sessions from now on.
    fn fill(&self, held: &mut Held, pods: usize) {
        self.resize(pods);
        self.until(&format!("{pods} pods are ready"), || {
            let all = self.pods();
            all.len() == pods && all.keys().all(|pod| self.is_ready(pod))
        });
        self.every_pod_has_both_instances(pods);
        for (pod, address) in self.pods() {
            held.entry(pod).or_insert_with(|| Sessions::open(self.node, address));
        }
        self.go_on(held);
    }

    #[track_caller]
    fn every_pod_has_both_instances(&self, pods: usize) {
        let carriers = format!("{pods}/{pods}");
        self.until_told(&[("one", &carriers), ("two", &carriers)]);
        for (pod, address) in self.pods() {
            self.until(&format!("pod {pod} counts both instances"), || {
                self.counted(address.ip()).is_some_and(|instances| instances > 1.5)
            });
        }
    }

    /// Waits until all sessions have gone on for a while. One that broke fails the test at once.
    #[track_caller]
    fn go_on(&self, held: &Held) {
        let seen: Vec<usize> = held.values().map(|sessions| sessions.work.rounds()).collect();
        self.until("the sessions on every pod continue", || {
            held.values().zip(&seen).all(|(sessions, seen)| sessions.work.rounds() > seen + 3)
        });
    }

    /// Whether kubelet has started another proxy in a pod, and it is ready.
    fn is_restarted(&self, pod: &str) -> bool {
        let statuses = self.namespace.get::<Pod>(pod).and_then(|pod| pod.status?.container_statuses);
        statuses.unwrap_or_default().iter().any(|it| it.restart_count > 0 && it.ready)
    }

    /// A new visitor of the pod with this listener is served.
    #[track_caller]
    fn greets(&self, pod: &str, listener: SocketAddr) {
        self.until(&format!("a new visitor of pod {pod} is served"), || {
            self.node.connect(listener).and_then(|mut visitor| greeting(&mut visitor)).is_ok()
        });
    }

    /// The sessions on its pod end. Those on the other pods continue, and their new visitors are served, although the pod
    /// may have handed over the carriers that they use. Both instances begin anew with the next proxy of the pod.
    fn a_proxy_is_killed(&self, held: &mut Held) {
        let (pod, sessions) = held.pop_last().expect("sessions on each pod");
        let uid = self.namespace.get::<Pod>(&pod).and_then(|pod| pod.metadata.uid).expect("a pod with a uid");
        // An agent names a pod by its uid without dashes.
        let uid = uid.replace('-', "");
        let seen = self.instances.each_ref().map(|it| it.agent.events().len());
        let killed = Instant::now();
        kill_proxy(self.node, &pod);
        self.until(&format!("the sessions on pod {pod} end"), || sessions.work.failure().is_some());
        let (kind, story) = sessions.work.failure().expect("just seen");
        // The kernel closes the sockets of a process that was killed, and resets those with bytes that were not read.
        let is_closed = matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(is_closed, "{kind}: {story}");
        self.go_on(held);
        for (name, stays) in &*held {
            self.greets(name, stays.address);
        }
        eprintln!("the other pods served new visitors {:?} after the proxy of a pod was killed", killed.elapsed());
        self.until(&format!("pod {pod} has another proxy"), || self.is_restarted(&pod));
        for (instance, seen) in self.instances.iter().zip(seen) {
            let connected = instance.agent.wait_after(seen, "connected", &uid);
            assert!(
                !connected.to_string().contains("its streams continue"),
                "the next proxy has no streams: {connected}"
            );
        }
        self.greets(&pod, sessions.address);
        eprintln!("both instances were back {:?} after the proxy of a pod was killed", killed.elapsed());
        self.fill(held, PODS);
    }

    /// Sessions wait for the next carriers.
    #[track_caller]
    fn cut(&self, instances: &[Instance], held: &Held) {
        let seen: Vec<usize> = instances.iter().map(|it| it.agent.events().len()).collect();
        for instance in instances {
            instance.outpost.cut(TUNNELS);
        }
        for (instance, seen) in instances.iter().zip(seen) {
            instance.agent.wait_after(seen, "unreached", "");
        }
        for instance in instances {
            instance.outpost.restore();
        }
        self.go_on(held);
    }

    /// One instance after the other, and then both at once.
    fn carriers_are_cut(&self, held: &Held) {
        for instances in [&self.instances[..1], &self.instances[1..], &self.instances[..]] {
            self.cut(instances, held);
        }
        self.every_pod_has_both_instances(PODS);
    }

    /// Another pod takes its place, and both instances connect to that one.
    fn a_pod_is_deleted(&self, held: &mut Held) {
        let (pod, sessions) = held.pop_first().expect("sessions on each pod");
        self.namespace.kubectl(&["delete", "pod", &pod, "--wait=false"]).ok();
        self.drains(&pod, sessions);
        self.fill(held, PODS);
    }

    /// A pod that leaves takes no new sessions, keeps those that it has, and goes when they have ended.
    #[track_caller]
    fn drains(&self, pod: &str, sessions: Sessions) {
        self.until(&format!("pod {pod} takes no new sessions"), || self.node.connect(sessions.address).is_err());
        let seen = sessions.work.rounds();
        self.until(&format!("the sessions on pod {pod} continue while it drains"), || {
            sessions.work.rounds() > seen + 10
        });
        sessions.work.stop();
        self.namespace.until_gone::<Pod>(pod);
    }

    /// Instances that have lost their carriers connect again with their certificates.
    fn the_operator_is_away(&self, held: &Held) {
        scene::take_operator_away(self.node);
        self.cut(&self.instances, held);
        scene::bring_operator_back(self.node);
    }

    /// The sessions on the pods that stay do not notice, and those on the one that leaves may end in peace.
    fn the_fleet_shrinks(&self, held: &mut Held) {
        let fewer = PODS - 1;
        self.resize(fewer);
        self.until("one pod leaves", || self.pods().len() == fewer);
        let stay = self.pods();
        let leaving = held.keys().find(|pod| !stay.contains_key(*pod)).cloned().expect("one of those with sessions");
        let sessions = held.remove(&leaving).expect("just found");
        self.drains(&leaving, sessions);
        self.every_pod_has_both_instances(fewer);
        self.go_on(held);
    }

    /// It takes no new sessions, keeps those that it has, and ends when they have ended.
    fn an_instance_stops(&mut self, held: Held) {
        let agent = &self.instances[0].agent;
        let seen = agent.events().len();
        agent.signal(Signal::TERM);
        agent.wait_after(seen, "draining", "");
        let carriers = format!("{PODS}/{PODS}");
        self.until_told(&[("two", &carriers)]);
        for (pod, address) in self.pods() {
            let greeted = self.node.connect(address).and_then(|mut session| greeting(&mut session));
            assert_eq!(greeted.expect("a new session is served"), "two: ", "on pod {pod}");
        }
        self.go_on(&held);
        for sessions in held.into_values() {
            sessions.work.stop();
        }
        let status = self.instances[0].agent.wait_for_end(PATIENCE);
        assert!(status.success(), "the instance ended: {status}");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if thread::panicking() {
            let of_operator = ["logs", "-n", OPERATOR, "deploy/portlane-operator", "--tail=20"];
            let seen = [
                self.namespace.kubectl(&["get", "pods", "--output=wide"]),
                self.namespace.kubectl(&["describe", "portlane"]),
                self.namespace.kubectl(&["logs", "-l", "portlane.dev/gateway=edge", "--prefix", "--tail=20"]),
                self.node.kubectl(&of_operator),
            ];
            eprintln!("{}", seen.map(|said| said.stdout + &said.stderr).join("\n---\n"));
        }
    }
}
