//! Validates durable listeners, and fills in defaults.

use crds::{LoadBalancingPolicy, Protocol};
use proxy_api::{
    Durable, Enrich, Framing, HttpFormat, Oversize, SIDECAR_STREAM, STREAM_SERVER, Sink, SinkFraming, Store, WhenFull,
};

use super::Violations;

/// Default of `maxMessageBytes`.
const MESSAGE_BYTES: u32 = 64 * 1024;
/// Default of `store.disk.maxBytes`.
const STORE_BYTES: u64 = 1024 * 1024 * 1024;
/// The violation of a listener with lanes and a stream.
const DISK_LANES: &str = "is for store.disk: remove lanes, or keep messages with store.disk";
/// Default of `syncMillis`.
const SYNC_MILLIS: u32 = 500;

/// Checks the durable part of a listener and fills in defaults.
pub(super) fn durable(item: &crds::Listener, path: &str, found: &mut Violations) -> Option<Box<Durable>> {
    let spec = item.durable.as_ref()?;
    surroundings(item, path, found);
    let path = format!("{path}.durable");
    receiving(item.protocol, spec, &path, found);
    let Some(send) = sink(spec, &path, found) else {
        found.add(format!("{path}.send"), "exactly one of relp, tcp, udp and http must be set");
        return None;
    };
    let Some(store) = store(spec.store.as_ref()) else {
        found.add(format!("{path}.store"), "exactly one of disk and jetStream must be set");
        return None;
    };
    let enrich = spec.enrich.as_ref().and_then(|spec| enrich(spec, &send, &path, found));
    let lanes = lanes(spec.lanes, &store, &path, found);
    let durable = Durable {
        framing: spec.framing.map_or_else(|| usual(item.protocol), framing),
        max_message_bytes: spec.max_message_bytes.unwrap_or(MESSAGE_BYTES),
        oversize: match spec.oversize.unwrap_or_default() {
            crds::Oversize::Truncate => Oversize::Truncate,
            crds::Oversize::Drop => Oversize::Drop,
        },
        store,
        max_age_seconds: spec.max_age_seconds,
        when_full: match spec.when_full.unwrap_or_default() {
            crds::WhenFull::DropOldest => WhenFull::DropOldest,
            crds::WhenFull::DropNewest => WhenFull::DropNewest,
            crds::WhenFull::Block => WhenFull::Block,
        },
        sync_millis: spec.sync_millis.unwrap_or(SYNC_MILLIS),
        lanes,
        send,
        dead_letter_bytes: spec.dead_letter.as_ref().map(|log| log.max_bytes).filter(|bytes| *bytes > 0),
        enrich,
    };
    if let Some(beyond) = durable.beyond() {
        found.add(path, &beyond);
    }
    Some(Box::new(durable))
}

/// Returns the number of logs among which sources are divided. A stream is one log.
fn lanes(asked: Option<u32>, store: &Store, path: &str, found: &mut Violations) -> u32 {
    let lanes = asked.unwrap_or(1);
    if lanes > 1 && matches!(store, Store::JetStream { .. }) {
        found.add(format!("{path}.lanes"), DISK_LANES);
        return 1;
    }
    lanes
}

/// Checks where the server of a stream is named: on a laptop in the listener, in a cluster in its gateway.
pub(super) fn server(item: &crds::Listener, path: &str, (on_laptop, in_gateway): (bool, bool), found: &mut Violations) {
    let store = item.durable.as_ref().and_then(|spec| spec.store.as_ref());
    let Some(stream) = store.and_then(|store| store.jet_stream.as_ref()) else { return };
    let path = format!("{path}.durable.store.jetStream");
    match (on_laptop, stream.url.is_some()) {
        (true, false) => found.add(
            format!("{path}.url"),
            "is required with portlane run: in clusters only, the gateway of a forward names the server",
        ),
        (false, _) if !in_gateway => found.add(path, SIDECAR_STREAM),
        (false, true) => found.add(format!("{path}.url"), STREAM_SERVER),
        _ => {}
    }
}

