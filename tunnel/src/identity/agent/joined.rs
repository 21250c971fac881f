//! The part of a redeemed join string that an agent stores. A restarted agent needs no join string, and can tell
//! whether it is given another one.

use std::path::Path;

use tunnel_core::identity::Fingerprint;
use tunnel_core::join::{Address, JoinString};

use super::{AgentError, AgentFolder, CERTIFICATE, KEY, files};

/// Name of the file.
const JOINED: &str = "joined";

/// The stored part of the join string that the agent redeemed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Fingerprint of its token. The token itself is not stored.
    pub token: Fingerprint,
    /// The addresses of the server.
    pub addresses: Vec<Address>,
}

impl Joined {
    /// The part of a join string to store.
    pub fn of(join: &JoinString) -> Self {
        Self { token: join.token().fingerprint(), addresses: join.addresses().to_vec() }
    }

    /// One line for the token, and one for each address.
    fn text(&self) -> String {
        let lines = self.addresses.iter().map(|address| format!("{address}\n"));
        format!("{}\n{}", self.token, lines.collect::<String>())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let token = lines.next()?.parse().ok()?;
        let addresses = lines.map(|line| line.parse().ok()).collect::<Option<Vec<Address>>>()?;
        (!addresses.is_empty()).then_some(Self { token, addresses })
    }
}

impl AgentFolder {
    /// Whether the agent of this folder has enrolled, so that it needs no join string. Opens nothing.
    pub fn has_enrolled(path: &Path) -> bool {
        [KEY, CERTIFICATE, JOINED].iter().all(|name| path.join(name).is_file())
    }

    /// Returns the stored part of the join string. `None` if none was redeemed.
    pub fn joined(&self) -> Result<Option<Joined>, AgentError> {
        let path = self.0.join(JOINED);
        let Some(bytes) = files::read(&path, files::PEM)? else { return Ok(None) };
        Joined::read(&bytes).map(Some).ok_or(AgentError::Joined(path))
    }

    /// Stores the needed part of a redeemed join string.
    pub fn keep_joined(&self, joined: &Joined) -> Result<(), AgentError> {
        Ok(files::write(&self.0.join(JOINED), joined.text().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_damage_is_told_with_the_path() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = AgentFolder::open(&temporary.path().join("agent")).expect("made");
        assert_eq!(folder.joined().expect("readable"), None);
        let addresses = [("edge.example.com", 7443), ("fd00::1", 7443)];
        let addresses = addresses.map(|(host, port)| Address::new(host, port).expect("an address")).to_vec();
        let joined = Joined { token: Fingerprint::of(b"token"), addresses };
        folder.keep_joined(&joined).expect("written");
        assert_eq!(folder.joined().expect("readable"), Some(joined.clone()));
        let whole = joined.text();
        for damaged in ["", "x", whole.lines().next().expect("the token"), &whole.replace("7443", "x")] {
            files::write(&folder.0.join(JOINED), damaged.as_bytes()).expect("written");
            let told = folder.joined().expect_err("damaged").to_string();
            assert!(told.contains("joined is damaged"), "{told}");
        }
    }
}
