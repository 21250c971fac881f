//! The name of the pod or machine that took the messages of a log, for the sink if another one drains the folder later.

use std::{fs, io, path::Path};

/// The file with that name, in the folder of a log.
const FILE: &str = "machine";
/// The longest name of a machine.
const LONGEST: usize = 255;

/// The name of this machine.
pub(super) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The machine that takes, or took, the messages in this folder, which exists: this machine, whose name is put there,
/// unless the folder only has to become empty.
pub(super) fn taker(folder: &Path, drains_only: bool) -> String {
    let (own, there) = (name(), read(folder));
    if drains_only {
        return there.unwrap_or(own);
    }
    if there.as_ref() != Some(&own) {
        // A failure needs no report: a disk that does not take the name takes no messages either, which is reported.
        let _ = write(folder, &own);
    }
    own
}

fn read(folder: &Path) -> Option<String> {
    let name = fs::read_to_string(folder.join(FILE)).ok()?;
    (!name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)).then_some(name)
}

/// Writes the name completely, or not at all.
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
