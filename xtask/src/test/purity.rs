//! The cores are pure (ADR 0027): world, time and chance are arguments.
//!
//! The parts of the standard library that a core may use are on a list. Crates that reach the system, clocks and
//! `async` are refused wherever they are named. The core of the proxy, a module, uses no other module of its crate; the
//! other cores are crates, whose dependencies `.ci/run` checks. Tests do not count.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    limits::rust_files,
    pages::root,
    tokens::{Code, Token, text},
};

/// The cores that are crates.
const CRATES: [&str; 6] = [
    "operator/core/src",
    "kubectl/core/src",
    "page/src",
    "tunnel/core/src",
    "durable/core/src",
    // The contract makes decisions at ports, too.
    "proxy-api/src",
];
/// The core that is a module.
const MODULE: &str = "proxy/src/core";

/// The names of the standard library.
const STANDARD: [&str; 3] = ["std", "core", "alloc"];
/// Modules of the standard library that a core may use without restriction.
const PURE: [&str; 28] = [
    "any",
    "array",
    "ascii",
    "borrow",
    "boxed",
    "cell",
    "char",
    "cmp",
    "collections",
    "convert",
    "error",
    "fmt",
    "future",
    "hint",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "option",
    "pin",
    "rc",
    "result",
    "slice",
    "str",
    "string",
    "task",
    "vec",
];
/// Modules of the standard library of which a core may use these items.
const PARTLY: [(&str, &[&str]); 5] = [
    // Random states are left out: a shell passes them in. A default hasher always has the same keys.
    ("hash", &["BuildHasher", "DefaultHasher", "Hash", "Hasher"]),
    // The destination of writes is an argument.
    ("io", &["Write"]),
    // Types of addresses are permitted, but no sockets.
    ("net", &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    // Types for sharing are permitted, but none that wait for another thread.
    ("sync", &["Arc", "Mutex", "MutexGuard", "OnceLock", "PoisonError", "Weak", "atomic"]),
    // Durations are permitted, but no clocks. The epoch is a date for formatting.
    ("time", &["Duration", "UNIX_EPOCH"]),
];
/// Crates that reach the system.
const SYSTEM: [&str; 13] = [
    "getrandom",
    "hyper",
    "hyper_util",
    "libc",
    "mio",
    "prometheus_client",
    "quinn_udp",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
    "tokio_rustls",
    "tracing",
];
/// Functions that read a clock, of any type.
const CLOCKS: [&str; 2] = ["elapsed", "now"];
/// Macros that reach the system.
const MACROS: [&str; 8] = ["dbg", "env", "eprint", "eprintln", "include", "option_env", "print", "println"];

#[test]
fn the_cores_use_neither_world_nor_time_nor_chance() {
    let mut found: Vec<String> = CRATES.iter().flat_map(|folder| of_core(&root().join(folder), false)).collect();
    found.extend(of_core(&root().join(MODULE), true));
    assert!(found.is_empty(), "a core gets these as arguments, or leaves them to its shell: {found:#?}");
}

/// Lists the forbidden uses in the sources of a core.
fn of_core(folder: &Path, is_module: bool) -> Vec<String> {
    let mut files = rust_files(folder);
    if is_module {
        files.push(folder.with_extension("rs"));
    }
    assert!(!files.is_empty(), "{} has no sources", folder.display());
    let read = |file: PathBuf| fs::read_to_string(&file).map(|source| (file, source)).expect("a file");
    let sources: Vec<(PathBuf, String)> = files.into_iter().map(read).collect();
    let codes: Vec<(&Path, Code<'_>)> = sources.iter().map(|(file, source)| (&**file, Code::of(source))).collect();
    let tests: Vec<PathBuf> = codes
        .iter()
        .flat_map(|(file, code)| code.test_modules.iter().map(move |module| below(file).join(module)))
        .collect();
    let mut found = Vec::new();
    for (file, code) in codes {
        if tests.iter().any(|test| file.starts_with(test) || file == test.with_extension("rs")) {
            continue;
        }
        let depth = file.strip_prefix(folder).map_or(0, |below| below.components().count());
        let faults = faults(&code, is_module.then_some(depth));
        found.extend(faults.into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.display())));
    }
    found
}

