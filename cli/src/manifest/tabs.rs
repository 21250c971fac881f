//! Tabs in the place of indentation: before the first word of a line, or between a '-' and its value. kubectl refuses
//! them, except inside brackets and quotes and behind the indentation of a text. The parser of Portlane has other
//! rules, so tabs are judged here and replaced by spaces.

use std::{borrow::Cow, iter, ops::Range};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::text::without_tabs;

/// Most lines of a file with such a tab.
const MOST: usize = 200_000;
/// Spaces that replace a tab: more than the indentation of any content in brackets, so that the parser accepts it as
/// indented.
const WIDTH: usize = 32;

/// A tab that kubectl refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) message: String,
}

/// The first tab of a line in the place of indentation. Positions are in characters of the text with spaces.
struct Tab {
    at: usize,
    line: usize,
    /// Column in the file, counted from 0.
    column: usize,
    /// The last character before the tab that is not blank.
    after: Option<usize>,
    is_after_dash: bool,
}

/// Replaces the tabs that kubectl accepts in the place of indentation by spaces.
pub(super) fn judge(text: &str) -> Result<Cow<'_, str>, Refused> {
    if !text.contains('\t') {
        return Ok(Cow::Borrowed(text));
    }
    let (wide, tabs) = widen(text);
    if tabs.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let refused = |tab: &Tab, message: &str| Refused { line: tab.line, message: message.to_owned() };
    if let Some(tab) = tabs.get(MOST) {
        let message = format!("is one of more than {MOST} lines that begin with a tab; indent with spaces");
        return Err(refused(tab, &message));
    }
    let places = Places::of(&without_tabs(&wide, &[]));
    match tabs.iter().find(|tab| places.refuse(tab)) {
        Some(tab) if tab.is_after_dash => {
            Err(refused(tab, "has a tab after '-', which kubectl refuses; write a space"))
        }
        Some(tab) => Err(refused(tab, "begins with a tab, which kubectl refuses; indent with spaces")),
        None => Ok(Cow::Owned(restore(&wide, tabs.iter().map(|tab| tab.at).filter(|at| places.keep(*at))))),
    }
}

/// Replaces the first such tab of each line by spaces. Searches for at most one tab more than [`MOST`].
fn widen(text: &str) -> (String, Vec<Tab>) {
    let (mut wide, mut tabs) = (String::with_capacity(text.len()), Vec::new());
    let (mut at, mut after) = (0, None);
    let (mut line, mut column) = (1, 0);
    // `begins`: the line has only blanks and dashes so far, and no tab.
    let (mut begins, mut is_after_dash) = (true, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        if begins && letter == '\t' && tabs.len() <= MOST {
            tabs.push(Tab { at, line, column, after, is_after_dash });
            wide.extend(iter::repeat_n(' ', WIDTH));
            at += WIDTH;
            begins = false;
            continue;
        }
        wide.push(letter);
        at += 1;
        if letter == '\n' || (letter == '\r' && next != Some('\n')) {
            (line, column, begins, is_after_dash) = (line + 1, 0, true, false);
            continue;
        }
        column += 1;
        if matches!(letter, ' ' | '\t' | '\r') {
            continue;
        }
        after = Some(at - 1);
        let is_dash = begins && letter == '-' && matches!(next, Some(' ' | '\t'));
        (begins, is_after_dash) = (is_dash, is_dash);
    }
    (wide, tabs)
}

/// Restores tabs at these places, which are in order.
fn restore(wide: &str, tabs: impl Iterator<Item = usize>) -> String {
    let mut tabs = tabs.peekable();
    let mut text = String::with_capacity(wide.len());
    let mut next = 0;
    for (at, letter) in wide.chars().enumerate() {
        if tabs.next_if_eq(&at).is_some() {
            text.push('\t');
            next = at + WIDTH;
        }
        if at >= next {
            text.push(letter);
        }
    }
    text
}

/// A value that is a text.
enum Text {
    /// A plain scalar; its further lines, and the content after it, must be indented at least to this column.
    Plain(usize),
    /// A quoted scalar.
    Quoted,
    /// A block scalar whose content begins at this column.
    Block(usize),
}

/// A mapping or a sequence that is still open.
struct Collection {
    /// The start of its brackets, or of those around it.
    flow: Option<usize>,
    /// The least indentation of a plain text in the collection, as a column.
    least: usize,
}

/// The positions of texts and brackets, in order and in characters.
#[derive(Default)]
struct Places {
    texts: Vec<(Range<usize>, Text)>,
    flows: Vec<(Range<usize>, ())>,
    /// The position at which the parser stopped, if it did.
    known: usize,
}

