//! YAML documents as JSON values, with the line of every field. Bounded in size, depth and expansion.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::{Place, Problem, resolve};

/// Largest file that is read, bytes.
pub(crate) const MAX_FILE_BYTES: usize = 8 << 20;
/// Most values in a file, aliases expanded.
const MAX_NODES: usize = 1_000_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// One document of a file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) line: usize,
    pub(crate) value: Value,
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// The line of a field, or of the nearest field around it that is there.
    pub(crate) fn line_of(&self, field: &str) -> usize {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return self.line,
            }
        }
    }

    /// The items of a `List`, each as a document of its own.
    pub(crate) fn items(self) -> Vec<Self> {
        let is_list = self.value["kind"].as_str() == Some("List") && self.value["items"].is_array();
        if !is_list {
            return vec![self];
        }
        let items = self.value["items"].as_array().cloned().unwrap_or_default();
        let item = |(at, value): (usize, Value)| {
            let prefix = format!("items[{at}]");
            let inside = self.lines.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
            let lines =
                inside.map(|(path, line)| (path[prefix.len()..].trim_start_matches('.').to_owned(), *line)).collect();
            Self { line: self.line_of(&prefix), value, lines }
        };
        items.into_iter().enumerate().map(item).collect()
    }
}

/// Reads all documents of a file; empty ones are left out.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Document>, Problem> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    builder.documents().map_err(|Wrong { line, message }| Problem {
        place: Place { file: file.to_owned(), line },
        object: None,
        field: None,
        message,
    })
}

struct Wrong {
    line: usize,
    message: String,
}

/// A value with the lines of the fields below it, by path relative to it.
#[derive(Clone)]
struct Node {
    value: Value,
    line: usize,
    lines: Vec<(String, usize)>,
    size: usize,
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn documents(&mut self) -> Result<Vec<Document>, Wrong> {
        let mut documents = Vec::new();
        loop {
            match self.next()?.0 {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(_) => {
                    self.anchors.clear();
                    let (event, span) = self.next()?;
                    let node = self.node(event, span, 0)?;
                    if !node.value.is_null() {
                        let lines = node.lines.into_iter().collect();
                        documents.push(Document { line: node.line, value: node.value, lines });
                    }
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Wrong> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(Wrong { line: error.marker().line(), message: format!("is not valid YAML: {}", error.info()) })
            }
            None => Err(Wrong { line: 1, message: "is not valid YAML: it ends too early".to_owned() }),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Wrong> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(Wrong { line, message: format!("is nested deeper than {MAX_DEPTH} levels") });
        }
        self.spend(1, line)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (leaf(scalar(&text, style, tag.as_deref(), line)?, line), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(line, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(line, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Wrong {
                        line,
                        message: "is not valid YAML: an alias stands inside its own anchor".into(),
                    });
                };
                self.spend(node.size, line)?;
                return Ok(node);
            }
            _ => return Err(Wrong { line, message: "is not valid YAML".to_owned() }),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn spend(&mut self, nodes: usize, line: usize) -> Result<(), Wrong> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("has more than {MAX_NODES} values once its aliases are expanded");
            return Err(Wrong { line, message });
        }
        Ok(())
    }

    fn sequence(&mut self, line: usize, depth: usize) -> Result<Node, Wrong> {
        let (mut items, mut lines, mut size) = (Vec::new(), Vec::new(), 1);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node { value: Value::Array(items), line, lines, size });
            }
            let node = self.node(event, span, depth + 1)?;
            let path = format!("[{}]", items.len());
            size += node.size;
            add_lines(&mut lines, &path, &node);
            items.push(node.value);
        }
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Node, Wrong> {
        let (mut map, mut lines, mut size) = (Map::new(), Vec::new(), 1);
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let at = span.start.line();
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            size += node.size + 1;
            if is_merge {
                merged.push((at, node.value));
                continue;
            }
            let Some(key) = resolve::key(&key.value) else {
                return Err(Wrong { line: at, message: "has a key that is not a string".to_owned() });
            };
            if map.contains_key(&key) {
                return Err(Wrong { line: at, message: format!("has the key '{key}' twice in one place") });
            }
            add_lines(&mut lines, &key, &Node { line: at, ..node.clone() });
            map.insert(key, node.value);
        }
        for (at, value) in merged {
            merge(&mut map, value, at)?;
        }
        Ok(Node { value: Value::Object(map), line, lines, size })
    }
}

/// Adds what `<<` names, where the mapping does not say otherwise.
fn merge(map: &mut Map<String, Value>, value: Value, line: usize) -> Result<(), Wrong> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| merge(map, item, line)),
        _ => Err(Wrong { line, message: "merges ('<<') something that is not a mapping".to_owned() }),
    }
}

fn leaf(value: Value, line: usize) -> Node {
    Node { value, line, lines: Vec::new(), size: 1 }
}

fn add_lines(lines: &mut Vec<(String, usize)>, path: &str, node: &Node) {
    lines.push((path.to_owned(), node.line));
    for (below, line) in &node.lines {
        let dot = if below.starts_with('[') { "" } else { "." };
        lines.push((format!("{path}{dot}{below}"), *line));
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, Wrong> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(resolve::plain(text)),
        None => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() => Ok(resolve::plain(text)),
        Some(tag) => Err(Wrong { line, message: format!("has a tag '{tag}' that manifests cannot have") }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Document> {
        parse("f", text).expect("parses")
    }

    fn problem(text: &str) -> String {
        parse("f", text).expect_err("refused").to_string()
    }

    #[test]
    fn every_field_knows_its_line() {
        let documents = read("# c\n---\na: 1\nb:\n- c: on\n  d: [1, 2]\n---\n---\ne: {f: x}\n");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].value, json!({"a": 1, "b": [{"c": true, "d": [1, 2]}]}));
        assert_eq!(documents[0].line_of("b[0].d[1]"), 6);
        assert_eq!(documents[0].line_of("b[0].missing.deeper"), 5);
        assert_eq!(documents[0].line_of("z"), 3);
        assert_eq!(documents[1].line_of("e.f"), 9);
    }

    #[test]
    fn quotes_tags_and_blocks_are_strings() {
        let value = &read("a: 'on'\nb: \"010\"\nc: !!str 5\nd: |\n  yes\n")[0].value;
        assert_eq!(*value, json!({"a": "on", "b": "010", "c": "5", "d": "yes\n"}));
    }

    #[test]
    fn anchors_and_merges_are_expanded() {
        let value = &read("p: &p {a: 1, b: 2}\nq: {<<: *p, b: 3}\nr: *p\n")[0].value;
        assert_eq!(value["q"], json!({"a": 1, "b": 3}));
        assert_eq!(value["r"], json!({"a": 1, "b": 2}));
    }

    #[test]
    fn broken_documents_are_refused_with_their_line() {
        assert!(problem("a: 1\na: 2\n").starts_with("f:2: has the key 'a' twice"));
        assert!(problem("a: [1, 2\nb: }\n").starts_with("f:"));
        assert!(problem("a: !thing 1\n").contains("tag"));
        assert!(problem("? [1]\n: 2\n").contains("key"));
        let deep = "[".repeat(200);
        assert!(problem(&deep).contains("deep"), "{}", problem(&deep));
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let alias = format!("*a{}", n - 1);
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(",")));
        }
        assert!(problem(&bomb).contains("aliases"));
    }

    #[test]
    fn a_list_is_its_items() {
        let items = read("kind: List\nitems:\n- kind: A\n  x: 1\n- kind: B\n").remove(0).items();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].line_of("x"), 4);
        assert_eq!(items[1].value["kind"], "B");
    }
}
