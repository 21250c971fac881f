//! The folder for the state of a user.

use std::{ffi::OsString, path::PathBuf};

/// The folder by the rules of XDG, which ignore a relative path. `state` is `$XDG_STATE_HOME` and `home` is `$HOME`.
/// Absent: there is none.
pub(crate) fn folder(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(state).or_else(|| absolute(home).map(|home| home.join(".local/state")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_relative_does_not_count() {
        let folder =
            |state: Option<&str>, home: Option<&str>| folder(state.map(OsString::from), home.map(OsString::from));
        assert_eq!(folder(Some("/state"), Some("/home/u")), Some("/state".into()));
        for unusable in [None, Some(""), Some("state")] {
            assert_eq!(folder(unusable, Some("/home/u")), Some("/home/u/.local/state".into()));
            assert_eq!(folder(None, unusable), None);
        }
    }
}
