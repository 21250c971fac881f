//! Scalar values with bounds, shared by the other modules. This module imports nothing from the crate, so it cannot be
//! part of an import cycle.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Protocol of a listener.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Protocol {
    Tcp,
    Udp,
    Tls,
}

impl Protocol {
    /// Name of the protocol, as in manifests and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Tls => "TLS",
        }
    }
}

// isCIDR of an API server refuses leading zeros by itself; the pattern refuses them in evaluators that do not.
/// A network in CIDR notation.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(
    inline,
    extend("x-kubernetes-validations" = [{"rule": "isCIDR(self) && !self.matches('^0[0-9]+[.]|[./]0[0-9]')", "message": "must be a network such as 10.0.0.0/8"}])
)]
pub struct Cidr(#[schemars(length(min = 1, max = 64))] pub String);

/// A TLS server name, in lower case.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub struct Hostname(
    #[schemars(
        length(min = 1, max = 253),
        pattern(r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub String,
);

/// The name of a namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub struct NamespaceName(
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))] pub String,
);

/// What the name of a label, of a taint or of a load balancer's class is: at most 63 characters, behind a domain and '/'
/// or without one.
pub(crate) const LABEL_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// The rule that each key of a map is the name of a label: a schema has no pattern for keys.
pub(crate) const LABEL_KEYS: &str = r"self.all(key, key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))";
/// The message of [`LABEL_KEYS`].
pub(crate) const LABEL_KEYS_MESSAGE: &str = "every key must be the name of a label, such as app or example.com/app";
/// The rule that each key of a map is the name of an annotation, whose domain may have capital letters.
pub(crate) const ANNOTATION_KEYS: &str = r"self.all(key, key.matches('^([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))";
/// The message of [`ANNOTATION_KEYS`].
pub(crate) const ANNOTATION_KEYS_MESSAGE: &str =
    "every key must be the name of an annotation, such as example.com/note";

/// The value of a label.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[schemars(inline)]
pub struct LabelValue(
    #[schemars(length(max = 63), pattern(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"))] pub String,
);

/// The value of an annotation.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub struct AnnotationValue(#[schemars(length(max = 4096))] pub String);

/// An amount of a resource, such as 500m or 64Mi. As in a Pod, a whole number needs no quotes in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an integer or a string")]
        enum Given {
            Integer(u64),
            Text(String),
        }
        Ok(match Given::deserialize(from)? {
            Given::Integer(number) => Self(number.to_string()),
            Given::Text(text) => Self(text),
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount of a resource, such as 500m, 64Mi or 2.",
            "maxLength": 32,
            "minLength": 1,
            "minimum": 0,
            "pattern": "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$",
            "x-kubernetes-int-or-string": true
        })
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_an_amount_with_and_without_quotes() {
        for json in ["134217728", "\"134217728\""] {
            assert_eq!(serde_json::from_str::<Quantity>(json).expect("an amount").0, "134217728");
        }
        for json in ["-1", "1.5", "true"] {
            let refused = serde_json::from_str::<Quantity>(json).expect_err("no amount").to_string();
            assert!(refused.contains("an integer or a string"), "{json}: {refused}");
        }
    }
}
