//! When to reopen the store of a log that does not work.

/// The state of a store, observed once a second.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether the store that replaces it takes long to open; `None`: none is being opened.
    pub late: Option<bool>,
    /// Whether the store could not be opened, or is closed for another reason.
    pub fails: bool,
    /// Whether the thread of the store has ended by itself.
    pub has_ended: bool,
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Report that opening takes long.
    TellLate,
    /// Open the store again.
    Open,
    /// Report that the thread has ended, and open the store again.
    OpenEnded,
    /// Check whether the folder exists.
    FindFolder,
}

impl Look {
    /// The action that is due. `None`: nothing, as the store is being opened.
    #[must_use]
    pub const fn due(self) -> Option<Due> {
        match self {
            Self { late: Some(true), .. } => Some(Due::TellLate),
            Self { late: Some(false), .. } => None,
            Self { fails: true, .. } => Some(Due::Open),
            Self { has_ended: true, .. } => Some(Due::OpenEnded),
            Self { .. } => Some(Due::FindFolder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(late: Option<bool>, fails: bool, has_ended: bool) -> Option<Due> {
        Look { late, fails, has_ended }.due()
    }

    #[test]
    fn a_store_that_is_being_opened_is_not_opened_once_more_whatever_the_one_before_did() {
        for (fails, has_ended) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(due(Some(false), fails, has_ended), None);
            assert_eq!(due(Some(true), fails, has_ended), Some(Due::TellLate));
        }
    }

    #[test]
    fn a_store_that_failed_is_opened_again_and_its_end_is_told_only_if_nothing_else_failed() {
        assert_eq!(due(None, true, false), Some(Due::Open));
        assert_eq!(due(None, true, true), Some(Due::Open), "it was closed");
        assert_eq!(due(None, false, true), Some(Due::OpenEnded));
    }

    #[test]
    fn the_folder_of_a_store_that_works_is_looked_up() {
        assert_eq!(due(None, false, false), Some(Due::FindFolder));
    }
}
