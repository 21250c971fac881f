//! Guesses which name a person meant.

/// Most letters of a name that may be wrong.
const MISTAKES: usize = 3;

/// The name that differs least from `word`, if it differs in no more than three letters and is not another word.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = MISTAKES.min(word.chars().count() / 2).max(1);
    let near = names.into_iter().map(|name| (distance(word, name), name)).filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Letters to change, add or leave out to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut left = at + 1;
        let mut next = vec![left];
        for (pair, other) in row.windows(2).zip(&b) {
            let &[diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(letter != *other)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_no_other_word() {
        assert_eq!(nearest("dbb", ["web", "db"]), Some("db"));
        assert_eq!(nearest("orders-databse", ["orders-database", "orders"]), Some("orders-database"));
        assert_eq!(nearest("db", ["web", "cache"]), None);
        assert_eq!(nearest("db", []), None);
    }

    #[test]
    fn every_letter_counts_once() {
        for (a, b, expected) in
            [("port", "port", 0), ("pot", "port", 1), ("portt", "port", 1), ("", "ab", 2), ("ab", "", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn three_letters_may_be_wrong_and_no_more_than_half_of_a_word() {
        for (word, name, is_near) in [
            ("abcdefgh", "abcdexyz", true),
            ("abcdefgh", "abcdwxyz", false),
            ("port", "poxx", true),
            ("port", "pxxx", false),
            ("a", "b", true),
            ("a", "bc", false),
        ] {
            assert_eq!(nearest(word, [name]).is_some(), is_near, "{word} {name}");
        }
        assert_eq!(nearest("db-1", ["db-2", "db-3"]), Some("db-2"), "the first of two");
    }
}
