//! The pages for people: every relative link and anchor leads somewhere, and the book has every page of `docs`.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// Pages outside of `docs` and `charts`.
const PAGES: [&str; 4] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// Table of contents of the book, in `docs`.
const SUMMARY: &str = "SUMMARY.md";

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading() {
    let root = root();
    let mut pages: Vec<PathBuf> = PAGES.map(|page| root.join(page)).into();
    pages.extend(markdown(&root.join("docs")));
    pages.extend(markdown(&root.join("charts")));
    let mut dead = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page");
        let shown = page.strip_prefix(&root).unwrap_or(page).display();
        for link in links(&text) {
            let why = why_dead(page, &link);
            dead.extend(why.map(|why| format!("{shown}: {link}: {why}")));
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_book_has_every_page_of_docs_once() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join(SUMMARY)).expect("a table of contents");
    let mut listed = BTreeMap::new();
    for link in links(&summary) {
        *listed.entry(normal(&docs.join(link))).or_insert(0) += 1;
    }
    let pages: BTreeSet<PathBuf> = markdown(&docs).into_iter().filter(|page| !page.ends_with(SUMMARY)).collect();
    let missing: Vec<_> = pages.iter().filter(|page| !listed.contains_key(*page)).collect();
    let twice: Vec<_> = listed.iter().filter(|(_, count)| **count > 1).collect();
    assert!(missing.is_empty() && twice.is_empty(), "not in docs/{SUMMARY}: {missing:#?}; twice: {twice:#?}");
}

#[test]
fn links_in_code_are_none_and_headings_have_the_anchors_of_github() {
    let text = "# A `b`: c, [d](e.md)\n## A\n[x](a.md#b \"title\") `[y](c.md)` [`z`](#spec)\n```\n[w](d.md)\n# no\n```\n## A\n";
    assert_eq!(links(text), ["e.md", "a.md#b", "#spec"]);
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a", "a-1", "a-b-c-d"]);
}

pub(super) fn root() -> PathBuf {
    normal(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// The Markdown files below a folder.
fn markdown(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(markdown(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    files
}

/// Why a link of a page is broken; `None` if it works, or leads out of the repository.
fn why_dead(page: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { page.to_owned() } else { normal(&page.parent()?.join(file)) };
    if !target.exists() {
        return Some("there is no such file");
    }
    let is_page = target.extension().is_some_and(|extension| extension == "md");
    let anchor = anchor.filter(|_| is_page)?;
    let text = fs::read_to_string(&target).expect("a page");
    (!anchors(&text).contains(anchor)).then_some("there is no such heading")
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// The lines of a page outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    })
}

/// The targets of the links of a page, without those in code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let plain: String = line.split('`').step_by(2).collect();
        let targets = plain.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split([')', ' ']).next());
        links.extend(targets.map(str::to_owned));
    }
    links
}

/// The anchors of the headings of a page, as GitHub and mdBook make them.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        let Some(heading) = heading.strip_prefix(' ').filter(|_| heading.len() < line.len()) else { continue };
        let anchor = anchor(heading.trim());
        let count = counts.entry(anchor.clone()).or_default();
        anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

/// Returns the anchor of a heading, without the targets of links in the heading.
fn anchor(heading: &str) -> String {
    let mut parts = heading.split("](");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        words.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    let kept = words.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}
