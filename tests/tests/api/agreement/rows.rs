//! A table row, and the handwritten rows.

use serde_json::Value;

/// A manifest on which the validator and the API server must agree.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) manifest: String,
    /// The bytes of the manifest, if they are not those of its text.
    pub(super) bytes: Option<Vec<u8>>,
    /// The manifest as an object, if the row is generated. Absent: the manifest is handwritten, and how kubectl reads
    /// its text is part of the verdict.
    pub(super) object: Option<Value>,
    /// Why the validator refuses what the server accepts.
    pub(super) stricter: Option<String>,
    /// Why the two name different fields of a manifest that both refuse.
    pub(super) other_fields: Option<String>,
    /// A field whose value is on its bound, or beyond the bound.
    pub(super) bound: Option<Bound>,
}

/// The server's verdict on one field, whatever else is wrong.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) field: String,
    pub(super) beyond: bool,
}

/// Sections `=== name`, `=== name | stricter: reason` or `=== name | other fields: reason`, each followed by a verbatim
/// manifest.
pub(super) fn handwritten() -> Vec<Row> {
    include_str!("rows.txt").split("=== ").skip(1).map(row).collect()
}

fn row(section: &str) -> Row {
    let (title, manifest) = section.split_once('\n').expect("a title");
    let (name, exception) = title.split_once(" | ").unwrap_or((title, ""));
    let reason = |kind: &str| exception.strip_prefix(kind).map(str::to_owned);
    let (stricter, other_fields) = (reason("stricter: "), reason("other fields: "));
    assert!(exception.is_empty() || stricter.is_some() || other_fields.is_some(), "unknown exception: {title}");
    let (name, manifest) = (name.to_owned(), manifest.to_owned());
    Row { name, manifest, bytes: None, object: None, stricter, other_fields, bound: None }
}
