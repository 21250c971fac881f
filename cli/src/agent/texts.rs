//! Small text files that the owner of an agent writes.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Longest text, in bytes.
const MOST: u64 = 64 << 10;

/// Reads the text of a file.
pub(super) fn file(path: &Path) -> io::Result<String> {
    whole(File::open(path)?)
}

/// Reads everything, if it is not too long.
pub(super) fn whole(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let length = from.take(MOST + 1).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length <= MOST) {
        return Ok(text);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {} KiB", MOST >> 10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_up_to_a_bound() {
        let most = "a".repeat(64 << 10);
        assert_eq!(whole(most.as_bytes()).expect("short enough"), most);
        let error = whole(format!("{most}a").as_bytes()).expect_err("too long").to_string();
        assert!(error.contains("64 KiB"), "{error}");
    }
}
