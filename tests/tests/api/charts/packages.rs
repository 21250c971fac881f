//! The charts as a release has them: packed by helm, and packed again, so that the same chart gives the same bytes.

use std::{fs, path::PathBuf};

use harness::{CHARTS, CommandOutput, helm_command};

use super::render;

/// Time of the files in a package, in seconds since 1970.
const TIME: u64 = 1_700_000_000;

#[test]
fn helm_reads_a_package_that_was_packed_again_as_the_chart() {
    for chart in CHARTS {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().display().to_string();
        CommandOutput::of(helm_command().args(["package", chart, "--destination", &to]), "").ok();
        let packages = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
        let [package] = <[PathBuf; 1]>::try_from(packages.collect::<Vec<_>>()).expect("one package");
        let packed = images::normalize(&fs::read(&package).expect("a package"), TIME).expect("a package of helm");
        fs::write(&package, packed).expect("the package is writable");
        let rendered = render(&package.display().to_string(), "{}").ok();
        assert_eq!(rendered, render(chart, "{}").ok(), "{chart}");
    }
}
