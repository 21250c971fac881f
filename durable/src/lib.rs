//! Durable forwarding on files and sockets: the shell of [`durable_core`], which decides.
//!
//! A [`Store`] is the handle to one thread that owns a log in a [`Folder`]. [`intake`] reads messages from sockets that
//! the caller has bound, and appends them. A [`Sender`] delivers them to a sink. A listener with several [`Lanes`] has
//! a store and a sender for each. [`Letters`] reads dead letters while another process may own the log.

mod clock;
mod folder;
pub mod intake;
mod lanes;
mod letters;
mod sender;
mod store;

pub use durable_core::send::Format;

pub use self::folder::{Folder, FolderError, FolderView, Presence, WriteBack};
pub use self::lanes::Lanes;
pub use self::letters::Letters;
pub use self::sender::{Dial, HttpSettings, Sender, SenderEvent, Sink};
pub use self::store::{
    Drops, Fate, Figures, GATHER, Incoming, Kept, QUEUE_BYTES, ReadBound, ReadMessages, Receipt, Store, StoreError,
    StoreEvent, StoreEvents, StoreSettings,
};
#[cfg(feature = "jetstream")]
pub use self::store::{JetStreamCredentials, JetStreamSettings};
