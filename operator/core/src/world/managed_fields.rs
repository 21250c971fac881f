//! Managed fields of objects: which field manager owns which field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

/// Path of the replicas of a workload.
pub const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// Whether an entry of managed fields has the field at this path.
#[must_use]
pub fn has_field(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    let below = |fields, name: &&str| Option::and_then(fields, |fields: &Value| fields.get(format!("f:{name}")));
    path.iter().fold(Some(&fields.0), below).is_some()
}
