//! Lets no session begin while the memory of the process is nearly used up.

use std::{io, mem};

use super::notices::notice;
use crate::{
    core::{
        limits::{
            capacity::{FLOW_PLACES, SESSION_PLACES},
            memory_use::MemoryUse,
        },
        logging::waits::Waits,
    },
    log::{Level, Notice},
    memory::Group,
    process::Process,
};

/// The shortages of memory, and the notices of them.
#[derive(Debug)]
pub(super) struct Shortages {
    /// Where memory is counted; absent if nothing limits it.
    group: Option<Group>,
    /// The memory at the last look, if it was short.
    memory: Option<MemoryUse>,
    /// Number of shortages.
    count: u64,
    /// The last notice of one.
    waits: Waits,
    /// Whether the shortage under way has a notice.
    is_told: bool,
}

impl Shortages {
    /// Begins with the control group that limits the process, if that can be read.
    pub(super) fn new(group: io::Result<Option<Group>>) -> Self {
        Self { group: group.ok().flatten(), memory: None, count: 0, waits: Waits::default(), is_told: false }
    }

    /// Follows the control group that limits the process now. If that cannot be read, the last one stays.
    pub(super) fn follow(&mut self, group: io::Result<Option<Group>>) {
        if let Ok(group) = group {
            self.group = group;
        }
    }

    /// The memory at the last look, if it was short.
    pub(super) const fn memory(&self) -> Option<MemoryUse> {
        self.memory
    }

    /// Begins or ends a shortage at `now` (seconds of the process clock). Returns a notice if one is due. Memory that
    /// cannot be read is not short: a proxy that accepts no session is useless.
    pub(super) fn look(&mut self, process: &Process, now: u64) -> Option<Notice> {
        let (was_short, (places, _)) = (process.is_short_of_memory(), process.sessions.usage());
        let memory = self.group.as_ref().and_then(|group| group.memory().ok());
        let short = memory.filter(|memory| memory.is_short(was_short, places));
        process.set_short_of_memory(short.is_some());
        self.memory = short;
        let Some(memory) = short else {
            return mem::take(&mut self.is_told).then(ended);
        };
        self.count += u64::from(!was_short);
        let is_due = self.waits.is_due(self.count, now);
        self.is_told |= is_due;
        is_due.then(|| begun(memory, places, process.flows.usage().0))
    }
}

/// A notice of a shortage with these places in use, and those of them that flows have.
fn begun(memory: MemoryUse, places: usize, flows: usize) -> Notice {
    let message = format!(
        "new connections wait, and datagrams of new flows are dropped, because memory is short: {} of {} MiB are in use, \
         with what the system buffers for sockets (sessions: {}, flows: {}); raise the memory limit, or find the peers \
         that do not read",
        memory.used >> 20,
        memory.limit >> 20,
        places.saturating_sub(flows) / SESSION_PLACES,
        flows / FLOW_PLACES
    );
    notice(Level::Warn, "memory", "process", message)
}

fn ended() -> Notice {
    notice(Level::Info, "memory", "process", "there is memory for new sessions and flows again")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tempfile::TempDir;

    use super::*;
    use crate::{fixtures::process, process::Permits, settings::Settings, supervisor::fixtures::supervisor};

    const MIB: u64 = 1 << 20;

    /// Files of a control group that uses this many MiB.
    fn write(folder: &Path, used: u64) {
        fs::write(folder.join("memory.current"), format!("{}\n", used * MIB)).expect("a file");
        fs::write(folder.join("memory.stat"), format!("sock {}\ninactive_file 0\n", used * MIB)).expect("a file");
        fs::write(folder.join("status"), "RssAnon:\t0 kB\n").expect("a file");
    }

    /// A group with a limit of 100 MiB.
    fn group(folder: &Path) -> io::Result<Option<Group>> {
        Group::open(folder, &folder.join("status"), 100 * MIB).map(Some)
    }

    /// A group that uses 95 MiB, its shortages, which nobody has looked at yet, and a process with one session.
    fn scene() -> (TempDir, Shortages, Process, Permits) {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), 95);
        let (shortages, process) = (Shortages::new(group(folder.path())), process(&Settings::default(), None));
        let session = process.take_session().expect("room");
        (folder, shortages, process, session)
    }

    // D7
    #[tokio::test]
    async fn no_session_begins_while_the_buffers_of_sockets_use_up_the_memory() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), 10);
        let (mut it, _told) = supervisor();
        it.shortages = Shortages::new(group(folder.path()));
        let _session = it.process.take_session().expect("room");
        it.look().await;
        assert!(it.process.take_session().is_some());
        write(folder.path(), 95);
        it.look().await;
        assert!(it.process.is_short_of_memory() && it.process.take_session().is_none());
        write(folder.path(), 85);
        it.look().await;
        assert!(it.process.take_session().is_none(), "not enough yet");
        write(folder.path(), 75);
        it.look().await;
        assert!(it.process.take_session().is_some());
    }

    #[test]
    fn a_shortage_is_told_once_with_its_end_and_the_next_one_no_sooner_than_a_minute_later() {
        let (folder, mut shortages, process, _session) = scene();
        let mut look = |used, now| {
            write(folder.path(), used);
            shortages.look(&process, now).map(|notice| (notice.level, notice.message))
        };
        let (level, message) = look(95, 100).expect("a notice");
        assert_eq!(level, Level::Warn);
        assert!(message.contains("95 of 100 MiB") && message.contains("(sessions: 1, flows: 0)"), "{message}");
        assert_eq!(look(96, 200), None, "the same shortage");
        assert_eq!(look(10, 201).map(|(level, _)| level), Some(Level::Info));
        assert_eq!(look(95, 202).map(|(level, _)| level), Some(Level::Warn));
        assert_eq!(look(10, 203).map(|(level, _)| level), Some(Level::Info));
        assert_eq!((look(95, 204), look(10, 205)), (None, None), "a moment after the last notice");
    }

    #[tokio::test]
    async fn a_shortage_ends_after_the_last_socket_is_closed() {
        let (mut it, _told) = supervisor();
        assert!(!it.wanted().look);
        it.process.set_short_of_memory(true);
        assert!(it.wanted().look);
        it.look().await;
        assert!(!it.process.is_short_of_memory() && !it.wanted().look);
    }

    #[test]
    fn a_notice_tells_how_many_sessions_and_flows_share_the_memory() {
        let memory = MemoryUse { used: 95 * MIB, limit: 100 * MIB };
        let notice = begun(memory, 7 * SESSION_PLACES + 3 * FLOW_PLACES, 3 * FLOW_PLACES);
        assert!(notice.message.contains("95 of 100 MiB"), "{}", notice.message);
        assert!(notice.message.contains("(sessions: 7, flows: 3)"), "{}", notice.message);
    }

    #[test]
    fn a_group_that_cannot_be_found_stays_and_one_without_a_limit_ends_the_shortage() {
        let (_folder, mut shortages, process, _session) = scene();
        shortages.follow(Err(io::ErrorKind::NotFound.into()));
        shortages.look(&process, 0).expect("a notice");
        assert!(process.is_short_of_memory());
        shortages.follow(Ok(None));
        shortages.look(&process, 1).expect("a notice");
        assert!(!process.is_short_of_memory());
    }

    #[test]
    fn memory_that_cannot_be_read_any_more_is_not_short() {
        let (folder, mut shortages, process, _session) = scene();
        shortages.look(&process, 0).expect("a notice");
        fs::write(folder.path().join("memory.current"), "").expect("a file");
        shortages.look(&process, 1).expect("a notice");
        assert!(!process.is_short_of_memory());
    }
}
