//! YAML documents as JSON values, with the line of every field. Size, depth and alias expansion are bounded.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::{Document, Place, Problem, document::Lines, resolve, tabs, text};

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 8 << 20;
/// Most values in a file, with aliases expanded.
const MAX_NODES: usize = 1_000_000;
/// Most bytes of text in a file, with aliases expanded.
const MAX_TEXT: usize = 4 * MAX_FILE_BYTES;
/// Deepest nesting of values.
const MAX_DEPTH: usize = 64;

/// Reads all documents of a file; empty documents are skipped.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Document>, Problem> {
    let refused = |line: usize, message: String| Problem {
        place: Place { file: file.to_owned(), line },
        object: None,
        field: None,
        message,
    };
    if let Some(flaw) = text::refused_line(text).or_else(|| text::line_break(text)) {
        return Err(refused(flaw.line, flaw.message));
    }
    documents(text).map_err(|error| match text::template(text, error.line) {
        Some(flaw) => refused(flaw.line, flaw.message),
        None => refused(error.line, text::with_remedy(text, error.line, error.message)),
    })
}

/// Parses the documents of a text. The parser requires a space where kubectl accepts a tab after a ':', so all such
/// tabs are replaced at once.
fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    let text = tabs::judge(text).map_err(|refused| YamlError::new(refused.line, refused.message))?;
    match build(&text) {
        Err(error) if error.is_of_tab => {
            // The positions of quoted and block scalars are known only after all tabs are replaced.
            let texts = texts(&text::without_tabs(&text, &[]));
            build(&text::without_tabs(&text, &texts))
        }
        result => result,
    }
}

fn build(text: &str) -> Result<Vec<Document>, YamlError> {
    let parser = Parser::new_from_str(text);
    Builder { parser, anchors: HashMap::new(), nodes: 0, text: 0 }.documents()
}

/// The positions of quoted and block scalars, in characters, up to the first error.
fn texts(text: &str) -> Vec<Range<usize>> {
    let mut parser = Parser::new_from_str(text);
    let mut found = Vec::new();
    while let Some(Ok((event, span))) = parser.next_event() {
        match event {
            Event::StreamEnd => break,
            Event::Scalar(_, style, ..) if style != ScalarStyle::Plain => {
                found.push(span.start.index()..span.end.index());
            }
            _ => {}
        }
    }
    found
}

struct YamlError {
    line: usize,
    message: String,
    /// Whether the error is about a value that follows a ':' and a tab.
    is_of_tab: bool,
}

impl YamlError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), is_of_tab: false }
    }
}

/// The parser's message about a value that follows a ':' and a tab.
const NO_SPACE: &str = "':' must be followed by a valid YAML whitespace";

/// Whether a value is absent.
fn is_blank(event: &Event<'_>) -> bool {
    matches!(event, Event::Scalar(text, ScalarStyle::Plain, 0, None) if text.is_empty())
}

/// A value with its lines, and the cost of a copy of it.
#[derive(Clone)]
struct Node {
    value: Value,
    lines: Lines,
    nodes: usize,
    text: usize,
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text: usize,
}

