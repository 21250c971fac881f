//! The node that the tests share.

use std::{io::Write, sync::OnceLock, thread};

use harness::{Cluster, Node, programs};

/// The node, which starts when the first test asks for it.
pub(crate) fn own() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(Node::start)
}

/// The cluster that was given, or that of the node.
pub(crate) fn cluster() -> &'static Cluster {
    static EXISTING: OnceLock<Option<Cluster>> = OnceLock::new();
    EXISTING.get_or_init(Cluster::existing).as_ref().unwrap_or_else(|| own())
}

/// The node, unless the tests have been given a cluster: a test that looks at it from its host is not run then, and says
/// so.
pub(crate) fn node_with_a_host() -> Option<&'static Node> {
    if programs::existing_cluster().is_none() {
        return Some(own());
    }
    let name = thread::current().name().unwrap_or_default().to_owned();
    // Straight to the terminal: what a test prints is shown only if it fails.
    let _ = writeln!(std::io::stderr(), "not run: {name}: it looks at the node from its host, which is not ours");
    None
}
