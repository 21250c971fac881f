//! Checks that sibling modules do not use each other in a ring: a reader of one of them need not read them all.
//!
//! A module and its descendants count as one, so a parent and its own children may use each other. A re-exported item
//! belongs to the module that defines it. Sources are read as text, in the form that rustfmt gives them: `use`
//! declarations, and paths that begin with `crate::` or `super::`. Tests do not count.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    slice,
};

use super::{limits::rust_files, pages::root};

/// Most re-exports on the way to a definition.
const HOPS: usize = 8;

/// The names from the root of a crate to a module, or to an item.
type Name = Vec<String>;
/// The uses of sibling modules by each module, each with an example.
type Uses = BTreeMap<Name, BTreeMap<Name, String>>;
type Modules = BTreeMap<Name, Module>;

#[test]
fn modules_beside_each_other_use_each_other_in_no_ring() {
    let (mut found, mut count) = (Vec::new(), 0);
    for folder in source_folders() {
        let shown = folder.strip_prefix(root()).expect("below the root").display().to_string();
        for file in ["lib.rs", "main.rs"] {
            let mut modules = Modules::new();
            read(&folder.join(file), &folder, &Name::new(), &mut modules);
            count += modules.len();
            found.extend(rings(&uses(&modules)).into_iter().map(|ring| format!("{shown}: {ring}")));
        }
    }
    assert!(count > 500, "only {count} modules are found");
    assert!(found.is_empty(), "modules use each other in a ring: move what they share to one of them: {found:#?}");
}

