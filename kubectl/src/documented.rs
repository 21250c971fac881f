//! The pages for people: the plugin accepts their commands.

#[allow(dead_code, reason = "the other blocks are for portlane")]
#[path = "../../cli/src/documented/page.rs"]
mod page;

use std::iter;

use clap::{CommandFactory, Parser};

use self::page::{Page, Typed, pages, unknown_word};
use crate::args::{Cli, Command};

/// Both names of the program.
const PROGRAMS: [&[&str]; 2] = [&["kubectl", "portlane"], &["kubectl-portlane"]];

/// Finds commands of the plugin on all pages.
fn all(find: impl Fn(&Page, &[&str]) -> Vec<Typed>) -> Vec<Typed> {
    let (pages, mut found) = (pages(), Vec::new());
    for program in PROGRAMS {
        found.extend(pages.iter().flat_map(|page| find(page, program)));
    }
    found
}

/// Why the plugin refuses a command.
fn refusal(words: &[String]) -> Option<String> {
    match Cli::try_parse_from(iter::once("kubectl-portlane").chain(words.iter().map(String::as_str))) {
        Ok(cli) => match &cli.command {
            Command::Run(args) => args.run.flaw(),
            Command::Validate(args) => args.input.flaw(),
            _ => None,
        },
        Err(error) => error.use_stderr().then(|| error.to_string()),
    }
}

#[test]
fn the_commands_of_the_pages_are_accepted() {
    let typed = all(Page::commands);
    assert!(typed.len() > 30, "only {} commands are found", typed.len());
    let refused = typed.iter().filter_map(|command| Some(format!("{}: {}", command.shown, refusal(&command.words)?)));
    let refused: Vec<_> = refused.collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(refusal(&["status".to_owned(), "--nosuch".to_owned()]).is_some());
}

#[test]
fn sentences_name_commands_and_options_that_there_are() {
    let mut plugin = Cli::command();
    plugin.build();
    let typed = all(Page::mentions);
    assert!(typed.len() > 20, "only {} commands are found", typed.len());
    let unknown = |command: &Typed| {
        let word = unknown_word(&plugin, &command.words)?;
        Some(format!("{}: there is no {word}", command.shown))
    };
    let wrong: Vec<_> = typed.iter().filter_map(unknown).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
