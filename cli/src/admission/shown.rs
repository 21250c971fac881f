//! Bounds the length of values in messages.

/// Most characters of a value in a message.
const SHOWN: usize = 60;

/// Cuts a text for a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}
