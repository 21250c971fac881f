//! The place of a listener's messages: a folder of this machine, or a stream of a server.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use durable::{Store, StoreSettings};
use proxy_api::{self as api, Durable, ListenerId, partials::Partials, stream_name};
use tokio::task::spawn_blocking;

use super::{folder, generations::Opened, machine, settings};

/// The files for connections to servers of streams.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "jetstream"), expect(dead_code, reason = "this build has no streams"))]
pub(super) struct ServerFiles {
    /// The file with the credentials.
    pub(super) credentials: Option<PathBuf>,
    /// The certificates that may sign those of the servers; `None`: the certificates of the system.
    pub(super) ca: Option<PathBuf>,
}

/// The place of one listener's messages, whichever store it has.
#[derive(Clone, Debug)]
pub(super) struct PlaceOfLog {
    folder: PathBuf,
    /// The name of the stream.
    stream: String,
    /// The namespace of the listener.
    #[cfg_attr(not(feature = "jetstream"), expect(dead_code, reason = "this build has no streams"))]
    namespace: String,
    /// The memory of messages of streams that wait for sinks.
    #[cfg_attr(not(feature = "jetstream"), expect(dead_code, reason = "this build has no streams"))]
    memory: Arc<Partials>,
    /// The files for connections to the server.
    #[cfg_attr(not(feature = "jetstream"), expect(dead_code, reason = "this build has no streams"))]
    server: ServerFiles,
    /// Whether the log only has to become empty.
    drains_only: bool,
}

impl PlaceOfLog {
    /// The place of a listener. Folders are in `folder`.
    pub(super) fn new(id: &ListenerId, folder: &Path, server: ServerFiles) -> Self {
        let (namespace, memory) = (id.origin.namespace.clone(), Arc::new(Partials::new(usize::MAX)));
        Self { folder: folder.join(path(id)), stream: stream_name(id), namespace, memory, server, drains_only: false }
    }

    /// The same place, where messages of a stream have a share of this memory while they wait for the sink.
    pub(super) fn within(self, memory: Arc<Partials>) -> Self {
        Self { memory, ..self }
    }

    /// The same place, whose log only has to become empty if `drains_only` is true.
    pub(super) fn draining(self, drains_only: bool) -> Self {
        Self { drains_only, ..self }
    }

    /// The settings of a log on disk. A log that only has to become empty drops nothing by age: its claim goes
    /// afterwards, and the clock of the node where it was mounted may be ahead.
    fn disk(&self, durable: &Durable, max_bytes: u64) -> StoreSettings {
        let mut settings = settings::disk(durable, max_bytes);
        settings.log.max_age = settings.log.max_age.filter(|_| !self.drains_only);
        settings
    }

    /// Whether there is a log on disk.
    pub(super) async fn has_folder(&self) -> bool {
        let folder = self.folder.clone();
        spawn_blocking(move || folder.exists()).await.unwrap_or(false)
    }

    /// The place in words.
    pub(super) fn words(&self, durable: &Durable) -> String {
        self.words_of(settings::server(durable))
    }

    /// The place that is a stream of this server, or the folder, in words.
    pub(super) fn words_of(&self, server: Option<&str>) -> String {
        match server {
            None => format!("the folder {}", self.folder.display()),
            Some(url) => {
                // A URL with a password is refused, but may be that of a log that ran before.
                let server = url.rsplit('@').next().unwrap_or_default();
                format!("the stream {} of {server}", self.stream)
            }
        }
    }

    /// Opens the store.
    pub(super) async fn open(&self, durable: &Durable) -> Result<Opened, String> {
        match &durable.store {
            api::Store::Disk { max_bytes } => self.open_folder(durable, *max_bytes).await,
            api::Store::JetStream { url, .. } => {
                let present = self.open_stream(durable).await?;
                let folder::Rest { former, repaired, left, presence } = self.open_rest(durable).await?;
                Ok(Opened { server: Some(url.clone()), former, repaired, left, presence, ..Opened::from(present) })
            }
        }
    }

