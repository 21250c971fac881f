//! How sessions, listeners and the process itself share the files that the process may open.

use proxy_api::{Bind, SocketKey};

/// File descriptors that sessions leave free: for health, control and lookups of names, and some for listeners.
pub const RESERVE: usize = 64;
/// The part of the reserve that listeners may take, so that a listener can change while sessions have all other files.
/// Lookups of names may take half of the reserve, and connections that wait for room a quarter of it. So health and
/// control have at least as many as listeners.
pub const FOR_LISTENERS: usize = RESERVE / 8;
/// File descriptors of a TCP session: client and upstream.
pub const FILES_PER_SESSION: usize = 2;

/// Listeners leave this part of the files to sessions: a listener that has no session serves nobody.
const SESSION_PART: usize = 8;
/// The most files that listeners leave to sessions.
const MOST_FOR_SESSIONS: usize = 16;
/// A process that has room for fewer sessions than this warns at its start.
const FEW_SESSIONS: usize = 100;

/// The file descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Those in use.
    pub used: usize,
    /// Those among them that sessions and flows have, with their pipes.
    pub of_sessions: usize,
    /// The limit of the process, without the reserve.
    pub limit: usize,
}

impl OpenFiles {
    /// How many more files listeners may take.
    #[must_use]
    pub fn free_for_listeners(&self) -> usize {
        let others = self.used.saturating_sub(self.of_sessions);
        let beside_sessions = self.limit.saturating_sub(left_to_sessions(self.limit)).saturating_sub(others);
        let with_reserve = self.limit.saturating_add(FOR_LISTENERS).saturating_sub(self.used);
        beside_sessions.min(with_reserve)
    }
}

fn left_to_sessions(limit: usize) -> usize {
    (limit / SESSION_PART).min(MOST_FOR_SESSIONS)
}

/// Most sockets of a key: one for each address.
#[must_use]
pub const fn most_sockets(key: SocketKey) -> usize {
    match key.bind {
        Bind::Loopback => 2,
        Bind::All => 1,
    }
}

/// Why a listener gets no file; `limit` is without the reserve. The message leaves out how many files are in use, because
/// a failure whose message changes is a new one.
#[must_use]
pub fn refusal(limit: usize) -> String {
    if limit == 0 {
        // A limit below the reserve counts as 0, too.
        return format!(
            "too many open files: the limit is at most {RESERVE}, and as many are reserved for health, control and \
             lookups of names; raise the limit of open files (ulimit -n)"
        );
    }
    format!(
        "too many open files: the limit is {}, of which listeners leave {} to health, control and lookups of names, \
         and {} to sessions; raise the limit of open files (ulimit -n), or remove listeners",
        limit.saturating_add(RESERVE),
        RESERVE - FOR_LISTENERS,
        left_to_sessions(limit)
    )
}

/// The warning at the start of a process with so many open files and this limit without the reserve, if they leave room
/// for few sessions.
#[must_use]
pub fn warning((used, limit): (usize, usize)) -> Option<String> {
    let sessions = limit.saturating_sub(used) / FILES_PER_SESSION;
    if sessions >= FEW_SESSIONS {
        return None;
    }
    let room = match sessions {
        0 => "no room for sessions, so nobody can be served".to_owned(),
        1 => "room for at most 1 session".to_owned(),
        _ => format!("room for at most {sessions} sessions"),
    };
    let enough = used.saturating_add(RESERVE + FEW_SESSIONS * FILES_PER_SESSION);
    Some(format!(
        "the limit of open files (ulimit -n) leaves {room}: {used} files are open, {RESERVE} are reserved for health and \
         control, a session takes {FILES_PER_SESSION}, and a listener at least one; raise the limit to {enough} or more"
    ))
}

#[cfg(test)]
mod tests {
    use proxy_api::Transport;

    use super::*;

    fn free(used: usize, of_sessions: usize, limit: usize) -> usize {
        OpenFiles { used, of_sessions, limit }.free_for_listeners()
    }

    #[test]
    fn a_listener_finds_files_in_the_reserve_while_sessions_have_all_others() {
        assert_eq!(free(960, 900, 960), FOR_LISTENERS);
        assert_eq!(free(962, 900, 960), FOR_LISTENERS - 2, "another listener has them");
        let most = 960 + FOR_LISTENERS;
        assert_eq!([most - 1, most, most + 50].map(|used| free(used, 900, 960)), [1, 0, 0]);
    }

    #[test]
    fn listeners_leave_some_files_to_sessions() {
        assert_eq!(free(40, 0, 960), 960 - MOST_FOR_SESSIONS - 40);
        assert_eq!([943, 944, 960].map(|used| free(used, 0, 960)), [1, 0, 0]);
        assert_eq!(free(40, 0, 64), 16, "an eighth of few files");
        assert_eq!(free(10, 20, 64), 56, "counts that were read at different times");
        assert_eq!(free(30, 0, 0), 0, "the whole limit is reserved");
    }

    #[test]
    fn listeners_that_take_all_they_may_leave_the_reserve_to_others() {
        for limit in [0, 1, 36, 64, 960] {
            for of_sessions in 0..=limit {
                for others in 0..=limit - of_sessions {
                    let used = of_sessions + others;
                    let taken = free(used, of_sessions, limit);
                    assert!(used + taken <= limit + FOR_LISTENERS, "{limit}: {of_sessions} and {others}");
                    assert!(taken == 0 || others + taken + left_to_sessions(limit) <= limit);
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_limit_and_the_way_to_raise_it() {
        let message = refusal(64);
        assert!(message.starts_with("too many open files: the limit is 128, of which"), "{message}");
        assert!(message.contains("leave 56 to health") && message.contains("8 to sessions"), "{message}");
        assert!(message.contains("ulimit -n"), "{message}");
        let none = refusal(0);
        assert!(none.contains("the limit is at most 64, and as many are reserved"), "{none}");
        assert!(!none.contains("remove listeners"), "it would not help: {none}");
    }

    #[test]
    fn a_limit_that_leaves_room_for_few_sessions_is_told_with_one_that_is_enough() {
        let message = |used, limit| warning((used, limit)).expect("a warning");
        let few = message(30, 65);
        assert!(few.contains("room for at most 17 sessions: 30 files are open"), "{few}");
        assert!(few.contains("ulimit -n") && few.ends_with("raise the limit to 294 or more"), "{few}");
        assert!(message(30, 33).contains("at most 1 session:"), "{}", message(30, 33));
        for limit in [0, 30, 31] {
            assert!(message(30, limit).contains("no room for sessions"), "{}", message(30, limit));
        }
        assert_eq!(warning((30, 294 - RESERVE)), None, "what was told to be enough");
        assert!(warning((30, 293 - RESERVE)).is_some());
    }

    #[test]
    fn a_listener_on_loopback_has_two_addresses() {
        let most = |bind| most_sockets(SocketKey { transport: Transport::Tcp, bind, port: 80 });
        assert_eq!((most(Bind::Loopback), most(Bind::All)), (2, 1));
    }
}
