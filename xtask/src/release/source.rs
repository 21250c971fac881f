//! Facts about the checkout and the toolchain.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use crate::error::{ReleaseError, TaskError};

/// Last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The commit that is released.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Hash of the commit.
    pub(crate) hash: String,
    /// Time of the commit, or `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub(crate) time: u64,
    /// Whether the checkout is the commit without changes.
    pub(crate) is_clean: bool,
}

impl Commit {
    /// Reads the commit with git.
    pub(crate) fn read(root: &Path) -> Result<Self, TaskError> {
        let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(root), "git");
        let hash = git(&["rev-parse", "HEAD"])?.trim().to_owned();
        let time = match env::var("SOURCE_DATE_EPOCH") {
            Ok(time) if !time.is_empty() => time,
            _ => git(&["log", "-1", "--format=%ct"])?,
        };
        let time = seconds(&time).ok_or_else(|| ReleaseError::Epoch(time.trim().to_owned()))?;
        let is_clean = git(&["status", "--porcelain", "--untracked-files=normal"])?.trim().is_empty();
        Ok(Self { hash, time, is_clean })
    }

    /// The time in RFC 3339.
    pub(crate) fn date(&self) -> String {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(self.time)).to_string()
    }
}

/// Parses a time whose year has at most four digits.
fn seconds(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|seconds| *seconds <= LAST_SECOND)
}

/// Text files that git tracks, by path.
pub(crate) fn tracked(root: &Path) -> Result<Vec<(String, String)>, TaskError> {
    let list = output(Command::new("git").args(["ls-files", "-z"]).current_dir(root), "git ls-files")?;
    let paths = list.split('\0').filter(|path| !path.is_empty());
    // Files that are not text, and dangling links, name no version.
    Ok(paths.filter_map(|path| Some((path.to_owned(), fs::read_to_string(root.join(path)).ok()?))).collect())
}

/// A copy of the commit in another folder, which is removed with this value.
#[derive(Debug)]
pub(crate) struct Worktree {
    root: PathBuf,
    path: PathBuf,
}

impl Worktree {
    pub(crate) fn new(root: &Path, path: PathBuf) -> Result<Self, TaskError> {
        let copy = Self { root: root.to_owned(), path };
        copy.remove();
        let mut git = Command::new("git");
        git.args(["worktree", "add", "--quiet", "--detach", "--force"]).arg(&copy.path).arg("HEAD").current_dir(root);
        output(&mut git, "git worktree add")?;
        Ok(copy)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) {
        // A worktree may be left from a run that was killed; usually there is none.
        let mut git = Command::new("git");
        git.args(["worktree", "remove", "--force"]).arg(&self.path).current_dir(&self.root);
        let _ = git.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Version of the compiler, such as `1.95.0`.
pub(crate) fn rust_version() -> Result<String, TaskError> {
    let text = output(&mut rustc(&["--version"]), "rustc --version")?;
    let version = text.split_whitespace().nth(1).map(ToOwned::to_owned);
    version.ok_or_else(|| ReleaseError::Output("rustc --version".to_owned()).into())
}

/// Returns the notices of Rust's standard library, which rustup installs with the compiler; or why there are none.
pub(crate) fn rust_notices() -> Result<Vec<u8>, String> {
    let sysroot = output(&mut rustc(&["--print", "sysroot"]), "rustc").map_err(|error| harness::chain(&error))?;
    let path = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    fs::read(&path).map_err(|_| format!("{} does not exist; install Rust with rustup", path.display()))
}

fn rustc(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(arguments);
    command
}

/// Returns the standard output of a command. Its standard error goes to the terminal.
pub(crate) fn output(command: &mut Command, name: &str) -> Result<String, TaskError> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| TaskError::Start(name.to_owned(), error))?;
    if !output.status.success() {
        return Err(TaskError::Command(name.to_owned(), output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| ReleaseError::Output(name.to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_commit_is_a_date() {
        let commit = |time| Commit { hash: String::new(), time, is_clean: true };
        assert_eq!(commit(1_700_000_000).date(), "2023-11-14T22:13:20Z");
        assert_eq!(commit(LAST_SECOND).date(), "9999-12-31T23:59:59Z");
        assert_eq!(seconds("1700000000\n"), Some(1_700_000_000));
        for other in ["", "-1", "253402300800", "now"] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }
}
