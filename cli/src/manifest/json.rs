//! JSON that is not YAML, as kubectl reads it: other escapes, and documents without separators.

use super::Document;

/// Parses a text that consists only of JSON documents.
pub(super) fn json(text: &str) -> Option<Vec<Document>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    let mut documents = Vec::new();
    loop {
        let rest = text.get(values.byte_offset()..).unwrap_or_default();
        let at = text.len() - rest.trim_start().len();
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        match values.next() {
            None => return (!documents.is_empty()).then_some(documents),
            Some(value) => documents.push(Document::at_line(value.ok()?, line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Option<Vec<usize>> {
        json(text).map(|documents| documents.iter().map(Document::line).collect())
    }

    #[test]
    fn documents_in_json_know_their_line() {
        assert_eq!(lines("{\"a\": \"\\/\"}\n{}{}\n\n{}\n"), Some(vec![1, 2, 2, 4]));
        assert_eq!(lines("{}\nx\n"), None);
        assert_eq!(lines(""), None);
    }
}
