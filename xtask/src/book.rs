//! Builds the site of the documentation with mdBook, and checks the result.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use images::{Checkout, Here, Machine};

use crate::error::{BookError, TaskError};

/// Folder of the site in the checkout; `docs/book.toml` names it too.
const SITE: &str = "target/book";
/// Table of contents.
const SUMMARY: &str = "docs/SUMMARY.md";
/// The prefix of the name of the search index. A hash may follow.
const SEARCH_INDEX: &str = "searchindex";
/// A page of mdBook's own, whose links are relative to the root of a server.
const NOT_FOUND: &str = "404.html";

/// Builds the site into `target/book`. Installs mdBook if there is none.
pub(crate) fn run() -> Result<(), TaskError> {
    let root = Checkout::here().root;
    if !Here.has("mdbook") {
        eprintln!("book: installing mdBook, which compiles for some minutes");
        let mut cargo = images::cargo();
        cargo.args(["install", "--locked", "--quiet", "--no-default-features", "--features", "search", "mdbook"]);
        succeed(&mut cargo, "cargo install mdbook")?;
    }
    succeed(Command::new("mdbook").args(["build", "docs"]).current_dir(&root), "mdbook build docs")?;
    let summary = root.join(SUMMARY);
    let summary = fs::read_to_string(&summary).map_err(BookError::file(&summary))?;
    let site = root.join(SITE);
    let pages = read(&site)?;
    let mut faults = faults(&summary, &pages);
    if !has_search(&site)? {
        faults.push("there is no search index".to_owned());
    }
    for fault in &faults {
        eprintln!("book: {fault}");
    }
    if !faults.is_empty() {
        return Err(BookError::Faults(faults.len()).into());
    }
    println!("the site is in {}: {} pages", site.display(), pages.len());
    Ok(())
}

fn succeed(command: &mut Command, name: &str) -> Result<(), TaskError> {
    let status = command.status().map_err(|error| TaskError::Start(name.to_owned(), error))?;
    if status.success() { Ok(()) } else { Err(TaskError::Command(name.to_owned(), status)) }
}

/// The pages of a site, by their path in it.
fn read(site: &Path) -> Result<BTreeMap<String, String>, BookError> {
    let (mut pages, mut folders) = (BTreeMap::new(), vec![site.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(BookError::file(&folder))? {
            let path = entry.map_err(BookError::file(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "html") {
                let page = fs::read_to_string(&path).map_err(BookError::file(&path))?;
                pages.insert(path.strip_prefix(site).unwrap_or(&path).to_string_lossy().into_owned(), page);
            }
        }
    }
    Ok(pages)
}

/// Whether a site has a search index.
fn has_search(site: &Path) -> Result<bool, BookError> {
    let mut names = fs::read_dir(site).map_err(BookError::file(site))?.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name.to_string_lossy().starts_with(SEARCH_INDEX)))
}

/// Returns the pages of the table of contents that the site lacks, and the links that are broken in the site.
fn faults(summary: &str, pages: &BTreeMap<String, String>) -> Vec<String> {
    let listed = summary.split("](").skip(1).filter_map(|rest| rest.split_once(".md)"));
    let listed = listed.map(|(page, _)| format!("{page}.html"));
    let missing = listed.filter(|page| !pages.contains_key(page));
    let mut faults: Vec<String> = missing.map(|page| format!("{page} of {SUMMARY} is missing")).collect();
    for (name, page) in pages.iter().filter(|(name, _)| *name != NOT_FOUND) {
        for link in links(page) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            // A script redirects links out of docs to the repository.
            let Some(target) = target(name, file) else { continue };
            match pages.get(&target) {
                None => faults.push(format!("{name}: {link}: there is no such page")),
                Some(text) if !anchor.is_empty() && !text.contains(&format!("id=\"{anchor}\"")) => {
                    faults.push(format!("{name}: {link}: there is no such heading"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// The links of a page to pages and to headings of its own.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.filter(|link| {
        let file = link.split('#').next().unwrap_or_default();
        let is_page = Path::new(file).extension().is_some_and(|ending| ending == "html");
        !link.contains("://") && (file.is_empty() || is_page)
    })
}

/// Returns the page that a link of the page `from` leads to. `None`: the link leads out of the site.
fn target(from: &str, file: &str) -> Option<String> {
    if file.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: &str = "# Summary\n\n[Start](README.md)\n\n- [A](a.md)\n  - [B](tasks/b.md)\n";

    fn site(pages: &[(&str, &str)]) -> BTreeMap<String, String> {
        pages.iter().map(|(name, page)| ((*name).to_owned(), (*page).to_owned())).collect()
    }

    #[test]
    fn a_complete_site_has_no_fault() {
        let pages = site(&[
            ("README.html", "<a href=\"a.html#x\">A</a> <a href=\"https://example.com/x.html#y\">out</a>"),
            ("a.html", "<h2 id=\"x\"><a class=\"header\" href=\"#x\">X</a></h2> <a href=\"css/a.css\"></a>"),
            ("tasks/b.html", "<a href=\"../a.html#x\">A</a> <a href=\"../../charts/README.html#none\">out</a>"),
            (NOT_FOUND, "<a href=\"portlane/none.html\">"),
        ]);
        assert_eq!(faults(CONTENTS, &pages), Vec::<String>::new());
    }

    #[test]
    fn a_missing_page_and_links_that_lead_nowhere_are_named() {
        let pages = site(&[
            ("README.html", "<a href=\"#top\">"),
            ("tasks/b.html", "<a href=\"c.html\"> <a href=\"../README.html#x\">"),
        ]);
        let expected = [
            "a.html of docs/SUMMARY.md is missing",
            "README.html: #top: there is no such heading",
            "tasks/b.html: c.html: there is no such page",
            "tasks/b.html: ../README.html#x: there is no such heading",
        ];
        assert_eq!(faults(CONTENTS, &pages), expected);
    }

    #[test]
    fn the_site_is_where_the_configuration_puts_it() {
        let configuration = include_str!("../../docs/book.toml");
        assert!(configuration.contains(&format!("\nbuild-dir = \"../{SITE}\"\n")));
    }
}
