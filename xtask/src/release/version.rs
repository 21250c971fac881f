//! The version of a checkout: finds the places that state it, and sets another one. Pure.

/// Images whose references name the version.
const IMAGES: [&str; 4] = ["portlane/proxy:", "portlane/operator:", "portlane/agent:", "portlane/echo:"];

/// Whether a text is a version: `MAJOR.MINOR.PATCH` and an optional pre-release. Build metadata is not accepted: a tag
/// of an image has no `+`.
pub(crate) fn is_version(text: &str) -> bool {
    let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
    let numbers: Vec<_> = numbers.split('.').collect();
    let is_number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    let is_word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && (is_number(part) || part.bytes().any(|byte| !byte.is_ascii_digit()))
    };
    numbers.len() == 3
        && numbers.iter().all(|part| !part.is_empty() && is_number(part))
        && pre.is_none_or(|pre| pre.split('.').all(is_word))
}

/// The version in the workspace's `Cargo.toml`.
pub(crate) fn of_workspace(manifest: &str) -> Option<&str> {
    let section = manifest.split("[workspace.package]").nth(1)?;
    let section = section.split("\n[").next()?;
    section.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
}

/// Returns every version of Portlane that a file of the repository states, by its path.
pub(crate) fn stated<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (before, after) in surroundings(path) {
        for (place, _) in text.match_indices(before) {
            let rest = text.get(place + before.len()..).unwrap_or_default();
            let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && !".-".contains(char));
            let (version, rest) = rest.split_at(end.unwrap_or(rest.len()));
            // A sentence may end behind a version, and the name of a file continues. Another tag, such as `next`, is
            // not a version.
            let version = version.trim_end_matches(".tgz").trim_end_matches(".oci.tar").trim_end_matches('.');
            if version.starts_with(|char: char| char.is_ascii_digit()) && rest.starts_with(after) {
                found.push(version);
            }
        }
    }
    found
}

/// Returns the file with another version wherever it states `old`.
pub(crate) fn set(path: &str, text: &str, old: &str, new: &str) -> String {
    if path.ends_with("Cargo.lock") {
        return set_in_lock(text, old, new);
    }
    if path == "Cargo.toml" {
        // The first match is the workspace's version; those of dependencies are on lines of another form.
        return text.replacen(&format!("\nversion = \"{old}\"\n"), &format!("\nversion = \"{new}\"\n"), 1);
    }
    surroundings(path).into_iter().fold(text.to_owned(), |text, (before, after)| {
        text.replace(&format!("{before}{old}{after}"), &format!("{before}{new}{after}"))
    })
}

/// Sets the version of the workspace's packages, which have no source.
fn set_in_lock(text: &str, old: &str, new: &str) -> String {
    let (old, new) = (format!("\nversion = \"{old}\"\n"), format!("\nversion = \"{new}\"\n"));
    let packages = text.split("\n\n").map(|package| {
        let package = format!("{package}\n");
        let is_ours = !package.contains("\nsource = ");
        let package = if is_ours { package.replacen(&old, &new, 1) } else { package };
        package.strip_suffix('\n').unwrap_or(&package).to_owned()
    });
    packages.collect::<Vec<_>>().join("\n\n")
}

