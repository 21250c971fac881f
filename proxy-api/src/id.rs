//! Identities of listeners.

use std::{cmp::Ordering, fmt, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

/// Longest text of a [`ListenerId`], in bytes.
const LONGEST: usize = 512;
/// Longest name of a kind, in bytes: Kubernetes accepts no longer one.
const LONGEST_KIND: usize = 63;
/// Kind of origin that texts leave out.
const PORT_FORWARD: &str = "PortForward";

/// Kind of the object that a listener comes from.
///
/// Not a string, because almost every origin is a `PortForward`, whose kind takes no memory here.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum OriginKind {
    /// `PortForward` of portlane.dev.
    #[default]
    PortForward,
    /// Another kind.
    Other(OtherKind),
}

/// Name in the Kubernetes API of a kind that has no variant in [`OriginKind`]. Only parsing an [`OriginKind`] creates
/// one, so each kind has exactly one value, and its name is bounded and free of the separator of ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OtherKind(Box<str>);

/// The text is not the name of a kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kind '{0}' must have 1 to {LONGEST_KIND} bytes and no '/'")]
pub struct OriginKindError(String);

impl OriginKind {
    /// Name of the kind in the Kubernetes API.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::PortForward => PORT_FORWARD,
            Self::Other(OtherKind(name)) => name,
        }
    }
}

impl fmt::Display for OriginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OriginKind {
    type Err = OriginKindError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == PORT_FORWARD {
            return Ok(Self::PortForward);
        }
        if name.is_empty() || name.len() > LONGEST_KIND || name.contains('/') {
            return Err(OriginKindError(excerpt(name)));
        }
        Ok(Self::Other(OtherKind(name.into())))
    }
}

impl TryFrom<String> for OriginKind {
    type Error = OriginKindError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<OriginKind> for String {
    fn from(kind: OriginKind) -> Self {
        kind.to_string()
    }
}

/// The object that a listener comes from. As text `NAMESPACE/NAME` of a `PortForward`, `KIND/NAMESPACE/NAME` of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin {
    /// Kind of the object.
    pub kind: OriginKind,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl Origin {
    /// The origin of a `PortForward`.
    #[must_use]
    pub fn port_forward(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: OriginKind::PortForward, namespace: namespace.into(), name: name.into() }
    }
}

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("origin '{0}' is not of the form NAMESPACE/NAME or KIND/NAMESPACE/NAME")]
pub struct OriginError(String);

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let error = || OriginError(excerpt(&text));
        let parts: Vec<&str> = text.split('/').take(4).collect();
        let (kind, namespace, name) = match parts[..] {
            [namespace, name] => (PORT_FORWARD, namespace, name),
            [kind, namespace, name] => (kind, namespace, name),
            _ => return Err(error()),
        };
        if text.len() > LONGEST || namespace.is_empty() || name.is_empty() {
            return Err(error());
        }
        let kind = kind.parse().map_err(|_| error())?;
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != OriginKind::PortForward {
            write!(f, "{}/", self.kind)?;
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Permanent identity of a listener. As text, its origin followed by `/LISTENER`: texts of three parts name listeners
/// of a `PortForward`, as releases before the kind wrote them.
///
/// Clones share the texts, because configurations and reports of tens of thousands of listeners are copied. Equality
/// and order are those of the texts, but compare pointers first; the standard library does so for `==` of an [`Arc`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenerId(Arc<IdParts>);

/// The texts of a [`ListenerId`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdParts {
    /// The object that the listener comes from.
    pub origin: Origin,
    /// Name of the listener within that object.
    pub listener: String,
}

impl Deref for ListenerId {
    type Target = IdParts;

    fn deref(&self) -> &IdParts {
        &self.0
    }
}

impl Ord for ListenerId {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ListenerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ListenerId {
    /// Bytes of the texts of this id.
    pub(crate) fn weight(&self) -> usize {
        self.origin.kind.as_str().len() + self.origin.namespace.len() + self.origin.name.len() + self.listener.len()
    }

