//! Names that the operator writes to the cluster and reads back: labels, annotations, field managers, ports.

use crate::hash::sha256;

/// Name of the controller: its field manager, and the reporter of its Events.
pub const NAME: &str = "portlane-operator";
/// Field manager of a fleet's replicas while their ownership passes from the operator to an autoscaler. Without a
/// manager the API server would reset the field to its default.
pub const HANDOVER: &str = "portlane-operator-handover";

/// Namespace and name of the API server's Service and of its `EndpointSlice`.
pub const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Label of pods with a proxy; its value is `gateway`, `sidecar` or [`DRAINER`].
pub const PROXY_LABEL: &str = "portlane.dev/proxy";
/// The role of a pod that sends the messages on a claim. It serves nothing, and does not belong to the fleet.
pub const DRAINER: &str = "drainer";
/// Label of drainers and their pods; its value is the name of the gateway. They lack [`GATEWAY_LABEL`], by which the
/// Service, disruption budget and workload of a fleet select its pods.
pub const DRAINS_LABEL: &str = "portlane.dev/drains";
/// Label of a gateway's pods and children; its value is the gateway's name.
pub const GATEWAY_LABEL: &str = "portlane.dev/gateway";
/// Label of a forward's autoscaler; its value is the forward's name.
pub const FORWARD_LABEL: &str = "portlane.dev/forward";
/// Label of pods with a proxy, and of children of gateways: the controller class of their operator. Absent for the
/// empty class. On a new pod, the label chooses the class whose sidecar the pod gets.
pub const CLASS_LABEL: &str = "portlane.dev/controller-class";
/// Label of pods and namespaces that enables or disables injection.
pub const INJECT_LABEL: &str = "portlane.dev/inject";

/// Annotation with the ports of a pod's app: `PORT/TCP` or `PORT/UDP`, separated by commas. `-PORT/TCP` excludes a port
/// that a container declares.
pub const APP_PORTS: &str = "portlane.dev/app-ports";
/// Annotation with the reason why a pod has no proxy, or with the annotations that injection ignored.
pub const PROBLEM: &str = "portlane.dev/injection-problem";
/// Annotation of a fleet's workload: fingerprint of what the installation sets in its pods.
pub const INSTALLATION_REVISION: &str = "portlane.dev/installation-revision";
/// Annotation of a fleet's workload: fingerprint of what the gateway sets in its pods.
pub const GATEWAY_REVISION: &str = "portlane.dev/gateway-revision";
/// Annotation of a drainer: the claim, the `StatefulSet` and the generation for which it was made.
pub const DRAINED_FOR: &str = "portlane.dev/drained-for";
/// Annotation of the Secret with the tunnel roots: the roots that were not seen in use, and since when.
pub const UNUSED_ROOTS: &str = "portlane.dev/unused-roots";
/// Annotation of a pod that sets the image of its sidecar.
pub const SIDECAR_IMAGE: &str = "portlane.dev/proxy-image";
/// Annotation with the deletion cost of a pod (KEP-2255).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Name of the proxy's container in the pods of a fleet.
pub const PROXY_CONTAINER: &str = "proxy";
/// Name of the proxy's container in an injected pod.
pub const CONTAINER: &str = "portlane-proxy";
/// Port of a proxy's health endpoint.
pub const HEALTH_PORT: u16 = 9180;
/// Name of a sidecar's health port, by which monitors find it. A pod may have a port `health` of its own.
pub const SIDECAR_HEALTH: &str = "portlane-health";
/// Port of a proxy's admin endpoint, on loopback.
pub const ADMIN_PORT: u16 = 9181;
/// Port of a gateway that agents dial, unless `spec.tunnels` names another one.
pub const TUNNEL_PORT: u16 = 7443;

/// Whether a pod with this value of [`PROXY_LABEL`] was made for a gateway, so that it gets no sidecar.
#[must_use]
pub fn is_of_gateway(role: &str) -> bool {
    role == "gateway" || role == DRAINER
}

/// The endpoint id, in tunnels, of the pod of this uid.
#[must_use]
pub fn endpoint_id(uid: &str) -> String {
    uid.replace('-', "")
}

/// The endpoint id, in tunnels, of the sidecar in the pod of this uid, for agents that dial the gateway of the other
/// uid. A pod whose forwards use agents of two gateways has two ids: each gateway signs for its own.
#[must_use]
pub fn sidecar_id(pod_uid: &str, gateway_uid: &str) -> String {
    let hash = sha256(&format!("sidecar/{pod_uid}/{gateway_uid}"));
    let half = hash.iter().take(16).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    format!("{half:032x}")
}
