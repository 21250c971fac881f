//! Tests of looks at the files of manifests.

use super::*;

/// What a look at a file reports.
fn words(changes: Vec<(String, FileChange)>) -> Vec<String> {
    let word = |(_, change)| match change {
        FileChange::Documents(documents) => format!("{} documents", documents.len()),
        FileChange::NoManifest => "no manifest".to_owned(),
        FileChange::Unreadable(problem) => problem.message,
        FileChange::Gone => "gone".to_owned(),
    };
    changes.into_iter().map(word).collect()
}

/// Looks as if a second had passed since each file became absent or empty, and each folder absent.
fn look_later(sources: &mut Sources) -> Vec<String> {
    let first = words(sources.look());
    let past = Instant::now().checked_sub(GONE_AFTER).expect("the system runs for longer");
    for file in sources.files.values_mut() {
        file.blank_since = file.blank_since.map(|_| past);
        file.absent_since = file.absent_since.map(|_| past);
    }
    for folder in sources.folders.values_mut() {
        folder.absent_since = folder.absent_since.map(|_| past);
    }
    [first, words(sources.look())].concat()
}

// T10
#[test]
fn only_a_removed_file_is_gone_an_empty_one_keeps_what_it_had() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.yaml");
    let mut sources = Sources::new(&[folder.path().to_owned()], false).expect("a folder");
    fs::write(&path, "kind: A\n").expect("write");
    assert_eq!(words(sources.look()), ["1 documents"]);
    fs::write(&path, "").expect("write");
    sources.look();
    let told = look_later(&mut sources);
    assert!(told.len() == 1 && told[0].starts_with("has no document; its previous objects"), "{told:?}");
    assert_eq!(look_later(&mut sources), [""; 0], "reported once");
    fs::write(&path, "kind: A\n").expect("write");
    sources.look();
    assert_eq!(look_later(&mut sources), ["1 documents"]);
    fs::write(&path, "---\n# Source: chart/a.yaml\n").expect("write");
    sources.look();
    assert_eq!(look_later(&mut sources).len(), 1, "a program stopped after the head of the first document");
    assert_eq!(sources.absent(), BTreeSet::new());
    fs::write(&path, "kind: A\n---\nkind: B\n").expect("write");
    sources.look();
    assert_eq!(look_later(&mut sources), ["2 documents"]);
    fs::remove_file(&path).expect("remove");
    assert_eq!(look_later(&mut sources), ["gone"]);
    std::os::unix::fs::symlink("nowhere", &path).expect("link");
    assert!(look_later(&mut sources).last().is_some_and(|told| told.ends_with("links to does not exist")));
    fs::remove_file(&path).expect("remove");
    assert_eq!(look_later(&mut sources), ["gone"], "the problem ends with the link");
}

#[test]
fn comments_and_marks_are_no_document_and_a_value_is_one() {
    for text in ["", " \n\t", "---", "# a\n---\n# b\n...\n", "--- # a\n", "\u{feff}# a"] {
        assert!(has_no_document(text.as_bytes()), "{text:?}");
    }
    for text in ["a: 1", "--- {a: 1}", "----", "# a\n- b", "\u{1b}"] {
        assert!(!has_no_document(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn a_file_without_a_document_so_far_is_skipped() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.yaml");
    fs::write(&path, "# not yet\n").expect("write");
    let mut sources = Sources::new(std::slice::from_ref(&path), false).expect("there");
    assert_eq!(words(sources.look()), [""; 0]);
    assert_eq!(sources.skipped().phrases().collect::<Vec<_>>(), [format!("{} (no object)", path.display())]);
    fs::write(&path, "kind: A\n").expect("write");
    sources.look();
    assert_eq!(look_later(&mut sources), ["1 documents"]);
    assert_eq!(sources.skipped().phrases().count(), 0);
}

#[test]
fn a_file_of_another_tool_is_skipped_in_a_folder_and_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("compose.yaml");
    fs::write(&path, "services: {}\n").expect("write");
    let look = |path: &Path| words(Sources::new(&[path.to_owned()], false).expect("there").look());
    assert_eq!(look(folder.path()), ["no manifest"]);
    assert_eq!(look(&path), ["1 documents"]);
}

#[test]
fn a_folder_that_is_absent_is_refused_once_keeps_its_files_and_heals() {
    let folder = tempfile::tempdir().expect("folder");
    let (given, away) = (folder.path().join("g"), folder.path().join("g2"));
    fs::create_dir(&given).expect("folder");
    fs::write(given.join("a.yaml"), "kind: A\n").expect("write");
    std::os::unix::fs::symlink("nowhere", given.join("b.yaml")).expect("link");
    let mut sources = Sources::new(std::slice::from_ref(&given), false).expect("a folder");
    assert_eq!(look_later(&mut sources).len(), 3, "a file, and a dangling link that is gone and refused");
    fs::rename(&given, &away).expect("move");
    assert_eq!(words(sources.look()), [""; 0], "a folder that is about to be replaced is no problem");
    assert_eq!(look_later(&mut sources), [NO_FOLDER]);
    assert_eq!(look_later(&mut sources), [""; 0], "reported once");
    assert_eq!(sources.absent(), BTreeSet::new(), "its files count as they did");
    fs::rename(&away, &given).expect("move");
    let healed = sources.look();
    assert_eq!(healed.first().map(|(name, _)| name.clone()), Some(given.display().to_string()));
    assert_eq!(words(healed), ["gone"], "only the problem of the folder is gone");
    assert_eq!(look_later(&mut sources), [""; 0]);
    fs::rename(&given, &away).expect("move");
    assert_eq!(look_later(&mut sources), [NO_FOLDER], "refused again once it was healed");
}

#[test]
fn the_files_of_an_absent_folder_end_with_an_empty_folder_or_a_file_in_its_place() {
    let folder = tempfile::tempdir().expect("folder");
    let given = folder.path().join("g");
    for is_file in [false, true] {
        fs::create_dir(&given).expect("folder");
        fs::write(given.join("a.yaml"), "kind: A\n").expect("write");
        let mut sources = Sources::new(std::slice::from_ref(&given), false).expect("a folder");
        assert_eq!(words(sources.look()), ["1 documents"]);
        fs::remove_dir_all(&given).expect("remove");
        assert_eq!(look_later(&mut sources), [NO_FOLDER]);
        if is_file {
            fs::write(&given, "kind: B\n").expect("write");
            assert_eq!(look_later(&mut sources), ["gone", "1 documents", "gone"], "the problem, and later the file");
        } else {
            fs::create_dir(&given).expect("folder");
            assert_eq!(look_later(&mut sources), ["gone", "gone"], "the problem, and later the file");
            fs::remove_dir(&given).expect("remove");
        }
    }
}

#[test]
fn a_folder_in_the_place_of_a_file_is_no_error() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("a.yaml");
    fs::write(&file, "kind: A\n").expect("write");
    let mut sources = Sources::new(&[folder.path().to_owned()], false).expect("a folder");
    assert_eq!(words(sources.look()), ["1 documents"]);
    fs::remove_file(&file).expect("remove");
    fs::create_dir(&file).expect("folder");
    assert_eq!(look_later(&mut sources), ["gone"]);
    assert_eq!(look_later(&mut sources), [""; 0]);
}
