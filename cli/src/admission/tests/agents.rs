//! Agents, and the backends that they reach.

use super::*;

#[test]
fn an_agent_has_a_bounded_list_of_targets_and_a_refusal_says_what_to_write() {
    let agent = |targets: &str, more: &str| {
        format!(
            "apiVersion: portlane.dev/v1alpha1\nkind: ForwardAgent\nmetadata: {{name: home}}\n\
             spec:\n  targets: [{targets}]\n{more}"
        )
    };
    let one = "{host: 127.0.0.1, port: 5432, endPort: 5440, protocol: TCP}";
    let all = "  suspend: false\n  enrolment: {redemptions: 1, expireSeconds: 3600, rotation: 0}\n  maxInstances: 4\n";
    assert_eq!(verdict(&agent(one, all)), Ok(1));
    for host in ["'::1'", "10.0.0.0/8", "'fd00::/8'", "db", "db.example.com."] {
        assert_eq!(verdict(&agent(&format!("{{host: {host}, port: 1}}"), "")), Ok(1), "{host}");
    }
    let place = "f:5: ForwardAgent default/home: spec.targets[0]";
    let host = |host: &str| agent(&format!("{{host: '{host}', port: 1}}"), "");
    let message = "must be an IP address, a network or a DNS name; '10.0.0.0/33' is not one of these: a network is";
    refused_once(&host("10.0.0.0/33"), &format!("{place}.host: {message}"));
    refused_once(&host("db:5432"), "'db:5432' is not one of these: the port goes into port: host: db, port: 5432");
    refused_once(&agent("{host: db, port: 2, endPort: 1}", ""), "endPort of a target must not be less than port; here");
    let twice = "f:5: ForwardAgent default/home: spec: two targets are the same: remove one of them; here number 1 and \
                 number 2";
    refused_once(&agent("{host: db, port: 2}, {host: db, port: 2, endPort: 2, protocol: TCP}", ""), twice);
    assert_eq!(verdict(&agent("{host: db, port: 2}, {host: db, port: 2, protocol: UDP}", "")), Ok(1));
    refused(&agent("", ""), "spec.targets: must have at least 1 item");
    refused_once(&agent("{host: db, port: 5432-5440}", ""), "write port: 5432 and endPort: 5440");
    refused_once(&agent(one, "  enrolment: {redemptions: 101}\n"), "must be at most 100");
    refused_once(&agent(one, "  enrolment: {expireSeconds: 1}\n"), "must be at least 300");
    refused_once(&agent(one, "  maxInstances: 65\n"), "must be at most 64");
    refused_once(&agent(one, "").replace("ForwardAgent", "ForwardAgnet"), "did you mean ForwardAgent?");
}

#[test]
fn tunnel_backends_are_for_one_port() {
    let tunnel = forward(&format!("{SIDECAR}{LISTENERS}"))
        .replace("{local: {port: 2}}", "{tunnel: {agent: home, host: 127.0.0.1, port: 2}}");
    let with = |from: &str, to: &str| tunnel.replace(from, to);
    assert_eq!(verdict(&tunnel), Ok(1));
    assert_eq!(verdict(&with("TCP", "UDP")), Ok(1));
    refused_once(
        &with("    port: 1\n", "    port: 1\n    endPort: 2\n"),
        "endPort is not for a listener with a tunnel",
    );
    refused_once(&with("127.0.0.1", "127.0.1"), "must be an IP address or a DNS name; '127.0.1' is neither");
    refused_once(
        &with("{tunnel: {agent: home, host: 127.0.0.1, port: 2}}", "{tunnel: home}"),
        "write tunnel: {agent: ",
    );
    let both = with("{tunnel:", "{local: {port: 2}, tunnel:");
    refused_once(
        &both,
        "exactly one of service, address, local and tunnel must be set; this backend has local and tunnel",
    );
}
