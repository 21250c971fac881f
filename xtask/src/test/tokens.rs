//! Splits Rust sources into tokens, and finds the paths in them. Comments and the contents of literals do not count.

use super::rings::holds_in_tests_only;

/// Words with which items begin that do not end at a comma.
const ITEMS: [&str; 15] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// A word, a sign or a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// The text of the token; `""` for a literal in quotes.
    pub(super) text: &'a str,
    /// The line of the token, counted from 1.
    pub(super) line: usize,
}

/// The words of a path, such as those of `std::fs::read`. A tree of a `use` declaration yields one path for each leaf;
/// `*` is a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) words: Vec<&'a str>,
    pub(super) line: usize,
}

/// The code of a source, without what is compiled for tests only.
pub(super) struct Code<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    /// Modules in files of their own that are compiled for tests only.
    pub(super) test_modules: Vec<&'a str>,
}

impl<'a> Code<'a> {
    pub(super) fn of(source: &'a str) -> Self {
        let tokens = tokens(source);
        let (mut code, mut rest) = (Self { tokens: Vec::new(), test_modules: Vec::new() }, &tokens[..]);
        while let Some((first, behind)) = rest.split_first() {
            let attribute = attribute(rest);
            if attribute.is_empty() {
                code.tokens.push(*first);
                rest = behind;
                continue;
            }
            rest = &rest[attribute.len()..];
            if is_for_tests(attribute) {
                let item = item(rest);
                code.test_modules.extend(module(item));
                rest = &rest[item.len()..];
            } else {
                code.tokens.extend(attribute);
            }
        }
        code
    }

    /// Returns every path of more than one word, and every leaf of a `use` declaration. In an expression, a path ends
    /// before generic arguments. A path begins at a word of `crates`, unless that is a module of the own crate.
    pub(super) fn paths(&self, crates: &[&str]) -> Vec<Named<'a>> {
        let (tokens, mut paths, mut at) = (&self.tokens[..], Vec::new(), 0);
        while let Some(token) = tokens.get(at) {
            // This excludes `use<'a>`, which is a bound.
            if token.text == "use" && text(tokens, at + 1) != "<" {
                at = tree(tokens, at + 1, &[], &mut paths);
            } else if begins_path(tokens, at, crates) {
                let mut words = vec![token.text];
                while text(tokens, at + 1) == "::" && is_word(text(tokens, at + 2)) {
                    words.push(text(tokens, at + 2));
                    at += 2;
                }
                paths.push(Named { words, line: token.line });
                at += 1;
            } else {
                at += 1;
            }
        }
        paths
    }
}

/// The text of a token; empty behind the last one.
pub(super) fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Words that may precede a path that begins with `::`, and do not belong to it.
const KEYWORDS: [&str; 12] =
    ["as", "break", "dyn", "else", "for", "if", "impl", "in", "match", "move", "return", "while"];

fn begins_path(tokens: &[Token<'_>], at: usize, crates: &[&str]) -> bool {
    let word = text(tokens, at);
    if !is_word(word) || KEYWORDS.contains(&word) || text(tokens, at + 1) != "::" {
        return false;
    }
    let before = |count: usize| at.checked_sub(count).map_or("", |at| text(tokens, at));
    before(1) != "::" || (crates.contains(&word) && !["crate", "self", "super"].contains(&before(2)))
}

/// Reads the tree of a `use` declaration that begins at this token, below these words. Returns the position of its end.
fn tree<'a>(tokens: &[Token<'a>], mut at: usize, above: &[&'a str], paths: &mut Vec<Named<'a>>) -> usize {
    let (mut words, mut line) = (above.to_vec(), 0);
    while let Some(token) = tokens.get(at) {
        line = token.line;
        match token.text {
            "," | "}" | ";" => break,
            "::" => at += 1,
            // The next name is an alias in this file.
            "as" => at += 2,
            "{" => {
                at += 1;
                while !["}", ";", ""].contains(&text(tokens, at)) {
                    at = if text(tokens, at) == "," { at + 1 } else { tree(tokens, at, &words, paths) };
                }
                return at + 1;
            }
            word => {
                words.push(word);
                at += 1;
            }
        }
    }
    if words.len() > 1 && words.last() == Some(&"self") {
        words.pop();
    }
    paths.push(Named { words, line });
    at
}

/// Returns the attribute at the start; empty if there is none.
fn attribute<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    if text(tokens, 0) != "#" || text(tokens, 1) != "[" {
        return &[];
    }
    &tokens[..=group(&tokens[1..])]
}

fn is_for_tests(attribute: &[Token<'_>]) -> bool {
    let text: String = attribute.iter().map(|token| token.text).collect();
    text.strip_prefix("#[cfg(").and_then(|rest| rest.strip_suffix(")]")).is_some_and(holds_in_tests_only)
}

/// Returns the item, the field or the variant at the start, with its other attributes. A statement may be cut short,
/// never extended.
fn item<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let mut at = 0;
    while !attribute(&tokens[at..]).is_empty() {
        at += attribute(&tokens[at..]).len();
    }
    let is_item = ITEMS.contains(&text(tokens, at));
    while let Some(token) = tokens.get(at) {
        match token.text {
            "(" | "[" => at += group(&tokens[at..]),
            "{" => {
                at += group(&tokens[at..]);
                if ![";", ","].contains(&text(tokens, at)) {
                    break;
                }
            }
            ")" | "]" | "}" => break,
            ";" => {
                at += 1;
                break;
            }
            "," if !is_item => {
                at += 1;
                break;
            }
            _ => at += 1,
        }
    }
    &tokens[..at]
}

