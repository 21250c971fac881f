//! The registration of the live API.

use harness::Namespace;

/// What the chart registers.
const REGISTRATION: &str = "apiVersion: v1
kind: Service
metadata: {name: portlane-metrics}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1alpha1.live.portlane.dev}
spec:
  group: live.portlane.dev
  version: v1alpha1
  groupPriorityMinimum: 100
  versionPriority: 10
  service: {name: portlane-metrics, namespace: NAMESPACE, port: 443}
";

/// Registers the API of the operator in a namespace.
#[track_caller]
pub(crate) fn register(namespace: &Namespace<'_>) {
    namespace.apply(&REGISTRATION.replace("NAMESPACE", namespace.name()));
}
