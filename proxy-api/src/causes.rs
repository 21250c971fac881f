//! Errors as text.

use std::error::Error;

/// Formats an error with its causes in one line, outermost first. A cause whose text is part of an earlier one is
/// omitted, as errors of some libraries repeat their causes.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    fn line(texts: &[&'static str]) -> String {
        let layers = texts.iter().rev().fold(None, |cause, &text| Some(Box::new(Layer(text, cause))));
        with_causes(&*layers.expect("an error"))
    }

    #[test]
    fn causes_follow_in_their_order() {
        assert_eq!(line(&["no session"]), "no session");
        assert_eq!(line(&["no session", "no connection", "timed out"]), "no session: no connection: timed out");
    }

    #[test]
    fn a_cause_that_is_said_already_is_left_out_and_its_own_cause_is_not() {
        assert_eq!(line(&["no session: refused", "refused", "os error 111"]), "no session: refused: os error 111");
    }
}
