//! The subject of a notice.

use std::fmt;

use proxy_api::ListenerId;

/// The subject of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A listener. JSON records name it like records of sessions and metrics do.
    Listener(ListenerId),
    /// Anything else: a thread, a file, a name, the process.
    Other(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(id) => write!(f, "{id}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl From<ListenerId> for Subject {
    fn from(id: ListenerId) -> Self {
        Self::Listener(id)
    }
}

impl From<&ListenerId> for Subject {
    fn from(id: &ListenerId) -> Self {
        id.clone().into()
    }
}

impl From<String> for Subject {
    fn from(name: String) -> Self {
        Self::Other(name)
    }
}

impl From<&String> for Subject {
    fn from(name: &String) -> Self {
        name.clone().into()
    }
}

impl From<&str> for Subject {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}
