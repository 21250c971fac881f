//! `examples/sidecar-without-operator.yaml`: the proxy as a native sidecar, configured by a config map.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use harness::{CommandOutput, Namespace, Node, binary, round_trip, until};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::shared;

const EXAMPLE: &str = include_str!("../../../examples/sidecar-without-operator.yaml");
const DOOR: &str = include_str!("../../../examples/door.yaml");

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Applies the example and waits until its backend answers through the sidecar; gives the address of the pod.
fn door_on(node: &Node, namespace: &Namespace<'_>, example: &str) -> IpAddr {
    let pod = door(namespace, example);
    until("the backend answers through the sidecar", || {
        answer(node, SocketAddr::new(pod, 8001)).is_ok_and(|text| !text.is_empty())
    });
    pod
}

/// Applies the example and waits until its Pods are ready; gives the address of the Pod with the sidecar.
fn door(namespace: &Namespace<'_>, example: &str) -> IpAddr {
    namespace.apply(example);
    namespace.until::<Pod>("backend", "is ready", is_ready);
    let app = namespace.until::<Pod>("app", "is ready", is_ready);
    app.status.and_then(|status| status.pod_ip).expect("an address").parse().expect("an address")
}

/// A Pod from which the test calls other Pods.
fn client(namespace: &Namespace<'_>) {
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 0, containers: \
         [{name: client, image: 'localhost/portlane/echo:0.1.0', args: [pause]}]}}",
    );
    namespace.until::<Pod>("client", "is ready", is_ready);
}

/// The answer to a greeting of the client. A Service routes a moment after its Pods are ready.
fn call(namespace: &Namespace<'_>, protocol: &str, to: &str) -> String {
    let mut output = None;
    until(&format!("{to} answers on {protocol}"), || {
        output = Some(namespace.kubectl(&["exec", "client", "--", "/portlane-echo", "call", protocol, to, "hello"]));
        output.as_ref().is_some_and(|output| output.success && !output.stdout.trim().is_empty())
    });
    output.expect("an answer").ok().trim_end().to_owned()
}

#[test]
fn it_forwards_tcp_and_udp_between_pods_and_through_a_service() {
    let namespace = shared::cluster().namespace("door").for_pods();
    client(&namespace);
    let pod = door(&namespace, EXAMPLE);
    for to in ["app".to_owned(), pod.to_string()] {
        for protocol in ["tcp", "udp"] {
            assert_eq!(call(&namespace, protocol, &format!("{to}:8000")), "app: hello", "{protocol} {to}");
            assert_eq!(call(&namespace, protocol, &format!("{to}:8001")), "backend: hello", "{protocol} {to}");
        }
    }
}

#[test]
fn it_forwards_tcp_and_udp_from_the_host() {
    let Some(node) = shared::node_with_a_host() else { return };
    // The example fits the most restricted profile of Pod Security.
    let namespace = node.namespace("door-host").for_pods().restricted();
    let pod = door_on(node, &namespace, EXAMPLE);
    let service: Service = namespace.get("app").expect("app exists");
    let service: IpAddr =
        service.spec.and_then(|spec| spec.cluster_ip).expect("an address").parse().expect("an address");
    until("the Service routes", || node.connect(SocketAddr::new(service, 8000)).is_ok());
    for address in [pod, service] {
        for (port, from) in [(8000, "app: "), (8001, "backend: ")] {
            let to = SocketAddr::new(address, port);
            assert_eq!(tcp(node, to), format!("{from}hello"), "TCP {to}");
            assert_eq!(udp(node, to), format!("{from}hello"), "UDP {to}");
        }
    }
}

/// The answer to a greeting on a connection of its own.
fn tcp(node: &Node, to: SocketAddr) -> String {
    answer(node, to).unwrap_or_else(|error| panic!("{to}: {error}"))
}

