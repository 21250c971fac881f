//! The inquiries of one stream that its proxy has not answered.

use proxy_api::{Inquiry, LiveSessions};
use tokio::sync::oneshot;

use crate::outputs::publish::Ask;

/// The most pending inquiries of one proxy. A proxy answers one after the other.
const MOST: usize = 4;

/// The pending inquiries of one stream, by number.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last: u64,
    inquiries: Vec<(u64, oneshot::Sender<LiveSessions>)>,
}

impl Pending {
    /// Turns an ask into an inquiry. `None`: the asker no longer waits, or too many inquiries are pending, which drops
    /// the ask.
    pub(super) fn take(&mut self, Ask { selection, reply }: Ask) -> Option<Inquiry> {
        self.inquiries.retain(|(_, reply)| !reply.is_closed());
        if reply.is_closed() || self.inquiries.len() >= MOST {
            return None;
        }
        self.last += 1;
        self.inquiries.push((self.last, reply));
        Some(Inquiry { id: self.last, selection: *selection })
    }

    /// Passes an answer to the asker. Returns false if the inquiry is unknown or the asker no longer waits.
    pub(super) fn answer(&mut self, id: u64, live: LiveSessions) -> bool {
        let at = self.inquiries.iter().position(|(pending, _)| *pending == id);
        at.is_some_and(|at| self.inquiries.swap_remove(at).1.send(live).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Selection;

    use super::*;

    fn ask(limit: usize) -> (Ask, oneshot::Receiver<LiveSessions>) {
        let (reply, answer) = oneshot::channel();
        (Ask { selection: Box::new(Selection { limit, ..Selection::default() }), reply }, answer)
    }

    fn live(total: u64) -> LiveSessions {
        LiveSessions { total, ..LiveSessions::default() }
    }

    #[test]
    fn an_answer_reaches_the_asker_of_its_number_once() {
        let mut pending = Pending::default();
        let ((one, mut of_one), (two, mut of_two)) = (ask(1), ask(2));
        let (one, two) = (pending.take(one).expect("room"), pending.take(two).expect("room"));
        assert_eq!((one.selection.limit, two.selection.limit), (1, 2));
        assert_ne!(one.id, two.id);
        assert!(!pending.answer(two.id + 1, live(9)), "an unknown number");
        assert!(pending.answer(two.id, live(2)) && !pending.answer(two.id, live(3)), "a second answer is late");
        assert!(of_one.try_recv().is_err());
        assert!(pending.answer(one.id, live(1)));
        assert_eq!((of_one.try_recv(), of_two.try_recv()), (Ok(live(1)), Ok(live(2))));
    }

    #[test]
    fn pending_inquiries_are_bounded_and_abandoned_ones_make_room() {
        let mut pending = Pending::default();
        let mut answers = Vec::new();
        for limit in 0..MOST {
            let (ask, answer) = ask(limit);
            assert!(pending.take(ask).is_some());
            answers.push(answer);
        }
        let (refused, mut answer) = ask(9);
        assert!(pending.take(refused).is_none());
        assert!(answer.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed), "refused at once");
        answers.remove(0);
        let (ask_again, _answer) = ask(9);
        let fresh = pending.take(ask_again).expect("one asker has given up");
        assert!(!pending.answer(1, live(1)), "a late answer to the asker that has given up");
        assert!(pending.answer(fresh.id, live(1)));
    }

    #[test]
    fn nobody_is_asked_for_an_asker_that_has_given_up() {
        let (ask, answer) = ask(1);
        drop(answer);
        assert!(Pending::default().take(ask).is_none());
    }
}
