//! Documents at their bounds, and absent or refused fields of a listener.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    Backend, CONTRACT, Configuration, DecodeError, MAX_DOCUMENT_BYTES, MAX_LISTENERS, MAX_MESSAGE_BYTES, Offer,
    Revision, Target,
};

const V1: &str = include_str!("documents/v1.yaml");

/// A document with this many listeners of a newer release, as short as the contract permits.
fn newer(listeners: usize) -> Vec<u8> {
    let each: Vec<String> = (0..listeners).map(|n| format!(r#""ns/forward/l{n}":{{"x":1}}"#)).collect();
    format!(r#"{{"listeners":{{{}}}}}"#, each.join(",")).into_bytes()
}

#[test]
fn the_largest_document_is_parsed_and_a_larger_document_is_refused_unparsed() {
    // No document has these bytes, so that parsing fails at the first byte.
    let mut bytes = vec![0xff_u8; MAX_DOCUMENT_BYTES];
    assert!(matches!(Configuration::decode(&bytes), Err(DecodeError::Yaml(_))));
    bytes.push(0xff);
    let Err(DecodeError::TooLarge(size)) = Configuration::decode(&bytes) else { panic!("not refused by its size") };
    assert_eq!(size, MAX_DOCUMENT_BYTES + 1);
}

#[test]
fn a_document_has_at_most_64_mib_and_a_message_8_mib() {
    assert_eq!((MAX_DOCUMENT_BYTES, MAX_MESSAGE_BYTES), (67_108_864, 8_388_608));
}

#[test]
fn a_document_may_have_20000_listeners_and_not_one_more() {
    let most = Configuration::decode(&newer(MAX_LISTENERS)).expect("as many as accepted");
    assert_eq!((most.listeners.len(), most.supported().count()), (20_000, 0));
    let Err(DecodeError::TooMany(count)) = Configuration::decode(&newer(MAX_LISTENERS + 1)) else {
        panic!("not refused by its number of listeners")
    };
    assert_eq!(count, 20_001);
}

#[test]
fn a_document_that_states_no_contract_is_of_the_present_one() {
    let configuration = Configuration::decode(b"listeners: {}").expect("an empty configuration");
    assert_eq!(configuration.contract, CONTRACT);
    assert_eq!(configuration, Configuration::default());
}

#[test]
fn a_document_is_json_if_it_begins_with_a_brace_and_yaml_otherwise() {
    assert!(Configuration::decode(b" \n{\"listeners\": {}}").is_ok());
    assert!(matches!(Configuration::decode(b"{\"listeners\": "), Err(DecodeError::Json(_))));
    assert!(matches!(Configuration::decode(b"listeners: ["), Err(DecodeError::Yaml(_))));
    assert!(matches!(Configuration::decode(b" \n\t"), Err(DecodeError::Empty)));
    let manifest = br#"{"apiVersion": "v1", "kind": "Service"}"#;
    assert!(matches!(Configuration::decode(manifest), Err(DecodeError::Manifest)));
}

#[test]
fn a_listener_on_port_0_is_unsupported_and_keeps_its_revision() {
    let document = V1.replace("bind: Loopback, port: 5432", "bind: Loopback, port: 0");
    let configuration = Configuration::decode(document.as_bytes()).expect("the document is whole");
    let offer = configuration.listeners.values().next().expect("a listener");
    let Offer::Unsupported { what, .. } = offer else { panic!("supported") };
    assert_eq!(what, "socket.port is 0");
    assert_eq!(offer.revision(), &Revision("d2c9a9c0ffee0001".into()));
}

#[test]
fn a_priority_of_zero_is_not_written_and_read_as_zero() {
    let target = Target::Endpoints("set".to_owned());
    let backend =
        |priority| Backend { id: "b".to_owned(), weight: 1, priority, check_port: None, target: target.clone() };
    for (priority, json) in [
        (0, serde_json::json!({"id": "b", "weight": 1, "target": {"endpoints": "set"}})),
        (1, serde_json::json!({"id": "b", "weight": 1, "priority": 1, "target": {"endpoints": "set"}})),
    ] {
        assert_eq!(serde_json::to_value(backend(priority)).expect("encodes"), json);
        assert_eq!(serde_json::from_value::<Backend>(json).expect("decodes"), backend(priority));
    }
}

#[test]
fn a_document_that_is_written_has_the_bytes_of_one_that_is_encoded() {
    let (v1, mut written) = (Configuration::decode(V1.as_bytes()).expect("v1"), Vec::new());
    v1.encode_to(&mut written).expect("memory");
    assert_eq!(written, v1.encode().expect("encodes"));
}
