//! docs/upgrade.md word for word, in the life of an installation (`installation`): to the next release and back, and the
//! removal.

use crate::tasks::{
    do_all,
    page::{all_commands, section},
    shell::Shell,
};

/// The page, which its reader follows in a checkout of the next release.
const PAGE: &str = include_str!("../../../docs/upgrade.md");

// Parts of the page with commands, by the line above them.
pub(crate) const CRDS: &str = "\n## 1. CRDs\n";
pub(crate) const OPERATOR: &str = "\n## 2. The operator\n";
pub(crate) const FLEETS: &str = "\nBefore the upgrade:\n";
pub(crate) const SIDECARS: &str = "\n## 4. Sidecars\n";
pub(crate) const ROLLBACK: &str = "\n## Rollback\n";
pub(crate) const REMOVAL: &str = "\n## Removal\n";
pub(crate) const REMOVAL_OF_CRDS: &str = "\n### The CRDs\n";

#[test]
fn every_command_of_the_page_is_followed() {
    let parts = [CRDS, OPERATOR, FLEETS, SIDECARS, ROLLBACK, REMOVAL, REMOVAL_OF_CRDS];
    let followed: Vec<_> = parts.into_iter().flat_map(|part| all_commands(section(PAGE, part))).collect();
    assert_eq!(all_commands(PAGE), followed, "each part with commands is followed by a test");
}

/// Types the commands of a part.
#[track_caller]
pub(crate) fn follow(shell: &mut Shell, part: &str) {
    do_all("upgrade.md", shell, section(PAGE, part));
}
