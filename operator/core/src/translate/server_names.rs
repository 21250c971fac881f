//! TLS server names: which names a wildcard covers.

/// The part of a wildcard after `*.`; `None` for other names.
pub(crate) fn base(name: &str) -> Option<&str> {
    name.strip_prefix("*.")
}

/// Whether a name is the pattern itself, or a name or wildcard below the wildcard that the pattern is.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    let inner = base(name).unwrap_or(name);
    let is_below = |base: &str| inner.strip_suffix(base).is_some_and(|head| head.ends_with('.'));
    pattern == name || base(pattern).is_some_and(is_below)
}

/// The labels of a name, or of the base of a wildcard, in reverse order: names below one another are then neighbours in
/// an ordered map.
pub(crate) fn reversed(name: &str) -> String {
    base(name).unwrap_or(name).rsplit('.').collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_the_names_and_wildcards_below_it_and_not_its_own_base() {
        for (pattern, name, is_covered) in [
            ("a.example", "a.example", true),
            ("*.a.example", "*.a.example", true),
            ("*.a.example", "x.a.example", true),
            ("*.a.example", "x.y.a.example", true),
            ("*.a.example", "*.x.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "*.example", false),
            ("*.a.example", "ba.example", false),
            ("a.example", "x.a.example", false),
            ("*.x.a.example", "*.a.example", false),
        ] {
            assert_eq!(covers(pattern, name), is_covered, "{pattern} {name}");
        }
    }

    #[test]
    fn labels_are_reversed_and_the_star_is_left_out() {
        assert_eq!(["db.a.example", "*.a.example", "a"].map(reversed), ["example.a.db", "example.a", "a"]);
    }
}
