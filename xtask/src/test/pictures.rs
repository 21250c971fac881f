//! The picture of the operator in docs/architecture.md: it names every module, and nothing that does not exist.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, fs, path::Path};

use super::pages::root;

/// Folders whose modules the picture names.
const FOLDERS: [&str; 5] =
    ["operator/src", "operator/src/inputs", "operator/src/outputs", "operator/src/platform", "operator/core/src"];
/// First words of the picture.
const START: &str = "```text\noperator/src ";
/// Words of the picture that are no modules: the names of the crates, and what the driver does.
const OTHERS: [&str; 5] = ["operator", "src", "core", "select", "effects"];

#[test]
fn the_picture_of_the_operator_names_every_module_and_no_other() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("a page");
    let (_, rest) = page.split_once(START).expect("the picture");
    let (picture, _) = rest.split_once("```").expect("the end of the picture");
    let drawn: BTreeSet<&str> = picture
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty() && !OTHERS.contains(word))
        .collect();
    let modules: BTreeSet<String> = FOLDERS.iter().flat_map(|folder| modules(&root().join(folder))).collect();
    let missing: Vec<&String> = modules.iter().filter(|module| !drawn.contains(module.as_str())).collect();
    let invented: Vec<&&str> = drawn.iter().filter(|word| !modules.contains(**word)).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}, without a file: {invented:?}");
}

/// The modules whose files lie in a folder.
fn modules(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    names.filter(|name| !["lib", "main"].contains(&name.as_str())).collect()
}