/// Checks the fields beside `durable`.
fn surroundings(item: &crds::Listener, path: &str, found: &mut Violations) {
    if item.protocol == Protocol::Tls {
        found.add(
            format!("{path}.durable"),
            "is not for TLS listeners: TLS is not decrypted, so its messages cannot be read",
        );
    }
    if item.end_port.is_some() {
        found.add(format!("{path}.endPort"), "is not for a durable listener: give each port a listener of its own");
    }
    let headers = item.proxy_protocol.as_ref();
    let reads = headers.is_some_and(|it| it.accept.unwrap_or_default() != crds::AcceptHeader::Disabled);
    if reads || headers.is_some_and(|it| it.send.unwrap_or_default() != crds::SendHeader::Disabled) {
        found.add(format!("{path}.proxyProtocol"), "is not for durable listeners");
    }
    let policy = item.load_balancing.as_ref().and_then(|balancing| balancing.policy);
    if policy == Some(LoadBalancingPolicy::SourceHash) {
        found.add(
            format!("{path}.loadBalancing.policy"),
            "must not be SourceHash in a durable listener: one connection sends the messages of all clients",
        );
    }
}

/// Checks how messages are received.
fn receiving(protocol: Protocol, spec: &crds::Durable, path: &str, found: &mut Violations) {
    let is_udp = protocol == Protocol::Udp;
    if spec.framing.is_some_and(|framing| (framing == crds::Framing::Datagram) != is_udp) {
        found.add(format!("{path}.framing"), "must be Datagram if, and only if, protocol is UDP");
    }
    if is_udp && spec.when_full == Some(crds::WhenFull::Block) {
        found.add(format!("{path}.whenFull"), "must not be Block with protocol UDP: senders of datagrams do not wait");
    }
}

/// The default framing of a protocol.
fn usual(protocol: Protocol) -> Framing {
    match protocol {
        Protocol::Udp => Framing::Datagram,
        Protocol::Tcp | Protocol::Tls => Framing::Newline,
    }
}

fn framing(framing: crds::Framing) -> Framing {
    match framing {
        crds::Framing::Datagram => Framing::Datagram,
        crds::Framing::Newline => Framing::Newline,
        crds::Framing::Nul => Framing::Nul,
        crds::Framing::OctetCounting => Framing::OctetCounting,
        crds::Framing::Syslog => Framing::Syslog,
        crds::Framing::Length2 => Framing::Length2,
        crds::Framing::Length4 => Framing::Length4,
        crds::Framing::Relp => Framing::Relp,
    }
}

/// Returns the store, if there is exactly one.
fn store(spec: Option<&crds::DurableStore>) -> Option<Store> {
    let Some(spec) = spec else { return Some(Store::Disk { max_bytes: STORE_BYTES }) };
    match (&spec.disk, &spec.jet_stream) {
        (Some(disk), None) => Some(Store::Disk { max_bytes: disk.max_bytes }),
        (None, Some(stream)) => Some(Store::JetStream {
            url: stream.url.clone().unwrap_or_default(),
            credentials_name: stream.credentials_ref.as_ref().map(|secret| secret.name.clone()),
            replicas: stream.replicas.unwrap_or(1),
            max_bytes: stream.max_bytes,
        }),
        _ => None,
    }
}

/// Returns the sink, if there is exactly one.
fn sink(spec: &crds::Durable, path: &str, found: &mut Violations) -> Option<Sink> {
    let send = &spec.send;
    Some(match (&send.relp, &send.tcp, &send.udp, &send.http) {
        (Some(relp), None, None, None) => Sink::Relp { window_messages: relp.window_messages.unwrap_or(128) },
        (None, Some(tcp), None, None) => Sink::Tcp {
            framing: match tcp.framing.unwrap_or_default() {
                crds::SinkFraming::Newline => SinkFraming::Newline,
                crds::SinkFraming::Nul => SinkFraming::Nul,
                crds::SinkFraming::OctetCounting => SinkFraming::OctetCounting,
                crds::SinkFraming::Length2 => SinkFraming::Length2,
                crds::SinkFraming::Length4 => SinkFraming::Length4,
            },
            rewind_bytes: tcp.rewind_bytes.unwrap_or(0),
        },
        (None, None, Some(_), None) => Sink::Udp {},
        (None, None, None, Some(http)) => http_sink(http, spec.usual_format(), path, found),
        _ => return None,
    })
}