fn answer(node: &Node, to: SocketAddr) -> std::io::Result<String> {
    let mut stream = node.connect(to)?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp(node: &Node, to: SocketAddr) -> String {
    let socket = node.udp(to).expect("socket");
    let mut answer = [0; 64];
    let mut length = 0;
    until(&format!("a datagram comes back from {to}"), || {
        socket.send(b"hello").is_ok()
            && socket.recv(&mut answer).is_ok_and(|received| {
                length = received;
                true
            })
    });
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A connection that the backend has greeted.
fn session(node: &Node, to: SocketAddr, greeting: &str) -> TcpStream {
    let mut stream = node.connect(to).expect("connect");
    let mut greeted = vec![0; greeting.len()];
    stream.read_exact(&mut greeted).expect("greeting");
    assert_eq!(greeted, greeting.as_bytes());
    assert_eq!(round_trip(&mut stream, b"one").expect("echo"), b"one");
    stream
}

/// Sets the flag on drop.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn listeners_are_swapped_from_the_configmap_while_connections_continue() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = node.namespace("door-swap").for_pods();
    let pod = door_on(node, &namespace, EXAMPLE);
    let (old, new, other) = (SocketAddr::new(pod, 8000), SocketAddr::new(pod, 8002), SocketAddr::new(pod, 8001));
    let mut held = session(node, old, "app: ");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // Load on the listener that does not change. It also stops when a check fails.
        let stopping = Stopping(&stop);
        let load = scope.spawn(|| {
            while !stop.load(Relaxed) {
                assert_eq!(tcp(node, other), "backend: hello");
                served.fetch_add(1, Relaxed);
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        configure(&namespace, &DOOR.replace("port: 8000", "port: 8002"));
        until("the new port answers", || node.connect(new).is_ok());
        let since = served.load(Relaxed);
        until("the load continues after the change", || served.load(Relaxed) > since + 20 || load.is_finished());
        drop(stopping);
        load.join().expect("no connection was refused or broken");
    });
    let refused = |result: std::io::Result<TcpStream>| {
        result.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    until("the old port refuses connections", || refused(node.connect(old)));
    assert_eq!(tcp(node, new), "app: hello");
    assert_eq!(udp(node, new), "app: hello");
    assert_eq!(round_trip(&mut held, b"two").expect("the old session continues"), b"two");
    let pod: Pod = namespace.get("app").expect("app exists");
    let restarts = pod.status.and_then(|status| status.init_container_statuses).map(|all| all[0].restart_count);
    assert_eq!(restarts, Some(0), "no container was restarted");
}

/// Puts the output of `portlane translate` for a forward into the config map, as the example says.
fn configure(namespace: &Namespace<'_>, forward: &str) {
    let folder = tempfile::tempdir().expect("folder");
    let (source, document) = (folder.path().join("door.yaml"), folder.path().join("config.yaml"));
    std::fs::write(&source, forward).expect("write");
    let output =
        Command::new(binary("portlane")).args(["translate", "-f"]).arg(&source).output().expect("portlane runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&document, &output.stdout).expect("write");
    let file = format!("--from-file={}", document.display());
    let made = namespace.kubectl(&["create", "configmap", "door", &file, "--dry-run=client", "--output=yaml"]).ok();
    namespace.apply(&made);
}

#[test]
fn a_deleted_pod_lets_its_sessions_end_and_takes_no_new_ones() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = node.namespace("door-drain").for_pods();
    let pod = door_on(node, &namespace, EXAMPLE);
    let through = SocketAddr::new(pod, 8001);
    let mut held = session(node, through, "backend: ");
    let started = Instant::now();
    delete(&namespace).ok();
    until("the proxy accepts no new connections", || node.connect(through).is_err());
    for _ in 0..3 {
        assert_eq!(round_trip(&mut held, b"two").expect("the session continues"), b"two");
    }
    assert!(namespace.get::<Pod>("app").is_some(), "the Pod waits for its session");
    drop(held);
    namespace.until_gone::<Pod>("app");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(40), "the pod ends with its session and does not wait for a deadline: {took:?}");
}

#[test]
fn a_session_that_does_not_end_is_cut_off_before_the_grace_period_ends() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = node.namespace("door-deadline").for_pods();
    let example = EXAMPLE.replace("PORTLANE_DRAIN_SECONDS, value: \"45\"", "PORTLANE_DRAIN_SECONDS, value: \"3\"");
    assert_ne!(example, EXAMPLE, "the example has a drain time");
    let pod = door_on(node, &namespace, &example);
    let mut held = session(node, SocketAddr::new(pod, 8001), "backend: ");
    let started = Instant::now();
    delete(&namespace).ok();
    let end = held.read(&mut [0; 16]);
    assert!(matches!(end, Ok(0) | Err(_)), "the session ends: {end:?}");
    namespace.until_gone::<Pod>("app");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(40), "the pod ends well before the 60 seconds of its grace period: {took:?}");
}

fn delete(namespace: &Namespace<'_>) -> CommandOutput {
    namespace.kubectl(&["delete", "pod", "app", "--wait=false"])
}