    /// Creates the id of the listener of this name of an object.
    #[must_use]
    pub fn new(origin: Origin, listener: impl Into<String>) -> Self {
        Self(Arc::new(IdParts { origin, listener: listener.into() }))
    }
}

/// The text is not an id of a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listener id '{0}' is not of the form NAMESPACE/NAME/LISTENER or KIND/NAMESPACE/NAME/LISTENER")]
pub struct ListenerIdError(String);

impl FromStr for ListenerId {
    type Err = ListenerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ListenerIdError(excerpt(text));
        let parts: Vec<&str> = text.split('/').take(5).collect();
        let (kind, namespace, name, listener) = match parts[..] {
            [namespace, name, listener] => (PORT_FORWARD, namespace, name, listener),
            [kind, namespace, name, listener] => (kind, namespace, name, listener),
            _ => return Err(error()),
        };
        if text.len() > LONGEST || [namespace, name, listener].iter().any(|part| part.is_empty()) {
            return Err(error());
        }
        let kind = kind.parse().map_err(|_| error())?;
        let origin = Origin { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        Ok(Self::new(origin, listener))
    }
}

/// Start of a text from a peer, short enough for an error.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

impl TryFrom<String> for ListenerId {
    type Error = ListenerIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for ListenerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin, self.listener)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        hash::{BuildHasher, RandomState},
    };

    use super::*;

    fn read(text: &str) -> Result<ListenerId, ListenerIdError> {
        text.parse()
    }

    #[test]
    fn the_id_of_a_port_forward_reads_and_writes_as_it_always_did() {
        let id = ListenerId::new(Origin::port_forward("shop", "db"), "pg");
        assert_eq!((id.to_string().as_str(), read("shop/db/pg")), ("shop/db/pg", Ok(id.clone())));
        assert_eq!(serde_json::to_value(&id).expect("JSON"), "shop/db/pg");
        assert_eq!(read("PortForward/shop/db/pg"), Ok(id), "the kind may be written");
    }

    #[test]
    fn copies_share_their_texts_and_ids_are_equal_by_value() {
        let id = ListenerId::new(Origin::port_forward("shop", "db"), "pg");
        let (copy, other) = (id.clone(), ListenerId::new(Origin::port_forward("shop", "db"), "pg"));
        assert!(Arc::ptr_eq(&id.0, &copy.0) && !Arc::ptr_eq(&id.0, &other.0));
        let state = RandomState::new();
        let hash = |id: &ListenerId| state.hash_one(id);
        for same in [&copy, &other] {
            assert_eq!((&id, id.cmp(same), hash(&id)), (same, Ordering::Equal, hash(same)));
        }
        let map = BTreeMap::from([(id, 1)]);
        assert_eq!(map.get(&other), Some(&1), "a map finds what is equal and not shared");
    }

    #[test]
    fn ids_are_in_the_order_of_their_parts() {
        let ids: Vec<ListenerId> = ["a/b/c", "a/b/d", "a/c/a", "b/a/a", "A/a/a/a", "B/a/a/a", "PortForward/a/b/c"]
            .map(|text| read(text).expect("an id"))
            .to_vec();
        let parts = |id: &ListenerId| {
            let Origin { kind, namespace, name } = id.origin.clone();
            (kind, namespace, name, id.listener.clone())
        };
        for one in &ids {
            for other in &ids {
                let expected = parts(one).cmp(&parts(other));
                assert_eq!((one.cmp(other), one.partial_cmp(other)), (expected, Some(expected)), "{one} {other}");
                assert_eq!(one == other, expected.is_eq(), "{one} {other}");
            }
        }
    }

    #[test]
    fn an_id_of_another_kind_names_its_kind() {
        let id = read("TCPRoute/shop/db/0").expect("an id");
        assert_eq!((id.origin.kind.as_str(), id.origin.namespace.as_str()), ("TCPRoute", "shop"));
        assert_eq!(
            (id.to_string().as_str(), id.origin.to_string().as_str()),
            ("TCPRoute/shop/db/0", "TCPRoute/shop/db")
        );
        assert_ne!(Ok(id), read("shop/db/0"), "the same names are another listener");
    }

    #[test]
    fn each_kind_has_one_value_and_a_bounded_name() {
        let kind = |name: &str| name.parse::<OriginKind>();
        assert_eq!(kind("PortForward"), Ok(OriginKind::PortForward), "never another kind of the same name");
        let longest = "K".repeat(LONGEST_KIND);
        for name in ["TCPRoute", &longest] {
            let read = kind(name).expect("a kind");
            assert_eq!((read.as_str(), serde_json::to_value(&read).expect("JSON")), (name, name.into()));
        }
        let long = "K".repeat(LONGEST_KIND + 1);
        for name in ["", "a/b", &long] {
            assert!(kind(name).is_err(), "{name}");
            assert!(serde_json::from_value::<OriginKind>(name.into()).is_err(), "{name}");
            assert!(read(&format!("{name}/shop/db/0")).is_err(), "{name}");
        }
    }

    #[test]
    fn an_origin_reads_as_it_is_written() {
        let read = |text: &str| Origin::try_from(text.to_owned());
        let db = Origin::port_forward("shop", "db");
        assert_eq!((read("shop/db"), read("PortForward/shop/db")), (Ok(db.clone()), Ok(db.clone())));
        assert_eq!(serde_json::to_value(&db).expect("JSON"), "shop/db");
        let route = read("TCPRoute/shop/db").expect("an origin");
        assert_eq!((route.kind.as_str(), route.to_string().as_str()), ("TCPRoute", "TCPRoute/shop/db"));
        assert_ne!(route, db, "the same names are another object");
        assert_eq!(serde_json::from_value::<Origin>("TCPRoute/shop/db".into()).expect("an origin"), route);
    }

    #[test]
    fn origins_of_another_form_are_refused() {
        let (kind, name) = (format!("{}/a/b", "K".repeat(LONGEST_KIND + 1)), format!("a/{}", "n".repeat(LONGEST)));
        for text in ["", "a", "a/", "/b", "/a/b", "K//b", "K/a/", "a/b/c/d", &kind, &name] {
            assert!(Origin::try_from(text.to_owned()).is_err(), "{text}");
            assert!(serde_json::from_value::<Origin>(text.into()).is_err(), "{text}");
        }
        assert!(Origin::try_from(format!("a/{}", "n".repeat(LONGEST - 2))).is_ok());
        let error = Origin::try_from(name).expect_err("no origin").to_string();
        assert!(error.len() < 200, "an error repeats only the start of a long text: {error}");
    }

    #[test]
    fn texts_of_another_form_are_refused() {
        let long = format!("a/b/{}", "c".repeat(LONGEST));
        for text in ["", "a", "a/b", "a/b/", "/b/c", "a//c", "/a/b/c", "a/b/c/d/e", &long] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("a/b/{}", "c".repeat(LONGEST - 4))).is_ok());
    }
}