fn http_sink(http: &crds::HttpSink, usual: crds::HttpFormat, path: &str, found: &mut Violations) -> Sink {
    let asked = http.path.clone().unwrap_or_else(|| "/".to_owned());
    if !asked.starts_with('/') || !asked.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.add(
            format!("{path}.send.http.path"),
            "must begin with '/' and contain only printable ASCII characters other than spaces",
        );
    }
    Sink::Http {
        path: asked,
        format: match http.format.unwrap_or(usual) {
            crds::HttpFormat::Ndjson => HttpFormat::Ndjson,
            crds::HttpFormat::JsonArray => HttpFormat::JsonArray,
            crds::HttpFormat::Raw => HttpFormat::Raw,
        },
        batch_bytes: http.batch_bytes.unwrap_or(1024 * 1024),
        batch_messages: http.batch_messages.unwrap_or(1000),
        linger_millis: http.linger_millis.unwrap_or(1000),
    }
}

/// Returns the fields to add to messages, in the form that the sink takes.
fn enrich(spec: &crds::Enrich, send: &Sink, path: &str, found: &mut Violations) -> Option<Enrich> {
    let takes_json = matches!(send, Sink::Http { format: HttpFormat::Ndjson | HttpFormat::JsonArray, .. });
    let wrong = match (spec.structured_data_id.clone(), takes_json) {
        (None, true) => return Some(Enrich::Json {}),
        (Some(structured_data_id), false) => return Some(Enrich::Syslog { structured_data_id }),
        (None, false) => "is required unless send.http has the format Ndjson or JsonArray",
        (Some(_), true) => "is not for send.http with the format Ndjson or JsonArray: write enrich: {}",
    };
    found.add(format!("{path}.enrich.structuredDataId"), wrong);
    None
}

#[cfg(test)]
mod tests {
    use proxy_api::{Origin, Transport};
    use serde_json::{Value, json};

    use super::*;
    use crate::translate::validate::listener;

    /// A listener of this protocol with `durable` and more fields.
    fn item(protocol: &str, durable_part: &Value, more: &Value) -> crds::Listener {
        let mut item = json!({
            "name": "l", "protocol": protocol, "port": 514, "backends": [{"local": {"port": 1}}], "durable": durable_part,
        });
        for (field, value) in more.as_object().expect("fields") {
            item[field] = value.clone();
        }
        serde_json::from_value(item).expect("a listener")
    }

    /// The durable part of the contract, and the fields that are refused.
    fn judged(protocol: &str, durable_part: &Value, more: &Value) -> (Option<Value>, Vec<String>) {
        let item = item(protocol, durable_part, more);
        let mut found = Violations::default();
        let durable = durable(&item, "l", &mut found);
        let durable = durable.map(|durable| serde_json::to_value(durable).expect("JSON"));
        (durable, found.0.into_iter().map(|violation| violation.field).collect())
    }

    fn fields(protocol: &str, durable_part: &Value, more: &Value) -> Vec<String> {
        judged(protocol, durable_part, more).1
    }

    #[test]
    fn absent_fields_have_the_defaults_that_their_descriptions_name() {
        let relp = json!({"send": {"relp": {}}});
        let mut expected = json!({
            "framing": "Newline", "maxMessageBytes": 65_536, "oversize": "Truncate",
            "store": {"disk": {"maxBytes": 1_073_741_824}}, "whenFull": "DropOldest", "syncMillis": 500,
            "send": {"relp": {"windowMessages": 128}},
        });
        assert_eq!(judged("TCP", &relp, &json!({})), (Some(expected.clone()), Vec::new()));
        expected["framing"] = json!("Datagram");
        assert_eq!(judged("UDP", &relp, &json!({})), (Some(expected), Vec::new()));
        let send = |send: Value| judged("TCP", &json!({"send": send}), &json!({})).0.expect("valid")["send"].clone();
        assert_eq!(send(json!({"tcp": {}})), json!({"tcp": {"framing": "Newline", "rewindBytes": 0}}));
        assert_eq!(send(json!({"udp": {}})), json!({"udp": {}}));
        let http = json!({"path": "/", "format": "Ndjson", "batchBytes": 1_048_576, "batchMessages": 1000, "lingerMillis": 1000});
        assert_eq!(send(json!({"http": {}})), json!({"http": http}));
        for (more, format) in [(json!({}), "Raw"), (json!({"format": "Ndjson"}), "Ndjson")] {
            let (durable, _) = judged("TCP", &json!({"framing": "Syslog", "send": {"http": more}}), &json!({}));
            assert_eq!(durable.expect("valid")["send"]["http"]["format"], format);
        }
    }

