//! The changelog: the section of a version, and the cut that makes one. Pure.

use crate::error::ReleaseError;

const UNRELEASED: &str = "Unreleased";

/// The entries of a version, without their heading. `None`: no section, or an empty one.
pub(crate) fn section<'a>(changelog: &'a str, version: &str) -> Option<&'a str> {
    let start = heading(changelog, version)?;
    let rest = changelog.get(start..)?;
    let rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    let entries = rest.find("\n## ").and_then(|end| rest.get(..end)).unwrap_or(rest).trim();
    (!entries.is_empty() && !entries.starts_with("## ")).then_some(entries)
}

/// Returns the entries that belong to no version yet.
pub(crate) fn unreleased(changelog: &str) -> Option<&str> {
    section(changelog, UNRELEASED)
}

/// Returns the changelog in which the unreleased entries are those of a version, below an empty section for later
/// entries. `date` is in the form YYYY-MM-DD.
pub(crate) fn cut(changelog: &str, version: &str, date: &str) -> Result<String, ReleaseError> {
    if heading(changelog, version).is_some() {
        return Err(ReleaseError::Released(version.to_owned()));
    }
    let start = unreleased(changelog).and_then(|_| heading(changelog, UNRELEASED));
    let (Some(before), Some(after)) =
        (start.and_then(|at| changelog.get(..at)), start.and_then(|at| changelog.get(at..)))
    else {
        return Err(ReleaseError::NothingUnreleased);
    };
    let entries = after.split_once('\n').map_or("", |(_, entries)| entries);
    Ok(format!("{before}## {UNRELEASED}\n\n## {version} - {date}\n{entries}"))
}

/// Finds the heading of a version: `## VERSION`, with an optional date behind it.
fn heading(changelog: &str, version: &str) -> Option<usize> {
    let is_heading =
        |line: &str| line.strip_prefix("## ").and_then(|title| title.split_whitespace().next()) == Some(version);
    let mut start = 0;
    for line in changelog.split_inclusive('\n') {
        if is_heading(line) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "# Changelog\n\n## Unreleased\n\n### Added\n- b\n\n## 0.1.0 - 2026-01-02\n\n- a\n";

    #[test]
    fn a_section_ends_at_the_next_version() {
        assert_eq!(unreleased(SAMPLE), Some("### Added\n- b"));
        assert_eq!(section(SAMPLE, "0.1.0"), Some("- a"));
        assert_eq!(section(SAMPLE, "0.1"), None);
        assert_eq!(section("## Unreleased\n\n## 0.1.0\n- a\n", "Unreleased"), None);
        assert_eq!(section("## Unreleased\n## 0.1.0\n- a\n", "Unreleased"), None);
    }

    #[test]
    fn a_cut_dates_the_entries_and_leaves_room_for_the_next() {
        let cut = cut(SAMPLE, "0.2.0", "2026-03-04").unwrap();
        assert!(cut.starts_with("# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-03-04\n\n### Added\n- b\n\n## 0.1.0"));
        assert_eq!(section(&cut, "0.2.0"), Some("### Added\n- b"));
        assert_eq!(unreleased(&cut), None);
    }

    #[test]
    fn nothing_is_cut_twice_or_out_of_nothing() {
        assert!(matches!(cut(SAMPLE, "0.1.0", "2026-03-04"), Err(ReleaseError::Released(_))));
        let cut_once = cut(SAMPLE, "0.2.0", "2026-03-04").unwrap();
        assert!(matches!(cut(&cut_once, "0.3.0", "2026-03-04"), Err(ReleaseError::NothingUnreleased)));
        assert!(matches!(cut("# Changelog\n", "0.3.0", "2026-03-04"), Err(ReleaseError::NothingUnreleased)));
    }

    #[test]
    fn the_changelog_of_this_checkout_can_be_cut() {
        let changelog = include_str!("../../../CHANGELOG.md");
        // Right after a cut nothing is unreleased, and the version of the checkout has its section.
        let version = env!("CARGO_PKG_VERSION");
        assert!(unreleased(changelog).is_some() || section(changelog, version).is_some());
    }
}
