//! A real node.
#![cfg(target_os = "linux")]

use harness::Node;

#[test]
fn smoke() {
    let node = Node::start();
    println!("{}", node.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"]).ok());
    let ns = node.namespace("smoke").for_pods();
    ns.apply("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: 'localhost/portlane/echo:0.1.0', args: [serve, '--address', '0.0.0.0']}]}}");
    println!("{}", ns.kubectl(&["wait", "--for=condition=Ready", "pod/a", "--timeout=30s"]).ok());
    println!("{}", ns.kubectl(&["get", "pods", "-o", "wide"]).ok());
    println!("{}", ns.kubectl(&["logs", "a"]).ok());
    println!(
        "{}",
        ns.kubectl(&[
            "exec",
            "a",
            "--",
            "/portlane-echo",
            "call",
            "tcp",
            "kubernetes.default.svc.cluster.local:443",
            "x"
        ])
        .ok()
    );
}
