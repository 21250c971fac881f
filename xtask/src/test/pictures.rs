//! The picture of the operator in docs/architecture.md: it names every module in its folder, and nothing that does not
//! exist.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, fs};

use super::pages::root;

/// Folders whose modules the picture names, each behind its path. The picture begins with the first one.
const FOLDERS: [&str; 5] =
    ["operator/src/inputs", "operator/src", "operator/core/src", "operator/src/outputs", "operator/src/platform"];

#[test]
fn the_picture_of_the_operator_names_every_module_in_its_folder_and_no_other() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("a page");
    let mut texts = page.split("```").filter_map(|block| block.strip_prefix("text\n"));
    let picture = texts.find(|text| text.starts_with(FOLDERS[0])).expect("the picture");
    let drawn = drawn(picture);
    let of_folder = |folder: &'static str| modules(folder).into_iter().map(move |module| (folder, module));
    let modules: BTreeSet<(&str, String)> = FOLDERS.into_iter().flat_map(of_folder).collect();
    let missing: Vec<_> = modules.difference(&drawn).collect();
    let invented: Vec<_> = drawn.difference(&modules).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}, without a file: {invented:?}");
}

#[test]
fn a_module_that_is_drawn_under_another_folder_is_seen() {
    let picture = "a/src    one, two\n  │       three\n  ├── b/src   one\n";
    let expected = [("a/src", "one"), ("a/src", "three"), ("a/src", "two"), ("b/src", "one")];
    assert_eq!(drawn(picture), BTreeSet::from(expected.map(|(folder, module)| (folder, module.to_owned()))));
}

/// The modules that a picture names, each with the path before it.
fn drawn(picture: &str) -> BTreeSet<(&str, String)> {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '/';
    let (mut folder, mut drawn) = ("", BTreeSet::new());
    for word in picture.split(|letter: char| !is_of_word(letter)).filter(|word| !word.is_empty()) {
        if word.contains('/') {
            folder = word;
        } else {
            drawn.insert((folder, word.to_owned()));
        }
    }
    drawn
}

/// The modules whose files lie in a folder, without those that are a folder of the picture.
fn modules(folder: &str) -> Vec<String> {
    let paths = fs::read_dir(root().join(folder)).expect("a folder").flatten().map(|entry| entry.path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let is_drawn = |name: &String| !FOLDERS.contains(&format!("{folder}/{name}").as_str());
    names.filter(|name| !["lib", "main"].contains(&name.as_str())).filter(is_drawn).collect()
}
