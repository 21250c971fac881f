//! Guesses which word the author of a manifest meant.

/// The name that `word` most likely stands for: the nearest, if it is near enough for its length.
pub(crate) fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.into_iter().filter_map(|name| near(word, name).map(|distance| (distance, name)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The distance between two words, if one may be a misspelling of the other. In a word of three letters, one letter may
/// differ: TCP is no misspelling of HTTP.
fn near(word: &str, name: &str) -> Option<usize> {
    if word.eq_ignore_ascii_case(name) {
        return Some(0);
    }
    let most = if name.chars().count() > 3 { 2 } else { 1 };
    Some(distance(word, name)).filter(|distance| *distance <= most)
}

/// Edit distance: letters to change, insert or delete to turn one word into the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (n, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[n + 1];
            row[n + 1] = change.min(row[n] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_not_the_first_near_one() {
        assert_eq!(closest("ports", ["post", "port"]), Some("port"));
        assert_eq!(closest("nmae", ["namespace", "name"]), Some("name"));
        assert_eq!(closest("tcp", ["TCP", "UDP"]), Some("TCP"));
    }

    #[test]
    fn words_that_differ_too_much_are_other_words() {
        assert_eq!(closest("HTTP", ["TCP", "UDP", "TLS"]), None);
        assert_eq!(closest("replicas", ["port", "name"]), None);
    }
}