/// The name of a module without a body.
fn module<'a>(item: &[Token<'a>]) -> Option<&'a str> {
    match item {
        [.., word, name, end] if word.text == "mod" && end.text == ";" => Some(name.text),
        _ => None,
    }
}

/// Returns the number of tokens from the bracket at the start to its end.
fn group(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    let end = tokens.iter().position(|token| {
        depth += i32::from(["(", "[", "{"].contains(&token.text)) - i32::from([")", "]", "}"].contains(&token.text));
        depth <= 0
    });
    end.map_or(tokens.len(), |end| end + 1)
}

enum Kind {
    Code,
    Literal,
    Nothing,
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while !rest.is_empty() {
        let (length, kind) = first(rest);
        let (text, behind) = rest.split_at(length);
        match kind {
            Kind::Code => tokens.push(Token { text, line }),
            Kind::Literal => tokens.push(Token { text: "\"\"", line }),
            Kind::Nothing => {}
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

/// Returns the length and the kind of the first token of a source.
fn first(rest: &str) -> (usize, Kind) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Kind::Nothing);
    }
    if rest.starts_with("/*") {
        return (comment(rest), Kind::Nothing);
    }
    if let Some(length) = string(rest).or_else(|| character(rest)) {
        return (length, Kind::Literal);
    }
    let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    if word > 0 {
        return (word, Kind::Code);
    }
    if rest.starts_with("::") {
        return (2, Kind::Code);
    }
    let sign = rest.chars().next().unwrap_or(' ');
    (sign.len_utf8(), if sign.is_whitespace() { Kind::Nothing } else { Kind::Code })
}

/// Returns the length of a block comment, which may contain others.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(letter) = rest[at..].chars().next() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += letter.len_utf8();
        }
    }
    at
}

/// Returns the length of a string of any kind. Absent: the source does not begin with a string.
fn string(rest: &str) -> Option<usize> {
    let behind = rest.trim_start_matches(['b', 'c']);
    let raw = behind.strip_prefix('r');
    let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    let body = raw.map_or(behind, |raw| &raw[hashes..]).strip_prefix('"')?;
    let start = rest.len() - body.len();
    if raw.is_some() {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                letters.next();
            }
            '"' => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Returns the length of a character literal. Absent: the source does not begin with one, or begins with a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut letters = rest.strip_prefix('\'')?.char_indices();
    let end = if letters.next()?.1 == '\\' {
        letters.next()?;
        letters.find(|(_, letter)| *letter == '\'')?
    } else {
        letters.next().filter(|(_, letter)| *letter == '\'')?
    };
    Some(end.0 + 2)
}

#[test]
fn comments_and_literals_are_no_code_and_lines_are_counted() {
    let source =
        "a // b \" c\n/* d /* e */ \" */ f::g(\"h \\\" i\n\", 'j', '\\'', '\"', b'k', r#\"l \" m\"#, &'n o);\np";
    let read: Vec<(&str, usize)> = tokens(source).iter().map(|token| (token.text, token.line)).collect();
    let words: Vec<(&str, usize)> =
        read.iter().copied().filter(|(text, _)| text.starts_with(char::is_alphabetic)).collect();
    assert_eq!(words, [("a", 1), ("f", 2), ("g", 2), ("b", 3), ("n", 3), ("o", 3), ("p", 4)]);
    assert_eq!(read.iter().filter(|(text, _)| *text == "\"\"").count(), 6);
}

#[test]
fn what_is_compiled_for_tests_only_is_left_out_whatever_it_is() {
    let source = "#[cfg(test)]\n#[allow(x)]\nfn a<T, U>(t: [T; 2]) -> U {\n    b(c);\n}\n#[cfg(test)]\nuse d::{e, f};\n\
                  #[cfg(all(test, unix))]\nmod g;\n#[cfg(any(test, feature = \"h\"))]\nmod i;\n\
                  struct J {\n    #[cfg(test)]\n    k: L<M>,\n    n: O,\n}\n#[cfg(test)]\nmod p {\n    mod q;\n}\n";
    let code = Code::of(source);
    assert_eq!(code.test_modules, ["g"]);
    let text: Vec<&str> = code.tokens.iter().map(|token| token.text).collect();
    let text = text.join(" ");
    assert_eq!(text, "# [ cfg ( any ( test , feature = \"\" ) ) ] mod i ; struct J { n : O , }");
}

#[test]
fn every_leaf_of_a_use_and_every_path_is_named() {
    let source = "use a::{self, b::{c as d, e::*}, f as g,};\nuse ::h::i;\nuse j as k;\nfn l() -> impl M + use<'_> {\n\
                  n::o::<p::q>();\n    return ::r::s();\n    t.u(crate::r::v)\n}\n";
    let code = Code::of(source);
    let paths: Vec<String> = code.paths(&["r"]).into_iter().map(|path| path.words.join("::")).collect();
    let expected = ["a", "a::b::c", "a::b::e::*", "a::f", "h::i", "j", "n::o", "p::q", "r::s", "crate::r::v"];
    assert_eq!(paths, expected);
}
