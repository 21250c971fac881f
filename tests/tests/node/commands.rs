//! Commands of `kubectl portlane` beside a real installation that need more than one look: `forward` to the listeners of a
//! forward, `ui`, and `drain` of a forward.

use harness::{Namespace, Page, round_trip, until};
use serde_json::{Value, json};

use crate::{
    broken::plugin,
    fleet::{call, wait_for},
    port_forward::{Forwarder, open},
};

/// A listener of a forward is reached from this machine, through a proxy of the fleet.
pub(crate) fn a_listener_is_forwarded(namespace: &Namespace<'_>) {
    let forwarder = Forwarder::start(namespace.cluster().kubeconfig(), namespace, &["pf/web", ":tcp"]);
    until("a backend greets through a proxy", || open(forwarder.port).is_ok_and(|(_, greeting)| greeting == "web"));
    let (mut session, _) = open(forwarder.port).expect("a session");
    assert_eq!(round_trip(&mut session, b"bytes").expect("echo"), b"bytes");
}

/// The page is served, and its first states have the forward with a listener that proxies have bound.
pub(crate) fn the_page_follows(namespace: &Namespace<'_>) {
    let page = Page::of(namespace, "web");
    let (code, html) = page.get("");
    assert!(code == 200 && html.contains("page.js"), "{html}");

    let name = json!(format!("{}/web", namespace.name()));
    let is_bound = |state: &Value| {
        let forward = &state["forwards"][0];
        forward["name"] == name && forward["listeners"][0]["state"] == "Bound"
    };
    assert!(page.states().any(|state| is_bound(&state)), "the stream of states ended");
}

/// A drained forward has no open port and no session, and serves again when it is resumed.
pub(crate) fn a_forward_is_drained(namespace: &Namespace<'_>) {
    let (text, code) = plugin(namespace, &["drain", "web", "--yes", "--timeout", "60s"]);
    assert!(code == Some(0) && text.contains("the ports are closed, and no session is left"), "{code:?} {text}");
    assert_eq!(call(namespace, "tcp"), "", "the port is closed");
    let resume = ["patch", "portforward", "web", "--type=merge", "-p", "{\"spec\": {\"suspend\": null}}"];
    namespace.kubectl(&resume).ok();
    until("bytes go through the Service again", || call(namespace, "tcp") == "web: hello");
    wait_for(namespace, "portforward/web");
}
