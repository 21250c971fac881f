//! Guesses which word the author of a manifest meant.

/// Words for names that they do not resemble.
const ALIASES: [(&str, &str); 2] = [("ns", "namespace"), ("ip", "host")];
/// Fewest letters of a word that may abbreviate a longer one.
const BEGINNING: usize = 4;
/// Percentage of the letters of the longer word that both words must share at the start, if there is only one
/// candidate.
const SHARED: usize = 60;

/// The name that `word` most likely stands for: the nearest, if it is near enough for its length; or else the only one
/// that has the same beginning.
pub(crate) fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names: Vec<&str> = names.into_iter().collect();
    let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(word)).map(|(_, name)| *name);
    if let Some(name) = names.iter().copied().find(|name| alias == Some(*name)) {
        return Some(name);
    }
    let near = names.iter().filter_map(|name| near(word, name).map(|distance| (distance, *name)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name).or_else(|| begun(word, &names))
}

/// Whether one word may be a misspelling of the other.
pub(crate) fn is_near(word: &str, name: &str) -> bool {
    near(word, name).is_some() || ALIASES.contains(&(word, name))
}

/// Whether the words differ only in their case, and in '-' and '_' between their parts.
pub(crate) fn is_same(word: &str, name: &str) -> bool {
    joined(word).eq_ignore_ascii_case(&joined(name))
}

/// The word without the separators of its parts.
fn joined(word: &str) -> String {
    word.replace(['-', '_'], "")
}

/// The only name that the word begins, or that begins the word: `leastconn` stands for `LeastConnections`. If there is
/// only one name, most of it is enough: `Passthru` stands for `Passthrough`.
fn begun<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let begins = |short: &str, long: &str| {
        let start = long.get(..short.len()).filter(|_| short.chars().count() >= BEGINNING);
        start.is_some_and(|start| start.eq_ignore_ascii_case(short))
    };
    let is_alike = |name: &str| names.len() == 1 && shares_its_beginning(word, name);
    let whole = joined(word);
    let is_begun = |name: &str| begins(&whole, name) || begins(&joined(name), &whole);
    let mut fits = names.iter().copied().filter(|name| is_begun(name) || begins(word, name) || is_alike(name));
    let (first, second) = (fits.next(), fits.next());
    first.filter(|_| second.is_none())
}

fn shares_its_beginning(word: &str, name: &str) -> bool {
    let shared = word.chars().zip(name.chars()).take_while(|(one, other)| one.eq_ignore_ascii_case(other)).count();
    let longer = word.chars().count().max(name.chars().count());
    shared >= BEGINNING && shared * 100 >= longer * SHARED
}

/// The distance between two words, if one may be a misspelling of the other. In a word of up to four letters, one
/// letter may differ: TCP is no misspelling of HTTP, and host none of port.
fn near(word: &str, name: &str) -> Option<usize> {
    if is_same(word, name) {
        return Some(0);
    }
    let most = if name.chars().count() > 4 { 2 } else { 1 };
    within(word, name, most)
}

/// The distance between two words, if it is no more than `most`.
pub(crate) fn within(word: &str, name: &str, most: usize) -> Option<usize> {
    let lengths = word.chars().count().abs_diff(name.chars().count());
    (lengths <= most).then(|| distance(word, name)).filter(|distance| *distance <= most)
}

/// The number of mistakes that turn one word into the other: a letter that is changed, added or left out, or two
/// neighbours that are swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The rows hold the distances of prefixes of `b` from the prefixes of `a` that are one letter and two letters
    // shorter.
    let (mut row, mut before): (Vec<usize>, Vec<usize>) = ((0..=b.len()).collect(), Vec::new());
    for (i, letter) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(letter != other)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *letter == b[j - 1] && a[i - 1] == *other {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
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
        assert_eq!(closest("tsl", ["tcp", "tls"]), Some("tls"));
    }

    #[test]
    fn a_beginning_stands_for_the_only_word_that_has_it() {
        let policies = ["RoundRobin", "LeastConnections", "Random", "SourceHash"];
        assert_eq!(closest("leastconn", policies), Some("LeastConnections"));
        assert_eq!(closest("source-hashing", policies), Some("SourceHash"));
        assert_eq!(closest("least_conn", policies), Some("LeastConnections"));
        assert_eq!(closest("SourceHashing", policies), Some("SourceHash"));
        assert_eq!(closest("connect", ["connectSeconds", "connectRetries"]), None, "two words begin so");
        assert_eq!(closest("sou", policies), None, "too short");
        assert_eq!(closest("Passthru", ["Passthrough"]), Some("Passthrough"));
        assert_eq!(closest("Passthru", ["Passthrough", "Terminate"]), None, "another word may be meant");
        assert_eq!(closest("web-blog", ["web-shop"]), None, "too little of it");
    }

    #[test]
    fn separators_and_case_are_no_difference() {
        let policies = ["RoundRobin", "LeastConnections", "SourceHash"];
        for (word, name) in
            [("round-robin", "RoundRobin"), ("round_robin", "RoundRobin"), ("source-hash", "SourceHash")]
        {
            assert_eq!(closest(word, policies), Some(name));
        }
        assert!(is_same("max_connections", "maxConnections"));
    }

    #[test]
    fn a_usual_short_word_stands_for_the_name() {
        assert_eq!(closest("ns", ["name", "namespace", "port"]), Some("namespace"));
        assert_eq!(closest("ip", ["host", "port"]), Some("host"));
        assert_eq!(closest("ip", ["name"]), None);
    }

    #[test]
    fn every_mistake_counts_once() {
        for (a, b, expected) in [
            ("port", "port", 0),
            ("prot", "port", 1),
            ("pot", "port", 1),
            ("portt", "port", 1),
            ("bort", "port", 1),
            ("", "ab", 2),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn words_that_differ_too_much_are_other_words() {
        assert_eq!(closest("HTTP", ["TCP", "UDP", "TLS"]), None);
        assert_eq!(closest("replicas", ["port", "name"]), None);
        assert_eq!(closest("host", ["port", "path"]), None);
    }
}