#[test]
fn a_ring_is_named_and_neither_children_nor_tests_make_one() {
    let of = |name: &str, source: &str| (split(name), Module::of(&without_tests(source)));
    let mut modules = Modules::from([
        of("", "mod a;\nmod b;\n"),
        of("a", "mod part;\nuse crate::{\n    b::{self, Thing as Other},\n};\n// crate::b::part::One\n"),
        of("a::part", "fn f() {\n    super::g();\n}\n"),
        of("b", "mod part;\npub use self::part::Thing;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
        of("b::part", ""),
    ]);
    assert!(rings(&uses(&modules)).is_empty());
    modules.extend([of("b::part", "fn f() -> super::super::a::It {\n}\n")]);
    let expected = "a -> b -> a (a uses crate::b, b::part uses super::super::a::It)";
    assert_eq!(rings(&uses(&modules)).into_iter().collect::<Vec<_>>(), [expected]);
    modules.extend([
        of("b::part", ""),
        of("b", "mod part;\nuse super::a::Defined;\n"),
        of("a", "use crate::b::Defined;"),
    ]);
    assert!(rings(&uses(&modules)).is_empty(), "what b has of a is a's");
}

#[test]
fn what_is_compiled_for_tests_only_is_left_out_and_what_a_feature_has_too_is_not() {
    for (predicate, is_left_out) in [
        ("test", true),
        (r#"all(test, target_os = "linux")"#, true),
        ("all(unix, any(test))", true),
        ("any(test, all(unix, test))", true),
        (r#"any(test, feature = "x")"#, false),
        (r#"all(unix, any(test, feature = "x"))"#, false),
        (r#"feature = "test""#, false),
        ("not(test)", false),
        ("any()", false),
    ] {
        let source = format!("#[cfg({predicate})]\nfn f() {{\n    crate::a::g();\n}}\nfn h() {{\n}}\n");
        let kept = without_tests(&source);
        assert_eq!((kept.contains("crate::a"), kept.contains("fn h")), (!is_left_out, true), "{predicate}");
    }
}

/// The folders of all sources of programs and libraries.
fn source_folders() -> BTreeSet<PathBuf> {
    let is_source = |folder: &&Path| folder.file_name().is_some_and(|name| name == "src");
    rust_files(&root()).iter().filter_map(|file| file.ancestors().find(is_source)).map(Path::to_owned).collect()
}

/// Splits a path into its words.
fn split(path: &str) -> Name {
    path.split("::").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Reads the module in a file, and the modules that it declares, whose files are in a folder.
fn read(file: &Path, folder: &Path, name: &Name, modules: &mut Modules) {
    let Ok(source) = fs::read_to_string(file) else { return };
    let module = Module::of(&without_tests(&source));
    for child in &module.children {
        let below = [&name[..], slice::from_ref(child)].concat();
        read(&folder.join(format!("{child}.rs")), &folder.join(child), &below, modules);
    }
    modules.insert(name.clone(), module);
}

/// Returns a source without comments, and without items that are compiled for tests only.
fn without_tests(source: &str) -> String {
    let mut kept = String::new();
    let mut lines = source.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end());
    while let Some(line) = lines.next() {
        let predicate = line.trim_start().strip_prefix("#[cfg(").and_then(|rest| rest.strip_suffix(")]"));
        if !predicate.is_some_and(holds_in_tests_only) {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let Some(first) = lines.find(|line| !line.trim_start().starts_with("#[")) else { break };
        let indentation = first.len() - first.trim_start().len();
        if !first.ends_with([';', '}', ',']) {
            lines.find(|line| is_end(line, indentation));
        }
    }
    kept
}

/// Whether an item with this predicate of `cfg` is compiled for tests only.
pub(super) fn holds_in_tests_only(predicate: &str) -> bool {
    let predicate = predicate.trim();
    let Some((name, rest)) = predicate.split_once('(') else { return predicate == "test" };
    let parts = parts(rest.strip_suffix(')').unwrap_or(rest));
    match name.trim() {
        "all" => parts.into_iter().any(holds_in_tests_only),
        "any" => !parts.is_empty() && parts.into_iter().all(holds_in_tests_only),
        _ => false,
    }
}

/// Splits a list at commas outside of brackets.
fn parts(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = list.split(|letter: char| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

/// Whether a line ends an item that began with this indentation.
fn is_end(line: &str, indentation: usize) -> bool {
    let (before, rest) = line.split_at_checked(indentation).unwrap_or_default();
    before.trim().is_empty() && rest.starts_with(['}', ']', ')']) && !rest.ends_with('{')
}

/// The declarations and paths of a module.
struct Module {
    children: Vec<String>,
    /// The imports and re-exports of the module: each path, with its name in the module.
    imports: Vec<(Name, String)>,
    /// Other paths.
    paths: Vec<Name>,
}

impl Module {
    fn of(source: &str) -> Self {
        let mut module = Self { children: Vec::new(), imports: Vec::new(), paths: Vec::new() };
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            let item = visible(line.trim_start());
            if let Some(child) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                module.children.push(child.to_owned());
            } else if let Some(tree) = item.strip_prefix("use ") {
                let mut tree = tree.to_owned();
                while !tree.contains(';') {
                    let Some(next) = lines.next() else { break };
                    tree.push_str(next.trim_start());
                }
                module.import(tree.trim_end_matches(';'), &Name::new());
            } else {
                let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
                let paths = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
                module.paths.extend(paths.map(|word| split(word.trim_end_matches(':'))));
            }
        }
        module
    }

    /// Takes a tree of a `use` declaration, below these words.
    fn import(&mut self, tree: &str, above: &Name) {
        let Some((head, rest)) = tree.split_once('{') else {
            let (path, renamed) =
                tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
            let mut path = [&above[..], &split(path)[..]].concat();
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let own = path.last().cloned().unwrap_or_default();
            self.imports.push((path, renamed.map_or(own, str::to_owned)));
            return;
        };
        let above = [&above[..], &split(head)[..]].concat();
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in rest.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    if !rest[start..at].trim().is_empty() {
                        self.import(rest[start..at].trim(), &above);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
    }
}

/// Removes the visibility of an item.
fn visible(item: &str) -> &str {
    let rest = item.strip_prefix("pub").unwrap_or(item);
    let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
    rest.trim_start()
}

fn uses(modules: &Modules) -> Uses {
    let mut uses = Uses::new();
    for (name, module) in modules {
        for path in module.imports.iter().map(|(path, _)| path).chain(&module.paths) {
            let Some(owner) = owner(modules, name, path) else { continue };
            let shared = name.iter().zip(&owner).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (name.get(..=shared), owner.get(..=shared)) {
                let example = || format!("{} uses {}", name.join("::"), path.join("::"));
                uses.entry(from.to_vec()).or_default().entry(to.to_vec()).or_insert_with(example);
            }
        }
    }
    uses
}

/// Returns the module that defines the target of a path in another one. Absent: the target is in another crate.
fn owner(modules: &Modules, from: &Name, path: &Name) -> Option<Name> {
    let (mut from, mut path, mut owner) = (from.clone(), path.clone(), None);
    for _ in 0..HOPS {
        let Some((to, rest)) = walk(modules, &from, &path) else { break };
        owner = Some(to.clone());
        let Some((item, rest)) = rest.split_first() else { break };
        let imports = modules.get(&to).map(|module| &module.imports[..]).unwrap_or_default();
        let Some((elsewhere, _)) = imports.iter().find(|(_, name)| name == item) else { break };
        path = [&elsewhere[..], rest].concat();
        from = to;
    }
    owner
}

/// Returns the module to which the first words of a path lead, and the other words. Absent: there is no such module.
fn walk<'a>(modules: &Modules, from: &Name, path: &'a [String]) -> Option<(Name, &'a [String])> {
    let (first, mut rest) = path.split_first()?;
    let mut at = step(modules, from, first)?;
    while let Some((word, others)) = rest.split_first() {
        let Some(next) = step(modules, &at, word) else { break };
        (at, rest) = (next, others);
    }
    Some((at, rest))
}

/// Returns the module to which one word leads.
fn step(modules: &Modules, from: &Name, word: &str) -> Option<Name> {
    match word {
        "crate" => Some(Name::new()),
        "self" => Some(from.clone()),
        "super" => Some(from.split_last()?.1.to_vec()),
        _ => {
            let mut below = from.clone();
            below.push(word.to_owned());
            modules.contains_key(&below).then_some(below)
        }
    }
}

/// Returns each ring by the shortest way around, with the uses between its modules.
fn rings(uses: &Uses) -> BTreeSet<String> {
    let around = uses.keys().filter_map(|name| way(uses, name, name));
    let named = around.map(|mut ring| {
        ring.pop();
        let first = ring.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
        ring.rotate_left(first);
        ring.push(ring[0]);
        let names: Vec<String> = ring.iter().map(|name| name.join("::")).collect();
        let examples = ring.windows(2).filter_map(|pair| uses.get(pair[0])?.get(pair[1]));
        let examples: Vec<&str> = examples.map(String::as_str).collect();
        format!("{} ({})", names.join(" -> "), examples.join(", "))
    });
    named.collect()
}

/// Returns the shortest way from one module to another, both included.
fn way<'a>(uses: &'a Uses, from: &'a Name, to: &Name) -> Option<Vec<&'a Name>> {
    let (mut seen, mut ways) = (BTreeSet::new(), VecDeque::from([vec![from]]));
    while let Some(way) = ways.pop_front() {
        for next in uses.get(*way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [&way[..], &[next]].concat();
            if next == to {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}
