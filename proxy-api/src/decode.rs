//! Bounded decoding: the size of a document is checked before parsing, its number of listeners after.

use std::io::Write;

use serde::Deserialize;

use crate::{CONTRACT, Configuration, Offer};

/// Largest accepted document, in bytes: room for [`MAX_LISTENERS`] with several backends each.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;
/// Most listeners one proxy accepts.
pub const MAX_LISTENERS: usize = 20_000;

/// The document is not a valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`MAX_DOCUMENT_BYTES`].
    #[error("document has {0} bytes; the limit is {MAX_DOCUMENT_BYTES}")]
    TooLarge(usize),
    /// More listeners than [`MAX_LISTENERS`].
    #[error("document has {0} listeners; the limit for one proxy is {MAX_LISTENERS}")]
    TooMany(usize),
    /// Only whitespace: an editor or a copy may still be writing the file.
    #[error("document is empty")]
    Empty,
    /// A newer contract than this build supports.
    #[error("document has contract version {0} but this proxy supports {CONTRACT}: upgrade the proxy")]
    Contract(u32),
    /// A Kubernetes manifest.
    #[error("document is a Kubernetes manifest; convert it with `portlane translate -f FILE`")]
    Manifest,
    /// Not JSON.
    #[error("document is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// Not YAML.
    #[error("document is not valid YAML")]
    Yaml(#[source] serde_yaml::Error),
}

/// Fields that every manifest has and no configuration has.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
}

impl Configuration {
    /// Decodes a configuration from JSON or YAML.
    ///
    /// # Errors
    /// See [`DecodeError`]. An unsupported listener is not an error: it decodes as [`Offer::Unsupported`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let configuration = Self::parse(bytes)?;
        if configuration.contract > CONTRACT {
            return Err(DecodeError::Contract(configuration.contract));
        }
        if configuration.listeners.len() > MAX_LISTENERS {
            return Err(DecodeError::TooMany(configuration.listeners.len()));
        }
        Ok(configuration)
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let parsed = match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => return Err(DecodeError::Empty),
            Some(b'{') => serde_json::from_slice(bytes).map_err(DecodeError::Json),
            Some(_) => serde_yaml::from_slice(bytes).map_err(DecodeError::Yaml),
        };
        let is_manifest = || serde_yaml::from_slice::<Manifest>(bytes).is_ok();
        parsed.map_err(|error| if is_manifest() { DecodeError::Manifest } else { error })
    }

    /// The canonical JSON form, used in files and on the wire.
    ///
    /// # Errors
    /// Only if the preserved document of an unsupported listener does not serialise.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// Writes the output of [`Configuration::encode`].
    ///
    /// # Errors
    /// Also if the writer fails.
    pub fn encode_to(&self, to: impl Write) -> Result<(), serde_json::Error> {
        serde_json::to_writer_pretty(to, self)
    }

    /// The YAML form, for people to read.
    ///
    /// # Errors
    /// As [`Configuration::encode`].
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        // Through JSON, which has no tags, so that both forms hold the same data.
        let value = serde_json::to_value(self).map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
        serde_yaml::to_string(&value)
    }

    /// The supported listeners.
    pub fn supported(&self) -> impl Iterator<Item = (&crate::ListenerId, &crate::Listener)> {
        self.listeners.iter().filter_map(|(id, offer)| match offer {
            Offer::Supported(listener) => Some((id, &**listener)),
            Offer::Unsupported { .. } => None,
        })
    }
}
