//! What the version c7e7692 wrote, before ids had a kind: the state of a proxy, and the messages of both ends of a stream.
//!
//! Each document is read, and the present version writes the same again. So the two versions follow each other, and a
//! proxy can be set back.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use proxy_api::{Configuration, FromProxy, OriginKind, ToProxy};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The file `configuration.json` in the state directory of a proxy: every optional field of a listener is set in one.
const STATE: &str = include_str!("documents/c7e7692/configuration.json");
const FROM_PROXY: &str = include_str!("documents/c7e7692/from-proxy.json");
const TO_PROXY: &str = include_str!("documents/c7e7692/to-proxy.json");

fn state() -> Configuration {
    Configuration::decode(STATE.as_bytes()).expect("decodes")
}

#[test]
fn the_state_of_an_earlier_proxy_is_read_whole_and_written_byte_for_byte() {
    let state = state();
    assert_eq!((state.listeners.len(), state.supported().count()), (3, 3), "no listener is unsupported");
    assert!(state.listeners.keys().all(|id| id.origin.kind == OriginKind::PortForward));
    let written = String::from_utf8(state.encode().expect("encodes")).expect("JSON");
    assert_eq!(written, STATE);
}

#[test]
fn a_listener_of_an_earlier_version_has_the_same_revision_so_that_an_upgrade_touches_no_socket() {
    for (id, listener) in state().supported() {
        assert_eq!(listener.clone().sealed().revision, listener.revision, "{id}");
    }
    assert_eq!(state().digest().0, "fdf6952b62f160aa69b86f94ee4e260d");
}

/// Reads messages and writes each of them again.
fn assert_same_again<Message: DeserializeOwned + Serialize>(messages: &str) {
    for message in serde_json::from_str::<Vec<Value>>(messages).expect("JSON") {
        let read: Message = serde_json::from_value(message.clone()).expect("decodes");
        assert_eq!(serde_json::to_value(&read).expect("encodes"), message);
    }
}

#[test]
fn an_earlier_proxy_and_the_present_operator_understand_each_other() {
    assert_same_again::<FromProxy>(FROM_PROXY);
    let hello: Vec<FromProxy> = serde_json::from_str(FROM_PROXY).expect("decodes");
    let digest = hello[0].hello.as_ref().map(|hello| &hello.digest);
    assert_eq!(digest, Some(&state().digest()), "a proxy that runs the same is sent nothing");
}

#[test]
fn an_earlier_operator_and_the_present_proxy_understand_each_other() {
    assert_same_again::<ToProxy>(TO_PROXY);
}
