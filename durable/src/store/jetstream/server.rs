//! The server of a stream, and the configuration of its streams.

use std::fmt::Display;
use std::future::ready;
use std::mem::replace;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy};
use async_nats::{AuthError, Client, ClientError, ConnectErrorKind, ConnectOptions, Event};
use durable_core::WhenFull;
use durable_core::stream::PAUSE;
use tokio::sync::watch;

use super::JetStreamSettings;
use super::credentials::{JetStreamCredentials, read, sign};
use crate::StoreError;

/// The time within which a connection must be established.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The longest pause between two tries to connect again.
const RECONNECT: Duration = Duration::from_secs(2);
/// How long the server recognizes duplicates, but no longer than it keeps messages.
const DUPLICATES: Duration = Duration::from_secs(120);

/// The words for a failure, with the stream and the server.
pub(super) fn words(settings: &JetStreamSettings, doing: &str, error: &dyn Display) -> String {
    format!("cannot {doing} the stream {} of {}: {error}; check the NATS server", settings.stream, settings.url)
}

/// What is known of the connection beside its state. Each break and each return is a change.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether the server refused the user at the last attempt.
    pub(super) is_refused: bool,
}

/// Why the server refuses the user, and what helps.
fn refusal(settings: &JetStreamSettings) -> String {
    let url = &settings.url;
    match &settings.credentials {
        None => format!("{url} requires credentials: name a Secret with them in credentialsRef, next to the url"),
        Some(JetStreamCredentials { secret, file }) => format!(
            "{url} refuses the credentials of Secret {secret} ({}): replace them with those of a user that the server \
             accepts, or make it accept this user; a replaced Secret reaches running pods within two minutes",
            file.display()
        ),
    }
}

/// Why there is no connection, and what helps.
pub(super) fn down(settings: &JetStreamSettings, link: &Link) -> String {
    if link.is_refused {
        return refusal(settings);
    }
    let unreadable = settings.credentials.as_ref().and_then(|credentials| read(credentials).err());
    unreadable.unwrap_or_else(|| words(settings, "reach", &"the connection is down, will reconnect"))
}

/// Connects, and keeps the connection. `link` is changed when it breaks or is restored.
pub(super) async fn connect(settings: &JetStreamSettings, link: watch::Sender<Link>) -> Result<Client, StoreError> {
    let options = match &settings.credentials {
        None => ConnectOptions::new(),
        Some(credentials) => {
            read(credentials).map_err(StoreError::Server)?;
            let credentials = credentials.clone();
            ConnectOptions::with_auth_callback(move |challenge| {
                ready(sign(&credentials, &challenge).map_err(AuthError::new))
            })
        }
    };
    let options = match &settings.ca {
        None => options,
        // The client reads the file for each connection, as the callback above does: it is replaced while proxies run.
        Some(file) => options.add_root_certificates(file.clone()),
    };
    let refused = ConnectErrorKind::AuthorizationViolation.to_string();
    let changed = move |event: Event| {
        match event {
            Event::Connected => link.send_modify(|link| link.is_refused = false),
            Event::Disconnected => link.send_modify(|_| {}),
            // The client tries again and again: only another outcome than that of the attempt before is a change.
            Event::ClientError(ClientError::Other(why)) => {
                let is_refused = why == refused;
                link.send_if_modified(|link| replace(&mut link.is_refused, is_refused) != is_refused);
            }
            _ => {}
        }
        ready(())
    };
    let options = options
        .name("portlane")
        .connection_timeout(CONNECT_WITHIN)
        .reconnect_delay_callback(|tries| RECONNECT.min(PAUSE * u32::try_from(tries).unwrap_or(u32::MAX).min(100)))
        .event_callback(changed);
    let connected = Box::pin(options.connect(settings.url.clone())).await;
    connected.map_err(|error| {
        if error.kind() == ConnectErrorKind::AuthorizationViolation {
            return StoreError::Server(refusal(settings));
        }
        StoreError::Server(format!("cannot connect to {}: {error}", settings.url))
    })
}

/// Creates a stream, or changes it.
pub(super) async fn make(context: &Context, settings: &JetStreamSettings, config: Config) -> Result<Info, StoreError> {
    let made = Box::pin(context.create_or_update_stream(config)).await;
    made.map_err(|error| StoreError::Server(words(settings, "open", &error)))
}

/// Whether the server takes batches of which it stores all or nothing: it omits settings of a stream that it does not
/// know.
pub(super) fn stores_batches(made: &Info) -> bool {
    made.config.allow_atomic_publish
}

/// The subject on which a process answers that it is alive. No stream has it.
pub(super) fn holder_subject(settings: &JetStreamSettings, process: &str) -> String {
    format!("{}-holder.{process}", settings.stream)
}

/// The stream of messages.
pub(super) fn stream(settings: &JetStreamSettings) -> Config {
    let max_age = settings.max_age.unwrap_or_default();
    Config {
        name: settings.stream.clone(),
        max_bytes: i64::try_from(settings.max_bytes).unwrap_or(i64::MAX),
        discard: match settings.when_full {
            WhenFull::DropOldest => DiscardPolicy::Old,
            WhenFull::Refuse => DiscardPolicy::New,
        },
        subjects: vec![settings.stream.clone()],
        retention: RetentionPolicy::WorkQueue,
        max_age,
        num_replicas: settings.replicas,
        allow_atomic_publish: true,
        duplicate_window: if max_age.is_zero() { DUPLICATES } else { DUPLICATES.min(max_age) },
        ..Config::default()
    }
}

/// The stream of dead letters, which nobody reads here.
pub(super) fn dead_letters(settings: &JetStreamSettings) -> Config {
    Config {
        name: dead_name(settings),
        max_bytes: i64::try_from(settings.dead_bytes).unwrap_or(i64::MAX),
        subjects: vec![dead_name(settings)],
        num_replicas: settings.replicas,
        ..Config::default()
    }
}

/// The name of the stream of dead letters.
pub(super) fn dead_name(settings: &JetStreamSettings) -> String {
    format!("{}-dead", settings.stream)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy_api::partials::Partials;

    use super::*;

    #[test]
    fn what_is_said_of_a_connection_that_is_down_names_what_helps() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("creds");
        let credentials = JetStreamCredentials { secret: "nats".to_owned(), file: file.clone() };
        let mut settings = JetStreamSettings {
            url: "nats://nats:4222".to_owned(),
            credentials: None,
            ca: None,
            stream: "logs".to_owned(),
            replicas: 1,
            max_bytes: 1 << 20,
            max_message_bytes: 1 << 10,
            max_age: None,
            when_full: WhenFull::DropOldest,
            blocks: false,
            dead_bytes: 0,
            queue_bytes: 1 << 20,
            memory: Arc::new(Partials::new(1 << 20)),
            namespace: "shop".to_owned(),
        };
        let says = |settings: &JetStreamSettings, is_refused, what: &str| {
            let said = down(settings, &Link { is_refused });
            assert!(said.contains(what), "{said:?} lacks {what:?}");
        };
        says(&settings, false, "check the NATS server");
        says(&settings, true, "name a Secret");
        settings.credentials = Some(credentials);
        says(&settings, true, "refuses the credentials of Secret nats");
        says(&settings, false, "cannot read the credentials of Secret nats");
        std::fs::write(&file, "no key").expect("written");
        says(&settings, false, "has no credentials");
    }
}
