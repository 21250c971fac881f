//! The system's settings: `/etc/hosts` and `/etc/resolv.conf`, read again when they change.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    News,
    exchange::NameServer,
    reader::{Look, Reader, State},
};
use crate::{
    core::resolution::dns::{
        hosts::Hosts,
        resolv_conf::ResolvConf,
        tries::{self, Try},
    },
    lives::Lives,
};

/// The files: hosts, and the settings of the resolver.
const PATHS: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
/// How often the files are checked. Including the time until the next query, an edit takes effect within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The present settings; `None` until the files were checked for the first time.
pub(super) type Systems = watch::Receiver<Option<Arc<System>>>;

/// One state of the settings.
pub(super) struct System {
    pub(super) hosts: Hosts,
    pub(super) conf: ResolvConf,
    servers: Vec<NameServer>,
    /// Parts that could not be read.
    problems: Vec<String>,
    /// Why files could not be read. Their last content is in force.
    failures: [Option<String>; 2],
    /// The states of the contents that are in force; `None` for a file that was never read.
    states: [Option<State>; 2],
    /// Number of queries so far, for `rotate`.
    questions: AtomicUsize,
}

impl System {
    /// The settings after a check of both files. The settings in `last` stay in force for a file that cannot be read.
    pub(super) fn after(last: Option<&Self>, looks: [Look; 2]) -> Self {
        let mut states = last.map_or([None; 2], |last| last.states);
        let mut failures = [None, None];
        let mut problems = Vec::new();
        let mut contents = [None, None];
        let files = PATHS.iter().zip(looks).zip(&mut states).zip(&mut failures).zip(&mut contents);
        for ((((path, look), state), failure), content) in files {
            match look {
                Look::Same => {}
                Look::New(new, bytes) => (*state, *content) = (Some(new), Some(bytes)),
                Look::Failed(why) => {
                    let counts =
                        if state.is_some() { "its last content stays in use" } else { "it is treated as empty" };
                    problems.push(format!("{path}: {why}; {counts}"));
                    *failure = Some(why);
                }
            }
        }
        let [hosts, conf] = contents;
        let hosts = match (hosts, last) {
            (None, Some(last)) => last.hosts.clone(),
            (bytes, _) => Hosts::parse(&bytes.unwrap_or_default()),
        };
        let conf = match (conf, last) {
            (None, Some(last)) => last.conf.clone(),
            (bytes, _) => ResolvConf::parse(&bytes.unwrap_or_default(), &hostname()),
        };
        let [_, path] = PATHS;
        problems.extend(conf.problems.iter().map(|problem| format!("{path}: {problem}")));
        let servers = conf.servers.iter().map(|server| NameServer::new(server, &conf)).collect();
        Self { hosts, conf, servers, problems, failures, states, questions: AtomicUsize::new(0) }
    }

    /// Whether these checks have found the known states.
    fn is_as(&self, looks: &[Look; 2]) -> bool {
        looks.iter().zip(&self.failures).all(|(look, failure)| match look {
            Look::Same => failure.is_none(),
            Look::New(..) => false,
            Look::Failed(why) => failure.as_ref() == Some(why),
        })
    }

    /// Whether the settings are equal. Files that are written again with the same settings change nothing.
    fn is_equal(&self, other: &Self) -> bool {
        self.hosts == other.hosts && self.is_asked_alike(other)
    }

    /// Whether the settings are equal for this host.
    pub(super) fn is_equal_for(&self, host: &str, other: &Self) -> bool {
        self.hosts.addresses(host) == other.hosts.addresses(host) && self.is_asked_alike(other)
    }

    /// Whether queries are equal and go to the same servers.
    fn is_asked_alike(&self, other: &Self) -> bool {
        self.conf == other.conf && self.servers == other.servers
    }

    /// The tries of the next query, each with its server. Without `may_overlap`, one server is queried at a time.
    pub(super) fn tries(&self, may_overlap: bool) -> impl Iterator<Item = (Try, NameServer)> {
        let turn = self.questions.fetch_add(1, Relaxed);
        let tries = tries::tries(&self.conf, turn, may_overlap).into_iter();
        tries.filter_map(move |one| Some((one, *self.servers.get(one.server)?)))
    }
}

/// The name of this host, if known; its domain is the search domain if no line names one.
fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The settings, reread on use after a change.
pub(super) struct Latest {
    files: [Reader; 2],
    last: Option<Arc<System>>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { files: PATHS.map(Reader::new), last: None }
    }
}

impl Latest {
    /// Returns the present settings. Waits for the file systems no longer than a check may take.
    pub(super) async fn system(&mut self) -> Arc<System> {
        let [hosts, conf] = &mut self.files;
        let [known_hosts, known_conf] = self.last.as_ref().map_or([None; 2], |last| last.states);
        let looks: [Look; 2] = tokio::join!(hosts.look(known_hosts), conf.look(known_conf)).into();
        let system = match self.last.take() {
            Some(last) if last.is_as(&looks) => last,
            last => Arc::new(System::after(last.as_deref(), looks)),
        };
        self.last.insert(system).clone()
    }
}

/// Follows the settings until the last receiver is gone. Reports unreadable parts once for each change of them.
pub(super) fn follow(answers: mpsc::Sender<News>, lives: Arc<Lives>) -> Systems {
    let (sender, receiver) = watch::channel(None);
    // Without this task every name would keep the settings of that moment for ever.
    tokio::spawn(lives.shield("the check of the resolver's settings", look(sender, answers)));
    receiver
}

async fn look(systems: watch::Sender<Option<Arc<System>>>, answers: mpsc::Sender<News>) {
    let (mut latest, mut reported) = (Latest::default(), Vec::new());
    loop {
        let system = latest.system().await;
        // A change ends lookups. Programs such as DHCP clients often rewrite the same content.
        let is_new = systems.borrow().as_ref().is_none_or(|sent| !sent.is_equal(&system));
        if is_new {
            systems.send_replace(Some(system.clone()));
        }
        if system.problems != reported {
            reported.clone_from(&system.problems);
            if !reported.is_empty() && answers.send(News::Unreadable(reported.clone())).await.is_err() {
                return;
            }
        }
        sleep(LOOK_EVERY).await;
        if systems.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Look {
        Look::Failed("gone".to_owned())
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_its_last_content_and_is_named_once() {
        let read = |text: &[u8]| Look::New(State::Missing, text.to_vec());
        let first = System::after(None, [read(b"192.0.2.1 db\n"), failed()]);
        assert_eq!(first.problems, ["/etc/resolv.conf: gone; it is treated as empty"]);
        let hung = System::after(Some(&first), [failed(), read(b"nameserver 192.0.2.53\n")]);
        assert_eq!(hung.problems, ["/etc/hosts: gone; its last content stays in use"]);
        assert!(hung.hosts.addresses("db").is_some() && hung.servers.len() == 1);
        assert!(hung.is_as(&[failed(), Look::Same]), "nothing new");
        assert!(!hung.is_as(&[Look::Same, Look::Same]), "the file can be read again");
        let back = System::after(Some(&hung), [Look::Same, Look::Same]);
        assert!(back.problems.is_empty() && back.states == hung.states && back.hosts == hung.hosts);
    }

    #[tokio::test]
    async fn each_try_has_a_server_and_settings_that_stay_are_not_read_again() {
        let mut latest = Latest::default();
        let system = latest.system().await;
        assert!(Arc::ptr_eq(&system, &latest.system().await));
        assert_eq!(system.tries(true).count(), tries::tries(&system.conf, 0, true).len());
    }
}
