//! Verifies that a commit gives the same release twice.

use std::path::{Path, PathBuf};

use images::Checkout;

use super::{
    checksums::{self, Files},
    source::Worktree,
};
use crate::error::{ReleaseError, TaskError};

/// Makes the release of a commit again, from a copy of the commit in this folder without compiled files, and compares
/// the files.
pub(crate) fn verify(
    root: &Path,
    folder: PathBuf,
    files: &Files,
    make: impl FnOnce(&Checkout) -> Result<Files, TaskError>,
) -> Result<(), TaskError> {
    let copy = Worktree::new(root, folder)?;
    let second = Checkout { root: copy.path().to_owned(), target: copy.path().join("target") };
    eprintln!("release: building again in {}", copy.path().display());
    let again = make(&second)?;
    let differing = checksums::differences(files, &again);
    if !differing.is_empty() {
        return Err(ReleaseError::Differ(differing.join(", ")).into());
    }
    eprintln!("release: reproducible: both builds have the same {} files", files.len());
    Ok(())
}

/// Releases of a repository with one file, which is packed as programs are.
#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use images::{File, Image, Origin, Platform};

    use super::*;
    use crate::release::{
        checksums::{SUMS, sums},
        source::Commit,
    };

    /// A folder that is removed with this value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = images::target().join("tmp").join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A checkout in this folder, with one commit.
        fn checkout(&self) -> Checkout {
            let root = self.0.join("checkout");
            fs::create_dir(&root).unwrap();
            fs::write(root.join("source"), "one").unwrap();
            for words in [&["init", "--quiet"][..], &["add", "source"], &["commit", "--quiet", "--message=one"]] {
                let mut git = Command::new("git");
                git.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]);
                git.args(["-c", "core.hooksPath=/dev/null"]).args(words).current_dir(&root);
                let done = git.output().unwrap();
                assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
            }
            Checkout { target: root.join("target"), root }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The release of a checkout: a program, its image, and the checksums.
    fn release(checkout: &Checkout) -> Files {
        let program = fs::read(checkout.root.join("source")).unwrap();
        let tar = images::tar(&[File::program("app/app", &program)], 1_700_000_000).unwrap();
        let origin = Origin {
            created: "2026-11-27T05:47:47Z".to_owned(),
            revision: "abc".to_owned(),
            source: "https://example.com".to_owned(),
        };
        let image = images::index(Image::Echo, &origin, &[(Platform::Amd64, program)]).unwrap();
        let mut files = Files::from([
            ("app.oci.tar".to_owned(), image.archive),
            ("app.tar.gz".to_owned(), images::gzip(&tar).unwrap()),
        ]);
        let sums = sums(&files);
        files.insert(SUMS.to_owned(), sums.into_bytes());
        files
    }

    /// The files that two builds differ in, by the error of [`verify`].
    #[track_caller]
    fn differing(outcome: Result<(), TaskError>) -> String {
        match outcome {
            Err(TaskError::Release(ReleaseError::Differ(names))) => names,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_release_is_verified_only_if_a_copy_of_the_commit_in_another_folder_gives_the_same_files() {
        let folder = Folder::new("release-verify");
        let first = folder.checkout();
        let copy = folder.0.join("copy");
        let mut built = None;
        let again = verify(&first.root, copy.clone(), &release(&first), |second| {
            built = Some((second.root.clone(), second.target.exists()));
            Ok(release(second))
        });
        again.unwrap();
        assert_eq!(built, Some((copy.clone(), false)), "another folder, with nothing compiled");
        assert!(!copy.exists(), "the copy is removed");

        let with_path = |checkout: &Checkout| {
            let mut files = release(checkout);
            files.insert("path.txt".to_owned(), checkout.root.display().to_string().into_bytes());
            files
        };
        let leaks = verify(&first.root, copy.clone(), &with_path(&first), |second| Ok(with_path(second)));
        assert_eq!(differing(leaks), "path.txt");

        fs::write(first.root.join("source"), "two").unwrap();
        let edited = verify(&first.root, copy.clone(), &release(&first), |second| Ok(release(second)));
        assert_eq!(differing(edited), "SHA256SUMS, app.oci.tar, app.tar.gz", "no commit has the edit");
        assert!(!copy.exists(), "the copy is removed after a failure");
    }

    #[test]
    fn files_of_a_release_in_a_checkout_make_it_another_one_than_the_commit() {
        let folder = Folder::new("release-clean");
        let checkout = folder.checkout();
        assert!(Commit::read(&checkout.root).unwrap().is_clean);
        // So docs/release.md has them in folders beside the checkout.
        fs::write(checkout.root.join(SUMS), "").unwrap();
        assert!(!Commit::read(&checkout.root).unwrap().is_clean);
    }

    /// The commands for a person who has a release and a checkout of its commit in a folder, and stands in either.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_person_who_checks_a_release_by_the_page_sees_which_file_is_another_one() {
        const PAGE: &str = include_str!("../../../docs/release.md");
        /// Starts of the other commands: there are no keys and no tag, and a build takes long.
        const NOT_RUN: [&str; 3] = ["cosign ", "git checkout ", "cargo xtask release "];
        let (_, section) = PAGE.split_once("\n## Checking a release\n").expect("the section");
        let is_run = |line: &&str| !NOT_RUN.iter().any(|start| line.starts_with(start));
        let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("$ ")).filter(is_run).collect();
        let [check, compare] = <[&str; 2]>::try_from(commands).expect("two commands that a test runs");

        let folder = Folder::new("release-check");
        let checkout = folder.checkout();
        let downloaded = folder.0.join("release");
        crate::release::write(&downloaded, &release(&checkout)).unwrap();
        crate::release::write(&folder.0.join("mine"), &release(&checkout)).unwrap();
        assert_eq!(run(check, &downloaded), (true, "app.oci.tar: OK\napp.tar.gz: OK\n".to_owned()));
        assert_eq!(run(compare, &checkout.root), (true, String::new()));

        fs::remove_file(downloaded.join("app.oci.tar")).unwrap();
        fs::write(downloaded.join("app.tar.gz"), "of somebody else").unwrap();
        assert_eq!(run(check, &downloaded), (false, "app.tar.gz: FAILED\n".to_owned()), "one file was not downloaded");

        fs::write(checkout.root.join("source"), "two").unwrap();
        crate::release::write(&folder.0.join("mine"), &release(&checkout)).unwrap();
        let (is_equal, printed) = run(compare, &checkout.root);
        assert!(!is_equal && printed.contains("app.tar.gz"), "{printed}");
    }

    /// Whether a command succeeds, and what it prints on standard output.
    #[cfg(target_os = "linux")]
    fn run(command: &str, folder: &Path) -> (bool, String) {
        let mut shell = Command::new("sh");
        let done = shell.args(["-c", command]).env("LC_ALL", "C").current_dir(folder).output().unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    }
}
