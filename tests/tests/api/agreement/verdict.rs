//! What the API server says of a manifest through kubectl, and what the offline validator says.

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use harness::{ControlPlane, binary};
use regex::Regex;

use super::file;

/// What one of them says.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) accepted: bool,
    /// The fields that are wrong.
    pub(super) fields: BTreeSet<String>,
    said: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.accepted { "accepted" } else { "refused" };
        writeln!(f, "  {verdict} {:?}", self.fields)?;
        self.said.lines().try_for_each(|line| writeln!(f, "  > {}", line.chars().take(300).collect::<String>()))
    }
}

/// One `kubectl apply --dry-run=server` of all files.
pub(super) fn of_server(server: &ControlPlane, folder: &Path, count: usize) -> Vec<Verdict> {
    static FILE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"[/"](\d{4})\.yaml"?"#).unwrap());
    let namespace = server.namespace("agreement");
    let folder = folder.display().to_string();
    let said = namespace.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &folder]);
    let mut verdicts = vec![Verdict { accepted: true, ..Verdict::default() }; count];
    let told: Vec<&str> = said.stderr.lines().filter(|line| !line.starts_with("Warning: ")).collect();
    let told = told.join("\n");
    // A message begins with the file that it is about, and goes on until the next one does; some share a line.
    let mentions: Vec<(usize, usize, usize)> = FILE
        .captures_iter(&told)
        .map(|found| (found[1].parse().expect("a number"), found.get(0).unwrap().start(), found.get(0).unwrap().end()))
        .collect();
    for (at, (number, _, from)) in mentions.iter().enumerate() {
        let to = mentions.get(at + 1).map_or(told.len(), |(_, next, _)| *next);
        let said = told[*from..to].trim_start_matches(": ").to_owned();
        verdicts[*number] = Verdict { accepted: false, fields: fields_of_server(&said), said };
    }
    verdicts
}

/// The fields that an answer of the API server names: as causes, by the strict decoder, or by the decoder of metadata.
fn fields_of_server(said: &str) -> BTreeSet<String> {
    static CAUSE: LazyLock<Regex> = LazyLock::new(|| {
        let kinds = "Invalid value|Required value|Unsupported value|Duplicate value|Too many|Too long|Forbidden";
        Regex::new(&format!(r"(?:is invalid: \[?|, |\* )([a-z][\w.\[\]/-]*): (?:{kinds})")).unwrap()
    });
    static STRICT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?:unknown|duplicate) field "([^"]+)""#).unwrap());
    static METADATA: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"Go struct field \w+\.(metadata[\w.]*) of type").unwrap());
    // kubectl asks for the object before it sends it.
    let name = said.contains("resource name may not be empty") || said.contains("invalid resource name");
    let causes = CAUSE.captures_iter(said).chain(STRICT.captures_iter(said)).chain(METADATA.captures_iter(said));
    let fields = causes.map(|cause| normal(&cause[1]));
    fields.chain(name.then(|| "metadata.name".to_owned())).collect()
}

/// One `portlane validate` of each file, two at a time.
pub(super) fn of_validator(folder: &Path, count: usize) -> Vec<Verdict> {
    let program = binary("portlane");
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(vec![Verdict::default(); count]));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Relaxed)).filter(|number| *number < count) {
                    let mut command = Command::new(&program);
                    command.args(["validate", "-f"]).arg(folder.join(file(number))).stdin(Stdio::null());
                    let output = command.output().expect("it runs");
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let verdict =
                        Verdict { accepted: output.status.success(), fields: fields_of_validator(&said), said };
                    verdicts.lock().expect("unpoisoned")[number] = verdict;
                }
            });
        }
    });
    verdicts.into_inner().expect("unpoisoned")
}

/// Lines are `file:line: kind namespace/name: field: message`. Of labels and annotations the server names the map and the
/// validator the key as well.
fn fields_of_validator(said: &str) -> BTreeSet<String> {
    static PROBLEM: LazyLock<Regex> = LazyLock::new(|| {
        let map = r"(metadata\.(?:labels|annotations))\.[^:]*";
        Regex::new(&format!(r"(?m)\.yaml:\d+: \w+ [^:]*: (?:{map}|(\w[^\s:]*)): ")).unwrap()
    });
    let field = |found: regex::Captures<'_>| found.get(1).or(found.get(2)).map(|field| normal(field.as_str()));
    PROBLEM.captures_iter(said).filter_map(field).collect()
}

/// Servers of different versions call an owner by its index or only by the list.
fn normal(field: &str) -> String {
    static OWNER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^metadata\.ownerReferences\[\d+\]").unwrap());
    OWNER.replace(field, "metadata.ownerReferences").into_owned()
}
