//! A forward that satisfies every rule, with all defaults filled in.

use crds::AcceptedHeaders;
use ipnet::IpNet;
use proxy_api::{AcceptHeader, Bind, Durable, Origin, Outlier, Policy, Retry, Sessions, Timeouts, Transport};

use super::{
    Placement,
    backend::ValidBackend,
    held::{Held, Standing},
};

/// A valid forward with all defaults filled in.
#[derive(Clone, Debug)]
pub struct ValidForward {
    pub(crate) origin: Origin,
    /// Controller class; empty if the object names none.
    pub(crate) class: String,
    /// Creation time in nanoseconds since 1970, if known.
    pub(crate) created: Option<i128>,
    pub(crate) suspended: bool,
    pub(crate) placement: Placement,
    pub(crate) listeners: Vec<ValidListener>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Retry,
    pub(crate) sessions: Sessions,
    pub(crate) access_log: proxy_api::AccessLog,
    /// Limits are boxed, like other parts that few forwards have: an operator keeps tens of thousands of forwards.
    pub(crate) limits: Option<Box<proxy_api::Limits>>,
    pub(crate) access: Option<Box<proxy_api::Access>>,
}

/// A listener of a valid forward.
#[derive(Clone, Debug)]
pub(crate) struct ValidListener {
    pub(crate) name: String,
    pub(crate) transport: Transport,
    /// The requested port; `None` requests any.
    pub(crate) port: Option<u16>,
    /// Number of ports after the first.
    pub(crate) further: u16,
    /// TLS server names, sorted.
    pub(crate) names: Vec<String>,
    /// The port that status lists for the listener.
    pub(crate) held: Option<Held>,
    /// The bind addresses; `None` is the default of the placement.
    pub(crate) bind: Option<Bind>,
    pub(crate) backends: Vec<ValidBackend>,
    pub(crate) policy: Policy,
    pub(crate) outlier: Outlier,
    pub(crate) proxy_protocol: Option<Box<proxy_api::ProxyProtocol>>,
    pub(crate) health_check: Option<Box<proxy_api::HealthCheck>>,
    /// The settings of a durable listener; `None` for a listener that forwards sessions.
    pub(crate) durable: Option<Box<Durable>>,
    /// Settings without an effect, for a person.
    pub(crate) idle: Vec<String>,
}

impl ValidListener {
    /// The port to which active checks of a backend's endpoints connect; `None`: no checks, or the endpoint's own port.
    pub(crate) fn checked_port(&self, backend: &ValidBackend) -> Option<u16> {
        let check = self.health_check.as_ref()?;
        backend.check_port.or(check.port)
    }

    /// Transport of the connections to backends.
    pub(crate) fn transport_out(&self) -> Transport {
        self.durable.as_ref().map_or(self.transport, |durable| durable.send.transport())
    }

    /// PROXY headers that the listener reads, and the networks trusted to send them.
    pub(crate) fn header(&self) -> Option<(AcceptHeader, &[IpNet])> {
        let protocol = self.proxy_protocol.as_ref().filter(|it| it.accept != AcceptHeader::Disabled)?;
        Some((protocol.accept, &protocol.trusted))
    }

    /// The PROXY headers that are read before a server name, in the form of status.
    pub(crate) fn headers_before_names(&self) -> Option<AcceptedHeaders> {
        accepted_headers(self.header().filter(|_| !self.names.is_empty()))
    }
}

impl Held {
    /// Precedence of the listener's claim. A listener that requests more than status lists is new for all of its ports.
    pub(crate) fn standing(&self, listener: &ValidListener) -> Standing {
        // A listener without server names holds the whole port.
        let has_whole_port = self.names.is_empty();
        let has_names = !listener.names.is_empty() && listener.names.iter().all(|name| self.names.contains(name));
        if listener.further > self.further || !has_whole_port && !has_names {
            Standing::New
        } else if has_whole_port || self.header == listener.headers_before_names() {
            Standing::Serves
        } else {
            Standing::ReadsOtherHeaders
        }
    }
}

/// Converts accepted PROXY headers to the form of status; `None` if the listener reads none.
#[must_use]
pub fn accepted_headers(header: Option<(AcceptHeader, &[IpNet])>) -> Option<AcceptedHeaders> {
    let (accept, trusted) = header?;
    let accept = match accept {
        AcceptHeader::Disabled => return None,
        AcceptHeader::Optional => crds::AcceptHeader::Optional,
        AcceptHeader::Required => crds::AcceptHeader::Required,
    };
    Some(AcceptedHeaders { accept, trusted_cidrs: trusted.iter().map(ToString::to_string).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_few_forwards_have_takes_no_room_in_the_others() {
        let sizes = (size_of::<ValidForward>(), size_of::<ValidListener>());
        assert!(sizes.0 <= 304 && sizes.1 <= 256, "{sizes:?}");
    }
}
