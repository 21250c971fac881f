//! The programs that hold the ports that this proxy lacks. A search reads all of `/proc`, so it is done once for each
//! failure, and not at each apply while a port is lacking.

use std::collections::BTreeMap;

use proxy_api::SocketKey;

use crate::{core::changes::lacking::Why, net::BindError};

/// Sockets that could not be opened.
pub(super) type Errors = BTreeMap<SocketKey, BindError>;

/// The errors of the last call by socket, each with the error of the system, and with the holder if it is known.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<SocketKey, (Why, BindError)>);

impl Holders {
    /// Names the holders in these errors. `find` names those in errors that are new since the last call.
    pub(super) fn name(&mut self, errors: &mut Errors, find: impl FnOnce(Vec<&mut BindError>)) {
        let mut before = std::mem::take(&mut self.0);
        let whys: BTreeMap<SocketKey, Why> =
            errors.iter().map(|(key, error)| (*key, (error.reason, error.to_string()))).collect();
        let mut new = Vec::new();
        for (key, error) in errors.iter_mut() {
            match before.remove(key) {
                Some((why, named)) if whys.get(key) == Some(&why) => *error = named,
                _ => new.push(error),
            }
        }
        find(new);
        self.0 = whys.into_iter().filter_map(|(key, why)| Some((key, (why, errors.get(&key)?.clone())))).collect();
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::FailureReason;

    use super::*;
    use crate::supervisor::fixtures::socket;

    /// The number of errors in which a holder is looked up, if these ports are lacking. These errors are marked.
    fn looked_up(holders: &mut Holders, ports: &[u16]) -> usize {
        let error = |port: &u16| (socket(*port), BindError::yielded(socket(*port)));
        let mut errors: Errors = ports.iter().map(error).collect();
        let mut count = 0;
        holders.name(&mut errors, |new| {
            count = new.len();
            for error in new {
                error.reason = FailureReason::BindFailed;
            }
        });
        assert!(errors.values().all(|error| error.reason == FailureReason::BindFailed), "{errors:?}");
        count
    }

    #[test]
    fn a_holder_is_looked_for_once_while_its_port_is_lacking() {
        let mut holders = Holders::default();
        assert_eq!(looked_up(&mut holders, &[1]), 1);
        assert_eq!(looked_up(&mut holders, &[1, 2]), 1);
        assert_eq!(looked_up(&mut holders, &[1, 2]), 0);
        assert_eq!(looked_up(&mut holders, &[2]), 0);
        assert_eq!(looked_up(&mut holders, &[1, 2]), 1, "a port that was not lacking may have another holder");
    }
}
