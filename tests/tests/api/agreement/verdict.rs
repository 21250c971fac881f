//! The verdict of the API server on a manifest, and the verdict of the offline validator.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::resume_unwind,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use harness::{ControlPlane, Namespace, binary};
use proxy_api::{SIDECAR_STREAM, STREAM_SERVER};
use regex::Regex;
use serde_json::Value;

use super::{file, rows::Row, written};

/// Requests to the API server in flight at once.
const REQUESTS: usize = 16;
/// How often kubectl is asked for its rows.
const APPLICATIONS: usize = 3;
/// What kubectl prints if a busy server, or its etcd, gives no verdict.
const NO_VERDICT: [&str; 7] = [
    "context deadline exceeded",
    "etcdserver: request timed out",
    "Error from server (Timeout)",
    "Error from server (TooManyRequests)",
    "Error from server (ServiceUnavailable)",
    "net/http: ",
    "http2: client connection lost",
];
/// `portlane validate` processes at once.
const VALIDATORS: usize = 2;

/// Whether a manifest is accepted, and why not.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) accepted: bool,
    /// The fields that are wrong.
    pub(super) fields: BTreeSet<String>,
    message: String,
}

impl Verdict {
    fn accepted() -> Self {
        Self { accepted: true, ..Self::default() }
    }

    fn refused_by_server(message: String) -> Self {
        Self { accepted: false, fields: fields_of_server(&message), message }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.accepted { "accepted" } else { "refused" };
        writeln!(f, "  {verdict} {:?}", self.fields)?;
        self.message.lines().try_for_each(|line| writeln!(f, "  > {}", line.chars().take(300).collect::<String>()))
    }
}

/// A row with its place in the table.
type Numbered<'a> = (usize, &'a Row);
/// Verdicts by the place of their row.
type Verdicts = BTreeMap<usize, Verdict>;

/// The API server's verdict on every row.
///
/// A handwritten row is text, and kubectl decides what that text means (YAML 1.1, duplicate keys, missing names,
/// unknown kinds): one `kubectl apply` reads them all. A generated row is an object: its dry run is a request of this
/// process, the same request that kubectl would send, without the time that kubectl takes for each file.
pub(super) fn of_server(server: &ControlPlane, rows: &[Row]) -> Vec<Verdict> {
    let namespace = server.namespace("agreement");
    let (texts, objects): (Vec<Numbered<'_>>, Vec<Numbered<'_>>) =
        rows.iter().enumerate().partition(|(_, row)| row.object.is_none());
    let verdicts = thread::scope(|scope| {
        let kubectl = scope.spawn(|| by_kubectl(&namespace, &texts));
        let mut verdicts = by_threads(REQUESTS, &objects, |row| dry_run(&namespace, row));
        verdicts.extend(kubectl.join().unwrap_or_else(|panic| resume_unwind(panic)));
        verdicts
    });
    assert_eq!(verdicts.len(), rows.len(), "every row has a verdict of the API server");
    verdicts.into_values().collect()
}

/// One `kubectl apply --dry-run=server` of all these rows.
fn by_kubectl(namespace: &Namespace<'_>, rows: &[Numbered<'_>]) -> Verdicts {
    static FILE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"[/"](\d{4})\.yaml"?"#).unwrap());
    let folder = written(rows);
    let path = folder.path().display().to_string();
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", &path];
    let mut output = namespace.kubectl(&arguments);
    // Nothing is applied, so kubectl may be asked again if a busy server gave no verdict on a row.
    for _ in 1..APPLICATIONS {
        if !NO_VERDICT.iter().any(|sign| output.stderr.contains(sign)) {
            break;
        }
        output = namespace.kubectl(&arguments);
    }
    let mut verdicts: Verdicts = rows.iter().map(|(number, _)| (*number, Verdict::accepted())).collect();
    let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("Warning: ")).collect();
    let errors = lines.join("\n");
    // A message starts with the name of its file and ends where the next file is named; some messages share a line.
    let mentions: Vec<(usize, usize, usize)> = FILE
        .captures_iter(&errors)
        .map(|found| (number(&found), found.get(0).unwrap().start(), found.get(0).unwrap().end()))
        .collect();
    for (at, (number, _, from)) in mentions.iter().enumerate() {
        let to = mentions.get(at + 1).map_or(errors.len(), |(_, next, _)| *next);
        let message = errors[*from..to].trim_start_matches(": ").to_owned();
        verdicts.insert(*number, Verdict::refused_by_server(message));
    }
    verdicts
}

