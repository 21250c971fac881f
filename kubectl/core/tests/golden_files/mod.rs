//! Scenes in a folder, each `NAME.yaml`, with the outputs `NAME.80.txt` and `NAME.160.txt` on terminals of these widths.

use std::{fs, path::Path};

use kubectl_core::render::Look;

/// The scenes of a folder of `tests`: their paths without the ending, and their texts.
pub(crate) fn scenes(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let files = fs::read_dir(folder).expect("scenes").map(|entry| entry.expect("entry").path());
    let scenes = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let text = |path: &Path| fs::read_to_string(path).expect("a scene");
    scenes.map(|path| (path.with_extension("").display().to_string(), text(&path))).collect()
}

/// Compares the output of a scene with its golden files, or writes them with `UPDATE=1`.
#[track_caller]
pub(crate) fn compare(name: &str, output: impl Fn(Look) -> String) {
    for width in [80, 160] {
        let look = Look { width: Some(width), is_wide: width > 80, is_coloured: false };
        let (path, text) = (format!("{name}.{width}.txt"), output(look));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).expect("write");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{path} differs; UPDATE=1 rewrites it");
    }
}
