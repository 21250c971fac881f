//! Commands that need a cluster: `kubectl-portlane` is run in place of this program, with the same words. It has the
//! API server's client and TLS, which `portlane` does not link.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{Access, access};

use crate::error::Error;

/// The name of the plugin.
const PROGRAM: &str = "kubectl-portlane";
/// Verbs that only the plugin has.
pub(crate) const CLUSTER_VERBS: [&str; 6] = ["describe", "logs", "trace", "drain", "forward", "ui"];
/// Verbs that both programs have. With an option that names a cluster, the plugin is meant.
const BOTH: [&str; 7] = ["run", "validate", "status", "conns", "top", "lag", "config"];
/// Options of kubectl that name a cluster.
pub(crate) const CLUSTER_OPTIONS: [&str; 2] = ["--context", "--kubeconfig"];

/// Whether these words, without the name of the program, are for the plugin.
pub(crate) fn is_meant(words: &[OsString]) -> bool {
    let Some((verb, rest)) = words.split_first() else { return false };
    let is = |verbs: &[&str]| verbs.iter().any(|known| verb == *known);
    let mut options = rest.iter().take_while(|word| *word != "--");
    names_cluster(verb) || is(&CLUSTER_VERBS) || (is(&BOTH) && options.any(|word| names_cluster(word)))
}

/// Whether a word is an option that names a cluster, with its value or without.
fn names_cluster(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    CLUSTER_OPTIONS.contains(&word.split_once('=').map_or(&*word, |(option, _)| option))
}

/// Replaces this process with the plugin, with these words: its terminal, its signals and its exit code are those of
/// this process. Returns only if that fails.
pub(crate) fn become_plugin(words: &[OsString]) -> Error {
    let own = env::current_exe().and_then(|own| own.canonicalize()).ok();
    let Some(program) = find(own.as_deref(), env::var_os("PATH").as_deref()) else {
        let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        return Error::NoPlugin { word };
    };
    let source: io::Error = Command::new(&program).args(words).exec();
    Error::Plugin { program, source }
}

/// Finds the plugin: beside this program, or else in the first folder of the PATH that has it.
fn find(own: Option<&Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent).map(Path::to_owned);
    let listed = path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    // As in Go, the language of kubectl, a program of the working folder is run only by its path.
    let folders = beside.into_iter().chain(listed).filter(|folder| folder.is_absolute());
    let is_program = |file: &PathBuf| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    // If the plugin is a link to this program, running it would loop for ever.
    let is_another = |file: &PathBuf| own.is_none() || file.canonicalize().ok().as_deref() != own;
    folders.map(|folder| folder.join(PROGRAM)).find(|file| is_program(file) && is_another(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn verbs_and_options_of_a_cluster_are_for_the_plugin() {
        let is = |words: &str| is_meant(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        for words in [
            "describe db",
            "logs db -f",
            "ui",
            "run -f a.yaml --context kind",
            "run --kubeconfig=x -f a.yaml",
            "conns -w --context=kind",
            "status --context kind -A",
            "--context kind conns",
        ] {
            assert!(is(words), "{words}");
        }
        for words in [
            "",
            "run -f a.yaml",
            "run -- --context",
            "run --contexts x",
            "conns",
            "translate --context kind",
            "help describe",
            "descrbe db",
            "--help",
        ] {
            assert!(!is(words), "{words}");
        }
        assert!(!is_meant(&[]));
    }

    #[test]
    fn the_plugin_is_beside_the_program_or_on_the_path_and_is_not_the_program_itself() {
        let folder = || tempfile::tempdir().expect("a folder");
        let (here, there) = (folder(), folder());
        let root = |folder: &tempfile::TempDir| folder.path().canonicalize().expect("a path");
        let (here, there) = (root(&here).join("bin"), root(&there));
        std::fs::create_dir_all(&here).expect("a folder");
        let own = here.join("portlane");
        symlink("/bin/sh", &own).expect("a link");
        let path = env::join_paths([Path::new("relative"), &there]).expect("a path");
        let found = || find(Some(own.as_path()), Some(path.as_os_str()));
        assert_eq!(found(), None);
        std::fs::write(there.join(PROGRAM), "no program").expect("written");
        assert_eq!(found(), None, "the file is not executable");
        std::fs::remove_file(there.join(PROGRAM)).expect("removed");
        symlink("/bin/cat", there.join(PROGRAM)).expect("a link");
        assert_eq!(found(), Some(there.join(PROGRAM)));
        symlink("/bin/cat", here.join(PROGRAM)).expect("a link");
        assert_eq!(found(), Some(here.join(PROGRAM)), "beside the program comes first");
        let real = here.join(PROGRAM).canonicalize().expect("a path");
        assert_eq!(find(Some(real.as_path()), Some(path.as_os_str())), None, "both are links to the program itself");
        assert_eq!(find(None, None), None);
    }
}
