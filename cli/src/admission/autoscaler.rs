//! Mistakes in the parts of a `HorizontalPodAutoscaler` that the CRDs do not validate: the API server refuses them
//! later, when the operator creates the HPA.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::schema;

/// The end of every message.
const LATER: &str = "; the API server would refuse the HorizontalPodAutoscaler";

/// `metrics` and `behavior` of `autoscaling/v2`.
static FIELDS: LazyLock<[(&str, Value); 2]> = LazyLock::new(|| {
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let one_of = |names: &[&str]| json!({"type": "string", "enum": names});
    let target = object(json!({
        "type": one_of(&["Utilization", "Value", "AverageValue"]),
        "averageUtilization": {}, "averageValue": {}, "value": {},
    }));
    let operator = one_of(&["In", "NotIn", "Exists", "DoesNotExist"]);
    let requirement = object(json!({"key": {}, "operator": operator, "values": {}}));
    let requirements = json!({"type": "array", "items": requirement});
    let selector = object(json!({"matchLabels": {}, "matchExpressions": requirements}));
    let metric = object(json!({"name": {}, "selector": selector}));
    let described = object(json!({"apiVersion": {}, "kind": {}, "name": {}}));
    let metrics = object(json!({
        "type": one_of(&["Resource", "ContainerResource", "Pods", "Object", "External"]),
        "resource": object(json!({"name": {}, "target": target})),
        "containerResource": object(json!({"container": {}, "name": {}, "target": target})),
        "pods": object(json!({"metric": metric, "target": target})),
        "object": object(json!({"describedObject": described, "metric": metric, "target": target})),
        "external": object(json!({"metric": metric, "target": target})),
    }));
    let policy = object(json!({"type": one_of(&["Pods", "Percent"]), "value": {}, "periodSeconds": {}}));
    let rules = object(json!({
        "stabilizationWindowSeconds": {},
        "selectPolicy": one_of(&["Max", "Min", "Disabled"]),
        "policies": {"type": "array", "items": policy},
        "tolerance": {},
    }));
    let behavior = object(json!({"scaleUp": rules, "scaleDown": rules}));
    [("metrics", json!({"type": "array", "items": metrics})), ("behavior", behavior)]
});

/// Returns the invalid fields, each with a message.
pub(super) fn check(object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, schema) in FIELDS.iter() {
        let mut value = object["spec"]["autoscaling"][*name].clone();
        if value.is_null() {
            continue;
        }
        schema::drop_nulls(schema, &mut value);
        let wrong = schema::below(schema, &value, &format!("spec.autoscaling.{name}"));
        found.extend(wrong.into_iter().map(|wrong| (wrong.field, wrong.message + LATER)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_fields_and_values_are_found_at_every_depth() {
        let autoscaling = json!({
            "metrics": [
                {"type": "Resorce", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilisation": 60}}},
                {"type": "Pods", "pods": {"metric": {"name": "q", "selector": {"matchLabel": {"a": "b"}}}}},
                {"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "Value", "value": "30"}}},
            ],
            "behavior": {"scaleUp": null, "scaleDown": {"selectPolicy": "Mix", "policies": [{"type": "Pods", "vlaue": 1}]}},
        });
        let found = check(&json!({"spec": {"autoscaling": autoscaling}}));
        let expected = [
            ("spec.autoscaling.metrics[0].type", "did you mean 'Resource'?"),
            ("spec.autoscaling.metrics[0].resource.target.averageUtilisation", "did you mean 'averageUtilization'?"),
            ("spec.autoscaling.metrics[1].pods.metric.selector.matchLabel", "did you mean 'matchLabels'?"),
            ("spec.autoscaling.behavior.scaleDown.selectPolicy", "must be one of Max, Min, Disabled, but is 'Mix'"),
            ("spec.autoscaling.behavior.scaleDown.policies[0].vlaue", "did you mean 'value'?"),
        ];
        for (field, words) in expected {
            let is_it = |(at, message): &(String, String)| at == field && message.contains(words);
            assert!(found.iter().any(is_it), "{field}: {words} is not in {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        assert!(check(&json!({"spec": {}})).is_empty());
    }
}
