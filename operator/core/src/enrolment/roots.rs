//! The places for tunnel roots in their Secret.

/// The most roots in the Secret. Each takes less than 2 KiB; the API server stores Secrets of up to 1 MiB.
pub const ROOTS: usize = 512;

/// Why there is no place for another root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The Secret holds [`ROOTS`] already.
    Secret,
    /// The namespace of the gateway has its maximum of roots.
    Namespace,
}

/// Key of a gateway's root. The uid is unique; the namespace says whose share the place counts towards.
#[must_use]
pub fn root_key(namespace: &str, gateway_uid: &str) -> String {
    format!("{namespace}.{gateway_uid}.pem")
}

/// Uid of the gateway whose root is under this key. Absent if the key is not that of a root.
pub(super) fn gateway_of(key: &str) -> Option<&str> {
    // Names of namespaces have no dot.
    let (_, rest) = key.split_once('.')?;
    rest.strip_suffix(".pem").filter(|gateway_uid| !gateway_uid.is_empty())
}

/// Checks that the Secret with these keys has a place for another root of a gateway in `namespace`, which may have
/// `most`.
///
/// # Errors
/// Why there is none.
pub fn place<'a>(keys: impl Iterator<Item = &'a str>, namespace: &str, most: usize) -> Result<(), NoPlace> {
    let (mut all, mut own) = (0, 0);
    for key in keys {
        all += 1;
        // Names of namespaces have no dot.
        if key.split_once('.').is_some_and(|(of, _)| of == namespace) {
            own += 1;
        }
    }
    if own >= most {
        return Err(NoPlace::Namespace);
    }
    if all >= ROOTS { Err(NoPlace::Secret) } else { Ok(()) }
}
