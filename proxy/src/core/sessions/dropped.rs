//! Why datagrams are dropped.

use proxy_api::{Listener, Transport};

use crate::core::limits::limiter::Refusal;

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No endpoint is known.
    NoBackend,
    /// The flow table is full of active flows.
    TableFull,
    /// The process is at its file descriptor limit.
    FileLimit,
    /// The process has as many sessions as fit into its memory, or as many flows as the local ports allow, or its memory is
    /// nearly used up.
    SessionLimit,
    /// The socket's send buffer is full.
    SendBufferFull,
    /// The network refused the datagram: unreachable, or too large for the path.
    SendFailed,
    /// The process is shutting down and accepts no new flows.
    Draining,
    /// `access` denies the client.
    AccessDenied,
    /// `maxConnections` or `maxFlows` is reached, and no flow of this listener is idle.
    ConnectionLimit,
    /// `maxConnectionsPerSource` is reached.
    SourceLimit,
    /// `newConnectionsPerSecond` is reached.
    RateLimit,
    /// `bytesPerSecond` is reached.
    Bandwidth,
    /// The client is a proxy of the same fleet: the datagram came back. Or its hop limit is used up, as by a loop through
    /// other fleets.
    Loop,
    /// The share of the namespace is used up, and no flow of this forward is idle.
    TenantLimit,
    /// The system dropped datagrams of clients that the proxy did not read in time.
    ReceiveBufferFull,
    /// The system dropped replies that the proxy did not read in time.
    ReplyBufferFull,
}

impl From<Refusal> for Dropped {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connections | Refusal::QueueFull => Self::ConnectionLimit,
            Refusal::Source => Self::SourceLimit,
            Refusal::Rate => Self::RateLimit,
            Refusal::Tenant => Self::TenantLimit,
        }
    }
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::NoBackend,
        Self::TableFull,
        Self::FileLimit,
        Self::SessionLimit,
        Self::SendBufferFull,
        Self::SendFailed,
        Self::Draining,
        Self::AccessDenied,
        Self::ConnectionLimit,
        Self::SourceLimit,
        Self::RateLimit,
        Self::Bandwidth,
        Self::Loop,
        Self::TenantLimit,
        Self::ReceiveBufferFull,
        Self::ReplyBufferFull,
    ];

    /// Whether a listener with this spec can drop for this reason; series of other reasons are omitted.
    #[must_use]
    pub fn is_possible(self, listener: &Listener) -> bool {
        let limits = listener.limits.as_deref();
        match self {
            Self::AccessDenied => listener.access.is_some(),
            Self::Loop => listener.destinations.refuse_local || listener.socket.transport == Transport::Udp,
            Self::ConnectionLimit => limits.is_some_and(|it| it.max_connections.is_some() || it.max_flows.is_some()),
            Self::SourceLimit => limits.is_some_and(|it| it.max_connections_per_source.is_some()),
            Self::RateLimit => limits.is_some_and(|it| it.new_connections_per_second.is_some()),
            Self::Bandwidth => limits.is_some_and(|it| it.bytes_per_second.is_some()),
            Self::TenantLimit => listener.tenant_limits.is_some(),
            _ => true,
        }
    }

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "NoBackend",
            Self::TableFull => "TableFull",
            Self::FileLimit => "FileLimit",
            Self::SessionLimit => "SessionLimit",
            Self::SendBufferFull => "SendBufferFull",
            Self::SendFailed => "SendFailed",
            Self::Draining => "Draining",
            Self::AccessDenied => "AccessDenied",
            Self::ConnectionLimit => "ConnectionLimit",
            Self::SourceLimit => "SourceLimit",
            Self::RateLimit => "RateLimit",
            Self::Bandwidth => "Bandwidth",
            Self::Loop => "Loop",
            Self::TenantLimit => "TenantLimit",
            Self::ReceiveBufferFull => "ReceiveBufferFull",
            Self::ReplyBufferFull => "ReplyBufferFull",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::{Access, Destinations, Limits, SocketKey, TenantLimits};

    use super::*;
    use crate::fixtures::template;

    /// A listener with nothing that makes it drop datagrams.
    fn plain() -> Listener {
        let template = template();
        let destinations = Destinations { refuse_local: false, ..template.destinations };
        Listener { limits: None, access: None, tenant_limits: None, destinations, ..template }
    }

    /// The reasons that a listener has and the plain one has not.
    fn added(listener: &Listener) -> Vec<Dropped> {
        let plain = plain();
        Dropped::ALL.into_iter().filter(|why| why.is_possible(listener) && !why.is_possible(&plain)).collect()
    }

    fn limited(limits: Limits) -> Vec<Dropped> {
        added(&Listener { limits: Some(Box::new(limits)), ..plain() })
    }

    #[test]
    fn a_reason_is_possible_where_a_setting_makes_it_so() {
        let always = Dropped::ALL.into_iter().filter(|why| why.is_possible(&plain()));
        assert_eq!(always.count(), Dropped::ALL.len() - 7);
        assert_eq!(added(&Listener { access: Some(Box::new(Access::default())), ..plain() }), [Dropped::AccessDenied]);
        let tenant = TenantLimits { max_connections: None, max_log_bytes: None };
        assert_eq!(added(&Listener { tenant_limits: Some(Box::new(tenant)), ..plain() }), [Dropped::TenantLimit]);
        let destinations = Destinations { refuse_local: true, ..plain().destinations };
        assert_eq!(added(&Listener { destinations, ..plain() }), [Dropped::Loop]);
        let socket = SocketKey { transport: Transport::Udp, ..plain().socket };
        assert_eq!(added(&Listener { socket, ..plain() }), [Dropped::Loop]);
    }

    #[test]
    fn each_limit_has_its_reason() {
        let some = Some(1);
        assert!(limited(Limits::default()).is_empty());
        assert_eq!(limited(Limits { max_connections: some, ..Limits::default() }), [Dropped::ConnectionLimit]);
        assert_eq!(limited(Limits { max_flows: some, ..Limits::default() }), [Dropped::ConnectionLimit]);
        assert_eq!(limited(Limits { max_connections_per_source: some, ..Limits::default() }), [Dropped::SourceLimit]);
        assert_eq!(limited(Limits { new_connections_per_second: some, ..Limits::default() }), [Dropped::RateLimit]);
        assert_eq!(limited(Limits { bytes_per_second: Some(1), ..Limits::default() }), [Dropped::Bandwidth]);
    }

    #[test]
    fn each_refusal_of_the_limiter_has_its_reason() {
        let refusals = [Refusal::Connections, Refusal::QueueFull, Refusal::Source, Refusal::Rate, Refusal::Tenant];
        let limit = Dropped::ConnectionLimit;
        let reasons = [limit, limit, Dropped::SourceLimit, Dropped::RateLimit, Dropped::TenantLimit];
        assert_eq!(refusals.map(Dropped::from), reasons);
    }

    #[test]
    fn each_reason_has_a_position_and_a_label_of_its_own() {
        for (at, why) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!((why.index(), why.as_str()), (at, &*format!("{why:?}")));
        }
    }
}
