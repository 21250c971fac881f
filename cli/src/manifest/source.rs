//! The sources of manifests, and their changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy::follow::Followed;

use super::{
    Document, MAX_FILE_BYTES, Place, Problem, Skipped,
    folder::{self, Listing, NO_OBJECT},
    json::json,
    parse, text,
};

/// A file or folder that is absent, or a file that is empty, for less than this time counts as being replaced.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// The problem of a folder that was given and is absent. It may be on its way back, as after a checkout, so objects end
/// only with manifests that are missing in a folder that is there.
const NO_FOLDER: &str = "cannot be read: the folder no longer exists, and its previous objects keep running; restore it; \
                         to stop its forwards, delete the manifests in it or stop the program";

/// Change of a file since the last read.
pub(crate) enum FileChange {
    /// The file now has these documents.
    Documents(Vec<Document>),
    /// The file is from a folder and has documents, none of which is meant to be a manifest.
    NoManifest,
    /// The file cannot be read; its previous documents stay.
    Unreadable(Problem),
    /// The file was removed; or the problem of a folder ended: it can be listed again, or a file has taken its place.
    Gone,
}

impl FileChange {
    /// The change of a file in a folder that does not exist: it is a dangling link.
    pub(crate) fn missing(name: &str) -> Self {
        Self::Unreadable(problem(name, 1, "cannot be read: the file that it links to does not exist".to_owned()))
    }
}

/// The given paths, and the files found under them.
pub(crate) struct Sources {
    /// Standard input and pipes, which can be read only once.
    streams: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    recursive: bool,
    files: BTreeMap<PathBuf, File>,
    /// The given paths that were folders when they were last seen.
    folders: BTreeMap<PathBuf, Folder>,
    skipped: Skipped,
}

#[derive(Default)]
struct Folder {
    /// Error of the last read, if it was reported that the folder could not be listed.
    refusal: Option<String>,
    absent_since: Option<Instant>,
}

struct File {
    followed: Followed,
    /// The time since which the file has had no document, as between creation and the first write.
    blank_since: Option<Instant>,
    /// Whether the file had content.
    had_content: bool,
    /// Error of the last read, if the file could not be read.
    refusal: Option<String>,
    absent_since: Option<Instant>,
    gone: bool,
    /// Whether the path of a missing file is a dangling link.
    dangles: bool,
}

