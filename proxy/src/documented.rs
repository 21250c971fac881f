//! The pages for people: the program of the proxy has the commands and the options that they name.

#[allow(dead_code, reason = "the other blocks are for portlane")]
#[path = "../../cli/src/documented/page.rs"]
mod page;

use clap::CommandFactory;

use self::page::{Typed, pages, unknown_word};
use super::Args;

const PROGRAM: &[&str] = &["portlane-proxy"];

/// In a pod, variables stand for options that a command lacks.
#[test]
fn the_pages_name_commands_and_options_that_there_are() {
    let mut program = Args::command();
    program.build();
    let pages = pages();
    let typed = pages.iter().flat_map(|page| page.commands(PROGRAM).into_iter().chain(page.mentions(PROGRAM)));
    let typed: Vec<Typed> = typed.collect();
    assert!(typed.len() > 3, "only {} commands are found", typed.len());
    let unknown = |command: &Typed| {
        let word = unknown_word(&program, &command.words)?;
        Some(format!("{}: there is no {word}", command.shown))
    };
    let wrong: Vec<_> = typed.iter().filter_map(unknown).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(unknown_word(&program, &["--nosuch".to_owned()]), Some("--nosuch"));
}
