//! The CA bundles by which API servers trust the operator: which objects have another one, and the patches for them.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use serde_json::{Value, json};

/// The change that an `APIService` needs so that the aggregator trusts the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfApi {
    /// None: the `APIService` has the bundle already.
    Current,
    /// This merge patch. The patch fails if the object has changed since it was read.
    Outdated(Value),
    /// None: the `APIService` refers to another Service (NAMESPACE/NAME), so it has another owner.
    Foreign(String),
}

/// Returns the change for an `APIService` that should refer to the Service of this namespace and name, with this bundle
/// (PEM).
#[must_use]
pub fn of_api(existing: APIService, (namespace, name): (&str, &str), bundle: &str) -> OfApi {
    let spec = existing.spec.unwrap_or_default();
    let service = spec.service.unwrap_or_default();
    if (service.namespace.as_deref(), service.name.as_deref()) != (Some(namespace), Some(name)) {
        let (namespace, name) = (service.namespace.unwrap_or_default(), service.name.unwrap_or_default());
        return OfApi::Foreign(format!("{namespace}/{name}"));
    }
    let bundle = ByteString(bundle.as_bytes().to_vec());
    if spec.ca_bundle.as_ref() == Some(&bundle) {
        return OfApi::Current;
    }
    let version = existing.metadata.resource_version;
    OfApi::Outdated(json!({"metadata": {"resourceVersion": version}, "spec": {"caBundle": bundle}}))
}

/// Returns the JSON patch that writes the bundle (PEM) into every webhook with another bundle; `None` if all have it.
#[must_use]
pub fn of_webhook(existing: &MutatingWebhookConfiguration, bundle: &str) -> Option<Value> {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let outdated = |(at, entry): (usize, &MutatingWebhook)| {
        let path = format!("/webhooks/{at}/clientConfig/caBundle");
        let is_outdated = entry.client_config.ca_bundle.as_ref() != Some(&bundle);
        is_outdated.then(|| json!({"op": "add", "path": path, "value": bundle}))
    };
    let entries = existing.webhooks.as_deref().unwrap_or_default();
    let mut patch: Vec<Value> = entries.iter().enumerate().filter_map(outdated).collect();
    if patch.is_empty() {
        return None;
    }
    // The patch addresses entries by index, so it must fail if they have moved.
    let version = &existing.metadata.resource_version;
    patch.insert(0, json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
    Some(Value::Array(patch))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::admissionregistration::v1::WebhookClientConfig,
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
        kube_aggregator::pkg::apis::apiregistration::v1::{APIServiceSpec, ServiceReference},
    };

    use super::*;

    const SERVICE: (&str, &str) = ("ns", "apis");
    /// The value "new", in base64 as in the API.
    const NEW: &str = "bmV3";

    fn bytes(bundle: &str) -> ByteString {
        ByteString(bundle.as_bytes().to_vec())
    }

    fn metadata() -> ObjectMeta {
        ObjectMeta { resource_version: Some("7".to_owned()), ..ObjectMeta::default() }
    }

    fn api(service: Option<(&str, &str)>, bundle: Option<&str>) -> APIService {
        let reference = |(namespace, name): (&str, &str)| ServiceReference {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ServiceReference::default()
        };
        let (service, ca_bundle) = (service.map(reference), bundle.map(bytes));
        let spec = APIServiceSpec { service, ca_bundle, ..APIServiceSpec::default() };
        APIService { metadata: metadata(), spec: Some(spec), ..APIService::default() }
    }

    fn webhook(bundles: &[Option<&str>]) -> MutatingWebhookConfiguration {
        let entry = |bundle: Option<&str>| MutatingWebhook {
            client_config: WebhookClientConfig { ca_bundle: bundle.map(bytes), ..WebhookClientConfig::default() },
            ..MutatingWebhook::default()
        };
        MutatingWebhookConfiguration {
            metadata: metadata(),
            webhooks: Some(bundles.iter().copied().map(entry).collect()),
        }
    }

    #[test]
    fn an_api_of_this_operator_gets_the_bundle_unless_it_has_it() {
        assert_eq!(of_api(api(Some(SERVICE), Some("new")), SERVICE, "new"), OfApi::Current);
        let patch = json!({"metadata": {"resourceVersion": "7"}, "spec": {"caBundle": NEW}});
        for bundle in [None, Some("old")] {
            let found = of_api(api(Some(SERVICE), bundle), SERVICE, "new");
            assert_eq!(found, OfApi::Outdated(patch.clone()), "{bundle:?}");
        }
    }

    #[test]
    fn an_api_that_leads_elsewhere_is_left_alone_and_named() {
        for (service, named) in
            [(Some(("other", "apis")), "other/apis"), (Some(("ns", "other")), "ns/other"), (None, "/")]
        {
            assert_eq!(of_api(api(service, None), SERVICE, "new"), OfApi::Foreign(named.to_owned()));
        }
        assert_eq!(of_api(APIService::default(), SERVICE, "new"), OfApi::Foreign("/".to_owned()));
    }

    #[test]
    fn the_entries_of_a_webhook_that_have_another_bundle_get_this_one() {
        let patch = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": NEW},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": NEW},
        ]);
        assert_eq!(of_webhook(&webhook(&[Some("old"), Some("new"), None]), "new"), Some(patch));
        assert_eq!(of_webhook(&webhook(&[Some("new"), Some("new")]), "new"), None);
        assert_eq!(of_webhook(&MutatingWebhookConfiguration::default(), "new"), None, "it has no entries");
    }
}
