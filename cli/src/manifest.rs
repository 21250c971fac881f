//! Manifests as people write them: YAML with line numbers, read as kubectl reads it.

mod document;
mod folder;
mod json;
mod resolve;
mod source;
mod tabs;
mod text;
mod yaml;

pub(crate) use document::{Document, Lines};
pub(crate) use folder::{NO_OBJECT, Skipped};
pub(crate) use source::{FileChange, Sources};
pub(crate) use yaml::{MAX_FILE_BYTES, parse};

use std::fmt;

use serde::Serialize;

/// File and line of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A problem with a file or with an object in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// `kind namespace/name`, if the document could be read that far.
    pub(crate) object: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}
