//! The text of a manifest, decoded as kubectl decodes it.

use std::{iter, ops::Range};

/// Messages of the parser about wrong indentation.
const OF_INDENTATION: [&str; 7] = [
    "mapping values are not allowed",
    "did not find expected key",
    "did not find expected '-'",
    "block sequence entries are not allowed",
    "invalid indentation",
    "simple key expect",
    "wrongly indented",
];
/// The message about a text that is not valid YAML because it is a template of Helm.
const HELM: &str = "is a Helm template, not a manifest: '{{ ... }}' is not filled in; render the chart first, for \
                    example: helm template CHART | portlane validate -f -";
/// The message about a template of Jinja.
const JINJA: &str = "is a Jinja template, not a manifest: '{% ... %}' is not filled in; render the template first";
/// The message about a template of envsubst.
const VARIABLE: &str = "is a template, not a manifest: '${...}' is not filled in; fill in the variables first, for \
                        example: envsubst < FILE | portlane validate -f -";
/// The message about a text with a merge conflict of Git.
const CONFLICT: &str = "has a merge conflict of Git; resolve the conflict and remove its marks";
/// A mark at the start of a text, or of a document in it, without a meaning.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Why bytes are not a text that kubectl reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Decodes UTF-8, or UTF-16 that begins with a byte order mark. Bytes that are not UTF-8 become replacement characters,
/// as with kubectl: they are usually in comments.
pub(super) fn decode(bytes: &[u8]) -> Result<String, Flaw> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    let text = without_marks(text);
    match text.char_indices().find(|(_, letter)| !is_printable(*letter)) {
        None => Ok(text),
        Some((at, letter)) => Err(Flaw {
            line: text[..at].matches('\n').count() + 1,
            message: format!(
                "has the control character U+{:04X}, which YAML does not permit; remove the character",
                u32::from(letter)
            ),
        }),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Flaw> {
    let flaw = || Flaw { line: 1, message: "is not valid UTF-16 text; save the file as UTF-8".to_owned() };
    let pairs = bytes.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).map(unit).map_err(|_| flaw()));
    let units: Vec<u16> = pairs.collect::<Result<_, _>>()?;
    String::from_utf16(&units).map_err(|_| flaw())
}

