//! A page of docs/tasks: files to write, commands to run, and their output.

/// One step of the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this file: a YAML block whose first line names it.
    File { name: String, content: String },
    /// Run this command, which prints these lines.
    Command { line: String, output: Vec<String> },
}

/// A block of a page with its language.
struct Block<'a> {
    language: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```").filter(|language| !language.is_empty()) {
            let block = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language, lines: block });
        }
    }
    blocks
}

/// The steps of a page, in order.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for Block { language, lines } in blocks(page) {
        match language {
            "yaml" => {
                let name = lines.first().and_then(|line| line.strip_prefix("# ")).expect("a YAML block names its file");
                steps.push(Step::File { name: name.to_owned(), content: lines.join("\n") + "\n" });
            }
            "console" => steps.extend(commands(&lines)),
            _ => {}
        }
    }
    steps
}

/// The text of a page below a line, up to the next heading. Without a line, the beginning of the page.
pub(crate) fn section<'a>(page: &'a str, line: &str) -> &'a str {
    let (_, below) = page.split_once(line).unwrap_or_else(|| panic!("the page has no line {line}"));
    let up_to = |text: &'a str, next: &str| text.split_once(next).map_or(text, |(section, _)| section);
    up_to(up_to(below, "\n## "), "\n### ")
}

/// The commands of a page, in order.
pub(crate) fn all_commands(page: &str) -> Vec<&str> {
    let consoles = blocks(page).into_iter().filter(|block| block.language == "console");
    consoles.flat_map(|block| block.lines).filter_map(|line| line.strip_prefix("$ ")).collect()
}

fn commands(block: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        if let Some(line) = line.strip_prefix("$ ") {
            steps.push(Step::Command { line: line.to_owned(), output: Vec::new() });
        } else if let Some(Step::Command { output, .. }) = steps.last_mut() {
            output.push((*line).to_owned());
        }
    }
    steps
}

/// Whether the output of a program is the output on the page. `…` matches anything within a line, and a line of `…` any
/// lines. Times may differ, and so may the space between words.
pub(crate) fn is_shown(shown: &[String], printed: &str) -> bool {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let shown: Vec<Vec<String>> = shown.iter().map(|line| words(line)).collect();
    let printed: Vec<Vec<String>> = printed.lines().map(words).filter(|line| !line.is_empty()).collect();
    matches(&shown, &printed, &|line| line.len() == 1 && line[0] == "…", &|shown, printed| {
        matches(shown, printed, &|word| word == "…", &|shown, printed| is_word(shown, printed))
    })
}

/// Whether a sequence matches a pattern in which some elements match any number of elements.
fn matches<T>(pattern: &[T], all: &[T], is_any: &dyn Fn(&T) -> bool, is_like: &dyn Fn(&T, &T) -> bool) -> bool {
    match pattern {
        [] => all.is_empty(),
        [first, rest @ ..] if is_any(first) => (0..=all.len()).any(|skip| matches(rest, &all[skip..], is_any, is_like)),
        [first, rest @ ..] => {
            all.first().is_some_and(|one| is_like(first, one)) && matches(rest, &all[1..], is_any, is_like)
        }
    }
}

fn is_word(shown: &str, printed: &str) -> bool {
    if let Some((start, end)) = shown.split_once('…') {
        return printed.len() >= start.len() + end.len() && printed.starts_with(start) && printed.ends_with(end);
    }
    shown == printed || is_age(shown) && is_age(printed)
}

/// Whether a word is an age as kubectl prints it: 5s, 2m10s.
fn is_age(word: &str) -> bool {
    word.ends_with(['s', 'm', 'h'])
        && word.starts_with(|first: char| first.is_ascii_digit())
        && word.chars().all(|letter| letter.is_ascii_digit() || "smh".contains(letter))
}

#[test]
fn a_page_is_files_and_commands_and_what_they_print() {
    let page = "text\n```yaml\n# a.yaml\nkind: A\n```\n```\nno step\n```\n```console\n$ one\nout\n$ two > f &\n```\n";
    let command = |line: &str, output: &[&str]| Step::Command {
        line: line.to_owned(),
        output: output.iter().map(ToString::to_string).collect(),
    };
    let file = Step::File { name: "a.yaml".to_owned(), content: "# a.yaml\nkind: A\n".to_owned() };
    assert_eq!(steps(page), [file, command("one", &["out"]), command("two > f &", &[])]);
    assert_eq!(all_commands(page), ["one", "two > f &"]);
}

#[test]
fn a_section_ends_at_the_next_heading() {
    let page = "first\n## A\na\n### B\nb\n## C\nc\n";
    assert_eq!(["", "\n## A\n", "\n### B\n", "\n## C\n"].map(|line| section(page, line)), ["first", "a", "b", "c\n"]);
}

#[test]
fn what_is_printed_is_what_is_shown() {
    let shown = |shown: &str, printed: &str| is_shown(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), printed);
    assert!(shown("NAME AGE\nweb  5s", "NAME   AGE\nweb    2m10s\n"));
    assert!(!shown("NAME AGE\nweb  5s", "NAME   AGE\nother  5s\n"));
    assert!(shown("…\nlast", "a\nb\nlast\n") && shown("…\nlast", "last\n") && !shown("…\nlast", "last\na\n"));
    assert!(shown("… link down", "<13>1 x - link down") && !shown("… link down", "link up"));
    assert!(shown("shop-…  2/2", "shop-5d4-x 2/2") && !shown("shop-… 2/2", "shop-5d4-x 1/2"));
    assert!(shown("", "") && !shown("", "something") && !shown("something", ""));
}
