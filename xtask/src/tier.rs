//! The tests by what they need.

use clap::ValueEnum;

/// What a test needs to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Tier {
    /// Nothing but Rust: the pure core, and the built programs on sockets.
    Pure,
    /// A real API server.
    Api,
    /// A real node, and programs of others from the distribution's packages.
    Node,
}

impl Tier {
    pub(crate) fn or_all(tiers: Vec<Self>) -> Vec<Self> {
        if tiers.is_empty() { vec![Self::Pure, Self::Api, Self::Node] } else { tiers }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Api => "api",
            Self::Node => "node",
        }
    }

    /// Whether it needs the programs of this folder of `tests/programs`.
    pub(crate) fn needs(self, module: &str) -> bool {
        match self {
            Self::Pure => false,
            Self::Api => matches!(module, "etcd" | "kubernetes-1.34" | "kubernetes-1.37"),
            Self::Node => module != "kubernetes-1.37",
        }
    }

    /// Arguments of the `cargo test` runs that make up the tier.
    pub(crate) fn runs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Pure => &[
                &["--workspace", "--exclude", "portlane-tests"],
                &["-p", "portlane-tests", "--lib", "--test", "sockets"],
            ],
            Self::Api => &[&["-p", "portlane-tests", "--test", "api"]],
            Self::Node => &[&["-p", "portlane-tests", "--test", "peers"], &["-p", "portlane-tests", "--test", "node"]],
        }
    }
}
