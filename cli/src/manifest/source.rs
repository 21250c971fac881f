//! The files that manifests come from, and their changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy::follow::Followed;

use super::{Document, MAX_FILE_BYTES, Place, Problem, parse};

/// A file that is absent for less than this time is being replaced.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// Most manifests in one folder.
const MAX_FILES: usize = 10_000;

/// Change of a file since the last look.
pub(crate) enum FileChange {
    /// The file now has these documents.
    Documents(Vec<Document>),
    /// The file cannot be read; its previous documents stay.
    Unreadable(Problem),
    /// The file was removed; or a folder that could not be listed is readable again.
    Gone,
}

/// The paths given with `-f`, and the files found under them.
pub(crate) struct Sources {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// Folders that could not be listed at the last look, with the reported error.
    unlisted: BTreeMap<PathBuf, String>,
}

struct File {
    followed: Followed,
    /// The file is empty, as it is between creation and the first write.
    blank: bool,
    /// Error of the last look, if the file could not be read.
    refusal: Option<String>,
    absent_since: Option<Instant>,
    gone: bool,
}

impl Sources {
    /// Sources for the arguments of `-f`; `-` is standard input.
    ///
    /// # Errors
    /// A path that does not exist.
    pub(crate) fn new(paths: &[PathBuf]) -> io::Result<Self> {
        for path in paths.iter().filter(|path| !is_stdin(path)) {
            fs::metadata(path)?;
        }
        Ok(Self { paths: paths.to_vec(), files: BTreeMap::new(), unlisted: BTreeMap::new() })
    }

    /// Whether a source can change later; standard input cannot.
    pub(crate) fn can_change(&self) -> bool {
        self.paths.iter().any(|path| !is_stdin(path))
    }

    /// Files that are absent, but not yet for long enough to count as removed.
    pub(crate) fn absent(&self) -> BTreeSet<String> {
        let absent = self.files.iter().filter(|(_, file)| file.absent_since.is_some());
        absent.map(|(path, _)| path.display().to_string()).collect()
    }

    /// The content of standard input, if standard input is a source; read once, to its end.
    pub(crate) fn standard_input(&self) -> Option<(String, FileChange)> {
        self.paths.iter().any(|path| is_stdin(path)).then(|| {
            let name = "<stdin>".to_owned();
            let mut bytes = Vec::new();
            let limit = MAX_FILE_BYTES as u64 + 1;
            let read = io::stdin().lock().take(limit).read_to_end(&mut bytes).map(|_| bytes);
            (name.clone(), change(&name, read))
        })
    }

    /// Changes since the last look, by file.
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
                    // The files of the folder stay: a folder that cannot be listed is not known to be empty.
                    present.extend(self.files.keys().filter(|file| file.parent() == Some(path)).cloned());
                    let message = error.to_string();
                    if self.unlisted.insert(path.clone(), message.clone()) != Some(message) {
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
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.mark_absent(),
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    self.blank = bytes.iter().all(u8::is_ascii_whitespace);
                    if !self.blank {
                        self.mark_present();
                        self.refusal = None;
                        return Some(change(name, Ok(bytes)));
                    }
                }
                Err(error) => {
                    self.mark_present();
                    let message = error.to_string();
                    let is_new = self.refusal.replace(message.clone()) != Some(message);
                    return is_new.then(|| change(name, Err(error)));
                }
            }
            if !self.blank {
                self.mark_present();
                return None;
            }
        }
        self.mark_absent()
    }

    fn mark_absent(&mut self) -> Option<FileChange> {
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        let vanished = !self.gone && since.elapsed() >= GONE_AFTER;
        self.gone |= vanished;
        vanished.then_some(FileChange::Gone)
    }

    fn mark_present(&mut self) {
        self.absent_since = None;
        self.gone = false;
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The manifests in a folder, without subfolders, as with kubectl.
fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_manifest = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        // The file itself is not inspected here, but only when it is read.
        if is_manifest && !entry.file_type()?.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} manifests in one folder")));
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
            return problem(format!("is larger than {MAX_FILE_BYTES} bytes, the limit for one file; split the file"));
        }
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return problem(format!("is larger than {MAX_FILE_BYTES} bytes, the limit for one file; split the file"));
        }
        Err(error) => return problem(format!("cannot be read: {error}")),
    };
    let Ok(text) = String::from_utf8(bytes) else { return problem("is not UTF-8 text".to_owned()) };
    let documents = parse(name, &text).or_else(|problem| {
        // JSON has escapes that YAML does not support.
        serde_json::from_str(&text).map(|value| vec![Document::without_lines(value)]).map_err(|_| problem)
    });
    match documents {
        Ok(documents) => FileChange::Documents(documents.into_iter().flat_map(Document::items).collect()),
        Err(problem) => FileChange::Unreadable(problem),
    }
}
