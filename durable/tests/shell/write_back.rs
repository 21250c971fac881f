//! Files that the system writes while more is appended.

use std::cell::RefCell;
use std::fs::File;
use std::io;

use durable::{Folder, WriteBack};
use durable_core::{FileError, Files};
use rustix::io::Errno;
use tempfile::{TempDir, tempdir};

thread_local! {
    /// The bytes of each call, for the test of this thread.
    static BEGUN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn begun() -> Vec<u64> {
    BEGUN.take()
}

#[allow(clippy::unnecessary_wraps, reason = "it is a WriteBack")]
fn note(_: &File, count: u64) -> io::Result<()> {
    BEGUN.with_borrow_mut(|begun| begun.push(count));
    Ok(())
}

fn fail(file: &File, count: u64) -> io::Result<()> {
    note(file, count)?;
    Err(Errno::IO.into())
}

fn lack(file: &File, count: u64) -> io::Result<()> {
    note(file, count)?;
    Err(Errno::NOSYS.into())
}

/// A folder with an empty file `f`.
fn folder(write_back: WriteBack) -> (TempDir, Folder) {
    let home = tempdir().expect("a folder");
    let mut folder = Folder::open(home.path()).expect("nobody has it").writing_back(write_back);
    folder.create("f").expect("a new file");
    (home, folder)
}

fn append(folder: &mut Folder, kib: usize) {
    folder.append("f", &vec![7; kib << 10]).expect("room");
}

#[test]
fn whole_pages_are_written_once_there_are_many() {
    let (_home, mut folder) = folder(note);
    append(&mut folder, 255);
    assert!(begun().is_empty());
    append(&mut folder, 3);
    assert_eq!(begun(), [256 << 10]);
    append(&mut folder, 255);
    assert!(begun().is_empty());
    folder.sync("f").expect("the disk is well");
    append(&mut folder, 255);
    assert!(begun().is_empty(), "a sync has written the bytes before it");
    let mut again = folder.again().expect("the same folder");
    again.create("g").expect("a new file");
    again.append("g", &vec![7; 256 << 10]).expect("room");
    assert_eq!(begun(), [256 << 10], "another log of the folder");
}

#[test]
fn a_sync_reports_that_the_system_could_not_write_once() {
    let (_home, mut folder) = folder(fail);
    append(&mut folder, 300);
    append(&mut folder, 300);
    assert_eq!(begun(), [300 << 10, 600 << 10]);
    let failed = folder.sync("f").expect_err("bytes may be lost");
    assert!(matches!(failed, FileError::Other(_)), "{failed}");
    folder.sync("f").expect("it is reported once");
}

#[test]
fn a_system_that_lacks_the_call_is_asked_once_and_nothing_fails() {
    let (_home, mut folder) = folder(lack);
    append(&mut folder, 300);
    append(&mut folder, 300);
    assert_eq!(begun(), [300 << 10]);
    folder.sync("f").expect("the disk is well");
}
