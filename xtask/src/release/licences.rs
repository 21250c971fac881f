//! The licence texts of the crates that are linked into the programs, in one file. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::crates::{Crate, Id};
use crate::error::ReleaseError;

/// Name of the file.
pub(crate) const NOTICES: &str = "THIRD-PARTY-LICENSES.txt";

/// The text of Apache-2.0, for crates that declare the licence without repeating it.
const APACHE: &str = include_str!("../../../LICENSE");

/// The text of MIT behind its copyright line.
const MIT: &str = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and \
associated documentation files (the \"Software\"), to deal in the Software without restriction, including without \
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the \
Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.";

/// Line between two texts.
const RULE: &str = "--------------------------------------------------------------------------------";

/// Whether a file of a crate's sources is a licence text, by its name.
pub(crate) fn is_text(path: &Path) -> bool {
    let starts = ["license", "licence", "copying", "copyright", "unlicense", "notice"];
    let other = ["rs", "toml", "json", "html", "py", "sh"];
    let name = path.file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    starts.iter().any(|start| name.starts_with(start)) && !other.contains(&ending.as_str())
}

/// Returns the texts of a crate: those in its package, or the known text of a licence that it declares.
pub(crate) fn texts(id: &Id, found: &Crate, files: Vec<String>) -> Result<Vec<String>, ReleaseError> {
    if !files.is_empty() {
        return Ok(files);
    }
    let licence = found.licence.clone().unwrap_or_default();
    // One known licence suffices among alternatives, but not among parts that all apply.
    let knows = |name: &str| !licence.contains(" AND ") && licence.split(" OR ").any(|one| one.trim() == name);
    if knows("Apache-2.0") {
        return Ok(vec![APACHE.to_owned()]);
    }
    if knows("MIT") {
        let authors = if found.authors.is_empty() { String::new() } else { format!(": {}", found.authors.join(", ")) };
        return Ok(vec![format!("Copyright (c) the authors of {}{authors}\n\n{MIT}", id.name)]);
    }
    Err(ReleaseError::NoLicence { krate: id.name.clone(), version: id.version.clone(), licence })
}

/// Returns the document: every text once, below the crates that have it.
pub(crate) fn document(crates: &[(Id, String, Vec<String>)]) -> String {
    let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let musl = format!("Copyright © 2005-2020 Rich Felker, et al.\n\n{MIT}");
    holders.entry(musl).or_default().insert("musl (MIT)".to_owned());
    for (id, licence, texts) in crates {
        for text in texts {
            holders.entry(normal(text)).or_default().insert(format!("{id} ({licence})"));
        }
    }
    let mut sections: Vec<_> = holders.into_iter().map(|(text, holders)| (holders, text)).collect();
    sections.sort();
    let mut document = "Portlane is licensed under Apache-2.0 (LICENSE). The programs also contain the libraries below, \
                        each under the licence that is named behind it. The standard library of Rust has its notices in \
                        a file of its own.\n"
        .to_owned();
    for (holders, text) in sections {
        let holders = holders.into_iter().collect::<Vec<_>>().join("\n");
        document += &format!("\n{RULE}\n{holders}\n\n{text}\n");
    }
    document
}

/// Normalises a text: removes differences between copies in line ends and surrounding space.
fn normal(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id { name: name.to_owned(), version: "1.0.0".to_owned() }
    }

    fn licensed(licence: &str) -> Crate {
        Crate { licence: Some(licence.to_owned()), authors: vec!["A. Uthor".to_owned()], ..Crate::default() }
    }

    #[test]
    fn equal_texts_stand_once_below_all_crates_that_have_them() {
        let crates = [("b", "one\r\n"), ("a", "\none"), ("c", "two")];
        let crates = crates.map(|(name, text)| (id(name), "MIT".to_owned(), vec![text.to_owned()]));
        let document = document(&crates);
        assert!(document.contains("\na 1.0.0 (MIT)\nb 1.0.0 (MIT)\n\none\n"), "{document}");
        assert_eq!(document.matches("\none\n").count(), 1);
        assert!(document.contains("\nc 1.0.0 (MIT)\n\ntwo\n"));
        assert!(document.contains("Rich Felker"));
    }

    #[test]
    fn a_crate_without_a_text_gets_that_of_a_licence_that_it_declares() {
        let one = |licence| texts(&id("x"), &licensed(licence), Vec::new()).map(|texts| texts.concat());
        assert!(one("MIT OR Apache-2.0").unwrap().contains("Apache License"));
        assert!(one("MIT").unwrap().starts_with("Copyright (c) the authors of x: A. Uthor\n\nPermission"));
        for unknown in ["ISC", "MIT AND ISC", "(MIT OR Apache-2.0) AND ISC", ""] {
            assert!(matches!(one(unknown), Err(ReleaseError::NoLicence { .. })), "{unknown}");
        }
        let own = texts(&id("x"), &licensed("ISC"), vec!["its own".to_owned()]).unwrap();
        assert_eq!(own, ["its own"]);
    }

    #[test]
    fn licence_files_are_known_by_name() {
        for name in ["LICENSE", "LICENSE-MIT", "license.txt", "COPYING", "UNLICENSE", "NOTICE.md", "LICENCE-2.0.txt"] {
            assert!(is_text(Path::new(name)), "{name}");
        }
        for name in ["README.md", "license.rs", "Cargo.toml", "notice.html"] {
            assert!(!is_text(Path::new(name)), "{name}");
        }
    }
}
