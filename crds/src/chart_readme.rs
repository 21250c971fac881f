//! Values of the charts for people: a table with the descriptions of `values.schema.json` and the defaults of
//! `values.yaml`, in the README of each chart and on a page for all of them.

use std::{error::Error, fmt};

use serde_yaml::Value;

/// Folders of the charts that have a README, relative to the folder of this crate.
pub const CHARTS: [&str; 2] = ["../charts/portlane", "../charts/portlane-crds"];

const INTRODUCTION: &str = "\
Install both charts in the same version. Upgrade `portlane-crds` first:

```console
$ helm upgrade --install portlane-crds charts/portlane-crds --namespace portlane --create-namespace
$ helm upgrade --install portlane charts/portlane --namespace portlane
```

One command installs both, and upgrades both. The CRDs then belong to the release `portlane`, and
stay when it is uninstalled:

```console
$ helm upgrade --install portlane charts/portlane --namespace portlane --create-namespace --set crds.enabled=true
```

helm does not take over CRDs of another release by itself: add `--take-ownership` once to change
from one way to the other.

## Values

This table is generated from `values.schema.json` and `values.yaml`: `cargo run -p portlane-crds --bin crdgen`.

";

const PAGE: &str = "\
# Chart values

The README of each chart has its table too, with the commands to install it:
[portlane](../../charts/portlane/README.md),
[portlane-crds](../../charts/portlane-crds/README.md). This page is generated from
`values.schema.json` and `values.yaml`: `cargo run -p portlane-crds --bin crdgen`.
";

const HEAD: &str = "| value | default | meaning |\n|---|---|---|\n";

/// Why a README cannot be generated.
#[derive(Debug)]
pub enum ReadmeError {
    /// A file of the chart is no YAML.
    Yaml(serde_yaml::Error),
    /// A default cannot be written as JSON.
    Default(serde_json::Error),
    /// A value of the schema has no description.
    NoDescription(String),
    /// A value of `values.yaml` is not in the schema.
    Unknown(String),
}

impl fmt::Display for ReadmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yaml(_) => f.write_str("a file of the chart is no YAML"),
            Self::Default(_) => f.write_str("a default of values.yaml cannot be written as JSON"),
            Self::NoDescription(path) => {
                write!(f, "the value {path} has no description in values.schema.json: add one")
            }
            Self::Unknown(path) => write!(f, "the value {path} of values.yaml is not in values.schema.json: add it"),
        }
    }
}

impl Error for ReadmeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Yaml(error) => Some(error),
            Self::Default(error) => Some(error),
            Self::NoDescription(_) | Self::Unknown(_) => None,
        }
    }
}

impl From<serde_yaml::Error> for ReadmeError {
    fn from(error: serde_yaml::Error) -> Self {
        Self::Yaml(error)
    }
}

/// The README of a chart with these contents of `Chart.yaml`, `values.schema.json` and `values.yaml`.
///
/// # Errors
/// A file that cannot be read, and a value that is in one of the files only.
pub fn chart_readme(chart: &str, schema: &str, values: &str) -> Result<String, ReadmeError> {
    let (name, description) = title(chart)?;
    Ok(format!("# {name}\n\n{description}.\n\n{INTRODUCTION}{}", table(schema, values)?))
}

/// The page with the values of these charts, each of them as the contents of `Chart.yaml`, `values.schema.json` and
/// `values.yaml`.
///
/// # Errors
/// As [`chart_readme`].
pub fn values_page(charts: &[[String; 3]]) -> Result<String, ReadmeError> {
    let mut page = PAGE.to_owned();
    for [chart, schema, values] in charts {
        let (name, description) = title(chart)?;
        page.push_str(&format!("\n## {name}\n\n{description}.\n\n{}", table(schema, values)?));
    }
    Ok(page)
}

/// Name and description of a chart with this `Chart.yaml`.
fn title(chart: &str) -> Result<(String, String), ReadmeError> {
    let chart: Value = serde_yaml::from_str(chart)?;
    let text = |field: &str| chart.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("name"), text("description")))
}

/// The table of the values of a chart.
fn table(schema: &str, values: &str) -> Result<String, ReadmeError> {
    // JSON is YAML. A map of YAML keeps the order of its keys.
    let schema: Value = serde_yaml::from_str(schema)?;
    let values: Value = serde_yaml::from_str(values)?;
    let mut table = HEAD.to_owned();
    rows(&schema, &values, "", &mut table)?;
    Ok(table)
}