/// The request that `kubectl apply --dry-run=server --validate=strict` sends for an object that does not exist.
fn dry_run(namespace: &Namespace<'_>, row: &Row) -> Verdict {
    let object = row.object.as_ref().expect("a generated row has an object");
    match namespace.dry_run(&as_kubectl_writes(object)) {
        Ok(()) => Verdict::accepted(),
        Err(message) => Verdict::refused_by_server(message),
    }
}

/// kubectl, as all of Go, writes a whole number without a fraction: 2000.0 is sent as 2000.
fn as_kubectl_writes(value: &Value) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "whole and small, as checked")]
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64);
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().and_then(whole).map_or_else(|| value.clone(), Value::from)
        }
        Value::Array(items) => items.iter().map(as_kubectl_writes).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), as_kubectl_writes(value))).collect(),
        _ => value.clone(),
    }
}

/// The fields that an answer of the API server names: as causes, by the strict decoder, or by the decoder of metadata.
fn fields_of_server(message: &str) -> BTreeSet<String> {
    static CAUSE: LazyLock<Regex> = LazyLock::new(|| {
        let kinds = "Invalid value|Required value|Unsupported value|Duplicate value|Too many|Too long|Forbidden";
        Regex::new(&format!(r"(?:is invalid: \[?|, |\* )([a-z][\w.\[\]/-]*): (?:{kinds})")).unwrap()
    });
    static STRICT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?:unknown|duplicate) field "([^"]+)""#).unwrap());
    static METADATA: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"Go struct field \w+\.(metadata[\w.]*) of type").unwrap());
    // kubectl looks the object up by its name before it sends the object.
    let name = message.contains("resource name may not be empty") || message.contains("invalid resource name");
    let causes =
        CAUSE.captures_iter(message).chain(STRICT.captures_iter(message)).chain(METADATA.captures_iter(message));
    let fields = causes.map(|cause| normal(&cause[1]));
    fields.chain(name.then(|| "metadata.name".to_owned())).collect()
}

/// The offline validator's verdict on every row. Each of [`VALIDATORS`] threads judges its share.
pub(super) fn of_validator(rows: &[Row]) -> Vec<Verdict> {
    let share =
        |first: usize| -> Vec<Numbered<'_>> { rows.iter().enumerate().skip(first).step_by(VALIDATORS).collect() };
    let verdicts: Verdicts = thread::scope(|scope| {
        let judges: Vec<_> = (0..VALIDATORS).map(share).map(|share| scope.spawn(move || judge(&share))).collect();
        judges.into_iter().flat_map(|judge| judge.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    assert_eq!(verdicts.len(), rows.len(), "every row has a verdict of the validator");
    verdicts.into_values().collect()
}

/// The validator's verdict on these rows.
///
/// The rules of the CRDs take the validator most of its time, and one process reads them once for all files. So there
/// are two processes for all rows, and one for each row that they do not decide: in one process, valid objects of the
/// same name or port refuse each other. The first process says which files are refused whatever stands beside them. The
/// second reads the generated rows that are left, each in a namespace of its own.
fn judge(rows: &[Numbered<'_>]) -> Verdicts {
    let folder = written(rows);
    let mut verdicts = refused_together(folder.path());
    verdicts.extend(accepted_apart(&undecided(rows, &verdicts)));
    for (number, _) in undecided(rows, &verdicts) {
        let (accepted, printed) = validate(&folder.path().join(file(number)), &[]);
        let (message, leaves_out) = (deciding(&printed), printed.lines().any(is_of_stream));
        let fields = fields_of_validator(&message);
        let accepted = accepted || leaves_out && fields.is_empty();
        verdicts.insert(number, Verdict { accepted, fields, message });
    }
    verdicts
}

fn undecided<'a>(rows: &[Numbered<'a>], verdicts: &Verdicts) -> Vec<Numbered<'a>> {
    rows.iter().copied().filter(|(number, _)| !verdicts.contains_key(number)).collect()
}

/// The generated rows that `portlane validate` accepts beside each other, each in a namespace of its own. What it
/// accepts here it accepts alone: another file can add a reason to refuse this one, and cannot take a reason away. It
/// may refuse here for a reason that another file adds, so a refusal decides nothing.
fn accepted_apart(rows: &[Numbered<'_>]) -> Verdicts {
    let apart = |&(number, row): &Numbered<'_>| {
        let mut object = row.object.clone()?;
        object["metadata"]["namespace"] = format!("row-{number}").into();
        Some((number, Row { manifest: object.to_string(), ..row.clone() }))
    };
    let apart: Vec<(usize, Row)> = rows.iter().filter_map(apart).collect();
    if apart.is_empty() {
        return Verdicts::new();
    }
    let files: Vec<Numbered<'_>> = apart.iter().map(|(number, row)| (*number, row)).collect();
    let folder = written(&files);
    let (accepted, printed) = validate(folder.path(), &[]);
    assert!(accepted || PROBLEM.is_match(&printed), "refused, but no file is named:\n{printed}");
    let named: BTreeSet<usize> = PROBLEM.captures_iter(&deciding(&printed)).map(|found| number(&found)).collect();
    let unnamed = files.iter().filter(|(number, _)| !named.contains(number));
    unnamed.map(|(number, _)| (*number, Verdict::accepted())).collect()
}

/// The output without the refusal of streams where a cluster has none: an object for `portlane run` may have them, and so
/// the API server takes it.
fn deciding(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().filter(|line| !is_of_stream(line)).collect();
    lines.join("\n")
}

/// Whether a line says that a stream is none of a cluster.
fn is_of_stream(line: &str) -> bool {
    [SIDECAR_STREAM, STREAM_SERVER].iter().any(|words| line.contains(words))
}

/// The start of a problem: file, line, colon.
static PROBLEM: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)^.*?/(\d{4})\.yaml:\d+: ").unwrap());

