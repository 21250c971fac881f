//! Bounded decoding: a document is checked for size before it is parsed, and for count after.

use serde::Deserialize;

use crate::{CONTRACT, Configuration, Offer};

/// Largest document, in bytes: room for [`MAX_LISTENERS`] with several backends each.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;
/// Most listeners that one proxy takes.
pub const MAX_LISTENERS: usize = 20_000;

/// A document that is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`MAX_DOCUMENT_BYTES`].
    #[error("document has {0} bytes, more than the {MAX_DOCUMENT_BYTES} that are read")]
    TooLarge(usize),
    /// More listeners than [`MAX_LISTENERS`].
    #[error("document has {0} listeners, more than the {MAX_LISTENERS} that one proxy runs")]
    TooMany(usize),
    /// Nothing in it: an editor or a copy may be half-way.
    #[error("document is empty")]
    Empty,
    /// A later contract than this build speaks.
    #[error("document is of contract {0}, and this proxy speaks {CONTRACT}: upgrade the proxy")]
    Contract(u32),
    /// A manifest.
    #[error("document is a Kubernetes manifest; `portlane translate -f FILE` makes the configuration of it")]
    Manifest,
    /// Not JSON.
    #[error("document is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// Not YAML.
    #[error("document is not valid YAML")]
    Yaml(#[source] serde_yaml::Error),
}

/// What every manifest has and no configuration.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
}

impl Configuration {
    /// Reads a configuration from JSON or YAML.
    ///
    /// # Errors
    /// See [`DecodeError`]. A single listener that is not understood is no error but an [`Offer::Unsupported`].
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

    /// The canonical JSON form, as it stands in files and on the wire.
    ///
    /// # Errors
    /// Only if a listener that was kept as it came does not serialise.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// The YAML form, for people.
    ///
    /// # Errors
    /// As [`Configuration::encode`].
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        // By way of JSON, which has no tags: a document is the same data in either form.
        let value = serde_json::to_value(self).map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
        serde_yaml::to_string(&value)
    }

    /// The listeners that are understood.
    pub fn supported(&self) -> impl Iterator<Item = (&crate::ListenerId, &crate::Listener)> {
        self.listeners.iter().filter_map(|(id, offer)| match offer {
            Offer::Supported(listener) => Some((id, &**listener)),
            Offer::Unsupported { .. } => None,
        })
    }
}
