//! Whether the failing backend is there, and what to expect of a connection to it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a proxy may take to notice that the failing backend is there again: it ejects an endpoint for a second, and
/// pauses between attempts.
const NOTICE: Duration = Duration::from_secs(6);

/// What should become of a connection to the failing backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Served,
    Refused,
    /// The backend has just come or gone.
    Either,
}

/// Whether the failing backend is there, and since when.
#[derive(Debug)]
pub(crate) struct Weather(Mutex<(bool, Instant)>);

impl Weather {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((false, Instant::now())))
    }

    fn now(&self) -> (bool, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn turn(&self, is_up: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (is_up, Instant::now());
    }

    /// What to expect of a connection that began then and has ended now.
    pub(crate) fn expected(&self, began: Instant) -> Expected {
        expected(self.now(), began)
    }
}

fn expected((is_up, since): (bool, Instant), began: Instant) -> Expected {
    match (is_up, began.checked_duration_since(since)) {
        (true, Some(after)) if after >= NOTICE => Expected::Served,
        (false, Some(_)) => Expected::Refused,
        _ => Expected::Either,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_saw_a_change_proves_nothing() {
        let since = Instant::now();
        let (before, soon) = (since.checked_sub(Duration::from_secs(1)).expect("a time"), since + NOTICE / 2);
        assert_eq!(expected((true, since), before), Expected::Either);
        assert_eq!(expected((false, since), before), Expected::Either);
        assert_eq!(expected((true, since), soon), Expected::Either);
        assert_eq!(expected((true, since), since + NOTICE), Expected::Served);
        assert_eq!(expected((false, since), since + NOTICE), Expected::Refused);
    }
}
