//! The pages for people: their blocks of code and the commands on them. The tests of each program read its own commands.

use std::{fs, iter, path::Path};

/// The decisions tell what was, and have words of that time.
const DECISIONS: &str = "docs/adr";

/// A page of `docs`, or the README.
pub(crate) struct Page {
    /// The path in the checkout.
    pub(crate) name: String,
    text: String,
}

/// A block of code.
pub(crate) struct Block<'a> {
    /// The line of the page on which the block begins.
    pub(crate) line: usize,
    /// The heading of the second level above the block.
    pub(crate) section: &'a str,
    pub(crate) language: &'a str,
    pub(crate) lines: Vec<&'a str>,
}

/// A command of a page.
pub(crate) struct Typed {
    /// The page and the command, for messages.
    pub(crate) shown: String,
    /// The words behind the name of the program.
    pub(crate) words: Vec<String>,
}

/// All pages but the decisions.
pub(crate) fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = vec!["README.md".to_owned()];
    add_pages(&root, "docs", &mut names);
    let page = |name: String| {
        let text = fs::read_to_string(root.join(&name)).expect("a page");
        Page { name, text }
    };
    names.into_iter().map(page).collect()
}

/// Adds the names of the pages of a folder and its subfolders.
fn add_pages(root: &Path, folder: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let name = format!("{folder}/{}", entry.expect("an entry").file_name().to_string_lossy());
        if root.join(&name).is_dir() {
            if name != DECISIONS {
                add_pages(root, &name, names);
            }
        } else if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            names.push(name);
        }
    }
}

impl Page {
    /// A page with this text.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// The lines of the page.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// The blocks of code, in order.
    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let (mut blocks, mut section) = (Vec::new(), "");
        let mut lines = self.text.lines().zip(1..);
        while let Some((text, line)) = lines.next() {
            section = text.strip_prefix("## ").unwrap_or(section);
            if let Some(language) = text.strip_prefix("```") {
                let inside = lines.by_ref().map(|(text, _)| text).take_while(|text| *text != "```");
                blocks.push(Block { line, section, language, lines: inside.collect() });
            }
        }
        blocks
    }

    /// The commands of a program in blocks: behind prompts, or in a block without a language.
    pub(crate) fn commands(&self, program: &[&str]) -> Vec<Typed> {
        let mut commands = Vec::new();
        for block in self.blocks() {
            let prompt = match block.language {
                "console" => "$ ",
                "" => "",
                _ => continue,
            };
            let text = block.lines.join("\n").replace("\\\n", " ");
            let typed = text.lines().filter_map(|line| line.strip_prefix(prompt));
            // A word that the shell is to complete is none of the program.
            let whole = typed.filter(|line| !line.contains("<TAB>"));
            commands.extend(whole.flat_map(|line| self.typed(line, program)));
        }
        commands
    }

    /// The commands of a program within sentences, which may lack words, or have placeholders for them.
    pub(crate) fn mentions(&self, program: &[&str]) -> Vec<Typed> {
        let mut is_code = false;
        let sentences = self.text.lines().filter(|line| {
            let is_fence = line.starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        });
        let sentences = sentences.collect::<Vec<_>>().join("\n");
        let spans = sentences.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
        spans.flat_map(|span| self.typed(&span.replace('\n', " "), program)).collect()
    }

    /// The commands of a program in a line.
    fn typed(&self, line: &str, program: &[&str]) -> Vec<Typed> {
        let shown = format!("{}: {line}", self.name);
        let found = |command: Vec<String>| Some(arguments(&command, program)?.to_vec());
        let all = simple_commands(line).into_iter().filter_map(found);
        all.map(|words| Typed { shown: shown.clone(), words }).collect()
    }
}

/// The simple commands of a line of a shell, as words: without quotes and comments. The file of a redirection counts as a
/// command.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut command) = (Vec::new(), Vec::new());
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars().chain(['\n']) {
        let is_operator = "|&;<>()".contains(letter);
        match quote {
            Some(open) if letter == open => quote = None,
            None if letter == '#' && word.is_none() => break,
            None if matches!(letter, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if is_operator || letter.is_whitespace() => {
                command.extend(word.take());
                if is_operator {
                    commands.push(std::mem::take(&mut command));
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    commands.push(command);
    commands
}

/// The words behind a program that a command runs, by itself or through `kubectl exec`.
fn arguments<'a>(command: &'a [String], program: &[&str]) -> Option<&'a [String]> {
    let inner = command.iter().position(|word| word == "--").map(|at| &command[at + 1..]);
    let is_run = |words: &&[String]| {
        let mut named = words.iter().map(|word| word.trim_start_matches('/'));
        program.iter().all(|name| named.next() == Some(*name))
    };
    let words = iter::once(command).chain(inner).find(is_run)?;
    Some(&words[program.len()..])
}

/// The first word that is neither a command nor an option of a program, which is built. Values are not checked.
pub(crate) fn unknown_word<'a>(program: &clap::Command, words: &'a [String]) -> Option<&'a str> {
    let (mut command, mut may_be_value) = (program, false);
    for word in words {
        let is_known = if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            command.get_arguments().any(|argument| argument.get_long() == Some(name))
        } else if let Some(letter) = word.strip_prefix('-').and_then(|letters| letters.chars().next()) {
            command.get_arguments().any(|argument| argument.get_short() == Some(letter))
        } else if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            true
        } else {
            may_be_value || !command.has_subcommands()
        };
        if !is_known {
            return Some(word.as_str());
        }
        may_be_value = word.starts_with('-');
    }
    None
}
