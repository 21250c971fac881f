//! The address of an endpoint: on the network, or behind an agent.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Serialize, Serializer};

/// The address of an endpoint. The endpoints of one backend are all of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An address and port that this host connects to.
    Socket(SocketAddr),
    /// A host and port to which an instance of an agent connects. It belongs to neither address family.
    Agent(Arc<AgentAddress>),
}

/// A target of one instance of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentAddress {
    /// Uid of the agent.
    pub uid: Arc<str>,
    /// The agent, as `NAMESPACE/NAME`.
    pub agent: Arc<str>,
    /// Name of the instance.
    pub instance: Arc<str>,
    /// IP address, or a name that the agent resolves.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

impl Address {
    /// The network address, unless the endpoint is behind an agent.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Agent(_) => None,
        }
    }

    /// The address behind an agent, if it is one.
    #[must_use]
    pub fn agent(&self) -> Option<&Arc<AgentAddress>> {
        match self {
            Self::Socket(_) => None,
            Self::Agent(address) => Some(address),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Agent(address) => address.port,
        }
    }

    /// The same host with this port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Socket(address) => Self::Socket(SocketAddr::new(address.ip(), port)),
            Self::Agent(address) if address.port == port => self.clone(),
            Self::Agent(address) => Self::Agent(Arc::new(AgentAddress { port, ..(**address).clone() })),
        }
    }

    /// The address with its port shifted by `offset`. Listeners whose ports would exceed 65535 are refused at
    /// translation.
    #[must_use]
    pub fn shifted(&self, offset: u16) -> Self {
        self.with_port(self.port().saturating_add(offset))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => fmt::Display::fmt(address, f),
            Self::Agent(address) => fmt::Display::fmt(address, f),
        }
    }
}

/// `agent/NAMESPACE/NAME/INSTANCE/HOST:PORT`: the name of the backend, with the instance.
impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, instance, host, port, .. } = self;
        if host.contains(':') {
            write!(f, "agent/{agent}/{instance}/[{host}]:{port}")
        } else {
            write!(f, "agent/{agent}/{instance}/{host}:{port}")
        }
    }
}

/// Serialised as text, for people.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(host: &str, port: u16) -> Address {
        let (uid, agent, instance) = ("u".into(), "shop/home".into(), "pi4".into());
        Address::Agent(Arc::new(AgentAddress { uid, agent, instance, host: host.into(), port }))
    }

    fn socket(text: &str) -> Address {
        Address::Socket(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_behind_an_agent_names_the_agent_the_instance_and_what_it_connects_to() {
        for (address, text) in [
            (socket("10.0.0.1:80"), "10.0.0.1:80"),
            (socket("[fd00::1]:80"), "[fd00::1]:80"),
            (behind("127.0.0.1", 5432), "agent/shop/home/pi4/127.0.0.1:5432"),
            (behind("::1", 5432), "agent/shop/home/pi4/[::1]:5432"),
            (behind("db.lan", 5432), "agent/shop/home/pi4/db.lan:5432"),
        ] {
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_value(&address).expect("JSON"), text, "as in logs and on the page");
        }
    }

    #[test]
    fn the_port_is_shifted_and_the_rest_stays() {
        assert_eq!(socket("[fd00::1]:80").shifted(2), socket("[fd00::1]:82"));
        assert_eq!(behind("db.lan", 5432).shifted(2), behind("db.lan", 5434));
        assert_eq!(behind("db.lan", 65_535).shifted(2), behind("db.lan", 65_535));
        assert_eq!(behind("db.lan", 5432).with_port(80), behind("db.lan", 80));
    }

    #[test]
    fn an_address_that_is_not_shifted_is_the_same_object() {
        let address = behind("db.lan", 5432);
        let is_same = address.agent().zip(address.shifted(0).agent()).is_some_and(|(one, two)| Arc::ptr_eq(one, two));
        assert!(is_same);
    }
}
