//! Label selectors in the form of URL parameters: `app=shop,tier in (a,b),!old`.

use std::collections::BTreeMap;

/// Most requirements of a selector.
const MOST: usize = 64;

/// A label selector: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, Must)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Must {
    Exist,
    NotExist,
    Be(Vec<String>),
    NotBe(Vec<String>),
}

impl Labels {
    /// Parses a selector; an empty selector matches everything.
    ///
    /// # Errors
    /// Names the malformed requirement, or the limit that the selector exceeds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for part in parts(text) {
            let part = part.trim();
            if !part.is_empty() {
                all.push(
                    requirement(part).ok_or_else(|| format!("'{part}' is not a requirement of a label selector"))?,
                );
            }
            if all.len() > MOST {
                return Err(format!("a label selector has more than {MOST} requirements"));
            }
        }
        Ok(Self(all))
    }

    /// Whether labels match the selector.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, must)| match (must, labels.get(key)) {
            (Must::Exist, value) => value.is_some(),
            (Must::NotExist, value) => value.is_none(),
            (Must::Be(values), Some(value)) => values.contains(value),
            (Must::Be(_), None) => false,
            (Must::NotBe(values), value) => value.is_none_or(|value| !values.contains(value)),
        })
    }

    /// The key and value of a selector that consists of a single `key=value`.
    #[must_use]
    pub fn only(&self) -> Option<(&str, &str)> {
        match self.0.as_slice() {
            [(key, Must::Be(values))] if values.len() == 1 => Some((key, &values[0])),
            _ => None,
        }
    }

    /// Whether the selector matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits a selector at commas outside parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Option<(String, Must)> {
    let is_key = |key: &str| {
        !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
    };
    let made = |key: &str, must: Must| is_key(key.trim()).then(|| (key.trim().to_owned(), must));
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = text.strip_prefix('!') {
        return made(key, Must::NotExist);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Must::NotBe(one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(key, Must::Be(one(value)));
    }
    if let Some((head, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().split_once(char::is_whitespace)?;
        return match word.trim() {
            "in" => made(key, Must::Be(values)),
            "notin" => made(key, Must::NotBe(values)),
            _ => None,
        };
    }
    made(text, Must::Exist)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_parsed_as_api_servers_write_them() {
        let labels = |text: &str| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let cases = [
            ("", "app=shop", true),
            ("app=shop,portlane.dev/gateway=edge", "app=shop,portlane.dev/gateway=edge", true),
            ("app==shop", "app=blog", false),
            ("app!=shop", "", true),
            ("app in (a, b),tier", "app=b,tier=x", true),
            ("app notin (a,b)", "app=b", false),
            ("!old", "old=1", false),
            ("old", "", false),
        ];
        for (selector, of, expected) in cases {
            assert_eq!(Labels::parse(selector).expect(selector).matches(&labels(of)), expected, "{selector} on {of}");
        }
        for bad in ["a b", "=x", "a within (b)", "a(b)"] {
            assert!(Labels::parse(bad).is_err(), "{bad}");
        }
        assert!(Labels::parse(&"a,".repeat(MOST + 2)).is_err());
        assert_eq!(Labels::parse("forward=db").expect("one").only(), Some(("forward", "db")));
    }
}
