//! A real API server with the committed CRDs: what it accepts, refuses and shows.
#![cfg(target_os = "linux")]

use harness::{ControlPlane, programs::KubernetesVersion};

#[test]
fn smoke() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    server.install_crds();
    println!("{}", server.kubectl(&["get", "crd,ns"]).ok());
    println!("{}", server.kubectl(&["version"]).ok());
}