impl Places {
    fn of(text: &str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let mut places = Self::default();
        let mut open: Vec<Collection> = Vec::new();
        let mut parser = Parser::new_from_str(text);
        while let Some(Ok((event, span))) = parser.next_event() {
            let (begin, end) = (span.start.index(), span.end.index());
            places.known = places.known.max(end);
            let parent = open.last();
            match event {
                Event::StreamEnd => {
                    places.known = usize::MAX;
                    return places;
                }
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    let before = end.checked_sub(1).and_then(|at| letters.get(at));
                    let is_bracket = matches!(before, Some('[' | '{'));
                    let flow = parent.and_then(|parent| parent.flow).or(is_bracket.then_some(begin));
                    let least = match flow {
                        Some(_) => parent.map_or(0, |parent| parent.least),
                        // The mark of a sequence that is indented no further than its key is behind the '-'.
                        None => span.end.col() + usize::from(before != Some(&'-')),
                    };
                    open.push(Collection { flow, least });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let ended = open.pop().and_then(|collection| collection.flow);
                    let is_outermost = open.last().is_none_or(|parent| parent.flow.is_none());
                    places.flows.extend(ended.filter(|_| is_outermost).map(|begin| (begin..end, ())));
                }
                Event::Scalar(_, style, ..) if begin < end => {
                    let text = match style {
                        ScalarStyle::Plain => Text::Plain(parent.map_or(0, |parent| parent.least)),
                        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Text::Quoted,
                        ScalarStyle::Literal | ScalarStyle::Folded => Text::Block(span.start.col()),
                    };
                    places.texts.push((begin..end, text));
                }
                _ => {}
            }
        }
        // If brackets are not closed, the extent of their content is unknown.
        let unclosed = open.iter().find_map(|collection| collection.flow);
        places.known = unclosed.map_or(places.known, |begin| begin.min(places.known));
        places
    }

    fn refuse(&self, tab: &Tab) -> bool {
        if tab.at >= self.known {
            return false;
        }
        match (find(&self.texts, tab.at), tab.after.and_then(|after| find(&self.texts, after))) {
            (Some(Text::Quoted), _) => false,
            (Some(Text::Block(column)), _) => tab.column < *column,
            // The reader of a plain text continues behind its end, to the next word.
            (Some(Text::Plain(least)), _) | (None, Some(Text::Plain(least))) => tab.column < *least,
            (None, _) => find(&self.flows, tab.at).is_none(),
        }
    }

    /// Whether a tab is part of a text, or its position is unknown to the parser.
    fn keep(&self, at: usize) -> bool {
        at >= self.known || matches!(find(&self.texts, at), Some(Text::Block(_)))
    }
}

/// Returns the value of the range at a position.
fn find<T>(ranges: &[(Range<usize>, T)], at: usize) -> Option<&T> {
    let first = ranges.partition_point(|(range, _)| range.end <= at);
    ranges.get(first).filter(|(range, _)| range.contains(&at)).map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::parse;

    /// The line that is refused.
    fn refused(text: &str) -> Option<usize> {
        judge(text).err().map(|refused| refused.line)
    }

    #[test]
    fn a_tab_that_begins_a_line_is_refused_as_by_kubectl() {
        for (text, line) in [
            ("\t\na: 1\n", 1),
            ("\t# c\na: 1\n", 1),
            ("---\n\t# c\na: 1\n", 2),
            ("a: b\n\t\n", 2),
            ("a: b\r\n\t# c\r\n", 2),
            ("a:\n  b: c\n  \t# d\n", 3),
            ("a:\n  b: 'c'\n      \t\n", 3),
            ("a:\n  b: c # d\n      \t\n", 3),
            ("a:\n   \t# c\n  b: c\n", 2),
            ("a:\n  - b\n \t\n", 3),
            ("a:\n- b: c\n  \t# d\n", 3),
            ("a: |\n  b\n\t\n  c\n", 3),
            ("a: b\n\tc\n", 2),
            ("a: {\n\tb: c\n\t}\n", 3),
        ] {
            assert_eq!(refused(text), Some(line), "{text:?}");
        }
    }

    #[test]
    fn a_tab_after_a_dash_is_refused_with_and_without_a_value() {
        for text in ["a:\n-\tb: 1\n", "a:\n- \tb\n", "a:\n-\t'b'\n", "-\t-1\n", "a:\n-\t# c\n  b\n"] {
            let message = judge(text).expect_err("refused").message;
            assert!(message.contains("tab after '-'"), "{text:?}: {message}");
        }
    }

    #[test]
    fn tabs_that_kubectl_accepts_are_read_and_texts_keep_theirs() {
        for (text, value) in [
            ("a: {\n\tb: c,\n\td: 'e'\n\t}\n", json!({"a": {"b": "c", "d": "e"}})),
            ("a:\n  b:\n  - c: [\n\t{d: 1},\n\t# e\n\t]\n", json!({"a": {"b": [{"c": [{"d": 1}]}]}})),
            ("a: {b: c\n  \t}\n", json!({"a": {"b": "c"}})),
            ("a:\n  b: c\n   \t# d\n  e: f\n", json!({"a": {"b": "c", "e": "f"}})),
            ("a: b\n  \tc\n", json!({"a": "b c"})),
            ("a: \"b\n\t\n   c\"\n", json!({"a": "b\nc"})),
            ("a: |\n  -\tb\nc:\n- d\n", json!({"a": "-\tb\n", "c": ["d"]})),
            ("---\t# c\na: 1\t# d\nb:\t\n  c: 1\n", json!({"a": 1, "b": {"c": 1}})),
            ("{\n\t\"a\": [\n\t\t1\n\t]\n}\n", json!({"a": [1]})),
        ] {
            assert_eq!(parse("f", text).expect("read")[0].value, value, "{text:?}");
        }
        let text = "a: |\n  b\n  \tc\nd: [\n\te]\n";
        assert_eq!(parse("f", text).expect("read")[0].value, json!({"a": "b\n\tc\n", "d": ["e"]}));
    }

    #[test]
    fn a_text_that_cannot_be_parsed_keeps_its_tabs_and_its_lines() {
        let text = "a: [\n\tb\n";
        assert_eq!(judge(text).as_deref(), Ok(text));
        let problem = parse("f", "a: {\n\tb: c}\nd: e\nd: f\n").expect_err("a key twice").to_string();
        assert!(problem.starts_with("f:4: "), "{problem}");
    }
}
