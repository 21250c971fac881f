//! Sanitises text from other people, so that it sends no commands to the terminal.

use proxy_api::is_hidden;

/// Returns text on one line that sends no commands to the terminal: names and messages come from other people.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push(' '),
            _ if is_hidden(character) => shown.extend(character.escape_default()),
            _ => shown.push(character),
        }
    }
    shown
}

/// Returns JSON that sends no commands to the terminal: characters that JSON permits unescaped, but that a terminal
/// obeys, are escaped. Every reader of JSON reads the same value.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_other_people_sends_the_terminal_no_command() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}"), "a\\u{1b}[2Jb c\\u{202e}");
        assert_eq!(printable("größe ✓"), "größe ✓");
        assert_eq!(printable("\u{9b}2J\u{e0041}\u{180e}\u{fff9}"), "\\u{9b}2J\\u{e0041}\\u{180e}\\u{fff9}");
    }

    #[test]
    fn json_sends_the_terminal_no_command_and_reads_the_same() {
        let text = "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{e0041} größe\n";
        let json = serde_json::to_string_pretty(&[text]).expect("JSON");
        let shown = printable_json(&json);
        assert!(!shown.contains(|it: char| it != '\n' && is_hidden(it)), "{shown}");
        assert!(shown.contains("\\u009b2J\\u007f\\u202e\\udb40\\udc41 größe"), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).expect("JSON"), [text]);
    }

    #[test]
    fn a_mark_belongs_to_its_letter_and_what_has_no_shape_is_escaped() {
        assert_eq!(printable("e\u{301}"), "e\u{301}");
        assert_eq!(printable("a\u{34f}\u{fe0f}\u{e0100}"), "a\\u{34f}\\u{fe0f}\\u{e0100}");
        assert_eq!(printable("\"it's\" \\"), "\"it's\" \\");
    }
}
