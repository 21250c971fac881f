//! Durable listeners, by the schema and the rules alone.

use super::*;

/// A forward with these fields behind the port of its listener.
fn listener(more: &str) -> String {
    forward(&format!("{SIDECAR}{LISTENERS}")).replace("    port: 1\n", &format!("    port: 1\n{more}"))
}

fn durable(part: &str) -> String {
    listener(&format!("    durable: {part}\n"))
}

#[test]
fn a_durable_listener_needs_one_sink_and_nothing_else() {
    for sink in ["relp: {}", "tcp: {}", "udp: {}", "http: {}", "relp: {windowMessages: 1024}"] {
        assert_eq!(verdict(&durable(&format!("{{send: {{{sink}}}}}"))), Ok(1), "{sink}");
    }
    let place = "f:10: PortForward default/a: spec.listeners[0].durable.send: exactly one of relp, tcp, udp and http";
    for sinks in ["", "relp: {}, udp: {}"] {
        refused_once(&durable(&format!("{{send: {{{sinks}}}}}")), place);
    }
    refused_once(&durable("{framing: Newline}"), "spec.listeners[0].durable.send: is required");
    refused_once(&durable("{send: {relp: {windowMessages: 0}}}"), "must be at least 1");
    refused_once(&durable("{send: {relp: {}}, store: {disk: {maxBytes: 16777215}}}"), "must be at least 16777216");
    let store = |store: &str| durable(&format!("{{send: {{relp: {{}}}}, store: {store}}}"));
    let stream = |more: &str| store(&format!("{{jetStream: {{maxBytes: 16777216, {more}}}}}"));
    assert_eq!(verdict(&stream("url: 'nats://a:4222', replicas: 3, credentialsRef: {name: nats}")), Ok(1));
    for stores in ["{}", "{disk: {maxBytes: 16777216}, jetStream: {url: 'tls://a', maxBytes: 16777216}}"] {
        refused_once(&store(stores), "durable.store: exactly one of disk and jetStream must be set");
    }
    refused_once(&stream("url: 'tls://a', replicas: 2"), "replicas of jetStream must be 1, 3 or 5");
    assert_eq!(verdict(&store("{jetStream: {maxBytes: 16777216}}")), Ok(1), "the server is that of the gateway");
    for more in ["replicas: 3", "credentialsRef: {name: nats}"] {
        refused_once(&stream(more), "credentialsRef and replicas of jetStream need url");
    }
    for secret in ["nats://u:p@a:4222", "tls://token@a:4222", "nats://a:4222?p", "nats://u:p/@a"] {
        let must = "be nats://HOST:PORT or tls://HOST:PORT, without a user or a password";
        refused_once(&stream(&format!("url: '{secret}'")), must);
    }
    refused_once(&durable("{send: {relp: {}}, framing: newline}"), "did you mean 'Newline'?");
    refused_once(&durable("{send: {relp: {}}, copies: 2}"), "durable.copies: unknown field");
    refused_once(&durable("{send: {relp: {}}, lanes: 17}"), "must be at most 16");
    refused_once(&durable("{send: {udp: {port: 1}}}"), "durable.send.udp.port: unknown field");
    refused_once(&durable("{send: {http: {path: x}}}"), "begin with '/', and have only ASCII characters");
}

#[test]
fn a_gateway_names_a_server_of_streams_and_with_tls_its_certificates() {
    let gateway = |stream: &str| {
        let head = "apiVersion: portlane.dev/v1alpha1\nkind: ForwardGateway\nmetadata: {name: a}\n";
        format!("{head}spec: {{jetStream: {{{stream}}}}}\n")
    };
    for stream in [
        "url: 'nats://a:4222'",
        "url: 'nats://a', credentialsRef: {name: s}, replicas: 5",
        "url: 'tls://a', caRef: {name: roots}",
    ] {
        assert_eq!(verdict(&gateway(stream)), Ok(1), "{stream}");
    }
    refused_once(&gateway("replicas: 3"), "spec.jetStream.url: is required");
    refused_once(&gateway("url: 'nats://a', replicas: 2"), "replicas of spec.jetStream must be 1, 3 or 5");
    refused_once(&gateway("url: 'tls://a'"), "url with tls needs caRef: the image of proxies has no CA certificates");
    refused_once(&gateway("url: 'nats://u:p@a'"), "without a user or a password");
}

