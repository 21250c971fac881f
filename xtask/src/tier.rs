//! Test tiers: which tests belong to each, what a tier needs, and how many of its tests run at once.

use clap::ValueEnum;

/// What a test needs to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Tier {
    /// Only Rust: the pure core, and the built programs on sockets.
    Pure,
    /// A real API server.
    Api,
    /// A real node, and third-party programs from the distribution's packages.
    Node,
}

impl Tier {
    /// The given tiers, or all tiers if none is given.
    pub(crate) fn or_all(tiers: Vec<Self>) -> Vec<Self> {
        if tiers.is_empty() { vec![Self::Pure, Self::Api, Self::Node] } else { tiers }
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Api => "api",
            Self::Node => "node",
        }
    }

    /// The tier of a test program. `folder` is the folder of its package in the checkout.
    pub(crate) fn of(folder: &str, target: &str) -> Self {
        match (folder, target) {
            ("tests", "api") => Self::Api,
            ("tests", "node" | "odd" | "peers") => Self::Node,
            _ => Self::Pure,
        }
    }

    /// Whether the tier needs a program of a folder of `tests/programs`. With `given`, `KUBEBUILDER_ASSETS` has what an
    /// API server needs; a node always runs built programs, whose versions fit each other.
    pub(crate) fn needs(self, module: &str, program: &str, given: bool) -> bool {
        match self {
            Self::Pure => false,
            // A test of the webhook renders the chart.
            Self::Api if module == "helm" => true,
            Self::Api if given => false,
            Self::Api => match module {
                "etcd" | "kubernetes-1.37" => true,
                "kubernetes-1.34" => matches!(program, "kube-apiserver" | "kubectl" | "kube-controller-manager"),
                _ => false,
            },
            Self::Node => module != "kubernetes-1.37",
        }
    }

    /// Number of tests that run at once. `requested` is `RUST_TEST_THREADS`.
    ///
    /// Tests of `api` and `node` mostly wait: for a controller, a lease, a kubelet. On a machine with few cores more of
    /// these tests run at once than there are cores. A node runs fewer tests at once than an API server because each of
    /// its tests starts pods. Tests of `pure` compute, or measure times on sockets, so each has a core.
    pub(crate) fn threads(self, cores: usize, requested: Option<usize>) -> usize {
        let least = match self {
            Self::Pure => 1,
            Self::Api => 6,
            Self::Node => 4,
        };
        requested.unwrap_or(cores.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_that_wait_run_more_tests_than_cores() {
        let threads = |cores| [Tier::Pure, Tier::Api, Tier::Node].map(|tier| tier.threads(cores, None));
        assert_eq!(threads(2), [2, 6, 4]);
        assert_eq!(threads(16), [16, 16, 16]);
        assert_eq!(Tier::Api.threads(2, Some(1)), 1);
    }

    #[test]
    fn api_tests_wait_for_no_program_of_a_node() {
        assert!(Tier::Api.needs("kubernetes-1.34", "kube-apiserver", false));
        assert!(!Tier::Api.needs("kubernetes-1.34", "kubelet", false));
        assert!(!Tier::Api.needs("coredns", "coredns", false));
        assert!(!Tier::Api.needs("argocd", "argocd", false) && Tier::Node.needs("argocd", "argocd", false));
        assert!(Tier::Node.needs("kubernetes-1.34", "kubelet", false));
        assert!(!Tier::Node.needs("kubernetes-1.37", "kubectl", false));
        assert!(!Tier::Pure.needs("etcd", "etcd", false));
    }

    #[test]
    fn a_given_folder_replaces_the_programs_of_an_api_server_only() {
        assert!(!Tier::Api.needs("etcd", "etcd", true));
        assert!(Tier::Api.needs("helm", "helm", true));
        assert!(Tier::Node.needs("etcd", "etcd", true));
    }

    #[test]
    fn only_four_test_programs_need_more_than_rust() {
        assert_eq!(Tier::of("tests", "api"), Tier::Api);
        assert_eq!(Tier::of("tests", "odd"), Tier::Node);
        assert_eq!(Tier::of("tests", "peers"), Tier::Node);
        assert_eq!(Tier::of("tests", "node"), Tier::Node);
        assert_eq!(Tier::of("tests", "sockets"), Tier::Pure);
        assert_eq!(Tier::of("operator", "api"), Tier::Pure);
    }
}
