//! The pages for people: this program accepts their commands, has the options of their tables, and finds their manifests
//! valid.

mod manifests;
mod page;

use std::{collections::BTreeSet, ffi::OsString, iter};

use clap::{Arg, Parser};

use self::page::{Page, pages, unknown_word};
use crate::{args::Cli, plugin};

const PROGRAM: &[&str] = &["portlane"];

/// Tables of options: the page, the command, and whether the table has all of its options.
const TABLES: [(&str, &str, bool); 2] = [("docs/agent.md", "agent", true), ("docs/tunnels.md", "run", false)];

/// The program as help and completion have it.
fn program() -> clap::Command {
    let mut program = Cli::with_cluster_verbs();
    program.build();
    program
}

/// Whether the plugin runs in place of this program.
fn is_for_the_plugin(words: &[String]) -> bool {
    plugin::is_meant(&words.iter().map(OsString::from).collect::<Vec<_>>())
}

/// Why this program refuses a command.
fn refusal(words: &[String]) -> Option<String> {
    match Cli::try_parse_from(iter::once("portlane").chain(words.iter().map(String::as_str))) {
        Ok(cli) => cli.flaw(),
        Err(error) => error.use_stderr().then(|| error.to_string()),
    }
}

#[test]
fn the_commands_of_the_pages_are_accepted() {
    let typed = pages().into_iter().flat_map(|page| page.commands(PROGRAM));
    let typed: Vec<_> = typed.filter(|command| !is_for_the_plugin(&command.words)).collect();
    assert!(typed.len() > 15, "only {} commands are found", typed.len());
    let refused = typed.iter().filter_map(|command| Some(format!("{}: {}", command.shown, refusal(&command.words)?)));
    let refused: Vec<_> = refused.collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn sentences_name_commands_and_options_that_there_are() {
    let (program, mut wrong, mut count) = (program(), Vec::new(), 0);
    for command in pages().iter().flat_map(|page| page.mentions(PROGRAM)) {
        count += 1;
        if !is_for_the_plugin(&command.words) {
            let unknown = unknown_word(&program, &command.words);
            wrong.extend(unknown.map(|word| format!("{}: there is no {word}", command.shown)));
        }
    }
    assert!(count > 40, "only {count} commands are found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tables_have_the_options_of_their_commands() {
    let (program, pages) = (program(), pages());
    for (name, verb, is_whole) in TABLES {
        let page = pages.iter().find(|page| page.name == name).expect("the page");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `--")?.split([' ', '`']).next());
        let rows: BTreeSet<&str> = rows.collect();
        let command = program.find_subcommand(verb).expect("the command");
        let options = command.get_arguments().filter_map(Arg::get_long).filter(|option| *option != "help");
        let options: BTreeSet<&str> = options.collect();
        let is_right = if is_whole { rows == options } else { !rows.is_empty() && rows.is_subset(&options) };
        assert!(is_right, "{name}: the table has {rows:?}, and {verb} has {options:?}");
    }
}

#[test]
fn commands_are_found_behind_prompts_and_in_sentences_and_are_read_as_a_shell_reads_them() {
    let text = "Run `portlane top\n--once` or `portlane`.\n\n```console\n$ a 'portlane b' | portlane agent --join-file - \\\n    \
                --name \"it's c\" > out &   # portlane d\nportlane e\n$ portlane st<TAB>\n```\n```\nportlane run x\n```\n\
                ```yaml\nportlane f\n```\n```console\n$ kubectl exec a -- /portlane g; source <(portlane h)\n```\n";
    let page = Page::new("p.md", text);
    let of = |typed: Vec<page::Typed>| typed.into_iter().map(|command| command.words.join(",")).collect::<Vec<_>>();
    let expected = ["agent,--join-file,-,--name,it's c", "run,x", "g", "h"];
    assert_eq!(of(page.commands(PROGRAM)), expected);
    assert_eq!(of(page.mentions(PROGRAM)), ["top,--once", ""]);
    assert!(page.commands(&["kubectl", "portlane"]).is_empty());
}

#[test]
fn a_wrong_command_is_refused_and_a_wrong_word_is_found() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    assert!(refusal(&words("run -f a --nosuch")).is_some_and(|why| why.contains("--nosuch")));
    assert!(refusal(&words("validate")).is_some_and(|why| why.contains("name files")));
    assert_eq!(refusal(&words("run --help")), None);
    let program = program();
    for (text, unknown) in [
        ("run --jetstream-ca FILE", None),
        ("run --port-offset=3 a -f b", None),
        ("--version", None),
        ("runn -f a", Some("runn")),
        ("run --nosuch=1", Some("--nosuch=1")),
        ("top -Z", Some("-Z")),
    ] {
        assert_eq!(unknown_word(&program, &words(text)), unknown, "{text}");
    }
}