    /// Opens the logs that are left on disk of a listener that has a stream by now.
    async fn open_rest(&self, durable: &Durable) -> Result<folder::Rest, String> {
        // Logs that only send need no bound.
        let (folder, settings) = (self.folder.clone(), self.disk(durable, u64::MAX));
        let opened = spawn_blocking(move || folder::open_rest(&folder, &settings)).await;
        opened.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Opens the folder, which blocks while the last part of each log is read.
    async fn open_folder(&self, durable: &Durable, max_bytes: u64) -> Result<Opened, String> {
        let (folder, lanes, settings) = (self.folder.clone(), settings::lanes(durable), self.disk(durable, max_bytes));
        let drains_only = self.drains_only;
        let open = move || -> Result<Opened, String> {
            let opened = folder::open(&folder, lanes, &settings)?;
            Ok(Opened { machine: machine::taker(&folder, drains_only), ..opened })
        };
        spawn_blocking(open).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Opens the stream.
    #[cfg(feature = "jetstream")]
    async fn open_stream(&self, durable: &Durable) -> Result<Store, String> {
        let api::Store::JetStream { url, credentials_name, replicas, max_bytes } = &durable.store else {
            return Err("the store is not a stream".to_owned());
        };
        has_no_secret(url)?;
        let credentials = credentials_name.as_deref().map(|secret| self.credentials(secret)).transpose()?;
        let settings = durable::JetStreamSettings {
            url: url.clone(),
            credentials,
            ca: self.server.ca.clone(),
            stream: self.stream.clone(),
            replicas: settings::size(*replicas),
            max_bytes: *max_bytes,
            max_message_bytes: settings::size(durable.max_message_bytes),
            max_age: settings::max_age(durable),
            when_full: settings::when_full(durable),
            blocks: durable.when_full == api::WhenFull::Block,
            dead_bytes: durable.dead_letter_bytes.unwrap_or(0),
            queue_bytes: durable::QUEUE_BYTES,
            memory: self.memory.clone(),
            namespace: self.namespace.clone(),
        };
        let opened = tokio::time::timeout(OPEN_WITHIN, Box::pin(Store::open_stream(settings))).await;
        let opened = opened.map_err(|_| format!("{url} does not answer within {} s", OPEN_WITHIN.as_secs()))?;
        opened.map_err(|error| error.to_string())
    }

    /// The credentials of this Secret, which are in the file of the process.
    #[cfg(feature = "jetstream")]
    fn credentials(&self, secret: &str) -> Result<durable::JetStreamCredentials, String> {
        let Some(file) = self.server.credentials.clone() else {
            return Err(format!(
                "the server of the stream asks for the credentials of the Secret {secret}, which this process does \
                 not have: give the file to portlane run with --jetstream-credentials FILE; pods of a gateway have it \
                 once its rollout has ended"
            ));
        };
        Ok(durable::JetStreamCredentials { secret: secret.to_owned(), file })
    }

    /// A build without streams.
    #[cfg(not(feature = "jetstream"))]
    #[allow(clippy::unused_async, reason = "the same signature as with streams")]
    async fn open_stream(&self, _: &Durable) -> Result<Store, String> {
        Err("this build keeps no messages in JetStream: install a build with JetStream, or use store.disk".to_owned())
    }
}

/// Refuses the URL of a server that has a user or a password: logs and messages name the URL.
#[cfg(feature = "jetstream")]
fn has_no_secret(url: &str) -> Result<(), String> {
    if !url.contains('@') {
        return Ok(());
    }
    Err("store.jetStream.url has a user or a password, which logs would show: remove them, and give a credentials file \
         to portlane run with --jetstream-credentials FILE"
        .to_owned())
}

/// The time within which a server must open the stream. After it, the server is tried again.
#[cfg(feature = "jetstream")]
const OPEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// The folder of a log within the folder of all: one for each part of the id. A part begins with no dot, and bytes that
/// names have not are written as `%XX`.
pub(super) fn path(id: &ListenerId) -> PathBuf {
    id.to_string().split('/').map(escaped).collect()
}

/// The listener whose log is in this folder within the folder of all; `None`: the folder is not one of a log.
pub(super) fn id(folder: &Path) -> Option<ListenerId> {
    let parts: Option<Vec<String>> = folder.iter().map(|part| unescaped(part.to_str()?)).collect();
    let id: ListenerId = parts?.join("/").parse().ok()?;
    (path(&id) == folder).then_some(id)
}

fn unescaped(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn escaped(part: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in part.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'.' && at > 0) {
            escaped.push(char::from(byte));
        } else {
            // A string takes whatever is written.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;
    use crate::fixtures;

    fn id(namespace: &str, name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward(namespace, name), "l")
    }

    #[test]
    fn a_log_has_a_folder_of_its_own_whatever_the_names_are() {
        assert_eq!(path(&id("shop", "db.eu-1")), Path::new("shop/db.eu-1/l"));
        assert_eq!(path(&id("..", "a_b%")), Path::new("%2E./a%5Fb%25/l"));
    }

    #[test]
    fn a_folder_says_whose_log_it_has() {
        let of_a_service = "Service/shop/web/l".parse().expect("an id");
        for id in [id("shop", "db.eu-1"), id("..", "a_b%"), id("s", "é"), of_a_service] {
            assert_eq!(super::id(&path(&id)), Some(id));
        }
        for other in ["shop", "shop/db", "a/b/c/d/e", "shop/db/%6C", "shop/db/%", "shop/db/%zz", "lost+found/x/y"] {
            assert_eq!(super::id(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_log_that_has_only_to_become_empty_drops_no_message_for_its_age() {
        let durable = Durable { max_age_seconds: Some(60), ..fixtures::on_disk() };
        let place = PlaceOfLog::new(&id("shop", "db"), Path::new("d"), ServerFiles::default());
        assert!(place.disk(&durable, 16 << 20).log.max_age.is_some());
        assert_eq!(place.draining(true).disk(&durable, 16 << 20).log.max_age, None);
    }

    #[tokio::test]
    async fn a_log_that_has_only_to_become_empty_is_opened_with_the_name_of_who_took_its_messages() {
        let all = tempfile::tempdir().expect("a folder");
        let place = PlaceOfLog::new(&id("shop", "db"), all.path(), ServerFiles::default());
        std::fs::create_dir_all(&place.folder).expect("a folder");
        std::fs::write(place.folder.join("machine"), "edge-3").expect("a file");
        let taker = async |drains_only: bool| {
            let opened = place.clone().draining(drains_only).open(&fixtures::on_disk()).await.expect("nobody has it");
            for store in opened.present.stores() {
                store.close().await.expect("it runs");
            }
            opened.machine
        };
        assert_eq!(taker(true).await, "edge-3");
        assert_eq!(taker(false).await, machine::name());
    }

    #[cfg(feature = "jetstream")]
    #[tokio::test]
    async fn a_url_with_a_password_is_refused_and_not_shown() {
        let place = PlaceOfLog::new(&id("shop", "db"), Path::new("d"), ServerFiles::default());
        let durable = fixtures::durable(fixtures::stream("nats://user:word@127.0.0.1:1"));
        let why = place.open_stream(&durable).await.err().unwrap_or_default();
        assert!(why.contains("--jetstream-credentials FILE") && !why.contains("word@"), "{why}");
        assert_eq!(place.words(&durable), "the stream portlane__shop__db__l of 127.0.0.1:1");
    }

    #[cfg(feature = "jetstream")]
    #[test]
    fn a_secret_is_the_file_of_the_option_and_without_it_the_words_name_the_option() {
        let place =
            |credentials| PlaceOfLog::new(&id("shop", "db"), Path::new("d"), ServerFiles { credentials, ca: None });
        let durable::JetStreamCredentials { secret, file } =
            place(Some("creds".into())).credentials("s").expect("a file");
        assert_eq!((secret.as_str(), file.as_path()), ("s", Path::new("creds")));
        let why = place(None).credentials("s").expect_err("no file");
        assert!(why.contains("--jetstream-credentials FILE"), "{why}");
    }
}
