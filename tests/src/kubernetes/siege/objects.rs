//! The objects of a siege.

use super::{DATAGRAMS, HEADER, KEPT_DATAGRAMS, LINES, MESSAGES, PLAIN, SERVER_NAME};
use crate::attack;

/// The memory limit bounds sessions to about 770, beside agents and messages. Some 95 of them may wait for a PROXY header,
/// and as many for a server name: fewer than the clients that do.
const GATEWAY: &str = "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {replicas: 2, \
     drainSeconds: 5, tunnels: {}, podTemplate: {resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 96Mi}}}}}";

/// An echo server and its Service. A server without a request for CPU would hardly run under attack, and its system would
/// drop the datagrams that the gateway has forwarded.
const BACKEND: &str = "apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {backend: NAME}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: localhost/portlane/echo:0.1.0
    args: [serve, --address, '0.0.0.0', --port, '8000', --name, 'NAME: ']
    resources: {requests: {cpu: 50m}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  selector: {backend: NAME}
  ports: [{name: tcp, port: 80, targetPort: 8000}, {name: udp, port: 80, targetPort: 8000, protocol: UDP}]
";

/// A forward for a flood of datagrams, without limits of its own. Its server has no other clients, as the receive buffer
/// of a server holds no more than a burst of the flood.
const FLOOD: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: flooded}, spec: {placement: {gateway: \
     {name: edge}}, listeners: [{name: udp, protocol: UDP, port: 5353, backends: [{service: {name: sink, port: 80}}]}]}}";

/// A forward for messages. Its sinks are the server of the flood, which speaks no RELP: messages wait, and the oldest ones
/// give way.
fn kept() -> String {
    let store = "store: {disk: {maxBytes: 16777216}}";
    let backends = "backends: [{service: {name: sink, port: 80}}]";
    format!(
        "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: kept}}
spec:
  placement: {{gateway: {{name: edge}}}}
  listeners:
  - {{name: relp, protocol: TCP, port: {MESSAGES}, durable: {{framing: Relp, send: {{relp: {{}}}}, {store}}}, {backends}}}
  - {{name: lines, protocol: TCP, port: {LINES}, durable: {{framing: Newline, send: {{relp: {{}}}}, {store}}}, {backends}}}
  - {{name: datagrams, protocol: UDP, port: {KEPT_DATAGRAMS}, durable: {{send: {{udp: {{}}}}, {store}}}, {backends}}}
"
    )
}

/// An agent that never connects, and a forward in the pod whose sidecar stays, which would reach it.
const STAYS: &str = "apiVersion: portlane.dev/v1alpha1
kind: ForwardAgent
metadata: {name: home}
spec: {gateway: {name: edge}, targets: [{host: 127.0.0.1, port: 7777}]}
---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: stays}
spec:
  placement: {sidecar: {selector: {matchLabels: {app: stays}}}}
  listeners:
  - {name: tcp, protocol: TCP, bind: All, port: 8001, backends: [{local: {port: 8000}}]}
  - {name: home, protocol: TCP, port: 8003, backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 7777}}]}
";

/// The pod whose sidecar stays.
pub(super) const WITH_SIDECAR: &str = "{apiVersion: v1, kind: Pod, metadata: {name: stays, labels: {app: stays, portlane.dev/inject: enabled}}, spec: \
     {terminationGracePeriodSeconds: 0, containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [serve, \
     --address, 127.0.0.1, --port, '8000', --name, 'app: ']}]}}";

/// A forward into the pods that get a sidecar.
const INSIDE: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: inside}, spec: {placement: {sidecar: \
     {selector: {matchLabels: {app: shop}}}}, listeners: [{name: tcp, protocol: TCP, bind: All, port: 8001, backends: \
     [{local: {port: 8000}}]}]}}";

/// A pod that does nothing; the attack comes from its network namespace.
const ATTACKER: &str = "{apiVersion: v1, kind: Pod, metadata: {name: attacker}, spec: {terminationGracePeriodSeconds: 0, containers: \
     [{name: pause, image: 'localhost/portlane/echo:0.1.0', args: [pause]}]}}";

/// The forward `web` of the gateway, with a listener of each kind. The hostile pod may send PROXY headers, as anybody
/// who reaches the port from the network of a load balancer.
pub(super) fn forward(backend: &str) -> String {
    format!(
        "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: web}}
spec:
  placement: {{gateway: {{name: edge}}}}
  timeouts: {{handshakeSeconds: 30}}
  listeners:
  - {{name: plain, protocol: TCP, port: {PLAIN}, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
  - name: header
    protocol: TCP
    port: {HEADER}
    proxyProtocol: {{accept: Required, trustedCIDRs: [198.18.0.0/16, 192.0.2.0/24]}}
    backends: [{{service: {{name: {backend}, port: 80}}}}]
  - name: server-name
    protocol: TLS
    port: {SERVER_NAME}
    tls: {{hostnames: [{}]}}
    backends: [{{service: {{name: {backend}, port: 80}}}}]
  - {{name: datagrams, protocol: UDP, port: {DATAGRAMS}, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
",
        attack::HOST
    )
}

/// What is there before the forward `web` and the pod whose sidecar stays.
pub(super) fn first() -> String {
    let [web, other, sink] = ["web", "other", "sink"].map(|name| BACKEND.replace("NAME", name));
    [GATEWAY, INSIDE, FLOOD, ATTACKER, STAYS, &kept(), &web, &other, &sink].join("\n---\n")
}