/// Removes the byte order marks at the start of the text and of its documents.
fn without_marks(text: String) -> String {
    if !text.contains(BYTE_ORDER_MARK) {
        return text;
    }
    let mut begins = true;
    let lines = text.split_inclusive('\n').map(|line| {
        let line = if begins { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        begins = line.starts_with("---");
        line
    });
    lines.collect()
}

/// Characters that kubectl's YAML reader accepts without an escape.
fn is_printable(letter: char) -> bool {
    matches!(
        letter,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..
    )
}

/// Replaces the tabs between a ':' and its value by spaces, except in these ranges of characters, which are in order.
pub(super) fn without_tabs(text: &str, kept: &[Range<usize>]) -> String {
    let mut kept = kept.iter().peekable();
    let mut is_after_colon = false;
    let replace = |(at, letter): (usize, char)| {
        while kept.next_if(|range| range.end <= at).is_some() {}
        is_after_colon = letter == ':' || (is_after_colon && matches!(letter, ' ' | '\t'));
        let is_kept = kept.peek().is_some_and(|range| range.contains(&at));
        if letter == '\t' && is_after_colon && !is_kept { ' ' } else { letter }
    };
    text.chars().enumerate().map(replace).collect()
}

/// The first line that kubectl refuses at any place: a directive, or content right behind a '---'.
pub(super) fn refused_line(text: &str) -> Option<Flaw> {
    let mut is_head = true;
    for (line, content) in iter::zip(1_usize.., text.lines()) {
        let message = match content.strip_prefix("---").and_then(|rest| rest.chars().next()) {
            _ if is_head && content.starts_with('%') => {
                "has a YAML directive, which kubectl does not support; remove the line"
            }
            // The content may be a template, which has a message of its own.
            Some(next) if !next.is_whitespace() && !matches!(next, '#' | '{') => {
                "begins with '---' and other text, which does not separate documents; write '---' alone on its line"
            }
            _ => {
                is_head &= content.is_empty() || content.starts_with('#');
                continue;
            }
        };
        return Some(Flaw { line, message: message.to_owned() });
    }
    None
}

/// The first character at which kubectl, by YAML 1.1, ends a line or a comment, but at which editors and the parser
/// here do not.
pub(super) fn line_break(text: &str) -> Option<Flaw> {
    let (at, letter) = text.char_indices().find(|(_, letter)| matches!(letter, '\u{85}' | '\u{2028}' | '\u{2029}'))?;
    let code = u32::from(letter);
    Some(Flaw {
        line: text[..at].matches('\n').count() + 1,
        message: format!(
            "has the character U+{code:04X}, at which kubectl ends the line; remove the character, or write it as \
             \\u{code:04X} in double quotes"
        ),
    })
}

/// Why a text that is not valid YAML is not a manifest yet, and the position. `line` is the line of the mistake.
pub(super) fn template(text: &str, line: usize) -> Option<Flaw> {
    let is_conflict = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
    let first = |is_one: &dyn Fn(&str) -> bool| {
        iter::zip(1_usize.., text.lines()).find(|(_, content)| is_one(content)).map(|(line, _)| line)
    };
    let given = |is_one: &dyn Fn(&str) -> bool| {
        text.lines().nth(line.saturating_sub(1)).filter(|content| is_one(content)).map(|_| line)
    };
    let of = |opening: &'static str, closing: &'static str| {
        move |line: &str| {
            !line.trim_start().starts_with('#')
                && line.split_once(opening).is_some_and(|(_, rest)| rest.contains(closing))
        }
    };
    let (helm, jinja, variable) = (of("{{", "}}"), of("{%", "%}"), of("${", "}"));
    let (line, message) = if let Some(line) = first(&is_conflict) {
        (line, CONFLICT)
    } else if let Some(line) = given(&jinja).or_else(|| first(&jinja)) {
        (line, JINJA)
    } else if let Some(line) = given(&helm).or_else(|| first(&helm)) {
        (line, HELM)
    } else {
        // Scripts in manifests have variables, too, so only the line of the mistake counts.
        (given(&variable)?, VARIABLE)
    };
    Some(Flaw { line, message: message.to_owned() })
}

/// A message of the parser, with the remedy if it is known. `line` is the line of the mistake.
pub(super) fn with_remedy(text: &str, line: usize, message: String) -> String {
    let says = |words: &str| message.contains(words);
    if says("unknown anchor") || says("scanning an anchor or alias") {
        let value = text.lines().nth(line.saturating_sub(1)).and_then(starred);
        let value = value.map_or_else(String::new, |value| format!(": '{value}'"));
        return format!("{message}; a value that begins with '*' or '&' needs quotes{value}");
    }
    if says("quoted scalar, found unexpected") || says("invalid indentation in quoted scalar") {
        let or = if says("indentation") { ", or indent the lines of the text" } else { "" };
        return format!("is not valid YAML: a quote that begins here does not end; write the closing quote{or}");
    }
    if says("unexpected character") {
        return format!("{message}; put a value that begins with this character in quotes");
    }
    if OF_INDENTATION.iter().any(|words| says(words)) {
        let colon = if says("mapping values") { ", and put a value that contains ': ' in quotes" } else { "" };
        return format!("{message}; check the indentation of this line and of the line before{colon}");
    }
    message
}

/// The first value in a line that begins with '*', such as `*.example.com`.
fn starred(line: &str) -> Option<&str> {
    let is_end = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ']' | '}' | '\'' | '"');
    let value = line.get(line.find('*')?..)?;
    value.split(is_end).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_as_kubectl_does() {
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
            [mark.to_vec(), "a: ß\n".encode_utf16().flat_map(bytes).collect()].concat()
        };
        for (bytes, text) in [
            (b"a: 1\n".to_vec(), "a: 1\n"),
            (b"# caf\xe9\na: 1\n".to_vec(), "# caf\u{fffd}\na: 1\n"),
            (b"\xef\xbb\xbfa: 1\n".to_vec(), "a: 1\n"),
            (b"a: 1\n---\n\xef\xbb\xbfb: 1\n".to_vec(), "a: 1\n---\nb: 1\n"),
            (utf16([0xff, 0xfe], u16::to_le_bytes), "a: ß\n"),
            (utf16([0xfe, 0xff], u16::to_be_bytes), "a: ß\n"),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok(text), "{bytes:?}");
        }
    }

    #[test]
    fn texts_that_kubectl_refuses_are_refused_with_their_line() {
        for (bytes, line, words) in [
            (&b"a: 1\n# \x01\n"[..], 2, "U+0001"),
            (&b"a: 1\n\n# \x7f"[..], 3, "U+007F"),
            (&b"a: \x00"[..], 1, "U+0000"),
            (&b"a: 1\nb: \xef\xbb\xbf1\n"[..], 2, "U+FEFF"),
            (&b"\xff\xfea"[..], 1, "UTF-16"),
            (&b"\xff\xfe\x00\xd8"[..], 1, "UTF-16"),
        ] {
            let flaw = decode(bytes).expect_err("refused");
            assert!(flaw.line == line && flaw.message.contains(words), "{bytes:?}: {flaw:?}");
        }
    }

    #[test]
    fn only_the_tabs_after_a_colon_become_spaces_and_texts_keep_theirs() {
        assert_eq!(without_tabs("ü:\t1\nb:\t \tx\t#", &[]), "ü: 1\nb:   x\t#");
        let texts = [3..8, 12..17];
        assert_eq!(without_tabs("ü: 'a:\t' b:\t'c:\t' d:\t1", &texts), "ü: 'a:\t' b: 'c:\t' d: 1");
        assert_eq!(without_tabs("a\t1", &[]), "a\t1");
    }

    #[test]
    fn a_mistake_of_the_parser_has_a_remedy() {
        let remedy = |text: &str, message: &str| with_remedy(text, 1, message.to_owned());
        let anchor = "is not valid YAML: while parsing node, found unknown anchor";
        let hint = "a value that begins with '*' or '&' needs quotes";
        assert_eq!(remedy("a: [*.b.c, d]", anchor), format!("{anchor}; {hint}: '*.b.c'"));
        assert_eq!(remedy("a: 1", anchor), format!("{anchor}; {hint}"));
        let key = remedy("a", "is not valid YAML: while parsing a block mapping, did not find expected key");
        assert!(key.ends_with("; check the indentation of this line and of the line before"), "{key}");
        assert_eq!(remedy("a", "has a tag"), "has a tag");
    }

    #[test]
    fn templates_and_conflicts_are_recognised() {
        for (text, line, expected) in [
            ("a: 1\nb: {{ .Values.b }}\nc: {{ .c }}\n", 3, Some((3, HELM))),
            ("a: 1\n{{- if .Values.b }}\nc: 1\n", 3, Some((2, HELM))),
            ("a: {b: {c: 1}}\n# {{ .c }}\n", 1, None),
            ("{% if a %}\na: {{ b }}\n{% endif %}\n", 2, Some((1, JINJA))),
            ("a: 1\n<<<<<<< HEAD\nb: {{ .b }}\n", 3, Some((2, CONFLICT))),
            ("a: {b: ${B}}\n", 1, Some((1, VARIABLE))),
            ("a: ${A}\nb: [\n", 2, None),
        ] {
            let found = template(text, line);
            assert_eq!(found, expected.map(|(line, words)| Flaw { line, message: words.to_owned() }), "{text}");
        }
    }

    #[test]
    fn a_line_that_kubectl_refuses_anywhere_is_found() {
        for (text, expected) in [
            ("a: 1\n---\n--- # b\n---# c\n---\t\n", None),
            ("---{{ .a }}\n", None),
            ("a: 1\n%b\n", None),
            ("# a\n\n%YAML 1.2\n", Some(3)),
            ("a: 1\n---b\n", Some(2)),
            ("----\n", Some(1)),
        ] {
            assert_eq!(refused_line(text).map(|flaw| flaw.line), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_break_of_yaml_1_1_is_found_with_its_line_and_the_remedy() {
        for (letter, code) in [('\u{85}', "0085"), ('\u{2028}', "2028"), ('\u{2029}', "2029")] {
            let flaw = line_break(&format!("a: 1\n# ü{letter}b: 2\n")).expect("found");
            let words = format!(
                "has the character U+{code}, at which kubectl ends the line; remove the character, or write it as \
                 \\u{code} in double quotes"
            );
            assert_eq!(flaw, Flaw { line: 2, message: words });
        }
        assert_eq!(line_break("a: ü\r\nb: \"\\u2028\"\n"), None);
    }
}
