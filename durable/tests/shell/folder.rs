//! The folder: who may use it, who may read it, and what its calls do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use durable::{Folder, FolderError};
use durable_core::{FileError, Files};
use tempfile::tempdir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_folder_in_use_is_refused_with_its_name_and_free_again_afterwards() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("syslog");
    let first = Folder::open(&path).expect("nobody has it");
    let error = Folder::open(&path).expect_err("it is in use");
    assert!(matches!(error, FolderError::Locked(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains(&format!("{}", path.display())) && said.contains("another process"), "{said}");
    drop(first);
    Folder::open(&path).expect("it is free");
}

#[test]
fn a_folder_and_its_files_are_for_their_user_alone() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("data/syslog");
    let mut folder = Folder::open(&path).expect("it is made");
    folder.create("one").expect("a new file");
    assert_eq!((mode(&path), mode(&path.join("one")), mode(&path.join("LOCK"))), (0o700, 0o600, 0o600));
}

#[test]
fn folders_below_one_that_is_missing_are_made_at_the_same_time() {
    for _ in 0..20 {
        let home = tempdir().expect("a folder");
        let begin = Barrier::new(8);
        thread::scope(|scope| {
            for log in 0..8 {
                let (path, begin) = (home.path().join(format!("shop/logs/{log}")), &begin);
                scope.spawn(move || {
                    begin.wait();
                    Folder::open(&path).expect("it is made");
                });
            }
        });
    }
}

#[test]
fn a_path_that_is_no_folder_is_refused_with_its_name() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("file");
    fs::write(&path, "").expect("a file");
    let said = Folder::open(&path).expect_err("it is a file").to_string();
    assert!(said.contains(&format!("{}", path.display())), "{said}");
}

#[test]
fn a_folder_that_is_removed_is_known_as_such_and_nothing_in_it_counts_as_synced() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("syslog");
    let mut folder = Folder::open(&path).expect("it is made");
    let presence = folder.presence().expect("it is there");
    folder.create("one").expect("a new file");
    folder.append("one", b"a").expect("room");
    folder.sync("one").expect("the disk is well");
    assert!(!presence.is_removed());
    fs::remove_dir_all(&path).expect("it is removed");
    assert!(presence.is_removed());
    folder.append("one", b"b").expect("the file is open");
    assert_eq!(folder.sync("one"), Err(FileError::Missing), "nobody finds it again");
    assert_eq!(folder.create("two"), Err(FileError::Missing));
    Folder::open(&path).expect("another one, while the first one is still in use");
}

#[test]
fn a_folder_that_is_moved_or_replaced_counts_as_removed_until_it_is_back() {
    let home = tempdir().expect("a folder");
    let (above, moved) = (home.path().join("logs"), home.path().join("moved"));
    let path = above.join("syslog");
    let mut folder = Folder::open(&path).expect("it is made");
    let mut again = folder.again().expect("a descriptor");
    let presence = folder.presence().expect("it is there");
    folder.create("one").expect("a new file");
    fs::rename(&above, &moved).expect("it is moved with the folder above it");
    assert!(presence.is_removed(), "nothing is there");
    folder.append("one", b"a").expect("the file is open");
    assert_eq!(folder.sync("one"), Err(FileError::Missing), "the next process does not find it");
    again.append("one", b"b").expect("it is still in the folder");
    assert_eq!(again.sync("one"), Err(FileError::Missing));
    fs::create_dir_all(&path).expect("another folder");
    assert!(presence.is_removed(), "it was replaced");
    assert_eq!(folder.sync("one"), Err(FileError::Missing));
    fs::remove_dir_all(&above).expect("the other folder");
    fs::write(&above, "").expect("a file");
    assert!(presence.is_removed(), "a file is above it");
    fs::remove_file(&above).expect("the file");
    fs::rename(&moved, &above).expect("it is moved back");
    assert!(!presence.is_removed());
    folder.sync("one").expect("the disk is well");
}

#[test]
fn a_folder_behind_a_link_is_there_until_the_link_leads_elsewhere() {
    let home = tempdir().expect("a folder");
    let (path, first, second) = (home.path().join("link"), home.path().join("first"), home.path().join("second"));
    for folder in [&first, &second] {
        fs::create_dir(folder).expect("a folder");
    }
    symlink(&first, &path).expect("a link");
    let presence = Folder::open(&path).expect("it is there").presence().expect("it is there");
    assert!(!presence.is_removed());
    fs::remove_file(&path).expect("the link");
    symlink(&second, &path).expect("a link");
    assert!(presence.is_removed());
}

#[test]
fn a_link_in_a_folder_is_not_followed() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("syslog");
    let mut folder = Folder::open(&path).expect("it is made");
    let foreign = home.path().join("foreign");
    fs::write(&foreign, "theirs").expect("a file");
    symlink(&foreign, path.join("one")).expect("a link");
    assert!(folder.append("one", b"ours").is_err());
    assert!(folder.read_at("one", 0, &mut [0; 8]).is_err());
    assert_eq!(fs::read(&foreign).expect("it is there"), b"theirs");
    assert!(!folder.list().expect("a list").iter().any(|(name, _)| name == "one"));
}

#[test]
fn names_stand_for_the_files_that_have_them_now() {
    let home = tempdir().expect("a folder");
    let mut folder = Folder::open(home.path()).expect("a folder");
    folder.create("new").expect("a new file");
    assert!(matches!(folder.create("new"), Err(FileError::Other(_))), "it is there");
    folder.append("new", b"one").expect("room");
    folder.sync("new").expect("the disk is well");
    folder.create("old").expect("a new file");
    folder.append("old", b"to be replaced").expect("room");
    folder.rename("new", "old").expect("it replaces");
    folder.sync_folder().expect("the disk is well");
    folder.append("old", b" two").expect("room");
    let mut bytes = [0; 16];
    assert_eq!(folder.read_at("old", 2, &mut bytes), Ok(5));
    assert_eq!(&bytes[..5], b"e two");
    assert_eq!(folder.read_at("old", 7, &mut bytes), Ok(0), "the end");
    assert_eq!(folder.append("new", b""), Err(FileError::Missing));
    let mut listed = folder.list().expect("a list");
    listed.sort();
    assert_eq!(listed, [("LOCK".to_owned(), 0), ("old".to_owned(), 7)]);
    folder.remove("old").expect("it is there");
    assert_eq!(folder.remove("old"), Err(FileError::Missing));
    assert_eq!(folder.read_at("old", 0, &mut bytes), Err(FileError::Missing));
}

#[test]
fn more_files_than_stay_open_are_read_and_written() {
    let home = tempdir().expect("a folder");
    let mut folder = Folder::open(home.path()).expect("a folder");
    let names: Vec<_> = (0..20).map(|index| format!("file-{index}")).collect();
    for name in &names {
        folder.create(name).expect("a new file");
        folder.append(name, b"a").expect("room");
    }
    for name in &names {
        folder.append(name, b"b").expect("room");
        let mut bytes = [0; 4];
        assert_eq!(folder.read_at(name, 0, &mut bytes), Ok(2));
        folder.sync(name).expect("the disk is well");
    }
}
