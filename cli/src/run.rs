//! `portlane run`: manifests from files instead of an API server, and a proxy in this process instead of a fleet.

mod args;
mod ending;
mod settings;
mod tunnels;

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use crds::{ListenerStatus, Protocol};
use operator_core::{Changes, Group, ObjectKey, Outcome, Translation, Translator, Update, World, accepted_headers};
use proxy::{
    follow::LOOK_EVERY,
    handle::{Ended, Proxy},
    log::{Event, Level, LogFormat, Notice, Subject},
};
use proxy_api::{Configuration, ListenerId, Transport, Version};
use tokio::{
    pin,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::LocalSet,
    time::{interval, sleep},
};

pub use self::args::Run;
use self::settings::settings;
use crate::{
    admission::Admission,
    check,
    error::Error,
    forward::{self, Forward},
    manifest::{FileChange, Problem, Sources},
    misspelt,
    services::{self, Found, Nowhere, Services},
    store::{LeftOut, Store},
    table,
    terminal::{self, Keyboard},
    verdicts, world,
};

/// The hint below the table on the first screen.
const KEYBOARD_HINT: &str = "press Enter to show the table again";

/// The longest wait at the start for the addresses of Services. Later answers change running listeners.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs without a cluster until a signal or a request to the admin address ends it, then drains.
pub(crate) fn run(args: &Run) -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    run_with(args, args.input.namespace(), Nowhere, &runtime, &LocalSet::new())
}

/// Runs until a signal or a request to the admin address ends it, then drains. Objects without a namespace are in
/// `namespace`, whatever the arguments say. Services that the arguments do not resolve are those of `services`, whose
/// tasks run in `tasks`. Standard output has the log.
///
/// # Errors
/// The manifests cannot be read or have nothing to run, or the proxy cannot start or has died.
pub fn run_with<S: Services>(
    args: &Run,
    namespace: &str,
    services: S,
    runtime: &Runtime,
    tasks: &LocalSet,
) -> Result<(), Error> {
    if args.print {
        return print(args);
    }
    let hangup = hangup(runtime)?;
    let paths = args.input.paths();
    let sources = Sources::new(&paths, args.input.recursive).map_err(|error| Error::files(&paths, error))?;
    let admission = Admission::new()?;
    let settings = settings(args);
    let proxy = Proxy::start(&settings, Box::new(io::stdout()))?;
    let mut runner = Runner {
        args,
        namespace,
        admission,
        sources,
        services,
        store: Store::default(),
        number: 0,
        reported: BTreeSet::new(),
        has_warned_of_agents: false,
        translator: Translator::default(),
        configuration: Configuration::default(),
        format: settings.log_format,
        proxy,
    };
    let served = tasks.block_on(runtime, Box::pin(runner.serve(hangup)));
    // This writes the last records, which say why nothing runs.
    let finished = runner.proxy.finish();
    served?;
    finished.map_err(Error::from)
}

/// Handles SIGHUP from now on: without a stream, it ends the process. A supervisor may send it right after the start.
fn hangup(runtime: &Runtime) -> io::Result<Signal> {
    let _context = runtime.enter();
    signal(SignalKind::hangup())
}

/// Prints the manifests of the forwards on the command line.
fn print(args: &Run) -> Result<(), Error> {
    let manifests: Vec<String> = args.input.forwards().into_iter().map(Forward::manifest).collect();
    if manifests.is_empty() {
        return Err(Error::NothingToPrint);
    }
    check::print(manifests.join("---\n").as_bytes()).map_err(Error::from)
}

struct Runner<'a, S> {
    args: &'a Run,
    /// Namespace of objects without metadata.namespace.
    namespace: &'a str,
    admission: Admission,
    sources: Sources,
    services: S,
    store: Store,
    number: u64,
    /// Reported problems that still exist.
    reported: BTreeSet<Problem>,
    /// Whether the warning that no agent can connect was logged.
    has_warned_of_agents: bool,
    translator: Translator,
    configuration: Configuration,
    format: LogFormat,
    proxy: Proxy,
}

