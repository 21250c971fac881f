//! The files that manifests come from, as they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy::follow::Followed;

use super::{Document, MAX_FILE_BYTES, Place, Problem, parse};

/// A file that is away for less than this is being replaced.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// Most files of a folder.
const MAX_FILES: usize = 10_000;

/// What a look at the files found.
pub(crate) enum FileChange {
    /// The file has these documents now.
    Documents(Vec<Document>),
    /// It cannot be read; what it had stays.
    Unreadable(Problem),
    /// It is gone.
    Gone,
}

/// The paths given with `-f`, and the files found under them.
pub(crate) struct Sources {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
}

struct File {
    followed: Followed,
    missing_since: Option<Instant>,
}

impl Sources {
    /// Sources by the arguments; `-` is standard input.
    ///
    /// # Errors
    /// A path that does not exist.
    pub(crate) fn new(paths: &[PathBuf]) -> io::Result<Self> {
        for path in paths.iter().filter(|path| !is_stdin(path)) {
            fs::metadata(path)?;
        }
        Ok(Self { paths: paths.to_vec(), files: BTreeMap::new() })
    }

    /// Whether anything can change later.
    pub(crate) fn can_change(&self) -> bool {
        self.paths.iter().any(|path| !is_stdin(path))
    }

    /// What standard input has, if it is among the sources; read once, to its end.
    pub(crate) fn standard_input(&self) -> Option<(String, FileChange)> {
        self.paths.iter().any(|path| is_stdin(path)).then(|| {
            let name = "<stdin>".to_owned();
            let mut bytes = Vec::new();
            let limit = MAX_FILE_BYTES as u64 + 1;
            let read = io::stdin().lock().take(limit).read_to_end(&mut bytes).map(|_| bytes);
            (name.clone(), change(&name, read))
        })
    }

    /// What is different since the last look, by file.
    pub(crate) fn look(&mut self) -> Vec<(String, FileChange)> {
        let (present, mut changes) = self.present();
        for path in &present {
            self.files
                .entry(path.clone())
                .or_insert_with(|| File { followed: Followed::new(path.clone()), missing_since: None });
        }
        let mut gone = Vec::new();
        for (path, file) in &mut self.files {
            let name = path.display().to_string();
            if present.contains(path) && path.exists() {
                file.missing_since = None;
                match file.followed.changed(MAX_FILE_BYTES) {
                    Ok(None) => {}
                    Ok(Some(bytes)) => changes.push((name.clone(), change(&name, Ok(bytes)))),
                    Err(error) => changes.push((name.clone(), change(&name, Err(error)))),
                }
            } else if file.missing_since.get_or_insert_with(Instant::now).elapsed() >= GONE_AFTER {
                gone.push(path.clone());
                changes.push((name, FileChange::Gone));
            }
        }
        for path in gone {
            self.files.remove(&path);
        }
        changes
    }

    fn present(&self) -> (BTreeSet<PathBuf>, Vec<(String, FileChange)>) {
        let mut present = BTreeSet::new();
        let mut problems = Vec::new();
        for path in self.paths.iter().filter(|path| !is_stdin(path)) {
            if !path.is_dir() {
                present.insert(path.clone());
                continue;
            }
            match manifests_in(path) {
                Ok(files) => present.extend(files),
                Err(error) => {
                    let name = path.display().to_string();
                    problems.push((name.clone(), change(&name, Err(error))));
                }
            }
        }
        (present, problems)
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The manifests of a folder, not of the folders below it, as kubectl has it.
fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_manifest = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        if is_manifest && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("has more than {MAX_FILES} manifests")));
        }
    }
    Ok(files)
}

fn change(name: &str, bytes: io::Result<Vec<u8>>) -> FileChange {
    let problem = |message: String| {
        FileChange::Unreadable(Problem {
            place: Place { file: name.to_owned(), line: 1 },
            object: None,
            field: None,
            message,
        })
    };
    let bytes = match bytes {
        Ok(bytes) if bytes.len() > MAX_FILE_BYTES => {
            return problem(format!("is larger than the {MAX_FILE_BYTES} bytes that are read; split it"));
        }
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return problem(format!("is larger than the {MAX_FILE_BYTES} bytes that are read; split it"));
        }
        Err(error) => return problem(format!("cannot be read: {error}")),
    };
    let Ok(text) = String::from_utf8(bytes) else { return problem("is not UTF-8 text".to_owned()) };
    match parse(name, &text) {
        Ok(documents) => FileChange::Documents(documents.into_iter().flat_map(Document::items).collect()),
        Err(problem) => FileChange::Unreadable(problem),
    }
}
