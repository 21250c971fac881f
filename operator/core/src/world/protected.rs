//! The networks that the installation protects, such as the address of a load balancer in front of the API server.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use proxy_api::is_within;

/// Most networks: proxies compare each address that they resolve with all of them.
pub const MOST_NETWORKS: usize = 256;

/// Networks that no gateway connects to, apart from the addresses that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectedNetworks(Vec<IpNet>);

/// Why a list of networks is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectedError {
    /// An entry is not a network.
    #[error("'{0:.80}' is not a network: write it as ADDRESS/LENGTH, and a single address as a /32 or /128")]
    NoNetwork(String),
    /// There are more networks than proxies compare.
    #[error("{0} networks are listed, and at most {most} can be protected: list larger networks", most = MOST_NETWORKS)]
    TooMany(usize),
}

impl FromStr for ProtectedNetworks {
    type Err = ProtectedError;

    /// Reads networks separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| {
            let network = entry.parse::<IpNet>().map_err(|_| ProtectedError::NoNetwork(entry.to_owned()))?;
            Ok::<IpNet, ProtectedError>(network.trunc())
        };
        let networks: BTreeSet<IpNet> = entries.map(read).collect::<Result<_, _>>()?;
        if networks.len() > MOST_NETWORKS {
            return Err(ProtectedError::TooMany(networks.len()));
        }
        Ok(Self(networks.into_iter().collect()))
    }
}

impl ProtectedNetworks {
    /// Whether one of the networks contains the address, in any of its forms.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        is_within(&self.0, ip)
    }

    /// The networks.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let networks = text.parse::<ProtectedNetworks>().map_err(|error| error.to_string())?;
        Ok(networks.networks().map(ToString::to_string).collect())
    }

    #[test]
    fn networks_are_separated_by_commas_and_only_their_prefix_counts() {
        assert_eq!(read(""), Ok(Vec::new()));
        let networks = ["192.0.2.0/24", "203.0.113.9/32", "2001:db8::/48"].map(str::to_owned);
        assert_eq!(read("203.0.113.9/32, 192.0.2.7/24,2001:db8::1/48,192.0.2.0/24,"), Ok(networks.to_vec()));
    }

    #[test]
    fn an_address_without_a_length_and_a_name_are_refused_with_the_remedy() {
        for entry in ["203.0.113.9", "203.0.113.9/33", "api.example.com"] {
            let why = read(&format!("192.0.2.0/24,{entry}")).expect_err("no network");
            assert!(why.starts_with(&format!("'{entry}' is not a network")) && why.contains("/32 or /128"), "{why}");
        }
    }

    #[test]
    fn there_are_no_more_networks_than_proxies_compare() {
        let list = |count: usize| {
            let networks: Vec<String> = (0..count).map(|at| format!("10.{}.{}.0/24", at / 256, at % 256)).collect();
            networks.join(",")
        };
        assert_eq!(read(&list(MOST_NETWORKS)).map(|networks| networks.len()), Ok(MOST_NETWORKS));
        let why = read(&list(MOST_NETWORKS + 1)).expect_err("too many");
        assert_eq!(why, "257 networks are listed, and at most 256 can be protected: list larger networks");
    }
}