impl<S: Services> Runner<'_, S> {
    async fn serve(&mut self, mut hangup: Signal) -> Result<(), Error> {
        // Reading a pipe to its end may take long; until then, SIGTERM and SIGINT end the process.
        let mut first = self.sources.streams();
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut again = signal(SignalKind::user_defined1())?;
        let keyboard = self.keyboard();
        first.extend(self.sources.look());
        first.extend(forward::as_file(&self.args.input.forwards()));
        let read = self.take(first);
        tokio::select! {
            () = self.settle() => {}
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
        self.start(&read, keyboard.is_some()).await?;
        let mut look = interval(LOOK_EVERY);
        let life = self.proxy.alive("manifest reader");
        loop {
            life.beat();
            tokio::select! {
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                // A terminal that closes sends SIGHUP too: sessions outlive the terminal, as with any server.
                Some(()) = hangup.recv() => {
                    self.proxy.log().notice(Level::Info, "reading", "portlane", "SIGHUP: reading all manifests again");
                    self.sources.read_again();
                }
                Some(()) = again.recv() => self.show(),
                () = self.services.changed() => unless_draining(self.refresh(&BTreeSet::new()).await)?,
                _ = look.tick() => {
                    if keyboard.as_ref().is_some_and(Keyboard::was_pressed) {
                        self.show();
                    }
                    if self.proxy.has_ended() {
                        return Ok(());
                    }
                    let changes = self.sources.look();
                    if changes.is_empty() {
                        continue;
                    }
                    let read = self.take(changes);
                    unless_draining(self.refresh(&read).await)?;
                }
            }
        }
        drop(life);
        self.drain(&mut term, &mut interrupt).await;
        Ok(())
    }

    /// The keyboard of the terminal that shows the table.
    fn keyboard(&self) -> Option<Keyboard> {
        let is_shown = self.format != LogFormat::Json && terminal::width().is_some();
        is_shown.then(Keyboard::find).flatten()
    }

    /// Waits a short while until the addresses of Services are known.
    async fn settle(&mut self) {
        let patience = sleep(PATIENCE);
        pin!(patience);
        loop {
            let objects = self.store.objects(&self.args.input.only, &self.sources.absent());
            let needed = services::needed(&world::laptop(objects.world, &self.args.laptop));
            if self.services.find(&needed).values().all(|found| *found != Found::Attaching) {
                return;
            }
            tokio::select! {
                () = self.services.changed() => {}
                () = &mut patience => return,
            }
        }
    }

    /// Starts the listeners of the manifests. `read` is as in `refresh`.
    async fn start(&mut self, read: &BTreeSet<String>, has_keyboard: bool) -> Result<(), Error> {
        check::require_forward("run", &self.store, &self.sources, &self.args.input)?;
        let (translation, left_out) = self.refresh(read).await?;
        let world = self.store.objects(&[], &BTreeSet::new()).world;
        let log = self.proxy.log();
        for option in misspelt::unmatched(&world, &self.args.input.only, Some(&self.args.laptop)) {
            log.notice(Level::Warn, "option", "portlane", option);
        }
        if !self.sources.can_change() && (self.store.has_nothing_valid() || is_refused(&translation)) {
            return Err(Error::NothingToRun);
        }
        if self.format == LogFormat::Json {
            if let Some(line) = left_out.line() {
                log.notice(Level::Info, "skipped", "portlane", line);
            }
        } else if !self.args.quiet {
            self.show();
            let page = self.proxy.admin.map(|address| format!("page of these forwards: http://{address}/"));
            let hint = has_keyboard.then(|| KEYBOARD_HINT.to_owned());
            for line in left_out.line().into_iter().chain(page).chain(hint) {
                log.lines(format!("{line}\n"));
            }
        }
        if let Some(address) = self.proxy.tunnels {
            log.notice(Level::Info, "tunnels", "portlane", format!("agents connect to {address}"));
        }
        if translation.verdicts.is_empty() {
            log.notice(Level::Warn, "waiting", "portlane", "no PortForward to run yet; watching the manifests");
        }
        Ok(())
    }

    /// Shows the table; in a JSON log, writes a record for each listener.
    fn show(&self) {
        let rows = table::rows(&self.translator.translation(), &self.configuration, &self.proxy.report().borrow());
        let log = self.proxy.log();
        if self.format == LogFormat::Json {
            for row in &rows {
                let id = row.listener.parse::<ListenerId>();
                let subject = id.map_or_else(|_| Subject::from(&row.listener), Subject::from);
                let message = row.describe();
                log.emit(Event::Notice(Notice { level: Level::Info, event: "listener", subject, message }));
            }
        } else {
            log.lines(table::render(&rows, terminal::width(), self.format == LogFormat::Coloured));
        }
    }

    /// Takes changes of files into the store. Returns the files that could be read.
    fn take(&mut self, changes: Vec<(String, FileChange)>) -> BTreeSet<String> {
        let mut read = BTreeSet::new();
        for (file, change) in changes {
            // A folder that can be listed again counts as a file that can be read again.
            let is_read = match change {
                FileChange::Documents(_) => true,
                FileChange::Gone => Path::new(&file).is_dir(),
                FileChange::NoManifest | FileChange::Unreadable(_) => false,
            };
            if is_read {
                read.insert(file.clone());
            }
            self.store.take(&self.admission, &file, change, self.namespace);
        }
        read
    }

    /// Applies the present state of the store and the Services, and logs the problems. `read` are the files that were
    /// read just now.
    async fn refresh(&mut self, read: &BTreeSet<String>) -> Result<(Translation, LeftOut), Error> {
        let mut objects = self.store.objects(&self.args.input.only, &self.sources.absent());
        objects.left_out.extend(self.sources.skipped());
        self.record_status(&mut objects.world);
        objects.world = world::laptop(std::mem::take(&mut objects.world), &self.args.laptop);
        if let Some(mode) = self.args.access_log() {
            world::log_sessions(&mut objects.world, mode);
        }
        let found = self.services.find(&services::needed(&objects.world));
        services::reach(&mut objects.world, &found);
        let own = [("health", self.proxy.health), ("admin", self.proxy.admin), ("tunnel", self.proxy.tunnels)];
        let reserved = own.into_iter().filter_map(|(what, address)| Some((address?.port(), what.to_owned())));
        objects.world.reserved = reserved.collect();
        let version = Version { epoch: "laptop".to_owned(), number: self.number + 1 };
        let update = self.translator.update(&objects.world, &Changes::all(), &version);
        let translation = self.translator.translation();
        self.publish(&update).await?;
        let (refused, warnings) = verdicts::problems(&objects, &translation);
        let problems: BTreeSet<Problem> = objects.problems.iter().chain(&refused).cloned().collect();
        self.report(&problems, &warnings, read);
        self.warn_of_agents();
        Ok((translation, objects.left_out))
    }

    /// Records the ports of running listeners in status, so that an object added later does not take them.
    fn record_status(&self, world: &mut World) {
        for (id, listener) in self.configuration.supported() {
            let key = ObjectKey::new(&*id.origin.namespace, &*id.origin.name);
            let Some(forward) = world.forwards.get_mut(&key) else { continue };
            let protocol = match listener.socket.transport {
                Transport::Tcp if !listener.hostnames.is_empty() => Protocol::Tls,
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            };
            forward.status.get_or_insert_default().listeners.push(ListenerStatus {
                name: id.listener.clone(),
                protocol,
                port: listener.socket.port,
                end_port: listener.end_port,
                hostnames: listener.hostnames.clone(),
                proxy_protocol: accepted_headers(listener.header().filter(|_| !listener.hostnames.is_empty())),
                backends: None,
                delivery: None,
            });
        }
    }

    async fn publish(&mut self, update: &Update) -> Result<(), Ended> {
        let snapshot = self.translator.snapshot(&Group::Laptop);
        let Some(snapshot) = snapshot.filter(|_| update.programs.contains(&Group::Laptop)) else {
            return Ok(());
        };
        self.number = snapshot.version.number;
        self.configuration = snapshot.configuration();
        self.proxy.apply(self.configuration.clone()).await.map(drop)
    }

    /// Warns once that agents of the manifests cannot connect.
    fn warn_of_agents(&mut self) {
        let Some(agent) = self.configuration.agents.values().next() else { return };
        if self.args.tunnels.tunnel_address.is_none() && !std::mem::replace(&mut self.has_warned_of_agents, true) {
            let message = format!("this agent cannot connect: {}", tunnels::REMEDY);
            self.proxy.log().notice(Level::Warn, "tunnels", format!("{}/{}", agent.namespace, agent.name), message);
        }
    }

    /// Logs each problem once, and again only if it was fixed in between. `read` are the files that were read just now.
    fn report(&mut self, problems: &BTreeSet<Problem>, warnings: &BTreeSet<Problem>, read: &BTreeSet<String>) {
        let log = self.proxy.log();
        for problem in problems.difference(&self.reported) {
            log.notice(Level::Error, "refused", problem.place.to_string(), describe(problem));
        }
        for warning in warnings.difference(&self.reported) {
            log.notice(Level::Warn, "warning", warning.place.to_string(), describe(warning));
        }
        if !self.reported.is_subset(problems) {
            let objects = verdicts::names(&self.store.objects(&[], &BTreeSet::new()).world);
            for problem in verdicts::fixed(&self.reported, problems, &objects, read) {
                if !warnings.contains(problem) {
                    let message = format!("{}: the problem is fixed", subject(problem));
                    log.notice(Level::Info, "accepted", &problem.place.file, message);
                }
            }
        }
        self.reported = problems.union(warnings).cloned().collect();
    }
}

/// Whether every listener is refused, or there is none.
fn is_refused(translation: &Translation) -> bool {
    let mut listeners = translation.verdicts.values().flat_map(|verdict| &verdict.listeners);
    listeners.all(|listener| matches!(listener.outcome, Outcome::Refused { .. }))
}

/// Passes every failure on, except that the proxy drains: it then ends with its last session, or by a signal.
fn unless_draining<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(Error::Ended(_)) => Ok(()),
        result => result.map(drop),
    }
}

/// The subject of a problem, in words.
fn subject(problem: &Problem) -> &str {
    let place = if Path::new(&problem.place.file).is_dir() { "the folder" } else { "the file" };
    problem.object.as_deref().unwrap_or(place)
}

/// A problem without its place, which is the subject of the log line.
fn describe(problem: &Problem) -> String {
    let parts = [problem.object.as_deref(), problem.field.as_deref(), Some(problem.message.as_str())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}
