//! The cost of an update of the translation.

/// The cost of an update of the translation, as counts. The counts follow the size of the change, not the size of the
/// world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Selectors compared with the labels of a pod.
    pub selectors: u64,
    /// Pods whose group was looked up, or compared with changed selectors.
    pub pods: u64,
    /// Claims decided, and ports tried for listeners that accept any port.
    pub claims: u64,
    /// Forwards judged.
    pub judged: u64,
    /// Pods compared for the tables of sidecars of gateways.
    pub sidecars: u64,
}
