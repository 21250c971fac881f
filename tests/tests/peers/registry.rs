//! The charts as OCI artefacts: packaged and signed by helm, pushed to the registry of the CNCF (distribution), pulled,
//! verified and rendered from there.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{fs, path::Path};

use harness::{CHARTS, CommandOutput, free_port, helm_command};

use super::server::{Server, done, listens, open_folder};

/// Who signs the packages.
const SIGNER: &str = "Portlane test";

/// helm without the settings and caches of the person who runs the tests.
fn helm(folder: &Path, arguments: &[&str]) -> CommandOutput {
    let own = ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"].map(|name| (name, folder.join("helm")));
    CommandOutput::of(helm_command().args(arguments).envs(own), "")
}

/// The name and the version of a chart of the checkout.
fn name_and_version(chart: &str) -> (String, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(chart).join("Chart.yaml");
    let chart = fs::read_to_string(file).expect("a chart");
    let chart: serde_json::Value = serde_yaml::from_str(&chart).expect("YAML");
    let text = |field: &str| chart[field].as_str().expect("a text").to_owned();
    (text("name"), text("version"))
}

/// A key that signs, without a passphrase: `FOLDER/secret.gpg` and `FOLDER/public.gpg`, in the format that helm reads.
fn make_key(folder: &Path) {
    let folder = folder.display();
    done(&format!(
        "export GNUPGHOME={folder}/gnupg && mkdir -m 700 $GNUPGHOME && gpg --batch --quiet --pinentry-mode loopback \
         --passphrase '' --quick-generate-key '{SIGNER} <test@example.com>' rsa2048 sign never && gpg --batch \
         --export-secret-keys > {folder}/secret.gpg && gpg --batch --export > {folder}/public.gpg && gpgconf --kill all"
    ));
}

#[test]
fn charts_are_signed_pushed_pulled_verified_and_rendered() {
    let folder = open_folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let config = format!(
        "{{version: 0.1, storage: {{filesystem: {{rootdirectory: {}}}}}, http: {{addr: 127.0.0.1:{port}}}}}",
        path("data")
    );
    fs::write(path("registry.yml"), config).expect("the file is written");
    let serve = format!("docker-registry serve {}", path("registry.yml"));
    let _registry = Server::start(folder.path(), &serve, listens(port));
    make_key(folder.path());
    let (secret, public, packages, pulled) = (path("secret.gpg"), path("public.gpg"), path("packages"), path("pulled"));
    fs::create_dir(&pulled).expect("a folder for what is pulled");
    let helm = |arguments: &[&str]| helm(folder.path(), arguments);

    let sign = ["package", "--sign", "--key", SIGNER, "--keyring", &secret, "--destination", &packages];
    helm(&[&sign[..], &CHARTS[..]].concat()).ok();
    let repository = format!("oci://127.0.0.1:{port}/charts");
    for chart in CHARTS {
        let (name, version) = name_and_version(chart);
        let archive = format!("{packages}/{name}-{version}.tgz");
        helm(&["push", "--plain-http", &archive, &repository]).ok();
        let of_chart = format!("{repository}/{name}");
        let from_registry = ["--plain-http", &of_chart, "--version", &version];
        let verify = ["pull", "--verify", "--keyring", &public, "--destination", &pulled];
        helm(&[&verify[..], &from_registry[..]].concat()).ok();
        let render = ["template", "portlane", "--namespace", "portlane", "--kube-version", "1.34.0"];
        let published = helm(&[&render[..], &from_registry[..]].concat()).ok();
        assert_eq!(published, helm(&[&render[..], &[chart]].concat()).ok(), "{chart}");

        fs::write(&archive, "another chart").expect("the archive is writable");
        let tampered = helm(&["verify", "--keyring", &public, &archive]).refused();
        assert!(tampered.contains("sha256 sum does not match"), "{tampered}");
    }
}
