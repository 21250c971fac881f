//! What is written instead of the value that a field takes, and the answer to it.

use super::*;

#[test]
fn a_short_form_is_answered_with_the_long_one() {
    let good =
        forward(&format!("{SIDECAR}{LISTENERS}")).replace("{local: {port: 2}}", "{address: {host: db, port: 2}}");
    let with = |from: &str, to: &str| good.replace(from, to);
    for (text, message) in [
        (
            with("{address: {host: db, port: 2}}", "{service: pg, port: 5432}"),
            "backends[0].service: must be an object, but is the string 'pg'; write service: {name: pg, port: 5432}",
        ),
        (
            with("{address: {host: db, port: 2}}", "{address: 'db:5432'}"),
            "backends[0].address: must be an object, but is the string 'db:5432'; write address: {host: db, port: 5432}",
        ),
        (
            with("[{address: {host: db, port: 2}}]", "{address: {host: db, port: 2}}"),
            "backends: must be a list, but is an object; begin each item of the list with '- '",
        ),
        (
            with("    port: 1\n", "    port: 1\n    loadBalancing: LeastConnections\n"),
            "loadBalancing: must be an object, but is the string 'LeastConnections'; write loadBalancing: {policy: LeastConnections}",
        ),
        (
            with("spec:\n", "spec:\n  timeouts: {idleSeconds: 1h}\n"),
            "idleSeconds: must be an integer, but is the string '1h'; write idleSeconds: 3600",
        ),
        (
            with("    port: 1\n", "    port: 1\n    healthCheck: {tcp: {}, intervalSeconds: 5s}\n"),
            "intervalSeconds: must be an integer, but is the string '5s'; write intervalSeconds: 5",
        ),
        (
            with("spec:\n", "spec:\n  access: {allowCIDRs: [10.0.0.1]}\n"),
            "spec.access.allowCIDRs[0]: must be a network such as 10.0.0.0/8; here it is '10.0.0.1': for one address write 10.0.0.1/32",
        ),
        (
            with("spec:\n", "spec:\n  access: {allowCIDRs: 10.0.0.0/8}\n"),
            "allowCIDRs: must be a list, but is the string '10.0.0.0/8'; write allowCIDRs: ['10.0.0.0/8']",
        ),
    ] {
        refused_once(&text, message);
    }
}

#[test]
fn a_value_of_another_form_is_answered_with_what_to_write() {
    let good =
        forward(&format!("{SIDECAR}{LISTENERS}")).replace("{local: {port: 2}}", "{address: {host: db, port: 2}}");
    let with = |from: &str, to: &str| good.replace(from, to);
    for (text, message) in [
        (
            with("    port: 1\n", "    port: 7000-7010\n"),
            "spec.listeners[0].port: must be an integer, but is the string '7000-7010'; write port: 7000 and endPort: 7010",
        ),
        (
            with("    port: 1\n", "    port: 1\n    bind: 0.0.0.0\n"),
            "bind: must be one of Loopback, All, but is '0.0.0.0'; write All",
        ),
        (
            with("    port: 1\n", "    port: 1\n    bind: localhost\n"),
            "bind: must be one of Loopback, All, but is 'localhost'; write Loopback",
        ),
        (
            with("    port: 1\n", "    port: 1\n    healthCheck: {tcp: {expect: '+PONG', send: \"PING\\r\\n\"}}\n"),
            r"here it is 'PING\r\n': in double quotes, YAML turns \r and \n into the bytes; use single quotes",
        ),
        (
            with("spec:\n", "spec:\n  access: {allowCIDRs: ['']}\n"),
            "spec.access.allowCIDRs[0]: must have at least 1 character, but has 0",
        ),
        (with("name: l\n", "name: ''\n"), "spec.listeners[0].name: must have at least 1 character, but has 0"),
        (with("name: l\n", "name: 'l '\n"), "here it is 'l ': remove the space"),
        (
            with("spec:\n", "spec:\n  sessions: Keep\n"),
            "spec.sessions: must be an object, but is the string 'Keep'; write sessions: {onUnhealthy: Keep} or {onUpdate: Keep}",
        ),
        (
            with("spec:\n", "spec:\n  accessLog: {mode: off}\n"),
            "spec.accessLog.mode: must be one of Disabled, Close, OpenAndClose, but is the boolean false (YAML reads on, off, yes, no, y and n as booleans); write Disabled",
        ),
        (
            with("spec:\n", "spec:\n  accessLog: off\n"),
            "spec.accessLog: must be an object, but is the boolean false (YAML reads on, off, yes, no, y and n as booleans); write accessLog: {mode: Disabled}",
        ),
        (
            with("    port: 1\n", "    port: 1\n    proxyProtocol: {send: yes}\n"),
            "proxyProtocol.send: must be one of Disabled, V1, V2, but is the boolean true (YAML reads on, off, yes, no, y and n as booleans)",
        ),
        (
            with("spec:\n", "spec:\n  access: {allowCIDRs: [1]}\n"),
            "spec.access.allowCIDRs[0]: must be a string, but is the number 1; write '1'",
        ),
    ] {
        refused_once(&text, message);
    }
}
