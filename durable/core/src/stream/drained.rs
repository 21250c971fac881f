//! When a process has nothing left for the sink.

/// Whether this process has nothing left for the sink, if `waiting` messages wait for the server and `held` ones for
/// the sink. Messages in the stream are for the process with the consumer. Unless that is another process (`follows`),
/// the server has to say that the stream is empty: messages that were just published may not have come back yet.
pub fn is_drained((waiting, held): (usize, usize), follows: bool, in_stream: Option<u64>) -> bool {
    waiting == 0 && held == 0 && (follows || in_stream == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_sent_once_nothing_waits_here_and_the_server_or_another_process_has_the_rest() {
        assert!(is_drained((0, 0), false, Some(0)));
        assert!(!is_drained((0, 0), false, Some(1)), "it has not come back yet");
        assert!(!is_drained((0, 0), false, None), "nobody knows what the stream has");
        assert!(is_drained((0, 0), true, Some(1)) && is_drained((0, 0), true, None), "another process sends it");
        for (waiting, held) in [(1, 0), (0, 1)] {
            assert!(!is_drained((waiting, held), true, Some(0)), "{waiting} {held}");
        }
    }
}
