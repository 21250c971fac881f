//! The pinned Go modules, the programs built from each, and the cache folder of each.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A Kubernetes version at an end of the supported range.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KubernetesVersion {
    /// The oldest version: 1.34. Test nodes run this version.
    Oldest,
    /// The newest version: 1.37. Only its API server and kubectl are tested.
    Newest,
}

impl KubernetesVersion {
    /// Major and minor, such as `1.34`.
    pub fn minor(self) -> &'static str {
        match self {
            Self::Oldest => "1.34",
            Self::Newest => "1.37",
        }
    }
}

/// One program of a module, or one file of its sources.
#[derive(Debug)]
pub struct Tool {
    /// Path of the Go package, or of the file below the sources of `source`.
    pub package: &'static str,
    /// Name of the file in the cache.
    pub program: &'static str,
    /// The Go module whose sources have the file. Absent: a program, which is built.
    pub source: Option<&'static str>,
}

/// A folder of `tests/programs` with a `go.mod` and a `go.sum`.
#[derive(Debug)]
pub struct Module {
    /// Name of the folder.
    pub name: &'static str,
    /// Programs built from the module.
    pub tools: &'static [Tool],
    kubernetes: Option<KubernetesVersion>,
    files: [&'static str; 2],
}

macro_rules! module {
    ($name:literal, $kubernetes:expr, [$($program:literal = $package:literal),+]
     $(, files of $source:literal: [$($file:literal = $path:literal),+])?) => {
        Module {
            name: $name,
            kubernetes: $kubernetes,
            tools: &[
                $(Tool { package: $package, program: $program, source: None },)+
                $($(Tool { package: $path, program: $file, source: Some($source) },)+)?
            ],
            files: [
                include_str!(concat!("../../programs/", $name, "/go.mod")),
                include_str!(concat!("../../programs/", $name, "/go.sum")),
            ],
        }
    };
}

impl Module {
    /// All modules. What API servers need comes first, because the API tests start first.
    pub const ALL: [Self; 7] = [
        module!("etcd", None, ["etcd" = "go.etcd.io/etcd/server/v3"]),
        module!(
            "kubernetes-1.34",
            Some(KubernetesVersion::Oldest),
            [
                "kube-apiserver" = "k8s.io/kubernetes/cmd/kube-apiserver",
                "kubectl" = "k8s.io/kubernetes/cmd/kubectl",
                "kube-controller-manager" = "k8s.io/kubernetes/cmd/kube-controller-manager",
                "kube-scheduler" = "k8s.io/kubernetes/cmd/kube-scheduler",
                "kubelet" = "k8s.io/kubernetes/cmd/kubelet",
                "kube-proxy" = "k8s.io/kubernetes/cmd/kube-proxy"
            ]
        ),
        module!(
            "kubernetes-1.37",
            Some(KubernetesVersion::Newest),
            ["kube-apiserver" = "k8s.io/kubernetes/cmd/kube-apiserver", "kubectl" = "k8s.io/kubernetes/cmd/kubectl"]
        ),
        module!("coredns", None, ["coredns" = "github.com/coredns/coredns"]),
        module!("helm", None, ["helm" = "helm.sh/helm/v3/cmd/helm"]),
        module!("nats-server", None, ["nats-server" = "github.com/nats-io/nats-server/v2"]),
        module!(
            "argocd",
            None,
            ["argocd" = "github.com/argoproj/argo-cd/v3/cmd"],
            files of "github.com/argoproj/argo-cd/v3": [
                "application-crd.yaml" = "manifests/crds/application-crd.yaml",
                "applicationset-crd.yaml" = "manifests/crds/applicationset-crd.yaml",
                "appproject-crd.yaml" = "manifests/crds/appproject-crd.yaml"
            ]
        ),
    ];

    pub(super) fn has(&self, program: &str) -> bool {
        self.tools.iter().any(|tool| tool.program == program)
    }

    pub(super) fn serves(&self, version: KubernetesVersion) -> bool {
        self.kubernetes == Some(version)
    }

    /// The module's folder below `cache`. Its name has a digest of the pins, the linker flags and the architecture, so
    /// a changed pin is built again.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        let mut digest = Sha256::new();
        for part in self.files.into_iter().chain([self.linker_flags().as_str(), std::env::consts::ARCH]) {
            digest.update(part.len().to_le_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.finalize().iter().fold(String::new(), |digest, byte| digest + &format!("{byte:02x}"));
        cache.join(format!("{}-{}", self.name, &digest[..12]))
    }

    /// Flags for the linker. They set the version of Kubernetes: clients complain about an API server that reports
    /// v0.0.0.
    pub(super) fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if let (Some(_), Some(version)) = (self.kubernetes, self.required("k8s.io/kubernetes")) {
            let mut parts = version.trim_start_matches('v').split('.');
            for (name, value) in [
                ("gitVersion", version),
                ("gitMajor", parts.next().unwrap_or_default()),
                ("gitMinor", parts.next().unwrap_or_default()),
                ("gitTreeState", "clean"),
            ] {
                flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
            }
        }
        flags
    }

    /// The version that go.mod requires of a module.
    fn required(&self, module: &str) -> Option<&'static str> {
        let line = |line: &'static str| {
            let mut words = line.trim().trim_start_matches("require ").split(' ');
            (words.next() == Some(module)).then(|| words.next()).flatten()
        };
        self.files[0].lines().find_map(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_reports_the_pinned_version() {
        let newest = Module::ALL
            .iter()
            .find(|module| module.serves(KubernetesVersion::Newest))
            .expect("a module of the newest version");
        let pinned = newest.required("k8s.io/kubernetes").expect("a pin");
        assert!(pinned.starts_with("v1.37."), "{pinned}");
        assert!(newest.linker_flags().contains(&format!("gitVersion={pinned} ")), "{}", newest.linker_flags());
        assert!(newest.linker_flags().contains("gitMinor=37"), "{}", newest.linker_flags());
    }

    #[test]
    fn every_module_has_its_own_folder() {
        let folders: std::collections::BTreeSet<_> =
            Module::ALL.iter().map(|module| module.folder(Path::new("/"))).collect();
        assert_eq!(folders.len(), Module::ALL.len());
    }
}
