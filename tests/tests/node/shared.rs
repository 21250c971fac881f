//! The node that the tests share.

use std::{io::Write, sync::OnceLock, thread};

use harness::{Cluster, Node, Outpost, programs};

/// The node, which starts when the first test asks for it.
pub(crate) fn own() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(Node::start)
}

/// The machine beside the node that nothing can connect to, which starts when the first test asks for it.
pub(crate) fn outpost() -> &'static Outpost {
    static OUTPOST: OnceLock<Outpost> = OnceLock::new();
    OUTPOST.get_or_init(|| Outpost::beside(own()))
}

/// The cluster of `PORTLANE_TEST_KUBECONFIG`, or the cluster of the node.
pub(crate) fn cluster() -> &'static Cluster {
    static EXISTING: OnceLock<Option<Cluster>> = OnceLock::new();
    EXISTING.get_or_init(Cluster::existing).as_ref().unwrap_or_else(|| own())
}

/// The node, for a test that looks at it from its host. `None`, with a printed line, if the tests were given a cluster.
pub(crate) fn node_with_a_host() -> Option<&'static Node> {
    are_nodes_ours().then(own)
}

/// Whether the tests start nodes. If the tests were given a cluster, prints that this test does not run.
pub(crate) fn are_nodes_ours() -> bool {
    let are_ours = programs::existing_cluster().is_none();
    if !are_ours {
        not_run("the test looks at the node from its host, which is not ours");
    }
    are_ours
}

/// Prints that this test does not run, and why.
pub(crate) fn not_run(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    print(&format!("not run: {name}: {why}"));
}

/// Prints a line straight to the terminal: what a test prints otherwise is shown only if it fails.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
