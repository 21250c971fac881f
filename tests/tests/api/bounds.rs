//! Every bound of the CRDs: the server accepts a value on the bound and refuses a value beyond the bound, at its field.

use harness::{ControlPlane, Namespace};

on_both!(numbers_have_the_bounds_that_their_descriptions_name, lists_and_strings_have_theirs);

/// Field of a forward, part of the spec with `@` for the value, least and most.
const NUMBERS: [(&str, &str, i64, i64); 23] = [
    ("spec.accessLog.intervalSeconds", "accessLog: {intervalSeconds: @}", 1, 86_400),
    ("spec.retry.attempts", "retry: {attempts: @}", 1, 10),
    ("spec.retry.initialBackoffMillis", "retry: {initialBackoffMillis: @}", 1, 60_000),
    ("spec.retry.maxBackoffMillis", "retry: {maxBackoffMillis: @}", 1, 60_000),
    ("spec.sessions.drainSeconds", "sessions: {drainSeconds: @}", 1, 86_400),
    ("spec.timeouts.connectSeconds", "timeouts: {connectSeconds: @}", 1, 300),
    ("spec.timeouts.halfCloseSeconds", "timeouts: {halfCloseSeconds: @}", 1, 604_800),
    ("spec.timeouts.idleSeconds", "timeouts: {idleSeconds: @}", 1, 604_800),
    ("spec.timeouts.keepaliveSeconds", "timeouts: {keepaliveSeconds: @}", 1, 7_200),
    ("spec.timeouts.udpIdleSeconds", "timeouts: {udpIdleSeconds: @}", 1, 86_400),
    (
        "spec.listeners[0].port",
        "listeners: [{name: l, protocol: TCP, port: @, backends: [{local: {port: 1}}]}]",
        1,
        65_535,
    ),
    (
        "spec.listeners[0].backends[0].weight",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}, weight: @}]}]",
        0,
        1_000_000,
    ),
    (
        "spec.listeners[0].outlier.consecutiveFailures",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], outlier: {consecutiveFailures: @}}]",
        1,
        1_000,
    ),
    (
        "spec.listeners[0].outlier.ejectSeconds",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], outlier: {ejectSeconds: @}}]",
        1,
        3_600,
    ),
    (
        "spec.listeners[0].durable.maxMessageBytes",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {relp: {}}, maxMessageBytes: @}}]",
        64,
        1_048_576,
    ),
    (
        "spec.listeners[0].durable.maxAgeSeconds",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {relp: {}}, maxAgeSeconds: @}}]",
        60,
        2_592_000,
    ),
    (
        "spec.listeners[0].durable.syncMillis",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {relp: {}}, syncMillis: @}}]",
        0,
        10_000,
    ),
    (
        "spec.listeners[0].durable.lanes",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {relp: {}}, lanes: @}}]",
        1,
        16,
    ),
    (
        "spec.listeners[0].durable.send.relp.windowMessages",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {relp: {windowMessages: @}}}}]",
        1,
        1_024,
    ),
    (
        "spec.listeners[0].durable.send.tcp.rewindBytes",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {tcp: {rewindBytes: @}}}}]",
        0,
        16_777_216,
    ),
    (
        "spec.listeners[0].durable.send.http.batchBytes",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {http: {batchBytes: @}}}}]",
        1_024,
        16_777_216,
    ),
    (
        "spec.listeners[0].durable.send.http.batchMessages",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {http: {batchMessages: @}}}}]",
        1,
        10_000,
    ),
    (
        "spec.listeners[0].durable.send.http.lingerMillis",
        "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}], durable: {send: {http: {lingerMillis: @}}}}]",
        0,
        60_000,
    ),
];

fn forward(part: &str) -> String {
    let listeners = "listeners: [{name: l, protocol: TCP, port: 2, backends: [{local: {port: 1}}]}]";
    let listeners = if part.starts_with("listeners") { String::new() } else { format!("{listeners}, ") };
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: f}}, \
         spec: {{placement: {{sidecar: {{selector: {{}}}}}}, {listeners}{part}}}}}"
    )
}

/// Whether the server accepts a manifest; if not, the server's message.
fn create(namespace: &Namespace<'_>, manifest: &str) -> Result<(), String> {
    namespace.dry_run(&serde_yaml::from_str(manifest).expect("YAML"))
}

fn numbers_have_the_bounds_that_their_descriptions_name(server: &ControlPlane) {
    let namespace = server.namespace("bounds");
    for (field, part, least, most) in NUMBERS {
        let with = |value: i64| forward(&part.replace('@', &value.to_string()));
        for right in [least, most] {
            create(&namespace, &with(right)).unwrap_or_else(|refusal| panic!("{refusal}"));
        }
        for (beyond, words) in [(least - 1, "greater than or equal to"), (most + 1, "less than or equal to")] {
            let refusal = create(&namespace, &with(beyond)).expect_err("beyond the bound");
            assert!(
                refusal.contains(&format!("{field}: Invalid value: {beyond}")) && refusal.contains(words),
                "{refusal}"
            );
        }
    }
}

fn lists_and_strings_have_theirs(server: &ControlPlane) {
    let namespace = server.namespace("bounds");
    let listeners = |count: usize| {
        let one =
            |n: usize| format!("{{name: l{n}, protocol: TCP, port: {}, backends: [{{local: {{port: 1}}}}]}}", 100 + n);
        forward(&format!("listeners: [{}]", (0..count).map(one).collect::<Vec<_>>().join(", ")))
    };
    let backends = |count: usize| {
        let all = vec!["{local: {port: 1}}"; count].join(", ");
        forward(&format!("listeners: [{{name: l, protocol: TCP, port: 2, backends: [{all}]}}]"))
    };
    let name = |length: usize| {
        let name = "a".repeat(length);
        forward(&format!("listeners: [{{name: {name:?}, protocol: TCP, port: 2, backends: [{{local: {{port: 1}}}}]}}]"))
    };
    for right in [listeners(1), listeners(32), backends(1), backends(16), name(1), name(63)] {
        create(&namespace, &right).unwrap_or_else(|refusal| panic!("{refusal}"));
    }
    for (wrong, field, words) in [
        (listeners(0), "spec.listeners", "at least 1 items"),
        (listeners(33), "spec.listeners", "at most 32 items"),
        (backends(0), "spec.listeners[0].backends", "at least 1 items"),
        (backends(17), "spec.listeners[0].backends", "at most 16 items"),
        (name(0), "spec.listeners[0].name", "at least 1 chars"),
        (name(64), "spec.listeners[0].name", "may not be more than 63"),
    ] {
        let refusal = create(&namespace, &wrong).expect_err("beyond the bound");
        assert!(refusal.contains(&format!("{field}: ")) && refusal.contains(words), "{field}, {words}: {refusal}");
    }
}
