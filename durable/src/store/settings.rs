//! The settings of a store on disk.

use std::time::Duration;

use durable_core::Settings;

/// Bytes of messages that wait for the log of a listener.
pub const QUEUE_BYTES: u32 = 1 << 20;
/// How long messages gather, in the settings of a listener.
pub const GATHER: Duration = Duration::from_millis(1);

/// The settings of a store on disk.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The prefix of the file names.
    pub prefix: String,
    /// The bounds of the log.
    pub log: Settings,
    /// Whether messages that the log or the disk has no room for wait until there is some, rather than being dropped.
    pub blocks: bool,
    /// The most bytes of dead letters; 0: none are kept.
    pub dead_bytes: u64,
    /// The most bytes of messages that wait for the log.
    pub queue_bytes: u32,
    /// How long after the beginning of one write messages gather for the next one. A quarter of `queue_bytes`, a call and
    /// a sender that waits for the sync end this.
    pub gather: Duration,
}