impl Sources {
    /// Sources for the given paths; `-` is standard input. Fails if a path does not exist.
    pub(crate) fn new(paths: &[PathBuf], recursive: bool) -> io::Result<Self> {
        let (mut streams, mut followed) = (Vec::new(), Vec::new());
        for path in paths {
            let is_stream = is_stdin(path) || {
                let kind = fs::metadata(path)?.file_type();
                !kind.is_file() && !kind.is_dir()
            };
            let kind = if is_stream { &mut streams } else { &mut followed };
            // A stream that is named twice would be empty the second time.
            if !kind.contains(path) {
                kind.push(path.clone());
            }
        }
        let (files, folders) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { streams, paths: followed, recursive, files, folders, skipped: Skipped::default() })
    }

    /// Whether a source can change later; standard input and pipes cannot.
    pub(crate) fn can_change(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Files that are absent, but not yet for long enough to count as removed.
    pub(crate) fn absent(&self) -> BTreeSet<String> {
        let absent = self.files.iter().filter(|(_, file)| file.absent_since.is_some());
        absent.map(|(path, _)| path.display().to_string()).collect()
    }

    /// The skipped files of the folders, and files that have had no document so far.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Makes every file be read again, whether it changed or not, once it is complete.
    pub(crate) fn read_again(&mut self) {
        for file in self.files.values_mut() {
            file.followed.read_again();
            file.refusal = None;
        }
    }

    /// Reads standard input and pipes to the end; called once.
    pub(crate) fn streams(&self) -> Vec<(String, FileChange)> {
        self.streams.iter().map(|path| read_stream(path)).collect()
    }

    /// Returns the changes since the last call, by file.
    pub(crate) fn look(&mut self) -> Vec<(String, FileChange)> {
        let mut changes = Vec::new();
        let (present, held) = self.present(&mut changes);
        for path in &present {
            self.files.entry(path.clone()).or_insert_with(|| File {
                followed: Followed::new(path.clone()),
                blank_since: None,
                had_content: false,
                refusal: None,
                absent_since: None,
                gone: false,
                dangles: false,
            });
        }
        for (path, file) in &mut self.files {
            // That a file is not seen says nothing while its folder is not seen either.
            if held.iter().any(|folder| path.starts_with(folder)) {
                file.absent_since = None;
                continue;
            }
            let origin = if self.paths.contains(path) { Origin::Named } else { Origin::Folder };
            let name = path.display().to_string();
            let found = file.look(present.contains(path), &name, origin);
            // A folder, or a link to one, may have taken the place of the file.
            let dangles = file.gone && path.is_symlink() && !path.exists();
            let (was, is) = (std::mem::replace(&mut file.dangles, dangles), dangles);
            changes.extend((was && !is).then(|| (name.clone(), FileChange::Gone)));
            changes.extend(found.map(|change| (name.clone(), change)));
            changes.extend((is && !was).then(|| (name.clone(), FileChange::missing(&name))));
        }
        self.files.retain(|path, file| !file.gone || present.contains(path));
        for (path, _) in self.files.iter().filter(|(_, file)| file.is_blank_so_far()) {
            self.skipped.add(NO_OBJECT, path.display().to_string());
        }
        changes
    }

    /// Returns the files that are there, or may be, and the folders whose files cannot be looked at.
    fn present(&mut self, changes: &mut Vec<(String, FileChange)>) -> (BTreeSet<PathBuf>, Vec<PathBuf>) {
        let (mut present, mut held) = (BTreeSet::new(), Vec::new());
        self.skipped = Skipped::default();
        for path in &self.paths {
            let name = path.display().to_string();
            let found = fs::metadata(path);
            // A path at which nothing can be seen stays what it was.
            let is_folder = found.as_ref().map_or_else(|_| self.folders.contains_key(path), fs::Metadata::is_dir);
            if !is_folder {
                // The problem of a folder ends with the file that has taken its place.
                let was_refused = self.folders.remove(path).is_some_and(|folder| folder.refusal.is_some());
                changes.extend(was_refused.then_some((name, FileChange::Gone)));
                present.insert(path.clone());
                continue;
            }
            if found.is_err() {
                held.push(path.clone());
            }
            let state = self.folders.entry(path.clone()).or_default();
            match found.and_then(|_| folder::list(path, self.recursive)) {
                Ok(Listing { manifests, skipped }) => {
                    present.extend(manifests);
                    self.skipped.extend(skipped);
                    changes.extend(state.mark_listed().then_some((name, FileChange::Gone)));
                }
                Err(error) => {
                    // The files of the folder stay: a folder that cannot be listed is not known to be empty.
                    present.extend(self.files.keys().filter(|file| file.starts_with(path)).cloned());
                    changes.extend(state.refuse(&name, error).map(|change| (name, change)));
                }
            }
        }
        (present, held)
    }
}

impl Folder {
    /// Returns whether it was reported that the folder could not be listed.
    fn mark_listed(&mut self) -> bool {
        self.absent_since = None;
        self.refusal.take().is_some()
    }

    /// The problem of a folder that cannot be listed, unless it was reported or the folder may be about to be replaced.
    fn refuse(&mut self, name: &str, error: io::Error) -> Option<FileChange> {
        let is_absent = error.kind() == io::ErrorKind::NotFound;
        self.absent_since = is_absent.then(|| self.absent_since.unwrap_or_else(Instant::now));
        if self.absent_since.is_some_and(|since| since.elapsed() < GONE_AFTER) {
            return None;
        }
        let message = error.to_string();
        if self.refusal.replace(message.clone()) == Some(message) {
            return None;
        }
        Some(if is_absent {
            FileChange::Unreadable(problem(name, 1, NO_FOLDER.to_owned()))
        } else {
            change(name, Err(error), Origin::Named)
        })
    }
}

/// How a file was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The path of the file was given.
    Named,
    /// The file is in a folder whose path was given.
    Folder,
}

