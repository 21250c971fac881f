//! Managed fields of objects: which manager holds which field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

/// Where the replicas of a workload stand.
pub const REPLICAS: [&str; 2] = ["spec", "replicas"];
/// Whether an entry of managed fields has this field, told by the names on the way to it.
#[must_use]
pub fn has_field(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    let below = |fields, name: &&str| Option::and_then(fields, |fields: &Value| fields.get(format!("f:{name}")));
    path.iter().fold(Some(&fields.0), below).is_some()
}
