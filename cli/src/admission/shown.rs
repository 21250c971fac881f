//! How much of a value a message shows.

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// A text as far as a message shows it.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}
