//! Which tunnels are measured.

/// A tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `portlane run` and `portlane agent`.
    Portlane,
    Rathole(Carrier),
    Frp(Carrier),
    /// The client connects to the target.
    NoTunnel,
}

/// What connects an agent to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carrier {
    Tls,
    Plain,
}

impl Kind {
    /// All of them; Portlane first.
    pub(crate) const ALL: [Self; 6] = [
        Self::Portlane,
        Self::Rathole(Carrier::Tls),
        Self::Rathole(Carrier::Plain),
        Self::Frp(Carrier::Tls),
        Self::Frp(Carrier::Plain),
        Self::NoTunnel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portlane => "Portlane, TLS",
            Self::Rathole(Carrier::Tls) => "rathole, TLS",
            Self::Rathole(Carrier::Plain) => "rathole, plain",
            Self::Frp(Carrier::Tls) => "frp, TLS",
            Self::Frp(Carrier::Plain) => "frp, plain",
            Self::NoTunnel => "no tunnel",
        }
    }
}
