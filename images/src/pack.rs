//! Tar and gzip whose bytes depend on their content alone: no owner, no user, and no time but a given one.

use std::io::{self, Read, Write};

use flate2::{Compression, GzBuilder, read::GzDecoder};
use sha2::{Digest, Sha256};

/// Level of the compression, of 9. Above, a program becomes a percent smaller in twice the time.
const LEVEL: u32 = 6;

/// A file of a tar.
#[derive(Clone, Debug)]
pub struct File<'a> {
    /// Path in the tar.
    pub path: String,
    /// Content.
    pub content: &'a [u8],
    /// Permissions.
    pub mode: u32,
}

impl<'a> File<'a> {
    /// A file that everyone may read.
    pub fn plain(path: impl Into<String>, content: &'a [u8]) -> Self {
        Self { path: path.into(), content, mode: 0o644 }
    }

    /// A file that everyone may run.
    pub fn program(path: impl Into<String>, content: &'a [u8]) -> Self {
        Self { path: path.into(), content, mode: 0o755 }
    }
}

/// A tar of files in the given order, owned by root. `mtime` is the time of all of them, in seconds since 1970.
pub fn tar(files: &[File<'_>], mtime: u64) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        tar.append_data(&mut header, &file.path, file.content)?;
    }
    tar.into_inner()
}

/// Compresses without a file name and without a time.
pub fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(content)?;
    encoder.finish()
}

/// Packs a `.tar.gz` again: its files sorted by path, with the given time.
pub fn normalize(archive: &[u8], mtime: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        contents.push((path, content));
    }
    contents.sort();
    let files: Vec<_> = contents.iter().map(|(path, content)| File::plain(path, content)).collect();
    gzip(&tar(&files, mtime)?)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"))
}

/// A digest as OCI documents have it.
pub(crate) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_packed_at_another_time_and_in_another_order_give_the_same_archive() {
        let packed = |files: &[File<'_>], mtime| normalize(&gzip(&tar(files, mtime).unwrap()).unwrap(), 7).unwrap();
        let [a, b] = [File::plain("chart/a", b"one"), File::plain("chart/b", b"two")];
        assert_eq!(packed(&[a.clone(), b.clone()], 1), packed(&[b.clone(), a.clone()], 2));
        assert_ne!(packed(&[a], 1), packed(&[b], 1));
    }

    #[test]
    fn a_compressed_file_has_neither_a_time_nor_the_name_of_a_system() {
        let packed = gzip(b"content").unwrap();
        // RFC 1952: no flags, four bytes of time, then the level and the operating system.
        assert_eq!((packed[3], &packed[4..8], packed[9]), (0, &[0; 4][..], 255));
    }

    #[test]
    fn a_tar_has_the_given_time() {
        let packed = tar(&[File::program("a", b"x")], 1_700_000_000).unwrap();
        let mut archive = tar::Archive::new(&packed[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
        assert_eq!(entry.header().mode().unwrap(), 0o755);
    }
}
