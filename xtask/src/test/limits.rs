//! The lengths that CONTRIBUTING.md names: no file and no function exceeds them.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::pages::root;

/// The lines of a Rust file stay below this number.
const FILE: usize = 400;
/// The lines of a function, from its name to its last brace, stay below this number.
const FUNCTION: usize = 60;

#[test]
fn every_rust_file_and_every_function_keeps_the_limits_that_contributing_names() {
    let rule = format!("stay under {FILE} lines, functions under {FUNCTION}");
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("a page");
    assert!(contributing.contains(&rule), "CONTRIBUTING.md names other limits than {rule:?}");
    let mut long = Vec::new();
    let files = rust_files(&root());
    assert!(files.len() > 100, "only {} files are found", files.len());
    for path in files {
        let source = fs::read_to_string(&path).expect("a file");
        let shown = path.display();
        let lines = source.lines().count();
        if lines >= FILE {
            long.push(format!("{shown}: {lines} lines"));
        }
        let functions = functions(&source).into_iter().filter(|(_, lines)| *lines >= FUNCTION);
        long.extend(functions.map(|(at, lines)| format!("{shown}:{at}: a function of {lines} lines")));
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_function_has_the_lines_from_its_name_to_its_brace() {
    let source = "fn one() {}\n\
                  impl A {\n    pub(crate) async fn three(\n        a: u8,\n    ) {\n    }\n\
                  \x20   const fn none(&self) -> u8;\n\
                  \x20   fn nested() {\n        fn inner() {\n            {\n            }\n        }\n    }\n}\n\
                  // fn comment() {\n";
    assert_eq!(functions(source), [(1, 1), (3, 4), (8, 6), (9, 4)]);
}

/// Returns the Rust files below a folder, without build outputs and hidden folders.
pub(super) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The line of each function with a body, counted from 1, and the number of its lines. Relies on the form that rustfmt
/// gives sources: the last brace of a function stands alone, below the start of its first line.
fn functions(source: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let length = |rest: &[&str]| {
        let first = rest.first()?;
        let indentation = first.len() - first.trim_start().len();
        let head = rest.iter().position(|line| line.ends_with(['{', '}', ';']))?;
        match rest.get(head)?.chars().next_back()? {
            ';' => None,
            '}' => Some(head + 1),
            _ => {
                let end = format!("{}}}", " ".repeat(indentation));
                Some(rest.iter().position(|line| *line == end)? + 1)
            }
        }
    };
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    starts.filter_map(|(at, _)| Some((at + 1, length(lines.get(at..)?)?))).collect()
}

/// Whether a line begins a function. A function whose name comes from a macro ends with other signs.
fn is_function(line: &str) -> bool {
    let words = line.split_whitespace();
    let qualifiers = ["const", "async", "unsafe", "extern", "\"C\""];
    let mut words = words.skip_while(|word| word.starts_with("pub") || qualifiers.contains(word));
    words.next() == Some("fn") && words.next().is_some_and(|name| !name.starts_with('$'))
}
