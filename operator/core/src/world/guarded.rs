//! Objects of the API server that this operator may be unable to read. Unlike the guard of the client library, this one
//! keeps the controller class: an object of another class is left to its operator even if this operator cannot read it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

/// An object, or the reason why it cannot be read.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    /// The object, or its metadata and the error of deserialisation.
    pub read: Result<K, InvalidObject>,
    /// `spec.controllerClass`; empty if absent.
    pub class: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Managed fields are dropped: nothing uses them, their maps take ten times as much memory as the rest, and a
        // page of a list has 500 objects.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let class = value["spec"]["controllerClass"].as_str().unwrap_or_default().to_owned();
        let read = match K::deserialize(&value) {
            Ok(object) => Ok(object),
            Err(error) => {
                let metadata = Option::<ObjectMeta>::deserialize(&value["metadata"]).map_err(D::Error::custom)?;
                Err(InvalidObject { error: error.to_string(), metadata: metadata.unwrap_or_default() })
            }
        };
        Ok(Self { read, class })
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.read.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.read {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::PortForward;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_without_managed_fields_whether_it_can_be_read_or_not() {
        for (listeners, is_readable) in [(json!([]), true), (json!(7), false)] {
            let object = json!({
                "metadata": {
                    "name": "f",
                    "uid": "u",
                    "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
                },
                "spec": {"controllerClass": "c", "placement": {}, "listeners": listeners},
            });
            let guarded: Guarded<PortForward> = serde_json::from_value(object).expect("guarded");
            assert_eq!((guarded.read.is_ok(), guarded.class.as_str()), (is_readable, "c"));
            let metadata = guarded.meta();
            assert_eq!((metadata.uid.as_deref(), &metadata.managed_fields), (Some("u"), &None));
        }
    }

    #[test]
    fn a_guarded_object_is_a_resource_like_the_object_itself() {
        type Own = Guarded<PortForward>;
        let names = [Own::kind(&()), Own::group(&()), Own::version(&()), Own::plural(&())];
        assert_eq!(names, ["PortForward", crds::GROUP, crds::VERSION, "portforwards"]);
        for listeners in [json!([]), json!(7)] {
            let object = json!({"metadata": {"name": "f"}, "spec": {"placement": {}, "listeners": listeners}});
            let mut guarded: Own = serde_json::from_value(object).expect("guarded");
            guarded.meta_mut().name = Some("g".to_owned());
            assert_eq!(guarded.meta().name.as_deref(), Some("g"));
        }
    }
}
