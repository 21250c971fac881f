//! The last good version of a listener with server names, beside others on its port.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use operator_core::{Changes, Group, Translator};
use proxy_api::Version;

const GOOD: &str = "{address: {host: 10.0.0.1, port: 1}}";
/// A Service that no laptop knows.
const MISSING: &str = "{service: {name: x, port: 1}}";

fn world(first: &str, second: &str) -> operator_core::World {
    let forward = |name: &str, listener: &str| {
        let spec = format!("{{placement: {{sidecar: {{selector: {{}}}}}}, listeners: [{{name: l, {listener}}}]}}");
        format!("---\nkind: PortForward\nmetadata: {{name: {name}, namespace: ns}}\nspec: {spec}\n")
    };
    crate::support::world(&("kind: World\nlaptop: {}\n".to_owned() + &forward("a", first) + &forward("b", second)))
}

fn tls(port: u16, names: &str, backend: &str) -> String {
    format!("protocol: TLS, port: {port}, tls: {{hostnames: [{names}]}}, backends: [{backend}]")
}

/// The listeners that run after an edit of both forwards: name of the forward, port, server names.
fn after(first: &str, second: &str) -> Vec<(String, u16, Vec<String>)> {
    let mut translator = Translator::default();
    let before = world(&tls(443, "a", GOOD), &tls(443, "b", GOOD));
    for (number, world) in (1..).zip([before, world(first, second)]) {
        translator.update(&world, &Changes::all(), &Version { epoch: String::new(), number });
    }
    let configuration = translator.snapshot(&Group::Laptop).expect("laptop").configuration();
    let listeners = configuration.supported();
    listeners.map(|(id, it)| (id.origin.name.clone(), it.socket.port, it.hostnames.clone())).collect()
}

fn runs(forward: &str, port: u16, names: &[&str]) -> (String, u16, Vec<String>) {
    (forward.to_owned(), port, names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn it_goes_on_beside_a_listener_with_other_names() {
    let running = after(&tls(443, "c", MISSING), &tls(443, "b", GOOD));
    assert_eq!(running, [runs("a", 443, &["a"]), runs("b", 443, &["b"])]);
}

#[test]
fn it_gives_way_to_a_listener_that_has_its_name_now() {
    let running = after(&tls(443, "c", MISSING), &tls(443, "a, b", GOOD));
    assert_eq!(running, [runs("b", 443, &["a", "b"])]);
}

#[test]
fn it_gives_way_to_a_listener_that_has_the_whole_port_now() {
    let whole = format!("protocol: TCP, port: 443, backends: [{GOOD}]");
    let running = after(&tls(444, "c", MISSING), &whole);
    assert_eq!(running, [runs("b", 443, &[])]);
}

#[test]
fn it_gives_way_to_a_listener_that_reads_other_headers_now() {
    let headers = "proxyProtocol: {accept: Required, trustedCIDRs: [10.0.0.0/8]}";
    let running = after(&tls(444, "c", MISSING), &format!("{}, {headers}", tls(443, "b", GOOD)));
    assert_eq!(running, [runs("b", 443, &["b"])]);
}
