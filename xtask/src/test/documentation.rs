//! Documentation tests: whether a library has any.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Starts of the words that make rustdoc compile a code block. A block without a word is compiled too.
const RUST: [&str; 6] = ["rust", "should_panic", "no_run", "compile_fail", "test_harness", "edition"];

/// Whether a source file below `folder` has a code block that rustdoc compiles.
pub(crate) fn has_tests(folder: &Path) -> bool {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path).is_ok_and(|source| has_test(&source))
            {
                return true;
            }
        }
    }
    false
}

/// Whether a documentation comment has a fenced code block that rustdoc compiles.
fn has_test(source: &str) -> bool {
    let mut inside = false;
    for text in source.lines().filter_map(documentation) {
        let Some(words) = text.strip_prefix("```") else { continue };
        inside = !inside;
        if inside && (words.is_empty() || RUST.iter().any(|word| words.starts_with(word))) {
            return true;
        }
    }
    false
}

/// The text of a line that is a documentation comment.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("//!").or_else(|| line.strip_prefix("///")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_no_test() {
        assert!(!has_test("//! ```text\n//! a -> b\n//! ```\nfn a() {}\n"));
        assert!(!has_test("let fence = \"```\";\n"));
        assert!(has_test("/// ```\n/// assert!(true);\n/// ```\n"));
        assert!(has_test("//! ```text\n//! ```\n    /// ```rust,no_run\n"));
    }
}