impl<'a> Builder<'a> {
    fn documents(&mut self) -> Result<Vec<Document>, YamlError> {
        let mut documents = Vec::new();
        let mut is_first = true;
        loop {
            let (event, start) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(is_explicit) => {
                    if !is_explicit && !is_first {
                        let message =
                            "has content after '...', where kubectl stops reading; separate documents by '---'";
                        return Err(YamlError::new(start.start.line(), message));
                    }
                    is_first = false;
                    self.anchors.clear();
                    let (event, span) = self.next()?;
                    if is_explicit && span.start.line() == start.start.line() && !is_blank(&event) {
                        let message =
                            "has content on the line of '---', which kubectl refuses; move it to the next line";
                        return Err(YamlError::new(span.start.line(), message));
                    }
                    let node = self.node(event, span, 0)?;
                    if !node.value.is_null() {
                        documents.push(Document { value: node.value, lines: node.lines });
                    }
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let message = format!("is not valid YAML: {}", error.info());
                Err(YamlError { line: error.marker().line(), message, is_of_tab: error.info() == NO_SPACE })
            }
            None => Err(YamlError::new(1, "is not valid YAML: unexpected end of file")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(YamlError::new(line, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, text.len(), line)?;
                (leaf(scalar(&text, style, tag.as_deref(), line)?, line, text.len()), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(line, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(line, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    let message = "is not valid YAML: an alias refers to the anchor that contains it".to_owned();
                    return Err(YamlError::new(line, message));
                };
                // The cost is charged before the copy is made, because an alias bomb works by copying.
                let (nodes, text) = (node.nodes, node.text);
                self.spend(nodes, text, line)?;
                return self.anchors.get(&anchor).cloned().ok_or(YamlError::new(line, ""));
            }
            _ => return Err(YamlError::new(line, "is not valid YAML")),
        };
        if anchor > 0 {
            // This charges the copy that the anchor keeps.
            self.spend(node.nodes, node.text, line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn spend(&mut self, nodes: usize, text: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        self.text += text;
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            let message =
                format!("has more than {MAX_NODES} values or {MAX_TEXT} bytes of text after its aliases are expanded");
            return Err(YamlError::new(line, message));
        }
        Ok(())
    }

    fn sequence(&mut self, line: usize, depth: usize) -> Result<Node, YamlError> {
        self.spend(1, 0, line)?;
        let mut items = Vec::new();
        let mut node = leaf(Value::Null, line, 0);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node { value: Value::Array(items), ..node });
            }
            let item = self.node(event, span, depth + 1)?;
            node.nodes += item.nodes;
            node.text += item.text;
            node.lines.items.push(item.lines);
            items.push(item.value);
        }
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Node, YamlError> {
        self.spend(1, 0, line)?;
        let mut map = Map::new();
        let mut node = leaf(Value::Null, line, 0);
        // Keys that only merges have set, and keys of the mapping itself that a merge has set again.
        let (mut merged, mut replaced) = (HashSet::new(), HashSet::new());
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let at = span.start.line();
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            node.nodes += value.nodes + 1;
            node.text += value.text + 2 * key.text;
            if is_merge {
                for (key, value) in fields(value.value, at)? {
                    if map.insert(key.clone(), value).is_none() {
                        merged.insert(key);
                    } else if !merged.contains(&key) {
                        replaced.insert(key);
                    }
                }
                continue;
            }
            let Some(key) = resolve::key(&key.value) else {
                let kind = match key.value {
                    Value::Array(_) => "a list",
                    Value::Object(_) => "a mapping",
                    _ => "null",
                };
                let message = format!("has {kind} as a key, which must be a string; put the key in quotes");
                return Err(YamlError::new(at, message));
            };
            if map.contains_key(&key) && !merged.remove(&key) {
                return Err(YamlError::new(at, format!("has the key '{key}' twice in one mapping")));
            }
            node.lines.fields.push((key.clone(), Lines { line: at, ..value.lines }));
            map.insert(key, value.value);
        }
        node.lines.fields.retain(|(key, _)| !replaced.contains(key));
        Ok(Node { value: Value::Object(map), ..node })
    }
}

/// The fields that a merge key (`<<`) sets at its position, as kubectl reads it: they replace fields before it, and
/// fields after it replace them. Of several mappings, the first one takes precedence.
fn fields(value: Value, line: usize) -> Result<Map<String, Value>, YamlError> {
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Array(items) => {
            let mut all = Map::new();
            for item in items.into_iter().rev() {
                all.extend(fields(item, line)?);
            }
            Ok(all)
        }
        _ => Err(YamlError::new(line, "has a merge key ('<<') whose value is not a mapping")),
    }
}

fn leaf(value: Value, line: usize, text: usize) -> Node {
    Node { value, lines: Lines::leaf(line), nodes: 1, text }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, YamlError> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(resolve::plain(text)),
        None => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() => Ok(resolve::plain(text)),
        Some(tag) => Err(YamlError::new(line, format!("has a tag '{tag}', which manifests do not support"))),
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
    fn a_merge_counts_where_it_stands_as_with_kubectl() {
        let read = |text: &str| read(&format!("p: &p {{a: 1, b: 2}}\nq: {text}\n"))[0].value["q"].clone();
        assert_eq!(read("{a: 3, <<: *p}"), json!({"a": 1, "b": 2}));
        assert_eq!(read("{a: 3, <<: *p, b: 4}"), json!({"a": 1, "b": 4}));
        assert_eq!(read("{a: 3, <<: [{a: 5, c: 6}, *p]}"), json!({"a": 5, "b": 2, "c": 6}));
        assert_eq!(read("{<<: *p, <<: {a: 7}}"), json!({"a": 7, "b": 2}));
        assert!(problem("p: &p {a: 1}\nq: {a: 2, <<: *p, a: 3}\n").contains("'a' twice"));
        assert!(problem("p: &p {a: 1}\nq: {<<: *p, a: 2, a: 3}\n").contains("'a' twice"));
    }

    #[test]
    fn any_number_of_values_may_follow_a_tab_and_texts_keep_theirs() {
        let many: Vec<String> = (0..20_000).map(|n| format!("k{n}:\tv\n")).collect();
        assert_eq!(read(&many.concat())[0].value["k19999"], json!("v"));
        let text = "a:\tx\nü: 'b:\tc'\n\"d:\te\": \t f\ng: |\n  h:\ti\nj: {k:\tl}\n# m:\tn\n";
        let expected = json!({"a": "x", "ü": "b:\tc", "d:\te": "f", "g": "h:\ti\n", "j": {"k": "l"}});
        assert_eq!(read(text)[0].value, expected);
        assert!(problem("a:\tx\nb: 'c:\td'\ne: [\n").starts_with("f:"));
    }

    #[test]
    fn broken_documents_are_refused_with_their_line() {
        assert!(problem("a: 1\na: 2\n").starts_with("f:2: has the key 'a' twice"));
        assert!(problem("a: [1, 2\nb: }\n").starts_with("f:"));
        assert!(problem("a: !thing 1\n").contains("tag"));
        assert!(problem("? [1]\n: 2\n").contains("a list as a key"));
        assert!(problem("? {a: b}\n: c\n").contains("a mapping as a key"));
        let star = problem("a:\n- x\nb: [*.db.example.com]\n");
        assert!(star.starts_with("f:3:") && star.ends_with("needs quotes: '*.db.example.com'"), "{star}");
        let moved = problem("a: 1\n   b: 2\n");
        assert!(moved.starts_with("f:2:") && moved.contains("indentation of this line"), "{moved}");
        for (text, message) in [
            ("a: 1\n---x\nb: 2\n", "f:2: begins with '---' and other text, which does not separate documents"),
            ("----\na: 1\n", "f:1: begins with '---' and other text, which does not separate documents"),
            ("%YAML 1.2\n---\na: 1\n", "f:1: has a YAML directive"),
            ("a:\n  b: 'tcp\nc: 1\n", "f:2: is not valid YAML: a quote that begins here does not end"),
            ("a: 1\nb: \"tcp\n", "f:2: is not valid YAML: a quote that begins here does not end"),
            ("a: 1\n<<<<<<< HEAD\n  b: 2\n=======\n", "f:2: has a merge conflict of Git"),
            ("a: {b: ${C}}\n", "f:1: is a template, not a manifest: '${...}' is not filled in"),
        ] {
            assert!(problem(text).starts_with(message), "{text}: {}", problem(text));
        }
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
    fn a_bomb_of_long_texts_is_refused_too() {
        let long = "x".repeat(1 << 20);
        let bomb = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 2000].join(","));
        assert!(problem(&bomb).contains("bytes of text"));
    }
}