    #[test]
    fn every_field_reaches_the_contract() {
        let spec = json!({
            "framing": "Length2", "maxMessageBytes": 64, "oversize": "Drop", "store": {"disk": {"maxBytes": 33_554_432}},
            "maxAgeSeconds": 60, "whenFull": "Block", "syncMillis": 0, "deadLetter": {"maxBytes": 33_554_433}, "lanes": 2,
            "enrich": {"structuredDataId": "a@1"},
            "send": {"http": {"path": "/x?y", "format": "Raw", "batchBytes": 1024, "batchMessages": 1, "lingerMillis": 0}},
        });
        let mut expected = spec.clone();
        expected["deadLetterBytes"] = json!(33_554_433);
        expected["enrich"] = json!({"syslog": {"structuredDataId": "a@1"}});
        expected.as_object_mut().expect("an object").remove("deadLetter");
        assert_eq!(judged("TCP", &spec, &json!({})), (Some(expected), Vec::new()));
        let none = json!({"send": {"udp": {}}, "deadLetter": {"maxBytes": 0}});
        assert!(judged("TCP", &none, &json!({})).0.expect("valid").get("deadLetterBytes").is_none());
        for framing in ["Newline", "Nul", "OctetCounting", "Syslog", "Length2", "Length4", "Relp"] {
            let spec = json!({"framing": framing, "send": {"tcp": {"framing": "Nul", "rewindBytes": 5}}});
            let (durable, refused) = judged("TCP", &spec, &json!({}));
            assert_eq!((durable.expect("valid")["framing"].as_str(), refused.len()), (Some(framing), 0));
        }
    }

    #[test]
    fn a_stream_reaches_the_contract_with_the_name_of_its_secret() {
        let store = |store: Value| {
            let spec = json!({"send": {"relp": {}}, "store": store});
            let (durable, refused) = judged("TCP", &spec, &json!({}));
            (durable.map(|durable| durable["store"].clone()), refused)
        };
        let least = json!({"url": "nats://n:4222", "maxBytes": 16_777_216});
        let mut expected = json!({"jetStream": {"url": "nats://n:4222", "replicas": 1, "maxBytes": 16_777_216}});
        assert_eq!(store(json!({"jetStream": least.clone()})), (Some(expected.clone()), Vec::new()));
        let mut most = least.clone();
        (most["replicas"], most["credentialsRef"]) = (json!(3), json!({"name": "s"}));
        (expected["jetStream"]["replicas"], expected["jetStream"]["credentialsName"]) = (json!(3), json!("s"));
        assert_eq!(store(json!({"jetStream": most})), (Some(expected), Vec::new()));
        let of_gateway = json!({"jetStream": {"url": "", "replicas": 1, "maxBytes": 16_777_216}});
        assert_eq!(store(json!({"jetStream": {"maxBytes": 16_777_216}})), (Some(of_gateway), Vec::new()));
        let both = json!({"jetStream": least, "disk": {"maxBytes": 16_777_216}});
        for wrong in [both, json!({})] {
            assert_eq!(store(wrong), (None, vec!["l.durable.store".to_owned()]));
        }
    }

    #[test]
    fn a_stream_has_its_server_from_the_listener_on_a_laptop_and_from_the_gateway_in_a_cluster() {
        let judged = |stream: Value, on_laptop: bool, in_gateway: bool| {
            let item = item("TCP", &json!({"send": {"relp": {}}, "store": {"jetStream": stream}}), &json!({}));
            let mut found = Violations::default();
            server(&item, "l", (on_laptop, in_gateway), &mut found);
            found.0.into_iter().map(|violation| violation.to_string()).collect::<Vec<_>>()
        };
        let (named, plain) = (json!({"url": "nats://n", "maxBytes": 16_777_216}), json!({"maxBytes": 16_777_216}));
        let none = Vec::<String>::new();
        assert_eq!((judged(named.clone(), true, false), judged(plain.clone(), false, true)), (none.clone(), none));
        assert_eq!(judged(named.clone(), false, true), [format!("l.durable.store.jetStream.url: {STREAM_SERVER}")]);
        for stream in [named, plain.clone()] {
            assert_eq!(judged(stream, false, false), [format!("l.durable.store.jetStream: {SIDECAR_STREAM}")]);
        }
        let missing = judged(plain, true, true);
        assert!(missing[0].starts_with("l.durable.store.jetStream.url: is required with portlane run"), "{missing:?}");
    }