/// Returns the texts before and after a version in a file of this path.
fn surroundings(path: &str) -> Vec<(&'static str, &'static str)> {
    // Entries about a version stay with that version. The page about releases names the next one. The tests of this
    // module name many.
    if ["CHANGELOG.md", "docs/release.md"].contains(&path)
        || path.starts_with("docs/adr/")
        || path.starts_with("xtask/")
    {
        return Vec::new();
    }
    let mut found: Vec<_> = IMAGES.map(|image| (image, "")).to_vec();
    if path.starts_with("charts/") && path.ends_with("/Chart.yaml") {
        found.extend([("\nversion: ", "\n"), ("\nappVersion: ", "\n")]);
    }
    if path.starts_with("deploy/") {
        found.push(("app.kubernetes.io/version: ", "\n"));
    }
    if path.starts_with("deploy/argocd/") {
        found.push(("targetRevision: v", "\n"));
    }
    if path == "docs/gitops.md" {
        found.push(("tag: v", "}"));
    }
    if path == "docs/install.md" {
        found.extend([("?ref=v", "\n"), (" --version ", " "), ("/portlane-", ""), ("/portlane-crds-", "")]);
        found.extend([("/portlane-operator-", ""), ("/portlane-proxy-", "")]);
        found.extend([("/charts/portlane:", "\n"), ("/charts/portlane-crds:", "\n")]);
    }
    if path == "docs/upgrade.md" {
        found.push(("proxyImage: {tag: ", "}"));
    }
    if path == "images/Dockerfile" {
        found.push(("image.version=\"", "\""));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_three_numbers_and_perhaps_a_pre_release() {
        for version in ["0.1.0", "1.20.3", "1.0.0-rc.1", "1.0.0-alpha-2.x"] {
            assert!(is_version(version), "{version}");
        }
        for other in ["", "1.0", "1.0.0.0", "v1.0.0", "1.02.0", "1..0", "1.0.0-", "1.0.0-rc..1", "1.0.0+x", "1.0.0-01"]
        {
            assert!(!is_version(other), "{other}");
        }
    }

    #[test]
    fn the_version_of_the_workspace_is_not_that_of_a_dependency() {
        let manifest = "[package]\nversion = \"9\"\n[workspace.package]\nversion = \"0.1.0\"\n\n[x]\nversion = \"2\"\n";
        assert_eq!(of_workspace(manifest), Some("0.1.0"));
        assert_eq!(of_workspace("[workspace]\n[workspace.package]\n[x]\nversion = \"2\"\n"), None);
    }

    #[test]
    fn files_state_versions_in_tags_charts_and_labels() {
        assert_eq!(stated("a.yaml", "image: localhost/portlane/echo:0.1.0\nx: portlane/proxy:next"), ["0.1.0"]);
        assert_eq!(stated("docs/x.md", "Load portlane/proxy:0.2.0-rc.1."), ["0.2.0-rc.1"]);
        assert_eq!(stated("charts/a/Chart.yaml", "name: x\nversion: 0.1.0\nappVersion: 0.2.0\n"), ["0.1.0", "0.2.0"]);
        assert_eq!(stated("images/Dockerfile", "org.opencontainers.image.version=\"0.3.0\" \\"), ["0.3.0"]);
        let install = "deploy?ref=v0.4.0\nhelm push p/portlane-crds-0.5.0.tgz\nhelm install x --version 0.6.0 -n y";
        assert_eq!(stated("docs/install.md", install), ["0.4.0", "0.6.0", "0.5.0"]);
        assert_eq!(stated("docs/install.md", "oci-archive:x/portlane-proxy-0.5.1.oci.tar"), ["0.5.1"]);
        let pushed = "Pushed: x/charts/portlane:0.5.2\nDigest: y\nPushed: x/charts/portlane-crds:0.5.3\n";
        assert_eq!(stated("docs/install.md", pushed), ["0.5.2", "0.5.3"]);
        assert_eq!(stated("docs/upgrade.md", "  proxyImage: {tag: 0.7.0}"), ["0.7.0"]);
        assert_eq!(stated("deploy/base/rbac.yaml", "    app.kubernetes.io/version: 0.8.0\n"), ["0.8.0"]);
        assert!(stated("CHANGELOG.md", "portlane/echo:0.0.1").is_empty());
    }

    #[test]
    fn every_file_of_the_checkout_states_the_version_of_the_workspace() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = super::super::source::tracked(&root).expect("a checkout");
        let stated: Vec<_> =
            files.iter().flat_map(|(path, text)| stated(path, text).into_iter().map(move |it| (path, it))).collect();
        assert!(stated.len() > 10, "{stated:?}");
        for (path, version) in stated {
            assert_eq!(version, env!("CARGO_PKG_VERSION"), "{path}");
        }
    }

    #[test]
    fn another_version_is_set_in_what_is_ours_only() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"0.1.0\"\nsource = \"registry\"\n\n\
                    [[package]]\nname = \"portlane\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let set_lock = set("Cargo.lock", lock, "0.1.0", "0.2.0");
        assert_eq!(set_lock.matches("0.1.0").count(), 1);
        assert!(set_lock.contains("name = \"portlane\"\nversion = \"0.2.0\"\n"));
        assert_eq!(set_lock.len(), lock.len());
        let manifest = "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\nx = \"0.1.0\"\n";
        assert_eq!(
            set("Cargo.toml", manifest, "0.1.0", "0.2.0"),
            "[workspace.package]\nversion = \"0.2.0\"\n\n[workspace.dependencies]\nx = \"0.1.0\"\n"
        );
        let chart = "name: x\nversion: 0.1.0\nappVersion: 0.1.0\nkubeVersion: \">=0.1.0\"\n";
        assert_eq!(
            set("charts/x/Chart.yaml", chart, "0.1.0", "0.2.0"),
            "name: x\nversion: 0.2.0\nappVersion: 0.2.0\nkubeVersion: \">=0.1.0\"\n"
        );
    }

    #[test]
    fn the_charts_and_the_dockerfile_of_this_checkout_agree_with_it() {
        let files = [
            ("charts/portlane/Chart.yaml", include_str!("../../../charts/portlane/Chart.yaml"), 2),
            ("charts/portlane-crds/Chart.yaml", include_str!("../../../charts/portlane-crds/Chart.yaml"), 2),
            ("images/Dockerfile", include_str!("../../../images/Dockerfile"), 5),
            ("examples/sidecar.yaml", include_str!("../../../examples/sidecar.yaml"), 2),
        ];
        for (path, text, count) in files {
            assert_eq!(stated(path, text), vec![env!("CARGO_PKG_VERSION"); count], "{path}");
        }
        assert_eq!(of_workspace(include_str!("../../../Cargo.toml")), Some(env!("CARGO_PKG_VERSION")));
    }
}