/// The place in the table of a row whose file is named.
fn number(found: &regex::Captures<'_>) -> usize {
    found[1].parse().expect("a number")
}

/// The files that `portlane validate` refuses when it reads the whole folder. `--only` with a name that no row has
/// leaves out conflicts between valid forwards. A message that names a second file is about an object that both files
/// have: that refuses neither of them here.
fn refused_together(folder: &Path) -> Verdicts {
    let (_, printed) = validate(folder, &["--only", "no-row-has-this-name"]);
    let files = format!("{}/", folder.display());
    // The line about --only and the summary follow the problems.
    let problems = printed.split("\n--only ").next().unwrap_or_default();
    let starts: Vec<(usize, usize)> =
        PROBLEM.captures_iter(problems).map(|found| (number(&found), found.get(0).unwrap().start())).collect();
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for (at, (number, from)) in starts.iter().enumerate() {
        let to = starts.get(at + 1).map_or(problems.len(), |(_, next)| *next);
        let problem = &problems[*from..to];
        if problem.matches(&files).count() == 1 {
            *lines.entry(*number).or_default() += problem;
        }
    }
    let refused = |message: String| Verdict { accepted: false, fields: fields_of_validator(&message), message };
    lines.into_iter().map(|(number, message)| (number, refused(message))).collect()
}

/// Whether `portlane validate` accepts a file or folder, and its output.
fn validate(path: &Path, options: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary("portlane"));
    command.args(["validate", "-f"]).arg(path).args(options).stdin(Stdio::null());
    let output = command.output().expect("portlane runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The verdict of `judge` on each row, from so many threads.
fn by_threads(threads: usize, rows: &[Numbered<'_>], judge: impl Fn(&Row) -> Verdict + Sync) -> Verdicts {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Verdicts::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(number, row)) = rows.get(next.fetch_add(1, Relaxed)) {
                    let verdict = judge(row);
                    verdicts.lock().expect("unpoisoned").insert(number, verdict);
                }
            });
        }
    });
    verdicts.into_inner().expect("unpoisoned")
}

/// Lines are `file:line: kind namespace/name: field: message`. Of labels and annotations the server names the map and
/// the validator the key as well. A warning refuses nothing.
fn fields_of_validator(message: &str) -> BTreeSet<String> {
    static PROBLEM: LazyLock<Regex> = LazyLock::new(|| {
        let map = r"(metadata\.(?:labels|annotations))\.[^:]*";
        Regex::new(&format!(r"(?m)\.yaml:\d+: \w+ [^:]*: (?:{map}|(\w[^\s:]*)): ")).unwrap()
    });
    let field = |found: regex::Captures<'_>| found.get(1).or(found.get(2)).map(|field| normal(field.as_str()));
    let problems: Vec<&str> = message.lines().filter(|line| !line.ends_with(" (warning)")).collect();
    PROBLEM.captures_iter(&problems.join("\n")).filter_map(field).collect()
}

/// Servers of different versions name an owner by its index, or only the list of owners.
fn normal(field: &str) -> String {
    static OWNER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^metadata\.ownerReferences\[\d+\]").unwrap());
    OWNER.replace(field, "metadata.ownerReferences").into_owned()
}
