//! The rules of durable listeners.

use super::{Case, LISTENER, SIDECAR, of_flows, of_forward, of_gateway, of_listener};

pub(super) fn cases() -> Vec<Case> {
    stores().into_iter().chain(lanes()).chain(others()).collect()
}

/// The rules of where messages are kept.
fn stores() -> Vec<Case> {
    vec![
        of_listener(
            "exactly one of disk and jetStream must be set",
            "durable: {send: {relp: {}}, store: {}}",
            "durable: {send: {relp: {}}, store: {jetStream: {url: 'nats://a:4222', maxBytes: 16777216}}}",
        ),
        of_listener(
            "replicas of jetStream must be 1, 3 or 5",
            "durable: {send: {relp: {}}, store: {jetStream: {url: 'tls://a', replicas: 2, maxBytes: 16777216}}}",
            "durable: {send: {relp: {}}, store: {jetStream: {url: 'tls://a', replicas: 3, maxBytes: 16777216}}}",
        ),
        of_listener(
            "credentialsRef and replicas of jetStream need url: without it they are those of the gateway",
            "durable: {send: {relp: {}}, store: {jetStream: {replicas: 3, maxBytes: 16777216}}}",
            "durable: {send: {relp: {}}, store: {jetStream: {maxBytes: 16777216}}}",
        ),
        of_gateway(
            "replicas of spec.jetStream must be 1, 3 or 5",
            "{jetStream: {url: 'nats://a', replicas: 2}}",
            "{jetStream: {url: 'nats://a', replicas: 3}}",
        ),
        of_gateway(
            "url with tls needs caRef: the image of proxies has no CA certificates",
            "{jetStream: {url: 'tls://a'}}",
            "{jetStream: {url: 'tls://a', caRef: {name: b}}}",
        ),
        of_listener(
            "maxBytes of deadLetter must be 0, or at least 16777216",
            "durable: {send: {tcp: {}}, deadLetter: {maxBytes: 16777215}}",
            "durable: {send: {tcp: {}}, deadLetter: {maxBytes: 16777216}}",
        ),
    ]
}

/// The rules of the logs among which clients are divided.
fn lanes() -> Vec<Case> {
    vec![
        of_listener(
            "lanes is for store.disk: remove lanes, or keep messages with store.disk",
            "durable: {send: {relp: {}}, lanes: 2, store: {jetStream: {url: 'nats://a', maxBytes: 16777216}}}",
            "durable: {send: {relp: {}}, lanes: 1, store: {jetStream: {url: 'nats://a', maxBytes: 16777216}}}",
        ),
        of_listener(
            "store.disk.maxBytes must be at least 16777216 for each of the lanes",
            "durable: {send: {relp: {}}, lanes: 2, store: {disk: {maxBytes: 33554431}}}",
            "durable: {send: {relp: {}}, lanes: 2, store: {disk: {maxBytes: 33554432}}}",
        ),
        of_listener(
            "deadLetter.maxBytes must be 0, or at least 16777216 for each of the lanes",
            "durable: {send: {relp: {}}, lanes: 2, deadLetter: {maxBytes: 33554431}}",
            "durable: {send: {relp: {}}, lanes: 2, deadLetter: {maxBytes: 33554432}}",
        ),
    ]
}

fn others() -> Vec<Case> {
    let tls = LISTENER.replace("TCP", "TLS, tls: {hostnames: [a.example]}");
    vec![
        of_listener(
            "exactly one of relp, tcp, udp and http must be set",
            "durable: {send: {relp: {}, tcp: {}}}",
            "durable: {send: {relp: {}}}",
        ),
        of_listener(
            "enrich.structuredDataId is required unless send.http has the format Ndjson or JsonArray",
            "durable: {enrich: {}, send: {http: {format: Raw}}}",
            "durable: {enrich: {}, send: {http: {}}}",
        ),
        of_listener(
            "enrich.structuredDataId is not for send.http with the format Ndjson or JsonArray: write enrich: {}",
            "durable: {enrich: {structuredDataId: a@1}, send: {http: {format: JsonArray}}}",
            "durable: {enrich: {structuredDataId: a@1}, send: {http: {format: Raw}}}",
        ),
        of_listener(
            "durable.framing must be Datagram if, and only if, protocol is UDP",
            "durable: {framing: Datagram, send: {udp: {}}}",
            "durable: {framing: Nul, send: {udp: {}}}",
        ),
        of_flows(
            "durable.whenFull must not be Block with protocol UDP: senders of datagrams do not wait",
            "durable: {whenFull: Block, send: {udp: {}}}",
            "durable: {whenFull: DropNewest, framing: Datagram, send: {udp: {}}}",
        ),
        of_forward(
            "durable is not for TLS listeners: TLS is not decrypted, so its messages cannot be read",
            [SIDECAR, &tls.replace("}]}", "}], durable: {send: {http: {}}}}"), ""],
            [SIDECAR, &tls, ""],
        ),
        of_listener(
            "endPort is not for a durable listener: give each port a listener of its own",
            "endPort: 7001, durable: {send: {relp: {}}}",
            "durable: {send: {relp: {}}, framing: Relp}",
        ),
        of_listener(
            "proxyProtocol is not for durable listeners",
            "proxyProtocol: {send: V1}, durable: {send: {relp: {}}}",
            "proxyProtocol: {send: Disabled}, durable: {send: {relp: {}}}",
        ),
        of_listener(
            "loadBalancing.policy must not be SourceHash in a durable listener: one connection sends the messages of all clients",
            "loadBalancing: {policy: SourceHash}, durable: {send: {relp: {}}}",
            "loadBalancing: {policy: LeastConnections}, durable: {send: {relp: {}}}",
        ),
    ]
}
