//! Characters that a text for people must not contain as they are: a terminal obeys them, or nobody sees them.

/// Whether a character moves the cursor, changes the direction of the text, or is invisible. Marks that belong to the
/// letter before them are shown.
pub fn is_hidden(character: char) -> bool {
    match character {
        ' '..='~' => false,
        // A space that looks like another, a mark without a glyph, two joiners, and variation selectors.
        '\u{a0}' | '\u{34f}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => true,
        // After a letter, `str` escapes unprintable characters, but no marks.
        _ => ['a', character].iter().collect::<String>().escape_debug().nth(2).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_and_what_has_no_shape_is_hidden_and_letters_with_their_marks_are_not() {
        for hidden in ['\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{a0}', '\u{200c}', '\u{202e}', '\u{fe0f}', '\u{e0041}'] {
            assert!(is_hidden(hidden), "{hidden:?}");
        }
        for shown in [' ', '~', '\'', '\\', '\u{fc}', '\u{301}', '\u{2026}', '\u{65e5}'] {
            assert!(!is_hidden(shown), "{shown:?}");
        }
    }
}
