//! An account of NATS servers, and users of it.

use std::time::SystemTime;

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An account that NATS servers trust for the sake of its operator.
pub struct NatsAccount {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

/// A user of an account.
pub struct NatsUser {
    key: String,
    /// The credentials file.
    pub credentials: String,
}

impl NatsUser {
    /// Whether a text has the claim or the key of the user.
    pub fn is_in(&self, text: &str) -> bool {
        let mut secrets = self.credentials.lines().filter(|line| !line.is_empty() && !line.starts_with('-'));
        secrets.any(|secret| text.contains(secret))
    }
}

impl NatsAccount {
    /// An account with new keys.
    pub fn generate() -> Self {
        let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        Self { operator, system, account }
    }

    /// What the configuration of a server says of the account, from which these users are banned.
    pub fn configuration(&self, banned: &[&NatsUser]) -> String {
        let Self { operator, system, account } = self;
        let of_operator = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut streams = limits.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            streams[limit] = json!(-1);
        }
        let of_account = |limits: &Value| json!({"type": "account", "version": 2, "limits": limits});
        let mut of_streams = of_account(&streams);
        for user in banned {
            // This bans the claims that were signed until now.
            of_streams["revocations"][&user.key] = json!(unix_seconds());
        }
        format!(
            "operator: \"{}\"\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: \"{}\"\n  {}: \
             \"{}\"\n}}\n",
            claim(operator, operator, "operator", &of_operator),
            system.public_key(),
            system.public_key(),
            claim(operator, system, "system", &of_account(&limits)),
            account.public_key(),
            claim(operator, account, "logs", &of_streams),
        )
    }

    /// A user who may do no more than a proxy with this stream needs, by `docs/durable.md`.
    pub fn user(&self, stream: &str) -> NatsUser {
        let user = KeyPair::new_user();
        let (dead, holder) = (format!("{stream}-dead"), format!("{stream}-holder.*"));
        let publishes = [stream, &dead, &holder, "_INBOX.>", "$JS.API.>", "$JS.ACK.>"];
        let of_user = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": publishes}, "sub": {"allow": [holder, "_INBOX.>"]},
        });
        let (claim, seed) = (claim(&self.account, &user, "portlane", &of_user), user.seed().expect("a seed"));
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{claim}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY \
             SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        NatsUser { key: user.public_key(), credentials }
    }
}

/// A signed claim of NATS (JWT) on `subject`.
fn claim(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let claims = json!({
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "iat": unix_seconds(), "nats": nats,
    });
    let head = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs()
}
