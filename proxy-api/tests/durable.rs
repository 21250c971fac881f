//! Durable listeners: their form and their bounds.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    Configuration, Durable, Enrich, Framing, HttpFormat, Listener, ListenerId, Offer, Origin, Oversize, Sink,
    SinkFraming, SocketKey, Store, Transport, WhenFull, stream_name,
};
use serde_json::{Value, json};

const V1: &str = include_str!("documents/v1.yaml");

fn listener() -> Listener {
    let configuration = Configuration::decode(V1.as_bytes()).expect("a document of version 1");
    configuration.supported().next().expect("a listener").1.clone()
}

fn durable(send: Sink) -> Durable {
    Durable {
        framing: Framing::Newline,
        max_message_bytes: 65_536,
        oversize: Oversize::Truncate,
        store: Store::Disk { max_bytes: 1 << 30 },
        max_age_seconds: None,
        when_full: WhenFull::DropOldest,
        sync_millis: 500,
        lanes: 1,
        send,
        dead_letter_bytes: None,
        enrich: None,
    }
}

fn relp() -> Sink {
    Sink::Relp { window_messages: 128 }
}

/// What a proxy makes of the listener with this durable part.
fn received(durable: &Value) -> Offer {
    let mut raw = serde_json::to_value(listener()).expect("encodes");
    raw["durable"] = durable.clone();
    serde_json::from_value(raw).expect("whole")
}

#[test]
fn durable_listeners_change_no_document_without_them() {
    let plain = listener();
    assert!(!serde_json::to_string(&plain).expect("encodes").contains("durable"));
    let with = |durable: Durable| Listener { durable: Some(Box::new(durable)), ..plain.clone() }.sealed().revision;
    assert_ne!(with(durable(relp())), plain.clone().sealed().revision);
    assert_ne!(with(durable(relp())), with(Durable { sync_millis: 0, ..durable(relp()) }));
}

#[test]
fn what_is_absent_is_not_written_and_every_sink_is_read_as_it_was_written() {
    let least = json!({
        "framing": "Newline", "maxMessageBytes": 65_536, "oversize": "Truncate",
        "store": {"disk": {"maxBytes": 1_073_741_824}}, "whenFull": "DropOldest", "syncMillis": 500,
        "send": {"relp": {"windowMessages": 128}},
    });
    assert_eq!(serde_json::to_value(durable(relp())).expect("encodes"), least);
    let most = Durable {
        max_age_seconds: Some(60),
        dead_letter_bytes: Some(1 << 25),
        lanes: 2,
        enrich: Some(Enrich::Syslog { structured_data_id: "portlane@32473".to_owned() }),
        ..durable(relp())
    };
    let json = serde_json::to_value(&most).expect("encodes");
    assert_eq!((&json["maxAgeSeconds"], &json["deadLetterBytes"]), (&json!(60), &json!(33_554_432)));
    assert_eq!(json["lanes"], json!(2));
    assert_eq!(json["enrich"], json!({"syslog": {"structuredDataId": "portlane@32473"}}));
    assert_eq!(serde_json::from_value::<Durable>(json).expect("decodes"), most);
    let objects = Durable { enrich: Some(Enrich::Json {}), ..durable(relp()) };
    let json = serde_json::to_value(&objects).expect("encodes");
    assert_eq!(json["enrich"], json!({"json": {}}));
    assert_eq!(serde_json::from_value::<Durable>(json).expect("decodes"), objects);
    let http = json!({"path": "/", "format": "Raw", "batchBytes": 1024, "batchMessages": 1, "lingerMillis": 0});
    for (sink, transport, expected) in [
        (relp(), Transport::Tcp, json!({"relp": {"windowMessages": 128}})),
        (
            Sink::Tcp { framing: SinkFraming::Length4, rewind_bytes: 9 },
            Transport::Tcp,
            json!({"tcp": {"framing": "Length4", "rewindBytes": 9}}),
        ),
        (Sink::Udp {}, Transport::Udp, json!({"udp": {}})),
        (
            Sink::Http {
                path: "/".to_owned(),
                format: HttpFormat::Raw,
                batch_bytes: 1024,
                batch_messages: 1,
                linger_millis: 0,
            },
            Transport::Tcp,
            json!({"http": http}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&sink).expect("encodes"), expected);
        let udp_in = SocketKey { transport: Transport::Udp, ..listener().socket };
        let listener = Listener { socket: udp_in, durable: Some(Box::new(durable(sink.clone()))), ..listener() };
        assert_eq!((sink.transport(), listener.transport_out()), (transport, transport));
        assert_eq!(Listener { durable: None, ..listener }.transport_out(), Transport::Udp);
        assert_eq!(serde_json::from_value::<Sink>(expected).expect("decodes"), sink);
        assert_eq!(durable(sink).beyond(), None);
    }
}

#[test]
fn a_durable_listener_is_taken_and_one_with_a_field_of_a_newer_release_is_refused() {
    let value = serde_json::to_value(durable(relp())).expect("encodes");
    assert!(matches!(received(&value), Offer::Supported(_)));
    for (field, of_newer, word) in [("shards", json!(4), "`shards`"), ("enrich", json!({"cef": {}}), "`cef`")] {
        let mut newer = value.clone();
        newer[field] = of_newer;
        let Offer::Unsupported { what, .. } = received(&newer) else { panic!("supported") };
        assert!(what.contains(word), "{what}");
    }
}