/// Adds a row for each property of this part of the schema. A map whose default has entries is split into rows.
fn rows(schema: &Value, values: &Value, parent: &str, readme: &mut String) -> Result<(), ReadmeError> {
    let path = |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
    let properties = schema.get("properties").and_then(Value::as_mapping);
    for (name, property) in properties.into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        let default = values.get(name);
        let entries = default.filter(|default| default.as_mapping().is_some_and(|map| !map.is_empty()));
        match entries {
            Some(entries) if property.get("properties").is_some() => rows(property, entries, &path(name), readme)?,
            _ => readme.push_str(&row(&path(name), property, default)?),
        }
    }
    let mut names = values.as_mapping().into_iter().flatten().filter_map(|(name, _)| name.as_str());
    let known = |name: &str| properties.is_some_and(|properties| properties.contains_key(name));
    match names.find(|name| !known(name)) {
        Some(name) => Err(ReadmeError::Unknown(path(name))),
        None => Ok(()),
    }
}

/// The row of one value.
fn row(path: &str, property: &Value, default: Option<&Value>) -> Result<String, ReadmeError> {
    let description = property.get("description").and_then(Value::as_str);
    let description = description.ok_or_else(|| ReadmeError::NoDescription(path.to_owned()))?;
    let choices = property.get("enum").and_then(Value::as_sequence);
    let choices: Vec<&str> =
        choices.into_iter().flatten().filter_map(Value::as_str).filter(|choice| !choice.is_empty()).collect();
    let choices = if choices.is_empty() { String::new() } else { format!(" One of `{}`.", choices.join("`, `")) };
    let default = default.map(serde_json::to_string).transpose().map_err(ReadmeError::Default)?;
    let default = default.map(|default| format!("`{default}`")).unwrap_or_default();
    Ok(format!("| `{path}` | {} | {}{choices} |\n", default.replace('|', "\\|"), description.replace('|', "\\|")))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use super::*;

    const CHART: &str = "{name: shop, description: A shop}";

    #[test]
    fn a_map_with_entries_is_split_and_another_one_is_a_row() {
        let schema = r#"{"properties": {
            "image": {"properties": {"tag": {"description": "The tag."}}},
            "dns": {"description": "DNS.", "properties": {"search": {"type": "string"}}},
            "policy": {"description": "A policy.", "enum": ["", "a", "b"]}
        }}"#;
        let readme = chart_readme(CHART, schema, "{image: {tag: v1}, dns: {}, policy: a}").expect("a README");
        assert!(readme.starts_with("# shop\n\nA shop.\n"), "{readme}");
        let table = "| `image.tag` | `\"v1\"` | The tag. |\n| `dns` | `{}` | DNS. |\n| `policy` | `\"a\"` | A policy. \
                     One of `a`, `b`. |\n";
        assert!(readme.ends_with(table), "{readme}");
    }

    #[test]
    fn the_page_has_a_table_for_each_chart() {
        let schema = r#"{"properties": {"tag": {"description": "The tag."}}}"#;
        let chart =
            |name: &str| [format!("{{name: {name}, description: A {name}}}"), schema.into(), "{tag: v1}".into()];
        let page = values_page(&[chart("shop"), chart("store")]).expect("a page");
        let table = "| value | default | meaning |\n|---|---|---|\n| `tag` | `\"v1\"` | The tag. |\n";
        let end = format!("\n## shop\n\nA shop.\n\n{table}\n## store\n\nA store.\n\n{table}");
        assert!(page.starts_with("# Chart values\n") && page.ends_with(&end), "{page}");
    }

    #[test]
    fn a_value_that_is_in_one_file_only_is_refused() {
        let undescribed = chart_readme(CHART, r#"{"properties": {"a": {"type": "string"}}}"#, "{a: b}");
        assert!(matches!(undescribed, Err(ReadmeError::NoDescription(path)) if path == "a"));
        let unknown = chart_readme(CHART, r#"{"properties": {"a": {"properties": {}}}}"#, "{a: {b: c}}");
        assert!(matches!(unknown, Err(ReadmeError::Unknown(path)) if path == "a.b"));
    }
}
