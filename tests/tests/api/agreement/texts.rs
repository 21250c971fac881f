//! Rows whose bytes matter: encodings, white space, and what separates documents.

use super::rows::Row;

const GOOD: &str = "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: a}
spec:
  placement: {sidecar: {selector: {}}}
  listeners:
  - name: l
    protocol: TCP
    port: 7000
    backends: [{local: {port: 80}}]
";
const JSON: &str = r#"{"apiVersion":"portlane.dev/v1alpha1","kind":"PortForward","metadata":{"name":"a"},"spec":{"placement":{"sidecar":{"selector":{}}},"listeners":[{"name":"l","protocol":"TCP","port":7000,"backends":[{"local":{"port":80}}]}]}}"#;

/// A name, the text, and why `portlane` is stricter than kubectl here; absent if both agree.
type Text = (&'static str, Vec<u8>, Option<&'static str>);

/// A second forward, on another port.
fn other(text: &str) -> String {
    let renamed = text.replace("name: a", "name: b").replace(r#""name":"a""#, r#""name":"b""#);
    renamed.replace("7000", "7001")
}

/// The good forward with another text in place of `from`.
fn with(from: &str, to: &str) -> Vec<u8> {
    GOOD.replace(from, to).into_bytes()
}

/// Two forwards with this text between them.
fn after(separator: &str) -> Vec<u8> {
    format!("{GOOD}{separator}{}", other(GOOD)).into_bytes()
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

/// The rows. Which of them kubectl reads is what kubectl says.
pub(super) fn rows() -> Vec<Row> {
    let rows = [encodings(), line_breaks(), tabs(), documents()].into_iter().flatten();
    rows.map(|(name, bytes, stricter)| Row {
        name: format!("text: {name}"),
        manifest: String::from_utf8_lossy(&bytes).into_owned(),
        bytes: Some(bytes),
        object: None,
        stricter: stricter.map(str::to_owned),
        other_fields: None,
        bound: None,
    })
    .collect()
}

/// Encodings, and characters that YAML does not know.
fn encodings() -> Vec<Text> {
    vec![
        ("Latin-1 in a comment", [b"# caf\xe9\n", GOOD.as_bytes()].concat(), None),
        ("bytes that begin no character, in a comment", [b"# \xff\x80\xc0\n", GOOD.as_bytes()].concat(), None),
        ("UTF-16, little-endian", utf16(&format!("\u{feff}{GOOD}"), u16::to_le_bytes), None),
        ("UTF-16, big-endian", utf16(&format!("\u{feff}{GOOD}"), u16::to_be_bytes), None),
        ("UTF-16 without a byte order mark", utf16(GOOD, u16::to_le_bytes), None),
        ("UTF-16, two documents", utf16(&format!("\u{feff}{GOOD}---\n{}", other(GOOD)), u16::to_le_bytes), None),
        ("a byte order mark in the second document", after("---\n\u{feff}"), None),
        ("a control character in a comment", with("kind:", "# \u{1}\nkind:"), None),
        ("a deletion character in a comment", with("kind:", "# \u{7f}\nkind:"), None),
        ("lines that end with a carriage return", with("\n", "\r"), None),
        (
            "lines that end as on Windows, two documents",
            String::from_utf8_lossy(&after("---\n")).replace('\n', "\r\n").into_bytes(),
            None,
        ),
    ]
}

/// Characters that end a line in YAML 1.1, and in no editor.
fn line_breaks() -> Vec<Text> {
    let hidden = Some("what follows such a character is another line for kubectl, and on the same line for its author");
    vec![
        ("words after a next-line character in a comment", with("kind:", "# a\u{85}b\nkind:"), None),
        ("words after a line separator in a comment", with("kind:", "# a\u{2028}b\nkind:"), None),
        ("words after a paragraph separator in a comment", with("kind:", "# a\u{2029}b\nkind:"), None),
        ("a line separator in a text without quotes", with("TCP", "TCP\u{2028}x"), None),
        ("a next-line character at the end of a comment", with("kind:", "# a\u{85}\nkind:"), hidden),
        ("a field after a line separator in a comment", with("kind:", "# a\u{2028}kind:"), hidden),
        ("a paragraph separator in quotes", with("{name: a}", "{name: a, annotations: {x: \"a\u{2029}b\"}}"), hidden),
        ("a line separator as an escape", with("{name: a}", "{name: a, annotations: {x: \"a\\u2028b\"}}"), None),
        (
            "a line separator in JSON",
            JSON.replace(r#""name":"a""#, "\"name\":\"a\",\"annotations\":{\"x\":\"a\u{2028}b\"}").into_bytes(),
            None,
        ),
    ]
}

/// Tabs, which YAML admits in some places only.
fn tabs() -> Vec<Text> {
    vec![
        ("a tab after a colon", with("port: 7000", "port:\t7000"), None),
        ("a tab and spaces after a colon", with("port: 7000", "port: \t 7000"), None),
        ("a tab after a colon, before a word", with("protocol: TCP", "protocol:\tTCP"), None),
        ("a tab after a dash", with("- name: l", "-\tname: l"), None),
        ("a space and a tab after a dash", with("- name: l", "- \tname: l"), None),
        ("a tab before a comment", with("port: 7000", "port: 7000\t# web"), None),
        ("a tab at the end of a line", with("spec:", "spec:\t"), None),
        ("a line of a tab", with("kind:", "\t\nkind:"), None),
        ("a tab and a comment on the first line", with("apiVersion", "\t# web\napiVersion"), None),
        ("a tab and a comment", with("    backends", "  \t# web\n    backends"), None),
        (
            "a tab and a comment behind the indentation of a value",
            with("    backends", "      \t# web\n    backends"),
            None,
        ),
        ("a tab and a comment after quotes", with("TCP\n", "\"TCP\"\n      \t# web\n"), None),
        ("a tab after a dash, and a comment", with("- name", "-\t# web\n    name"), None),
        ("tabs inside brackets", with("[{local: {port: 80}}]", "[\n\t{local: {port: 80}},\n\t# web\n\t]"), None),
        ("a tab after a value inside brackets", with("80}", "80\n\t}"), None),
        ("a tab behind spaces after a value inside brackets", with("80}", "80\n      \t}"), None),
        ("a tab in quotes", with("{name: a}", "\n  name: a\n  annotations:\n    x: \"a\n\t\n      b\""), None),
        ("a tab in a block", with("{name: a}", "\n  name: a\n  annotations:\n    x: |\n      a\n      \tb"), None),
        (
            "a tab before the indentation of a block",
            with("{name: a}", "\n  name: a\n  annotations:\n    x: |\n      a\n\t\n      b"),
            None,
        ),
        ("JSON that is indented with tabs", JSON.replace("\"spec\":", "\n\t\"spec\":").into_bytes(), None),
    ]
}

/// What separates documents, and what a document may be.
fn documents() -> Vec<Text> {
    vec![
        ("documents without content", format!("---\n---\n{GOOD}---\n# none\n").into_bytes(), None),
        ("a comment beside '---'", after("--- # next\n"), None),
        ("content beside '---'", after("--- {a: b}\n"), None),
        ("a document beside '---'", format!("--- {JSON}\n").into_bytes(), None),
        ("a document after '...' and '---'", after("...\n---\n"), None),
        ("a document after '...'", after("...\n"), Some("kubectl reads nothing after '...' and says nothing")),
        ("JSON twice", format!("{JSON}{}", other(JSON)).into_bytes(), None),
        ("JSON twice, on lines", format!("{JSON}\n{}\n", other(JSON)).into_bytes(), None),
        ("JSON and garbage", format!("{JSON} garbage").into_bytes(), None),
        ("JSON with escapes", JSON.replace("portlane.dev/", "portlane.dev\\/").into_bytes(), None),
        ("JSON with a byte order mark", format!("\u{feff}{JSON}").into_bytes(), None),
        (
            "a list",
            format!(r#"{{"apiVersion":"v1","kind":"List","items":[{JSON},{}]}}"#, other(JSON)).into_bytes(),
            None,
        ),
        ("three dashes and a word", after("---x\n"), None),
        ("a quote that does not end", with("TCP", "\"TCP"), None),
        ("a merge conflict of Git", with("kind:", "<<<<<<< HEAD\nkind:"), None),
        ("a template of Jinja", with("kind:", "{% if on %}\nkind:"), None),
        ("a Helm template", with("port: 7000", "port: {{ .Values.port }}"), None),
        ("a Helm template with a condition", with("  listeners:", "  {{- if .Values.on }}\n  listeners:"), None),
    ]
}
