//! Misspellings of every field and every enum value of the CRDs.

use serde_json::json;

use super::*;

/// This schema and all schemas in it that `wanted` selects.
fn select<'a>(schema: &'a Value, wanted: fn(&Value) -> bool, found: &mut Vec<&'a Value>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if wanted(schema) {
        found.push(schema);
    }
    let fields = schema["properties"].as_object().into_iter().flat_map(Map::values);
    for below in fields.chain([&schema["items"], &schema["additionalProperties"]]) {
        if below.is_object() {
            select(below, wanted, found);
        }
    }
}

/// The schemas of all CRDs, at every depth, that `wanted` selects; owned by the test.
fn schemas(wanted: fn(&Value) -> bool) -> Vec<Value> {
    let crds = crds::kinds().expect("CRDs");
    let roots = crds.iter().map(|crd| &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    let mut found = Vec::new();
    roots.for_each(|root| select(root, wanted, &mut found));
    found.into_iter().cloned().collect()
}

/// The word with one mistake: a letter changed, one left out, or two swapped.
fn misspellings(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut all = Vec::new();
    for at in 0..letters.len() {
        let (mut changed, mut shorter, mut swapped) = (letters.clone(), letters.clone(), letters.clone());
        changed[at] = 'Q';
        shorter.remove(at);
        swapped.swap(at, (at + 1).min(letters.len() - 1));
        all.extend([changed, shorter, swapped]);
    }
    all.into_iter().map(String::from_iter).filter(|misspelt| misspelt != word).collect()
}

#[track_caller]
fn assert_meant(found: &[Violation], misspelt: &str, word: &str) {
    let meant = found.iter().find_map(|wrong| wrong.message.split_once("did you mean '"));
    let meant = meant.and_then(|(_, meant)| meant.strip_suffix("'?")).unwrap_or_default();
    // Another name may be as near.
    let is_near = meant == word || spelling::within(misspelt, meant, 1).is_some();
    assert!(is_near, "{misspelt} is {word}: {found:?}");
}

#[test]
fn every_field_of_the_schemas_is_suggested_for_its_misspellings() {
    let mut seen = 0;
    for schema in schemas(|schema| schema["properties"].is_object()) {
        let known = schema["properties"].as_object().expect("an object");
        for (word, misspelt) in known.keys().flat_map(|word| misspellings(word).into_iter().map(move |m| (word, m))) {
            if known.contains_key(&misspelt) {
                continue;
            }
            let mut found = Vec::new();
            object(&schema, &Map::from_iter([(misspelt.clone(), json!(1))]), "", &mut found);
            assert_meant(&found, &misspelt, word);
            seen += 1;
        }
    }
    assert!(seen > 1000, "only {seen} misspellings");
}

#[test]
fn every_value_of_an_enum_is_suggested_for_its_misspellings() {
    let mut seen = 0;
    for schema in schemas(|schema| schema["enum"].is_array()) {
        let names: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for name in &names {
            for misspelt in misspellings(name).iter().chain([&name.to_lowercase()]) {
                if names.contains(&misspelt.as_str()) {
                    continue;
                }
                let mut found = Vec::new();
                string(&schema, misspelt, "", &mut |wrong| found.push(wrong));
                assert_meant(&found, misspelt, name);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} misspellings");
}

#[test]
fn every_pattern_of_the_schemas_has_words() {
    let schemas = schemas(|schema| schema["pattern"].is_string());
    assert!(!schemas.is_empty());
    for pattern in schemas.iter().filter_map(|schema| schema["pattern"].as_str()) {
        assert!(words::allowed(pattern).is_some(), "{pattern}");
    }
}

#[test]
fn fields_of_an_object_that_was_left_out_are_one_mistake() {
    let schema = json!({"type": "object", "properties": {
        "address": {"required": ["host", "port"], "properties": {"host": {}, "port": {}}},
        "local": {"required": ["port"], "properties": {"port": {}}},
        "tunnel": {"required": ["agent", "host", "port"], "properties": {"agent": {}, "host": {}, "port": {}}},
    }});
    let words = |value: Value| {
        let mut found = Vec::new();
        node(&schema, &value, "b", &mut found);
        found.into_iter().map(|wrong| format!("{}: {}", wrong.field, wrong.message)).collect::<Vec<_>>()
    };
    let merged = words(json!({"host": "x", "port": 1}));
    assert_eq!(merged, ["b.host: host and port belong in address: write address: {host: ..., port: ...}"]);
    let with_agent = words(json!({"agent": "a", "host": "x", "port": 1}));
    assert_eq!(
        with_agent,
        ["b.agent: agent and host and port belong in tunnel: write tunnel: {agent: ..., host: ..., port: ...}"]
    );
    assert_eq!(words(json!({"port": 1})), ["b.port: unknown field; known fields are address, local, tunnel"]);
}

#[test]
fn a_value_is_quoted_with_what_would_not_be_seen_of_it() {
    let schemas = [json!({"type": "integer"}), json!({"type": "string", "enum": ["TCP"]})];
    let patterned = json!({"type": "string", "pattern": "^[a-z]+$"});
    for schema in schemas.iter().chain([&patterned]) {
        let mut found = Vec::new();
        node(schema, &json!("a\u{200b}"), "spec", &mut found);
        let messages: Vec<&str> = found.iter().map(|violation| violation.message.as_str()).collect();
        assert!(messages.len() == 1 && messages[0].contains("'a\\u{200b}'"), "{messages:?}");
    }
}

#[test]
fn an_amount_is_a_whole_number_or_a_text() {
    let schema = json!({"x-kubernetes-int-or-string": true, "minimum": 0, "minLength": 1, "pattern": "^[0-9.]+m?$"});
    let words = |value: Value| {
        let found = below(&schema, &value, "cpu");
        found.into_iter().map(|wrong| (wrong.message, wrong.blocks_rules)).collect::<Vec<_>>()
    };
    for right in [json!(1), json!("500m")] {
        assert!(words(right.clone()).is_empty(), "{right}");
    }
    assert_eq!(words(json!(-1)), [("must be at least 0, but is -1".to_owned(), false)]);
    let number = "must be an integer or a string, but is the number 1.5; write '1.5'";
    assert_eq!(words(json!(1.5)), [(number.to_owned(), true)]);
    assert_eq!(words(json!([])), [("must be an integer or a string, but is a list".to_owned(), true)]);
    assert!(words(json!("x"))[0].0.ends_with("here it is 'x'"));
}
