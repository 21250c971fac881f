//! The credentials of a user of a NATS server.

use std::fs;
use std::path::PathBuf;

use async_nats::Auth;
use nkeys::KeyPair;

/// Credentials for a NATS server: a file with the signed claim of a user, and the user's key. Each connection reads it
/// again, as credentials are replaced while proxies run.
#[derive(Clone, Debug)]
pub struct JetStreamCredentials {
    /// The name of the Secret that has them.
    pub secret: String,
    /// The file, as the tools of NATS write it.
    pub file: PathBuf,
}

/// Reads the claim and the key.
pub(super) fn read(credentials: &JetStreamCredentials) -> Result<(String, KeyPair), String> {
    let JetStreamCredentials { secret, file } = credentials;
    let place = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        format!(
            "cannot read the credentials of Secret {secret} in {place}: {error}; for portlane run, name a file that it \
             can read with --jetstream-credentials FILE; in a pod, restore the key creds of the Secret"
        )
    })?;
    parse(&text).ok_or_else(|| {
        format!(
            "{place} has no credentials: give a credentials file as the tools of NATS write it; in a pod, that is the \
             key creds of Secret {secret}"
        )
    })
}

/// Answers the challenge of a server.
pub(super) fn sign(credentials: &JetStreamCredentials, challenge: &[u8]) -> Result<Auth, String> {
    let (claim, key) = read(credentials)?;
    let mut auth = Auth::new();
    auth.signature = Some(key.sign(challenge).map_err(|error| error.to_string())?);
    auth.jwt = Some(claim);
    Ok(auth)
}

/// The claim and the key are the first two lines that are between dashes. Other lines, also empty ones, may be around.
fn parse(text: &str) -> Option<(String, KeyPair)> {
    let is_dashes = |line: &str| line.starts_with("---");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let between = lines.windows(3).filter_map(|lines| match lines {
        [before, part, after] if is_dashes(before) && is_dashes(after) => Some(*part),
        _ => None,
    });
    let mut parts = between.filter(|part| !part.is_empty() && !is_dashes(part));
    let claim = parts.next()?;
    let key = KeyPair::from_seed(parts.next()?).ok()?;
    Some((claim.to_owned(), key))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The credentials of the Secret `nats`, in a file of this folder.
    fn in_folder(folder: &Path) -> JetStreamCredentials {
        JetStreamCredentials { secret: "nats".to_owned(), file: folder.join("creds") }
    }

    /// A credentials file with this claim, and the key in it. Lines end with `end`.
    fn credentials(claim: &str, end: &str) -> (String, KeyPair) {
        let key = KeyPair::new_user();
        let seed = key.seed().expect("a seed");
        let lines = [
            "-----BEGIN NATS USER JWT-----",
            claim,
            "------END NATS USER JWT------",
            "",
            "************************* IMPORTANT *************************",
            "NKEY Seed printed below can be used to sign and prove identity.",
            "",
            "-----BEGIN USER NKEY SEED-----",
            &seed,
            "------END USER NKEY SEED------",
            "",
        ];
        (lines.join(end), key)
    }

    #[test]
    fn credentials_have_a_claim_and_a_key_whatever_ends_their_lines() {
        for end in ["\n", "\r\n"] {
            let (text, key) = credentials("a.b-c.d_e", end);
            let (claim, read) = parse(&text).expect("credentials");
            assert_eq!((claim.as_str(), read.public_key()), ("a.b-c.d_e", key.public_key()));
            let lines = text.split(end).filter(|line| !line.starts_with('*') && !line.starts_with("NKEY"));
            let (claim, read) = parse(&lines.collect::<Vec<_>>().join(end)).expect("no words between the two");
            assert_eq!((claim.as_str(), read.public_key()), ("a.b-c.d_e", key.public_key()));
        }
    }

    #[test]
    fn credentials_that_cannot_be_read_are_named_with_what_helps_on_a_laptop_and_in_a_pod() {
        let folder = tempfile::tempdir().expect("a folder");
        let why = read(&in_folder(folder.path())).expect_err("there is no file");
        let place = folder.path().join("creds");
        let begin = format!("cannot read the credentials of Secret nats in {}: ", place.display());
        assert!(why.starts_with(&begin), "{why}");
        for remedy in ["with --jetstream-credentials FILE", "restore the key creds of the Secret"] {
            assert!(why.contains(remedy), "{why}");
        }
    }

    #[test]
    fn a_file_without_credentials_is_named_and_its_contents_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let placed = in_folder(folder.path());
        let (whole, key) = credentials("a.b.c", "\n");
        let seed = key.seed().expect("a seed");
        let other_key = whole.replace(&seed, &key.public_key());
        for text in [String::new(), seed.clone(), whole.replace("a.b.c", ""), other_key] {
            fs::write(&placed.file, &text).expect("written");
            let why = read(&placed).expect_err("no credentials");
            assert!(why.contains("creds has no credentials: give a credentials file"), "{why}");
            assert!(why.contains("the key creds of Secret nats") && !why.contains(&seed), "{why}");
        }
    }

    #[test]
    fn each_challenge_is_answered_by_the_credentials_that_the_file_has_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let placed = in_folder(folder.path());
        for claim in ["a.b.c", "d.e.f"] {
            let (text, key) = credentials(claim, "\n");
            fs::write(&placed.file, text).expect("written");
            let auth = sign(&placed, b"challenge").expect("credentials");
            assert_eq!(auth.jwt.as_deref(), Some(claim));
            key.verify(b"challenge", &auth.signature.expect("a signature")).expect("it is the key's");
        }
    }
}
