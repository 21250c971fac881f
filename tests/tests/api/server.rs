//! The API servers that the tests share.

use std::{io::Write, sync::OnceLock, thread};

use harness::{
    ControlPlane,
    programs::{self, KubernetesVersion},
};

/// Whether the tests start servers, with these programs; if not, the test that asks says that it is not run.
pub(crate) fn ours(programs: &[&str]) -> bool {
    let missing = programs::assets().is_some_and(|folder| programs.iter().any(|name| !folder.join(name).exists()));
    if programs::existing_cluster().is_none() && !missing {
        return true;
    }
    not_run("it starts servers of its own");
    false
}

/// Whether no kubelet and no controller comes between a test and its Pods; if one may, the test that asks says that it is not
/// run.
pub(crate) fn without_kubelets(server: &ControlPlane) -> bool {
    if server.is_existing() {
        not_run("its Pods must not be run, and the given cluster would run them");
    }
    !server.is_existing()
}

fn not_run(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    // Straight to the terminal: what a test prints is shown only if it fails.
    let _ = writeln!(std::io::stderr(), "not run: {name}: {why}");
}

/// Runs a test on the server of a version, which starts when the first test asks for it.
pub(crate) fn with(version: KubernetesVersion, test: fn(&ControlPlane)) {
    static SERVERS: [OnceLock<ControlPlane>; 2] = [OnceLock::new(), OnceLock::new()];
    // There is one server, and its version is what it is: the tests of the newest take it.
    if version == KubernetesVersion::Oldest && (programs::existing_cluster().is_some() || programs::assets().is_some())
    {
        not_run("the given API server is tested as the newest");
        return;
    }
    test(SERVERS[usize::from(version == KubernetesVersion::Newest)].get_or_init(|| {
        let server = ControlPlane::start(version);
        server.install_crds();
        server
    }));
}
