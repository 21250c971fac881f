//! Dead letters that are read beside the store that puts them aside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use durable::{Fate, FolderView, Letters, Store};
use tempfile::tempdir;

use crate::world::{append, messages, open, payload, within};

/// The first file of the dead letters of such stores.
const FIRST: &str = "syslog-dead-0000000000000000.log";

fn letters(folder: &Path) -> Letters {
    Letters::open(FolderView::open(folder).expect("a folder"), "syslog-dead-").expect("a log")
}

/// The number and the message of the next letter.
fn next(letters: &mut Letters) -> Option<(u64, Vec<u8>)> {
    let letter = letters.read().expect("the disk is well")?;
    Some((letter.record.number, letter.record.message.payload.to_vec()))
}

fn rest(letters: &mut Letters) -> Vec<u64> {
    std::iter::from_fn(|| next(letters)).map(|(number, _)| number).collect()
}

async fn put_aside(store: &Store, number: u64) {
    assert_eq!(store.dead(number, "x".repeat(500)).await, Ok(Fate::PutAside));
}

/// The bytes of all files, by their names.
fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), entry.path()));
    named.map(|(name, path)| (name, fs::read(path).expect("a file"))).collect()
}

#[tokio::test]
async fn letters_are_read_while_the_store_is_open_and_puts_others_aside() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        append(&store, messages(0..4)).await;
        put_aside(&store, 1).await;
        put_aside(&store, 2).await;
        let before = bytes(home.path());
        let mut found = letters(home.path());
        assert_eq!(next(&mut found), Some((1, payload(1))));
        assert_eq!(bytes(home.path()), before, "nothing is changed");
        put_aside(&store, 3).await;
        assert_eq!(rest(&mut found), [2], "the others came later");
        assert_eq!((rest(&mut letters(home.path())), found.unread()), (vec![1, 2, 3], 0));
    })
    .await;
}

#[tokio::test]
async fn the_last_letter_is_left_out_while_a_part_of_it_is_missing() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        append(&store, messages(0..2)).await;
        put_aside(&store, 0).await;
        put_aside(&store, 1).await;
        store.close().await.expect("it runs");
        let file = File::options().write(true).open(home.path().join(FIRST)).expect("the dead letters");
        let whole = file.metadata().expect("its length").len();
        for missing in [1, 100, 530] {
            file.set_len(whole - missing).expect("a part");
            let before = bytes(home.path());
            let mut found = letters(home.path());
            assert_eq!((rest(&mut found), found.unread()), (vec![0], 0), "{missing} bytes");
            assert_eq!(bytes(home.path()), before, "nothing is repaired");
        }
    })
    .await;
}

#[tokio::test]
async fn letters_that_give_way_meanwhile_are_counted_and_the_others_are_read() {
    within(async {
        let home = tempdir().expect("a folder");
        let store = open(home.path());
        append(&store, messages(0..20)).await;
        for number in 0..20 {
            put_aside(&store, number).await;
        }
        let mut found = letters(home.path());
        fs::remove_file(home.path().join(FIRST)).expect("the oldest");
        let read = rest(&mut found);
        let gone = found.unread();
        assert!(gone > 0 && gone < 20, "{gone} of 20");
        assert_eq!(read, (gone..20).collect::<Vec<_>>());
    })
    .await;
}

#[test]
fn a_folder_without_letters_has_none_and_one_that_is_missing_is_not_made() {
    let home = tempdir().expect("a folder");
    assert_eq!(next(&mut letters(home.path())), None);
    assert!(bytes(home.path()).is_empty());
    let missing = home.path().join("nosuch");
    let said = FolderView::open(&missing).expect_err("it is missing").to_string();
    assert!(said.contains(&format!("{}", missing.display())), "{said}");
    assert!(!missing.exists());
}
