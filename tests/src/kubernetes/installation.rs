//! The operator as a user installs it.

use super::Cluster;

/// Both charts: the CRDs, and the operator.
pub const CHARTS: [&str; 2] = ["charts/portlane-crds", "charts/portlane"];
/// Namespace of the operator.
pub const OPERATOR: &str = "portlane";

/// Installs both charts with the images of this checkout, and with these options.
#[track_caller]
pub fn install(cluster: &Cluster, more: &[&str]) {
    cluster.kubectl(&["create", "namespace", OPERATOR]).ok();
    // The most restricted profile of Pod Security.
    cluster.kubectl(&["label", "namespace", OPERATOR, "pod-security.kubernetes.io/enforce=restricted"]).ok();
    cluster.helm(&["upgrade", "--install", "portlane-crds", CHARTS[0], "--namespace", OPERATOR, "--wait"]).ok();
    let never = ["--set", "image.pullPolicy=Never", "--set", "proxyImage.pullPolicy=Never"];
    let install = ["install", "portlane", CHARTS[1], "--namespace", OPERATOR, "--wait", "--timeout", "100s"];
    cluster.helm(&[&install[..], &never[..], more].concat()).ok();
}