    #[test]
    fn sinks_that_take_json_get_objects_and_others_structured_data() {
        let enrich = |send: Value, enrich: Value| {
            let (durable, refused) = judged("TCP", &json!({"send": send, "enrich": enrich}), &json!({}));
            (durable.and_then(|durable| durable.get("enrich").cloned()), refused)
        };
        let (none, id) = (json!({}), json!({"structuredDataId": "a@1"}));
        for send in
            [json!({"http": {}}), json!({"http": {"format": "Ndjson"}}), json!({"http": {"format": "JsonArray"}})]
        {
            assert_eq!(enrich(send.clone(), none.clone()), (Some(json!({"json": {}})), Vec::new()), "{send}");
            let refused = vec!["l.durable.enrich.structuredDataId".to_owned()];
            assert_eq!(enrich(send.clone(), id.clone()), (None, refused), "{send}");
        }
        for send in [json!({"relp": {}}), json!({"tcp": {}}), json!({"udp": {}}), json!({"http": {"format": "Raw"}})] {
            assert_eq!(enrich(send.clone(), id.clone()), (Some(json!({"syslog": id})), Vec::new()), "{send}");
            let refused = vec!["l.durable.enrich.structuredDataId".to_owned()];
            assert_eq!(enrich(send.clone(), none.clone()), (None, refused), "{send}");
        }
    }

    #[test]
    fn backends_are_reached_by_the_transport_of_the_sink() {
        for (protocol, durable_part, out) in [
            ("UDP", json!({"send": {"relp": {}}}), Transport::Tcp),
            ("TCP", json!({"send": {"udp": {}}}), Transport::Udp),
            ("TCP", Value::Null, Transport::Tcp),
            ("UDP", Value::Null, Transport::Udp),
        ] {
            let item = item(protocol, &durable_part, &json!({}));
            let valid = listener::listener(&item, "l", &[], &Origin::default(), false, &mut Violations::default());
            assert_eq!((valid.transport_out(), item.sends_datagrams()), (out, out == Transport::Udp), "{durable_part}");
        }
    }

    #[test]
    fn what_a_durable_listener_cannot_be_is_refused_at_its_field() {
        let good = json!({"send": {"relp": {}}});
        let (least_disk, least_stream) =
            (json!({"disk": {"maxBytes": 16_777_216}}), json!({"jetStream": {"maxBytes": 16_777_216}}));
        for (protocol, durable, more, field) in [
            ("TCP", json!({"send": {}}), json!({}), "l.durable.send"),
            ("TCP", json!({"send": {"relp": {}, "udp": {}}}), json!({}), "l.durable.send"),
            ("TCP", json!({"framing": "Datagram", "send": {"relp": {}}}), json!({}), "l.durable.framing"),
            ("UDP", json!({"framing": "Newline", "send": {"relp": {}}}), json!({}), "l.durable.framing"),
            ("UDP", json!({"whenFull": "Block", "send": {"relp": {}}}), json!({}), "l.durable.whenFull"),
            ("TLS", good.clone(), json!({}), "l.durable"),
            ("TCP", good.clone(), json!({"endPort": 515}), "l.endPort"),
            ("TCP", good.clone(), json!({"proxyProtocol": {"send": "V2"}}), "l.proxyProtocol"),
            ("TCP", good.clone(), json!({"proxyProtocol": {"accept": "Optional"}}), "l.proxyProtocol"),
            ("TCP", good.clone(), json!({"loadBalancing": {"policy": "SourceHash"}}), "l.loadBalancing.policy"),
            ("TCP", json!({"send": {"http": {"path": "x"}}}), json!({}), "l.durable.send.http.path"),
            ("TCP", json!({"send": {"udp": {}}, "deadLetter": {"maxBytes": 1}}), json!({}), "l.durable"),
            ("TCP", json!({"send": {"udp": {}}, "maxMessageBytes": 63}), json!({}), "l.durable"),
            ("TCP", json!({"send": {"udp": {}}, "lanes": 17}), json!({}), "l.durable"),
            ("TCP", json!({"send": {"udp": {}}, "lanes": 2, "store": least_disk}), json!({}), "l.durable"),
            ("TCP", json!({"send": {"udp": {}}, "lanes": 2, "store": least_stream}), json!({}), "l.durable.lanes"),
        ] {
            assert_eq!(fields(protocol, &durable, &more), [field], "{protocol} {durable} {more}");
        }
        for more in [
            json!({"proxyProtocol": {"accept": "Disabled", "send": "Disabled"}}),
            json!({"loadBalancing": {"policy": "LeastConnections"}}),
        ] {
            assert!(fields("TCP", &good, &more).is_empty(), "{more}");
        }
    }
}