#[test]
fn what_messages_cannot_do_is_refused() {
    let relp = "send: {relp: {}}";
    let udp = |part: &str| durable(part).replace("protocol: TCP", "protocol: UDP");
    let framing = "spec.listeners[0]: durable.framing must be Datagram if, and only if, protocol is UDP";
    refused_once(&durable(&format!("{{{relp}, framing: Datagram}}")), framing);
    refused_once(&udp(&format!("{{{relp}, framing: Syslog}}")), framing);
    assert_eq!(verdict(&udp(&format!("{{{relp}, framing: Datagram, whenFull: DropNewest}}"))), Ok(1));
    assert_eq!(verdict(&durable(&format!("{{{relp}, framing: Relp, whenFull: Block}}"))), Ok(1));
    refused_once(&udp(&format!("{{{relp}, whenFull: Block}}")), "durable.whenFull must not be Block with protocol UDP");
    let letters = |bytes: &str| durable(&format!("{{{relp}, deadLetter: {{maxBytes: {bytes}}}}}"));
    assert_eq!((verdict(&letters("0")), verdict(&letters("16777216"))), (Ok(1), Ok(1)));
    refused_once(&letters("1"), "durable.deadLetter: maxBytes of deadLetter must be 0, or at least 16777216");
    let enrich = |name: &str| durable(&format!("{{{relp}, enrich: {{structuredDataId: '{name}'}}}}"));
    for name in ["portlane@32473", r"a\b[c^d@1.2.3"] {
        assert_eq!(verdict(&enrich(name)), Ok(1), "{name}");
    }
    for name in ["portlane", "a b@1", "a=b@1", "a]b@1", "a\"b@1", "a@b@1", "a@1.", "@12"] {
        refused_once(&enrich(name), "an enterprise number, such as portlane@32473");
    }
}

#[test]
fn sinks_that_take_json_take_no_structured_data_and_others_need_it() {
    let with = |sink: &str, enrich: &str| durable(&format!("{{send: {{{sink}}}, enrich: {{{enrich}}}}}"));
    let id = "structuredDataId: portlane@32473";
    for sink in ["http: {}", "http: {format: Ndjson}", "http: {format: JsonArray}"] {
        assert_eq!(verdict(&with(sink, "")), Ok(1), "{sink}");
        let words = "durable: enrich.structuredDataId is not for send.http with the format Ndjson or JsonArray: write";
        refused_once(&with(sink, id), words);
    }
    for sink in ["relp: {}", "tcp: {}", "udp: {}", "http: {format: Raw}"] {
        assert_eq!(verdict(&with(sink, id)), Ok(1), "{sink}");
        let words = "durable: enrich.structuredDataId is required unless send.http has the format Ndjson or JsonArray";
        refused_once(&with(sink, ""), words);
    }
}

#[test]
fn fields_of_sessions_are_refused_beside_durable() {
    let with = |more: &str| listener(&format!("    durable: {{send: {{relp: {{}}}}}}\n    {more}\n"));
    for (more, message) in [
        ("endPort: 2", "endPort is not for a durable listener: give each port a listener of its own"),
        ("proxyProtocol: {send: V1}", "proxyProtocol is not for durable listeners"),
        ("proxyProtocol: {accept: Optional, trustedCIDRs: [10.0.0.0/8]}", "proxyProtocol is not for durable listeners"),
        ("loadBalancing: {policy: SourceHash}", "loadBalancing.policy must not be SourceHash in a durable listener"),
    ] {
        refused_once(&with(more), message);
    }
    for more in ["proxyProtocol: {send: Disabled}", "loadBalancing: {policy: Random}", "healthCheck: {tcp: {}}"] {
        assert_eq!(verdict(&with(more)), Ok(1), "{more}");
    }
    let tls = with("tls: {hostnames: [a.example]}").replace("protocol: TCP", "protocol: TLS");
    refused_once(&tls, "durable is not for TLS listeners");
}
