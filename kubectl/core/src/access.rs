//! The results of reads from a cluster, and the reasons for failures.

use std::fmt;

/// The scope of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Objects of the cluster itself.
    Cluster,
    /// All namespaces.
    Everywhere,
    /// One namespace.
    Namespace(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => Ok(()),
            Self::Everywhere => f.write_str(" in all namespaces"),
            Self::Namespace(name) => write!(f, " in namespace {name}"),
        }
    }
}

/// Why objects could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The user lacks a right.
    #[error("cannot {verb} {resource}{place}: ask for `{verb}` on `{resource}`")]
    Forbidden {
        /// Verb of the request, as RBAC names it.
        verb: &'static str,
        /// Resource with its group, as RBAC names it.
        resource: String,
        /// The scope of the request.
        place: Place,
    },
    /// The API server did not answer, or answered with another error.
    #[error("cannot {verb} {resource}{place}: {message}")]
    Failed {
        /// Verb of the request, as RBAC names it.
        verb: &'static str,
        /// Resource with its group, as RBAC names it.
        resource: String,
        /// The scope of the request.
        place: Place,
        /// Message of the API server or of the connection.
        message: String,
    },
    /// The cluster does not serve the live API.
    #[error("the live API is not installed: set liveApi.enabled in the chart")]
    NotInstalled,
    /// The live API is registered, but no leader of the operator answers.
    #[error("no leader of the operator answers for the live API ({message}): kubectl portlane status shows more")]
    NoLeader {
        /// Message of the API server or of the operator.
        message: String,
    },
    /// The operator does not know the request.
    #[error("the operator is older than this program: upgrade the chart portlane")]
    Older,
}

/// A read value, or why it could not be read.
pub type Fetched<T> = Result<T, Unknown>;

/// Objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Whether there are more objects than this program reads.
    pub is_cut: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: Vec::new(), is_cut: false }
    }
}

impl<T> From<Vec<T>> for Listed<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, is_cut: false }
    }
}

/// Returns the objects that were read; none if they could not be read.
pub fn items<T>(fetched: &Fetched<Listed<T>>) -> &[T] {
    fetched.as_ref().map(|listed| listed.items.as_slice()).unwrap_or_default()
}

/// Returns the note for the reader of a list that could not be read, or is cut.
pub fn note<T>(fetched: &Fetched<Listed<T>>, kind: &str) -> Option<String> {
    match fetched {
        Ok(listed) if listed.is_cut => Some(format!("only the first {} {kind} were read", listed.items.len())),
        Ok(_) => None,
        Err(why) => Some(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_with_its_place() {
        let forbidden =
            |resource: &str, place| Unknown::Forbidden { verb: "list", resource: resource.to_owned(), place };
        for (unknown, expected) in [
            (
                forbidden("pods", Place::Namespace("shop".to_owned())),
                "cannot list pods in namespace shop: ask for `list` on `pods`",
            ),
            (
                forbidden("portforwards.portlane.dev", Place::Everywhere),
                "cannot list portforwards.portlane.dev in all namespaces: ask for `list` on `portforwards.portlane.dev`",
            ),
            (forbidden("nodes", Place::Cluster), "cannot list nodes: ask for `list` on `nodes`"),
        ] {
            assert_eq!(unknown.to_string(), expected);
        }
    }

    #[test]
    fn a_list_that_is_cut_says_so() {
        let cut = Listed { items: vec![1, 2], is_cut: true };
        assert_eq!(note(&Ok(cut), "pods").as_deref(), Some("only the first 2 pods were read"));
        assert_eq!(note(&Ok(Listed::from(vec![1])), "pods"), None);
    }
}
