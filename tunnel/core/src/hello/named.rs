//! The endpoints and sidecars that an endpoint names to an agent.

use super::{MAX_PEERS, count, put_text, text};
use crate::frame::Reader;
use crate::identity::EndpointId;

/// Other endpoints and sidecars that an agent may dial, at the address of the endpoint that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The other endpoints of the server: at most [`MAX_PEERS`].
    pub peers: Vec<EndpointId>,
    /// The sidecars whose sessions may lead to the agent: at most [`MAX_PEERS`].
    pub sidecars: Vec<EndpointId>,
}

impl Named {
    /// Appends the first [`MAX_PEERS`] of each list, which fit into a frame.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_ids(out, &self.peers);
        put_ids(out, &self.sidecars);
    }

    /// Reads the output of [`Named::put`]. An endpoint of an earlier version names no sidecars.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let peers = ids(reader)?;
        let sidecars = if reader.0.is_empty() { Vec::new() } else { ids(reader)? };
        Some(Self { peers, sidecars })
    }
}

fn put_ids(out: &mut Vec<u8>, ids: &[EndpointId]) {
    let ids = &ids[..ids.len().min(MAX_PEERS)];
    out.push(count(ids.len()));
    for id in ids {
        put_text(out, id.as_str());
    }
}

fn ids(reader: &mut Reader<'_>) -> Option<Vec<EndpointId>> {
    let count = usize::from(reader.u8()?);
    if count > MAX_PEERS {
        return None;
    }
    (0..count).map(|_| EndpointId::new(text(reader)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> Vec<EndpointId> {
        (0..count).map(|index| EndpointId::new(&format!("{index:063}")).expect("an id")).collect()
    }

    #[test]
    fn no_more_are_named_than_an_agent_reads() {
        let sent = Named { peers: some(MAX_PEERS + 6), sidecars: some(MAX_PEERS + 1) };
        let mut bytes = Vec::new();
        sent.put(&mut bytes);
        let read = Named::read(&mut Reader(&bytes)).expect("both lists");
        assert_eq!((read.peers, read.sidecars), (some(MAX_PEERS), some(MAX_PEERS)));
        let second = bytes.len() / 2;
        for at in [0, second] {
            let mut more = bytes.clone();
            more[at] += 1;
            assert_eq!(Named::read(&mut Reader(&more)), None, "{at}");
        }
    }

    #[test]
    fn an_endpoint_of_an_earlier_version_names_no_sidecars() {
        let mut bytes = Vec::new();
        put_ids(&mut bytes, &some(2));
        let read = Named::read(&mut Reader(&bytes));
        assert_eq!(read, Some(Named { peers: some(2), sidecars: Vec::new() }));
        bytes.push(1);
        assert_eq!(Named::read(&mut Reader(&bytes)), None, "a list that is cut off");
    }
}
