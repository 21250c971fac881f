//! Endpoints of backends.

use std::{fmt, net::SocketAddr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use sha2::{Digest as _, Sha256};

use crate::{Revision, hash::short};

/// One address of a backend. In a document an address alone is a string; an endpoint with attributes is an object with
/// the field `address`. Attributes that a proxy does not know are ignored: they only rank endpoints, and never restrict
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address with port.
    pub address: SocketAddr,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Destructured, so that a new field does not compile until it is written.
        let Self { address } = self;
        address.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

/// A visitor that reads either form without a copy: documents have thousands of endpoints.
struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = Endpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 10.0.0.1:80, or an object with the field address")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Endpoint, E> {
        text.parse::<SocketAddr>().map(Endpoint::from).map_err(|error| E::custom(format!("'{text:.80}': {error}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
        #[derive(Deserialize)]
        struct Object {
            address: SocketAddr,
        }
        Object::deserialize(MapAccessDeserializer::new(map)).map(|object| object.address.into())
    }
}

/// The ready endpoints of a Service port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSet {
    /// Endpoints, sorted.
    #[serde(default, rename = "addresses")]
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSet {
    /// Hash of the endpoints, which a proxy sends instead of the endpoints.
    #[must_use]
    pub fn revision(&self) -> Revision {
        let mut hash = Sha256::new();
        for endpoint in &self.endpoints {
            // Destructured, so that a new field does not compile until it is hashed: a proxy that holds a set with
            // other attributes must get the new one.
            let Endpoint { address } = endpoint;
            hash.update(address.to_string());
            hash.update([0]);
        }
        Revision(short(&hash.finalize()).into())
    }
}

impl FromIterator<SocketAddr> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(Endpoint::from).collect()
    }
}

impl FromIterator<Endpoint> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        Self { endpoints: endpoints.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_that_of_releases_before_and_other_for_each_other_set() {
        let set = |addresses: &[&str]| -> EndpointSet {
            addresses.iter().map(|address| address.parse::<SocketAddr>().expect("an address")).collect()
        };
        let revision = |addresses: &[&str]| set(addresses).revision();
        let known = revision(&["10.0.0.1:80", "[fd00::1]:80"]);
        assert_eq!(known, Revision("c3b2e122f97b13ae".into()));
        for other in [&["10.0.0.1:80"][..], &["10.0.0.1:81", "[fd00::1]:80"], &["[fd00::1]:80", "10.0.0.1:80"], &[]] {
            assert_ne!(revision(other), known, "{other:?}");
        }
    }

    #[test]
    fn an_address_alone_is_a_string_and_an_object_is_read_without_what_is_not_known() {
        let set: EndpointSet = ["10.0.0.1:80".parse::<SocketAddr>().expect("address")].into_iter().collect();
        let text = r#"{"addresses":["10.0.0.1:80"]}"#;
        assert_eq!(serde_json::to_string(&set).expect("JSON"), text, "as releases before wrote it");
        let object = r#"{"addresses":[{"address":"10.0.0.1:80","zone":"a"}]}"#;
        for document in [text, object] {
            assert_eq!(serde_json::from_str::<EndpointSet>(document).expect("endpoints"), set, "{document}");
        }
        assert!(serde_json::from_str::<EndpointSet>(r#"{"addresses":[{"zone":"a"}]}"#).is_err());
        let error =
            serde_json::from_str::<EndpointSet>(r#"{"addresses":["10.0.0.1"]}"#).expect_err("no port").to_string();
        assert!(error.contains("'10.0.0.1': invalid socket address"), "{error}");
        let error = serde_json::from_str::<EndpointSet>(r#"{"addresses":[7]}"#).expect_err("a number").to_string();
        assert!(error.contains("expected an address such as 10.0.0.1:80"), "{error}");
    }
}