impl File {
    fn look(&mut self, listed: bool, name: &str, origin: Origin) -> Option<FileChange> {
        if !listed {
            return self.mark_absent();
        }
        match self.followed.changed(MAX_FILE_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.mark_absent(),
            Ok(None) => {}
            Ok(Some(bytes)) if has_no_document(&bytes) => {
                self.blank_since = Some(Instant::now());
            }
            Ok(Some(bytes)) => {
                self.mark_present();
                (self.blank_since, self.had_content, self.refusal) = (None, true, None);
                return Some(change(name, Ok(bytes), origin));
            }
            Err(error) => {
                self.mark_present();
                let message = error.to_string();
                let is_new = self.refusal.replace(message.clone()) != Some(message);
                return is_new.then(|| change(name, Err(error), origin));
            }
        }
        self.mark_present();
        self.blank(name)
    }

    /// The problem of a file that has no document any more. Programs empty a file and fill it seconds later, or fail
    /// after the first `---` (`helm template > file`), so objects end only with a file that was removed.
    fn blank(&mut self, name: &str) -> Option<FileChange> {
        let is_settled = self.blank_since.is_some_and(|since| since.elapsed() >= GONE_AFTER);
        (is_settled && std::mem::take(&mut self.had_content)).then(|| {
            self.blank_since = None;
            let message = "has no document; its previous objects keep running until the file is removed".to_owned();
            FileChange::Unreadable(problem(name, 1, message))
        })
    }

    fn is_blank_so_far(&self) -> bool {
        self.blank_since.is_some() && !self.had_content && self.absent_since.is_none()
    }

    fn mark_absent(&mut self) -> Option<FileChange> {
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        let vanished = !self.gone && since.elapsed() >= GONE_AFTER;
        self.gone |= vanished;
        // The same file may come back, as behind a link, after its objects are gone.
        vanished.then(|| self.followed.read_again()).map(|()| FileChange::Gone)
    }

    fn mark_present(&mut self) {
        self.absent_since = None;
        self.gone = false;
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read_stream(path: &Path) -> (String, FileChange) {
    let name = if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    let read = if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let change = change(&name, read.map(|_| bytes), Origin::Named);
    (name, change)
}

fn problem(name: &str, line: usize, message: String) -> Problem {
    Problem { place: Place { file: name.to_owned(), line }, object: None, field: None, message }
}

fn change(name: &str, bytes: io::Result<Vec<u8>>, origin: Origin) -> FileChange {
    let unreadable = |line: usize, message: String| FileChange::Unreadable(problem(name, line, message));
    let too_large = || format!("is larger than {MAX_FILE_BYTES} bytes, the limit for one file; split the file");
    let bytes = match bytes {
        Ok(bytes) if bytes.len() > MAX_FILE_BYTES => return unreadable(1, too_large()),
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return unreadable(1, too_large()),
        Err(error) => {
            let hint = if error.kind() == io::ErrorKind::InvalidInput { " (use - for standard input)" } else { "" };
            return unreadable(1, format!("cannot be read: {error}{hint}"));
        }
    };
    let text = match text::decode(&bytes) {
        Ok(text) => text,
        Err(flaw) => return unreadable(flaw.line, flaw.message),
    };
    // JSON has escapes that YAML lacks, and its documents need no separators.
    match parse(name, &text).or_else(|problem| json(&text).ok_or(problem)) {
        Ok(documents) if origin == Origin::Folder && is_of_another_tool(&documents) => FileChange::NoManifest,
        Ok(documents) => FileChange::Documents(documents.into_iter().flat_map(Document::items).collect()),
        Err(problem) => FileChange::Unreadable(problem),
    }
}

/// Whether a file has only space, comments and document markers.
fn has_no_document(bytes: &[u8]) -> bool {
    let is_blank = |line: &str| {
        let line = line.trim();
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim_start();
        rest.is_empty() || rest.starts_with('#')
    };
    text::decode(bytes).is_ok_and(|text| text.lines().all(is_blank))
}

/// Whether a file has content, but nothing that is meant for Kubernetes.
fn is_of_another_tool(documents: &[Document]) -> bool {
    !documents.is_empty() && !documents.iter().any(Document::is_manifest)
}

#[cfg(test)]
mod tests;