/// The folder of the modules that a file declares.
fn below(file: &Path) -> PathBuf {
    let is_root = file.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs");
    file.parent().filter(|_| is_root).map_or_else(|| file.with_extension(""), Path::to_owned)
}

/// Lists the forbidden uses in code, with their lines. `depth` is that of a module below the core that is a module
/// itself.
fn faults(code: &Code<'_>, depth: Option<usize>) -> Vec<(usize, String)> {
    let crates = [&STANDARD[..], &SYSTEM].concat();
    let mut faults = Vec::new();
    for path in code.paths(&crates) {
        if !may_use(&path.words) || depth.is_some_and(|depth| leaves(&path.words, depth)) {
            faults.push((path.line, path.words.join("::")));
        }
    }
    for (at, token) in code.tokens.iter().enumerate() {
        if let Some(fault) = fault(&code.tokens, at) {
            faults.push((token.line, fault));
        }
    }
    faults
}

fn may_use(path: &[&str]) -> bool {
    match path {
        [first, rest @ ..] if STANDARD.contains(first) => match rest {
            [module, ..] if PURE.contains(module) => true,
            [module, item, ..] => PARTLY.iter().any(|(name, items)| name == module && items.contains(item)),
            _ => false,
        },
        [first, .., last] => !SYSTEM.contains(first) && !CLOCKS.contains(last),
        [only] => !SYSTEM.contains(only),
        [] => true,
    }
}

/// Whether a path leaves the core of the proxy from a module at this depth below it.
fn leaves(path: &[&str], depth: usize) -> bool {
    let path = path.strip_prefix(&["self"]).unwrap_or(path);
    match path {
        ["crate", rest @ ..] => rest.first() != Some(&"core"),
        _ => path.iter().take_while(|word| **word == "super").count() > depth,
    }
}

