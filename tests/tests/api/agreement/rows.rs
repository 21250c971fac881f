//! A table row, and the rows that a person wrote.

/// A manifest on which both must agree.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) manifest: String,
    /// Why the validator refuses what the server accepts.
    pub(super) stricter: Option<String>,
    /// Why the two name different fields of what both refuse.
    pub(super) other_fields: Option<String>,
    /// A field that is on its bound, or beyond it.
    pub(super) bound: Option<Bound>,
}

/// What the server must think of one field, whatever else is wrong.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) field: String,
    pub(super) beyond: bool,
}

/// Sections `=== name`, `=== name | stricter: reason` or `=== name | other fields: reason`, each followed by a manifest as
/// it is.
pub(super) fn handwritten() -> Vec<Row> {
    include_str!("rows.txt").split("=== ").skip(1).map(row).collect()
}

fn row(section: &str) -> Row {
    let (title, manifest) = section.split_once('\n').expect("a title");
    let (name, remark) = title.split_once(" | ").unwrap_or((title, ""));
    let reason = |kind: &str| remark.strip_prefix(kind).map(str::to_owned);
    let (stricter, other_fields) = (reason("stricter: "), reason("other fields: "));
    assert!(remark.is_empty() || stricter.is_some() || other_fields.is_some(), "not understood: {title}");
    Row { name: name.to_owned(), manifest: manifest.to_owned(), stricter, other_fields, bound: None }
}
