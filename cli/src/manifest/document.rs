//! One document of a manifest, with the line of each of its values.

use serde_json::Value;

use crate::spelling;

/// One document of a file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(super) lines: Lines,
}

/// The line of a value, and of every value inside it.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(super) line: usize,
    pub(super) fields: Vec<(String, Lines)>,
    pub(super) items: Vec<Lines>,
}

impl Lines {
    /// The line of a value without children.
    pub(super) fn leaf(line: usize) -> Self {
        Self { line, fields: Vec::new(), items: Vec::new() }
    }

    /// The line of a path inside this value, or of its nearest ancestor that exists.
    pub(crate) fn find(&self, path: &str) -> usize {
        let path = path.trim_start_matches('.');
        if let Some((number, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let item = number.parse().ok().and_then(|at: usize| self.items.get(at));
            return item.map_or(self.line, |item| item.find(rest));
        }
        // Keys may contain dots; the longest matching key is the right one.
        let fits =
            |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let field = self.fields.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len());
        field.map_or(self.line, |(key, lines)| lines.find(&path[key.len()..]))
    }
}

impl Document {
    /// The line on which the document begins.
    pub(crate) fn line(&self) -> usize {
        self.lines.line
    }

    /// The lines of the document and of everything in it.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The line of a field, or of its nearest ancestor that exists.
    pub(crate) fn line_of(&self, field: &str) -> usize {
        self.lines.find(field)
    }

    /// A document at this line, without the lines of its fields.
    pub(crate) fn at_line(value: Value, line: usize) -> Self {
        Self { value, lines: Lines::leaf(line) }
    }

    /// The items of a `List`, each as a document of its own; any other document as it is. As with kubectl, the items of
    /// a list of one kind need not repeat the kind.
    pub(crate) fn items(mut self) -> Vec<Self> {
        let text = |field: &str| self.value[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let Some(kind) = kind.strip_suffix("List") else { return vec![self] };
        let items = self.value.get_mut("items").filter(|items| items.is_array() || items.is_null()).map(Value::take);
        let mut items = match items {
            Some(Value::Array(items)) => items,
            Some(_) => Vec::new(),
            None => return vec![self],
        };
        for fields in items.iter_mut().filter(|_| !kind.is_empty()).filter_map(Value::as_object_mut) {
            fields.entry("apiVersion").or_insert_with(|| version.as_str().into());
            fields.entry("kind").or_insert_with(|| kind.into());
        }
        let at = self.lines.fields.iter().position(|(key, _)| key == "items");
        let mut lines = at.map(|at| self.lines.fields.swap_remove(at).1.items).unwrap_or_default().into_iter();
        let line = self.lines.line;
        items
            .into_iter()
            .map(|value| Self { value, lines: lines.next().unwrap_or_else(|| Lines::leaf(line)) })
            .collect()
    }

    /// Whether the document is meant to be a Kubernetes manifest, possibly a misspelt one.
    pub(crate) fn is_manifest(&self) -> bool {
        const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
        let is_one = |name: &String| FIELDS.iter().any(|field| spelling::within(name, field, 1).is_some());
        self.value.as_object().is_some_and(|fields| fields.keys().any(is_one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    fn read(text: &str) -> Vec<Document> {
        parse("f", text).expect("parses")
    }

    #[test]
    fn keys_with_dots_are_found() {
        let document = &read("metadata:\n  labels:\n    app: x\n    app.kubernetes.io/name: 1\n")[0];
        assert_eq!(document.line_of("metadata.labels.app.kubernetes.io/name"), 4);
        assert_eq!(document.line_of("metadata.labels.app"), 3);
    }

    #[test]
    fn a_list_is_its_items() {
        let items = read("kind: List\nitems:\n- kind: A\n  x: 1\n- kind: B\n").remove(0).items();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].line_of("x"), 4);
        assert_eq!(items[1].value["kind"], "B");
    }

    #[test]
    fn a_list_whose_items_are_null_is_empty_and_one_without_items_is_no_list() {
        let count = |text: &str| read(text).remove(0).items().len();
        assert_eq!(count("kind: PortForwardList\nitems: null\n"), 0);
        assert_eq!(count("kind: List\nitems: []\n"), 0);
        assert_eq!(count("kind: PortForwardList\n"), 1);
    }

    #[test]
    fn the_items_of_a_list_of_one_kind_have_its_kind() {
        let items =
            read("apiVersion: g/v1\nkind: AList\nitems:\n- x: 1\n- {apiVersion: g/v2, kind: B}\n").remove(0).items();
        let kinds: Vec<String> =
            items.iter().map(|item| format!("{} {}", item.value["apiVersion"], item.value["kind"])).collect();
        assert_eq!(kinds, [r#""g/v1" "A""#, r#""g/v2" "B""#]);
    }

    #[test]
    fn a_misspelt_manifest_is_still_meant_to_be_one() {
        for (text, expected) in
            [("kimd: A\n", true), ("metadat: {}\n", true), ("replicas: 1\nimage: x\n", false), ("- kind: A\n", false)]
        {
            assert_eq!(read(text)[0].is_manifest(), expected, "{text}");
        }
    }
}
