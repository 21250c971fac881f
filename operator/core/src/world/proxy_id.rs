//! Identities of proxies.

use std::fmt;

use crate::world::ObjectKey;

/// Identity of a proxy, to which streams and reports belong. Today every proxy of a cluster runs in a pod; code that
/// needs the pod calls `pod`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyId {
    /// The proxy of a pod.
    Pod(ObjectKey),
}

impl ProxyId {
    /// The pod of the proxy, if it is in one.
    #[must_use]
    pub fn pod(&self) -> Option<&ObjectKey> {
        match self {
            Self::Pod(key) => Some(key),
        }
    }

    /// Name of the proxy in status, within the namespace of the forward or gateway.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pod(key) => &key.name,
        }
    }
}

impl From<ObjectKey> for ProxyId {
    fn from(pod: ObjectKey) -> Self {
        Self::Pod(pod)
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_its_pod() {
        let proxy = ProxyId::from(ObjectKey::new("ns", "edge-0"));
        assert_eq!((proxy.name(), proxy.to_string().as_str()), ("edge-0", "pod/ns/edge-0"));
    }
}
