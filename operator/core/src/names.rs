//! Names that the operator writes into the cluster and reads back: labels, annotations, field managers, ports.

/// Name of the controller: field manager, reporter of events.
pub const NAME: &str = "portlane-operator";
/// Field manager that keeps the replicas of a fleet while they pass from the operator to an autoscaler: a field without a
/// manager would go back to its default.
pub const HANDOVER: &str = "portlane-operator-handover";

/// Label of pods with a proxy: `gateway` or `sidecar`.
pub const PROXY_LABEL: &str = "portlane.dev/proxy";
/// Label of a gateway's pods and children, with the gateway's name.
pub const GATEWAY_LABEL: &str = "portlane.dev/gateway";
/// Label of a forward's autoscaler, with the forward's name.
pub const FORWARD_LABEL: &str = "portlane.dev/forward";
/// Label by which pods and namespaces ask for a proxy.
pub const INJECT_LABEL: &str = "portlane.dev/inject";

/// Annotation with the ports of a pod's app: `PORT/TCP` or `PORT/UDP`, separated by commas; with a `-` in front a declared
/// port is not the app's.
pub const APP_PORTS: &str = "portlane.dev/app-ports";
/// Annotation that says why a pod has no proxy, or which annotation was ignored.
pub const PROBLEM: &str = "portlane.dev/injection-problem";
/// Annotation with the cost of deleting a pod (KEP-2255).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Name of the proxy's container in a user's pod.
pub const CONTAINER: &str = "portlane-proxy";
/// Port of a proxy's health address.
pub const HEALTH_PORT: u16 = 9180;
/// Port of a proxy's admin address, on loopback.
pub const ADMIN_PORT: u16 = 9181;
