//! Follows the memory limit of the process, which Kubernetes may change while the process runs.

use super::notices::notice;
use crate::{
    log::{Level, Notice},
    memory,
    process::Process,
};

/// Adapts the process to its memory limit, and to the other users of memory. Returns a notice if that changed the
/// bounds of the process. A limit that cannot be read leaves the previous one in force.
pub(super) fn follow(process: &Process) -> Option<Notice> {
    let limit = memory::limit().ok()?;
    let text = || message(limit, &beside(process), process.most_sessions());
    process.resize(limit).then(|| notice(Level::Info, "resized", "process", text()))
}

/// The users of memory beside sessions.
fn beside(process: &Process) -> Vec<&'static str> {
    let messages = process.messages.is_used().then_some("the messages of durable listeners");
    let tunnels = process.tunnels.is_used().then_some("the bytes of agents");
    messages.into_iter().chain(tunnels).collect()
}

fn message(limit: Option<u64>, beside: &[&str], sessions: usize) -> String {
    let limit = limit.map_or("no memory limit applies now".to_owned(), |bytes| {
        format!("the memory limit is {} MiB now", bytes >> 20)
    });
    let beside = if beside.is_empty() { String::new() } else { format!(" beside {}", beside.join(" and ")) };
    format!("{limit}: the process has room for {sessions} sessions{beside}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_the_limit_and_what_follows() {
        let small = "the memory limit is 256 MiB now: the process has room for 7 sessions";
        assert_eq!(message(Some(256 << 20), &[], 7), small);
        let both = ["the messages of durable listeners", "the bytes of agents"];
        let beside = |count: usize| message(Some(256 << 20), &both[..count], 7);
        assert_eq!(beside(1), format!("{small} beside the messages of durable listeners"));
        assert_eq!(beside(2), format!("{small} beside the messages of durable listeners and the bytes of agents"));
        assert_eq!(message(None, &[], 7), "no memory limit applies now: the process has room for 7 sessions");
    }
}