#[test]
fn a_number_or_a_length_that_is_out_of_its_bounds_is_named() {
    let bounds = |change: &dyn Fn(&mut Durable)| {
        let mut durable = durable(relp());
        change(&mut durable);
        durable.beyond().unwrap_or_default()
    };
    let message = |bytes: u32| bounds(&|durable| durable.max_message_bytes = bytes);
    assert_eq!((message(64), message(1_048_576)), (String::new(), String::new()));
    assert_eq!(message(63), "maxMessageBytes is 63, but must be 64 to 1048576");
    assert!(message(1_048_577).starts_with("maxMessageBytes is 1048577"));
    let store = bounds(&|durable| durable.store = Store::Disk { max_bytes: 16_777_215 });
    assert_eq!(store, "store.disk.maxBytes is 16777215, but must be 16777216 to 1099511627776");
    let stream = |url: &str, replicas: u32, max_bytes: u64| {
        bounds(&|durable| {
            durable.store = Store::JetStream { url: url.to_owned(), credentials_name: None, replicas, max_bytes };
        })
    };
    assert_eq!(stream("nats://a", 1, 1 << 24), "");
    assert_eq!(stream("nats://a", 6, 1 << 24), "store.jetStream.replicas is 6, but must be 1 to 5");
    assert!(stream("nats://a", 1, 1).starts_with("store.jetStream.maxBytes is 1,"));
    assert!(stream(&"a".repeat(1025), 1, 1 << 24).starts_with("the length of store.jetStream.url is 1025,"));
    let letters = |bytes: u64| bounds(&|durable| durable.dead_letter_bytes = Some(bytes));
    assert_eq!((letters(1 << 24), letters(1 << 40)), (String::new(), String::new()));
    assert!(letters((1 << 40) + 1).starts_with("deadLetter.maxBytes is "));
    assert!(bounds(&|durable| durable.max_age_seconds = Some(59)).starts_with("maxAgeSeconds is 59"));
    assert!(bounds(&|durable| durable.sync_millis = 10_001).starts_with("syncMillis is 10001"));
    let lanes = |lanes: u32, max_bytes: u64, letters: Option<u64>| {
        bounds(&|durable| {
            (durable.lanes, durable.store) = (lanes, Store::Disk { max_bytes });
            durable.dead_letter_bytes = letters;
        })
    };
    assert_eq!((lanes(1, 1 << 24, None), lanes(16, 1 << 28, Some(1 << 28))), (String::new(), String::new()));
    assert_eq!(lanes(17, 1 << 30, None), "lanes is 17, but must be 1 to 16");
    assert!(lanes(0, 1 << 30, None).starts_with("lanes is 0,"));
    assert!(lanes(16, (1 << 28) - 1, None).starts_with("store.disk.maxBytes is 268435455, but must be 268435456 to"));
    assert!(lanes(2, 1 << 28, Some(1 << 24)).starts_with("deadLetter.maxBytes is 16777216, but must be 33554432 to"));
    let of_stream = bounds(&|durable| {
        let url = "nats://a".to_owned();
        durable.store = Store::JetStream { url, credentials_name: None, replicas: 1, max_bytes: 1 << 24 };
        durable.lanes = 2;
    });
    assert_eq!(of_stream, "lanes is 2, but must be 1 to 1");
    let name = |length: usize| {
        bounds(&|durable| durable.enrich = Some(Enrich::Syslog { structured_data_id: "a".repeat(length) }))
    };
    assert_eq!((name(3), name(32)), (String::new(), String::new()));
    assert!(name(33).starts_with("the length of structuredDataId is 33"));
    let window = |messages: u32| bounds(&|durable| durable.send = Sink::Relp { window_messages: messages });
    assert!(window(1).is_empty() && window(1024).is_empty() && !window(0).is_empty() && !window(1025).is_empty());
    let mut large = serde_json::to_value(durable(relp())).expect("encodes");
    large["maxMessageBytes"] = json!(u32::MAX);
    let Offer::Unsupported { what, .. } = received(&large) else { panic!("supported") };
    assert!(what.starts_with("durable: maxMessageBytes is 4294967295"), "{what}");
}

#[test]
fn a_listener_has_a_stream_of_its_own_whatever_and_however_long_its_names_are() {
    let name = |namespace: &str, name: &str| stream_name(&ListenerId::new(Origin::port_forward(namespace, name), "l"));
    assert_eq!(name("shop", "db.eu-1"), "portlane__shop__db_2Eeu-1__l");
    assert_eq!(name("a_", "b"), "portlane__a_5F__b__l");
    let (long, longer) = (name("shop", &"a".repeat(253)), name("shop", &format!("{}b", "a".repeat(252))));
    assert_eq!((long.len(), longer.len()), (250, 250));
    assert_ne!(long, longer, "what is cut off counts");
    assert!(long.starts_with("portlane__shop__aaa") && long.contains("a_h"), "{long}");
    let fits = "a".repeat(250 - "portlane__shop____l".len());
    assert_eq!(name("shop", &fits), format!("portlane__shop__{fits}__l"), "with `-dead` behind it a server takes it");
}
