//! The files of a release in memory, their checksums, and the differences of two builds. Pure.

use std::{collections::BTreeMap, fmt::Write};

use super::plan::Gap;

/// Name of the file with the checksums.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// The files of a release by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The checksums in the form that `sha256sum --check` reads.
pub(crate) fn sums(files: &Files) -> String {
    let mut text = String::new();
    for (name, content) in files {
        let _ = writeln!(text, "{}  {name}", images::sha256(content));
    }
    text
}

/// Returns the names of files that only one build has, or whose contents differ.
pub(crate) fn differences<'a>(one: &'a Files, other: &'a Files) -> Vec<&'a str> {
    let mut names: Vec<_> = one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(String::as_str).collect()
}

/// Lists the missing parts of an incomplete release, for its folder.
pub(crate) fn missing(gaps: &[Gap]) -> String {
    gaps.iter().fold("This release is incomplete. It lacks:\n".to_owned(), |text, gap| text + &format!("- {gap}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Files {
        files.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn checksums_are_what_sha256sum_reads() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sums(&files(&[("b", ""), ("a", "")])), format!("{empty}  a\n{empty}  b\n"));
    }

    #[test]
    fn two_builds_differ_in_content_and_in_what_only_one_has() {
        let (one, other) = (files(&[("a", "1"), ("b", "1"), ("c", "1")]), files(&[("a", "1"), ("b", "2"), ("d", "1")]));
        assert_eq!(differences(&one, &other), ["b", "c", "d"]);
        assert!(differences(&one, &one).is_empty());
    }
}