/// Describes the use at a token, if a core may not have it.
fn fault(tokens: &[Token<'_>], at: usize) -> Option<String> {
    let (word, next) = (text(tokens, at), text(tokens, at + 1));
    let before = at.checked_sub(1).map_or("", |at| text(tokens, at));
    let is_fault = match word {
        "async" | "await" => true,
        // This is a clock of a type in brackets, which is not a path.
        "now" | "elapsed" if before == "::" => text(tokens, at.saturating_sub(2)) == ">",
        "elapsed" => before == "." && next == "(",
        "extern" => next == "crate",
        // The attribute moves the source of a module elsewhere.
        "path" => before == "[" && next == "=",
        _ => next == "!" && MACROS.contains(&word),
    };
    is_fault.then(|| [before, word, next].concat())
}

#[test]
fn every_form_of_an_import_is_seen() {
    for (source, expected) in [
        (
            "use std::{env, fs, io, net::UdpSocket as U, thread};",
            "std::env std::fs std::io std::net::UdpSocket std::thread",
        ),
        ("use std::{\n    collections::BTreeMap,\n    time::{Duration, Instant as I},\n};", "std::time::Instant"),
        ("use std::time::{self, SystemTime};", "std::time std::time::SystemTime"),
        ("use {std::process, std::fmt};", "std::process"),
        ("use ::std::thread::spawn as later;", "std::thread::spawn"),
        ("use std as s;", "std"),
        ("use std::{self, fmt};", "std"),
        ("use std::*;", "std::*"),
        ("use std::net;", "std::net"),
        ("use std::net::*;", "std::net::*"),
        ("use std::hash::RandomState;", "std::hash::RandomState"),
        ("use core::net::TcpStream;", "core::net::TcpStream"),
        ("pub(crate) use std::io::{Read, Write as _};", "std::io::Read"),
        ("use tracing::{info, warn};", "tracing::info tracing::warn"),
        ("use tokio;", "tokio"),
        ("use clock::{now, other};", "clock::now"),
        ("#[cfg(any(test, feature = \"x\"))]\nuse std::fs;", "std::fs"),
        ("#[cfg(test)]\nuse std::{env, io};\nuse std::fs;", "std::fs"),
    ] {
        assert_eq!(seen(source).join(" "), expected, "{source}");
    }
}

#[test]
fn every_form_of_a_call_is_seen() {
    for (source, expected) in [
        ("fn f() { std::fs::read(\"a\"); }", "std::fs::read"),
        ("fn f() { return ::std::process::exit(1); }", "std::process::exit"),
        ("fn f() -> I { I::now() }", "I::now"),
        ("fn f(t: &T) { g(t.map(Timestamp::now)) }", "Timestamp::now"),
        ("fn f() { <T as Clock>::now() }", "::now("),
        ("fn f(t: T) -> Duration { t.elapsed() }", ".elapsed("),
        ("fn f(t: T) -> Duration { T::elapsed(&t) }", "T::elapsed"),
        ("fn f() { tokio::spawn(g()); }", "tokio::spawn"),
        ("fn f() { return ::libc::getpid(); }", "libc::getpid"),
        ("pub(crate) async fn f() {}", "asyncfn"),
        ("fn f() { println!(\"a\"); }", "println!"),
        ("const A: &str = env!(\"HOME\");", "env!"),
        ("extern crate std as s;", "externcrate"),
        ("#[path = \"../shell.rs\"]\nmod shell;", "[path="),
    ] {
        let found = seen(source);
        assert!(found.len() == 1 && found[0].contains(expected), "{source}: {found:?}");
    }
}

#[test]
fn what_is_pure_is_seen_as_pure() {
    for source in [
        "use std::{\n    collections::BTreeMap,\n    fmt::{self, Write as _},\n    net::{IpAddr, SocketAddr},\n};",
        "use std::{\n    sync::{Arc, atomic::Ordering},\n    time::{Duration, UNIX_EPOCH},\n};",
        "fn f<'a>(&'a self, now: Duration) -> Duration { now + self.elapsed + self.now() }\n",
        "// std::fs\n/* use std::env; */\nconst A: &str = \"std::fs \\\" tokio::spawn\";\nconst B: char = '\"';\n",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n",
        "#[cfg(all(test, unix))]\n#[allow(a)]\nfn f<A, B>(a: A) {\n    std::fs::read(a);\n}\n",
    ] {
        assert_eq!(seen(source), [""; 0], "{source}");
    }
}

#[test]
fn a_module_of_the_core_uses_no_module_of_the_shell() {
    for (source, depth, leaves) in [
        ("use crate::core::{fault, writes};", 0, false),
        ("use crate::{core::fault, log::Level};", 1, true),
        ("use crate as all;", 1, true),
        ("use super::writes;", 1, false),
        ("use super::{super::shared, writes};", 1, true),
        ("use super::super::writes;", 2, false),
        ("fn f() -> self::super::super::shared::Shared {}", 1, true),
        ("use super::shared;", 0, true),
        ("pub(crate) fn f() -> crate::metrics::Metrics {}", 3, true),
        ("pub(crate) fn f() {}", 0, false),
    ] {
        let found = faults(&Code::of(source), Some(depth));
        assert_eq!(!found.is_empty(), leaves, "{source}: {found:?}");
        assert!(faults(&Code::of(source), None).is_empty(), "{source}: the other cores are crates");
    }
}

/// What a source in a module directly below a core uses and may not.
fn seen(source: &str) -> Vec<String> {
    faults(&Code::of(source), Some(1)).into_iter().map(|(_, what)| what).collect()
}
