//! The fields of certificates that rustls does not expose.

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use tunnel_core::identity::Fingerprint;
use x509_parser::extensions::GeneralName;

/// The fields of a certificate.
pub(super) struct Facts {
    /// Its name, if that is a URI and the only name.
    pub(super) uri: Option<String>,
    /// Start of its lifetime, seconds since 1970.
    pub(super) not_before: u64,
    /// End of its lifetime, seconds since 1970.
    pub(super) not_after: u64,
    /// Fingerprint of its public key.
    pub(super) key: Fingerprint,
}

/// Reads a certificate. Absent if the bytes are not one.
pub(super) fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let names = parsed.subject_alternative_name().ok()?;
    let mut names = names.iter().flat_map(|names| &names.value.general_names);
    let uri = match (names.next(), names.next()) {
        (Some(GeneralName::URI(uri)), None) => Some((*uri).to_owned()),
        _ => None,
    };
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let validity = parsed.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let key = Fingerprint::of(parsed.public_key().raw);
    Some(Facts { uri, not_before: seconds(not_before), not_after: seconds(not_after), key })
}

/// The certificate as PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = BASE64.encode(certificate);
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
