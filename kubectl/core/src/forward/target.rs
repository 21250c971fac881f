//! Targets of forwarding: `svc/NAME`, `pod/NAME`, `deploy/NAME` or `pf/NAME`.

use std::{fmt, str::FromStr};

/// Most bytes of a name (DNS subdomain).
const NAME: usize = 253;

/// The kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The ready pods of a Service.
    Service,
    /// One pod, ready or not.
    Pod,
    /// The ready pods that a Deployment selects.
    Deployment,
    /// The proxies that run a `PortForward`.
    Forward,
}

impl Kind {
    /// The word of the command line, as kubectl abbreviates it.
    pub fn short(self) -> &'static str {
        match self {
            Self::Service => "svc",
            Self::Pod => "pod",
            Self::Deployment => "deploy",
            Self::Forward => "pf",
        }
    }

    /// Name of the kind, as manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::Forward => "PortForward",
        }
    }
}

/// The object whose pods are the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.short(), self.name)
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').ok_or_else(|| BadTarget::Kindless(text.to_owned()))?;
        let kind = match kind {
            "svc" | "service" | "services" => Kind::Service,
            "po" | "pod" | "pods" => Kind::Pod,
            "deploy" | "deployment" | "deployments" => Kind::Deployment,
            "pf" | "portforward" | "portforwards" => Kind::Forward,
            _ => return Err(BadTarget::Kind(kind.to_owned())),
        };
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if name.is_empty() || name.len() > NAME || !name.bytes().all(is_inner) {
            return Err(BadTarget::Name(name.to_owned()));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// Why a word is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// The kind is missing.
    #[error("the kind is missing: write svc/{0}, pod/{0}, deploy/{0} or pf/{0}")]
    Kindless(String),
    /// The kind cannot be forwarded.
    #[error("cannot forward the kind '{0}': svc, pod, deploy and pf can be forwarded")]
    Kind(String),
    /// The name cannot be that of an object.
    #[error("'{0}' is not a name: a name has lower case letters, digits, '-' and '.'")]
    Name(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_kind_and_a_name() {
        for (text, expected) in [
            ("svc/db", "svc/db"),
            ("service/db", "svc/db"),
            ("pods/db-0.a", "pod/db-0.a"),
            ("deployment/web", "deploy/web"),
            ("pf/db", "pf/db"),
        ] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn a_word_that_is_no_target_says_what_would_be() {
        for (text, expected) in [
            ("db", "svc/db"),
            ("node/a", "svc, pod, deploy and pf"),
            ("svc/", "not a name"),
            ("svc/a/b", "not a name"),
            ("svc/DB", "not a name"),
            ("svc/a?b", "not a name"),
        ] {
            let why = text.parse::<Target>().expect_err(text).to_string();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn a_name_has_253_bytes_at_most() {
        let is_target = |length: usize| format!("svc/{}", "a".repeat(length)).parse::<Target>().is_ok();
        assert_eq!([1, 253, 254].map(is_target), [true, true, false]);
    }

    #[test]
    fn a_kind_has_the_name_that_manifests_give_it() {
        let names = [Kind::Service, Kind::Pod, Kind::Deployment, Kind::Forward].map(Kind::name);
        assert_eq!(names, ["Service", "Pod", "Deployment", "PortForward"]);
    }
}
