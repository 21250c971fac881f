//! The API servers that the tests share.

use std::{
    io::Write,
    sync::{OnceLock, RwLock},
    thread,
};

use harness::{
    ControlPlane,
    programs::{self, KubernetesVersion},
};

/// Whether the tests start servers, with these programs. If not, prints that the test is not run.
pub(crate) fn ours(programs: &[&str]) -> bool {
    let missing = programs::assets().is_some_and(|folder| programs.iter().any(|name| !folder.join(name).exists()));
    if programs::existing_cluster().is_none() && !missing {
        return true;
    }
    not_run("the test starts servers of its own");
    false
}

/// Whether the server has no kubelet and no controllers, so that a test plays its Pods itself. If not, prints that the
/// test is not run.
pub(crate) fn without_kubelets(server: &ControlPlane) -> bool {
    if server.is_existing() {
        not_run("the test plays its Pods itself, and the given cluster would run them");
    }
    !server.is_existing()
}

/// Prints that the test is not run, and why.
pub(crate) fn not_run(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    // Straight to the terminal: what a test prints is shown only if it fails.
    let _ = writeln!(std::io::stderr(), "not run: {name}: {why}");
}

/// The server of a version, which starts when the first test asks for it. `None`, with a printed line, if the tests
/// were given another server.
pub(crate) fn shared(version: KubernetesVersion) -> Option<&'static ControlPlane> {
    static SERVERS: [OnceLock<ControlPlane>; 2] = [OnceLock::new(), OnceLock::new()];
    // A given server has one version. The tests of the newest take it, whatever that version is.
    if version == KubernetesVersion::Oldest && (programs::existing_cluster().is_some() || programs::assets().is_some())
    {
        not_run("the given API server is tested as the newest");
        return None;
    }
    Some(SERVERS[usize::from(version == KubernetesVersion::Newest)].get_or_init(|| {
        let server = ControlPlane::start(version);
        server.install_crds();
        server
    }))
}

/// The shared server of a version for a test that plays its Pods itself: [`shared`] and [`without_kubelets`] in one.
pub(crate) fn simulated(version: KubernetesVersion) -> Option<&'static ControlPlane> {
    shared(version).filter(|server| without_kubelets(server))
}

/// The server with a controller manager, which starts when the first test asks for it. Tests read it together; one that
/// would disturb the others writes, and has it alone. `None`, with a printed line, if the tests were given another server.
pub(crate) fn with_controllers() -> Option<&'static RwLock<ControlPlane>> {
    static SERVER: OnceLock<RwLock<ControlPlane>> = OnceLock::new();
    if !ours(&["kube-controller-manager"]) {
        return None;
    }
    Some(SERVER.get_or_init(|| {
        let server = ControlPlane::start_with_controller_manager(KubernetesVersion::Oldest);
        server.install_crds();
        RwLock::new(server)
    }))
}

/// Runs a test on the shared server of a version.
pub(crate) fn with(version: KubernetesVersion, test: fn(&ControlPlane)) {
    if let Some(server) = shared(version) {
        test(server);
    }
}
