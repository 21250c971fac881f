//! Counts messages that were lost with folders of a log that others removed while the log was in use.

/// The messages of one log in removed folders, over all its stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    messages: u64,
    /// Those in the folder of the present store; `None`: that folder exists, as far as is known.
    of_present: Option<u64>,
}

impl Gone {
    /// The messages.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Notes that the folder of the present store was removed while `waiting` messages wait in it.
    pub fn lose(&mut self, waiting: u64) {
        let counted = self.of_present.unwrap_or(0);
        self.messages += waiting.saturating_sub(counted);
        self.of_present = Some(waiting.max(counted));
    }

    /// Notes that the present store has ended with `waiting` messages: another one replaces it. In a removed folder,
    /// messages that came after the removal was noticed are lost, too.
    pub fn end(&mut self, waiting: u64) {
        if self.of_present.is_some() {
            self.lose(waiting);
        }
        self.of_present = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_a_folder_that_is_there_stays_for_the_next_store() {
        let mut gone = Gone::default();
        gone.end(5);
        assert_eq!(gone.messages(), 0);
    }

    #[test]
    fn messages_of_a_removed_folder_are_lost_once_with_those_that_came_before_its_store_ended() {
        let mut gone = Gone::default();
        gone.lose(3);
        assert_eq!(gone.messages(), 3);
        gone.lose(4);
        assert_eq!(gone.messages(), 4, "the same three");
        gone.end(6);
        assert_eq!(gone.messages(), 6);
        gone.end(9);
        assert_eq!(gone.messages(), 6, "the folder of the next store is there");
        gone.lose(2);
        assert_eq!(gone.messages(), 8, "it is removed, too");
    }

    #[test]
    fn what_the_sink_took_after_the_removal_was_seen_stays_counted() {
        let mut gone = Gone::default();
        gone.lose(3);
        gone.end(1);
        assert_eq!(gone.messages(), 3);
    }
}
