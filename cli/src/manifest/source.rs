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
    /// It is gone, or can be read again and has nothing of its own (a folder).
    Gone,
}

/// The paths given with `-f`, and the files found under them.
pub(crate) struct Sources {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// Folders that could not be listed at the last look, with what was told.
    unlisted: BTreeMap<PathBuf, String>,
}

struct File {
    followed: Followed,
    /// Empty, which is what a file is while its content is on the way.
    blank: bool,
    /// Why it could not be read at the last look.
    refusal: Option<String>,
    absent_since: Option<Instant>,
    gone: bool,
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
        Ok(Self { paths: paths.to_vec(), files: BTreeMap::new(), unlisted: BTreeMap::new() })
    }

    /// Whether anything can change later.
    pub(crate) fn can_change(&self) -> bool {
        self.paths.iter().any(|path| !is_stdin(path))
    }

    /// Files that are away, and not yet for long enough to count as removed.
    pub(crate) fn absent(&self) -> BTreeSet<String> {
        let absent = self.files.iter().filter(|(_, file)| file.absent_since.is_some());
        absent.map(|(path, _)| path.display().to_string()).collect()
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
        let mut changes = Vec::new();
        let present = self.present(&mut changes);
        for path in &present {
            self.files.entry(path.clone()).or_insert_with(|| File {
                followed: Followed::new(path.clone()),
                blank: false,
                refusal: None,
                absent_since: None,
                gone: false,
            });
        }
        for (path, file) in &mut self.files {
            let found = file.look(present.contains(path), &path.display().to_string());
            changes.extend(found.map(|change| (path.display().to_string(), change)));
        }
        self.files.retain(|path, file| !file.gone || present.contains(path));
        changes
    }

    fn present(&mut self, changes: &mut Vec<(String, FileChange)>) -> BTreeSet<PathBuf> {
        let mut present = BTreeSet::new();
        for path in self.paths.iter().filter(|path| !is_stdin(path)) {
            if !path.is_dir() && !self.unlisted.contains_key(path) {
                present.insert(path.clone());
                continue;
            }
            let name = path.display().to_string();
            match manifests_in(path) {
                Ok(files) => {
                    present.extend(files);
                    if self.unlisted.remove(path).is_some() {
                        changes.push((name, FileChange::Gone));
                    }
                }
                Err(error) => {
                    // What the folder had stays: not being able to look is no proof that it is empty.
                    present.extend(self.files.keys().filter(|file| file.parent() == Some(path)).cloned());
                    let told = error.to_string();
                    if self.unlisted.insert(path.clone(), told.clone()) != Some(told) {
                        changes.push((name.clone(), change(&name, Err(error))));
                    }
                }
            }
        }
        present
    }
}

impl File {
    fn look(&mut self, listed: bool, name: &str) -> Option<FileChange> {
        if listed {
            match self.followed.changed(MAX_FILE_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.is_away(),
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    self.blank = bytes.iter().all(u8::is_ascii_whitespace);
                    if !self.blank {
                        self.present();
                        self.refusal = None;
                        return Some(change(name, Ok(bytes)));
                    }
                }
                Err(error) => {
                    self.present();
                    let told = error.to_string();
                    let is_new = self.refusal.replace(told.clone()) != Some(told);
                    return is_new.then(|| change(name, Err(error)));
                }
            }
            if !self.blank {
                self.present();
                return None;
            }
        }
        self.is_away()
    }

    fn is_away(&mut self) -> Option<FileChange> {
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        let goes = !self.gone && since.elapsed() >= GONE_AFTER;
        self.gone |= goes;
        goes.then_some(FileChange::Gone)
    }

    fn present(&mut self) {
        self.absent_since = None;
        self.gone = false;
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The manifests of a folder, not of the folders below it, as kubectl has it.
fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_manifest = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        // No look at the file itself: that is made once, when it is read.
        if is_manifest && !entry.file_type()?.is_dir() {
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
    let documents = parse(name, &text).or_else(|problem| {
        // JSON has escapes that YAML does not know.
        serde_json::from_str(&text).map(|value| vec![Document::without_lines(value)]).map_err(|_| problem)
    });
    match documents {
        Ok(documents) => FileChange::Documents(documents.into_iter().flat_map(Document::items).collect()),
        Err(problem) => FileChange::Unreadable(problem),
    }
}
