//! Small state files of the proxy: read with a bound, written whole or not at all.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Reads a file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    fs::read(path)
}

/// Writes a temporary file and renames it, so that the file is always complete.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Like [`write`], with the output of `fill`.
pub(crate) fn replace(path: &Path, fill: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut temporary = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    fill(&mut temporary)?;
    temporary.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_by_a_whole_one_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        write(&path, b"old").expect("written");
        let failed = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("as the test wants"))
        });
        assert!(failed.is_err_and(|error| error.to_string() == "as the test wants"));
        assert_eq!(fs::read(&path).expect("a file"), b"old");
        replace(&path, |file| file.write_all(b"new")).expect("written");
        assert_eq!(fs::read(&path).expect("a file"), b"new");
    }
}
