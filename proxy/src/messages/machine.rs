//! The name of the pod or machine that took the messages of a log, which whoever drains its folder later tells the sink.

use std::{fs, io, path::Path};

/// The file with that name, in the folder of a log.
const FILE: &str = "machine";
/// No name of a machine is longer.
const LONGEST: usize = 255;

/// The name of this machine.
pub(super) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Who takes, or took, the messages in this folder, which is there: this machine, whose name is put there, unless the
/// folder has only to become empty.
pub(super) fn taker(folder: &Path, drains_only: bool) -> String {
    let (own, there) = (name(), read(folder));
    if drains_only {
        return there.unwrap_or(own);
    }
    if there.as_ref() != Some(&own) {
        // It is no more than a name: a disk that does not take it takes no messages either, and says so.
        let _ = write(folder, &own);
    }
    own
}

fn read(folder: &Path) -> Option<String> {
    let name = fs::read_to_string(folder.join(FILE)).ok()?;
    (!name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)).then_some(name)
}

/// Writes the name whole, or not at all.
fn write(folder: &Path, name: &str) -> io::Result<()> {
    let new = folder.join(format!("{FILE}.new"));
    fs::write(&new, name)?;
    fs::rename(new, folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_folder_that_has_only_to_become_empty_keeps_the_name_of_who_took_its_messages() {
        let folder = tempdir().expect("a folder");
        assert_eq!(taker(folder.path(), true), name(), "nobody has put a name there");
        assert_eq!(read(folder.path()), None, "and who drains it puts none there");
        write(folder.path(), "edge-3").expect("a file");
        assert_eq!(taker(folder.path(), true), "edge-3");
        assert_eq!(taker(folder.path(), false), name());
        assert_eq!(taker(folder.path(), true), name(), "who takes messages puts its name there");
        write(folder.path(), "a\nb").expect("a file");
        assert_eq!(taker(folder.path(), true), name(), "that is no name");
    }
}
