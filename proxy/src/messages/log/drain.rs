//! The drain of a listener that is gone.

use std::{sync::Arc, time::Duration};

use tokio::{select, time::Instant};

use super::Log;
use crate::{
    log::Level,
    messages::{generations, settings},
    process::Process,
    shared::Shared,
};

impl Log {
    /// Sends the messages in the logs for at most this time, closes the logs, and reports the messages that stay.
    pub(super) async fn drain(mut self, longest: Duration, process: Process) {
        self.opening = None;
        let Some(shared) = self.current.load_full() else { return self.close().await };
        self.send_rest(longest, &shared, &process).await;
        let (losses, stays) = (self.stores.losses(), self.stays());
        if losses.is_empty() && stays.is_empty() {
            let place = self.place.words(&self.durable);
            // Another proxy may still send the messages in a stream.
            let what = if self.is_stream() { "no message waits here" } else { "the sink has all messages" };
            process.log.notice(Level::Info, "delivery", &shared.id, format!("{what}; {place} is kept"));
        }
        for loss in &losses {
            self.tell_loss(loss, &shared, &process);
        }
        for message in stays {
            process.log.notice(Level::Warn, "delivery", &shared.id, message);
        }
        shared.counters.show_durable(None);
    }

    /// Closes the logs as the process ends, and reports messages that their streams do not have.
    pub(in crate::messages) async fn end(self, process: Process) {
        generations::close(self.stores.handles()).await;
        let Some(shared) = self.current.load_full() else { return };
        for (server, (_, unpublished)) in self.stores.waiting() {
            for message in words(&self.place.words_of(server), "", (0, unpublished)) {
                process.log.notice(Level::Warn, "delivery", &shared.id, message);
            }
        }
    }

    /// Messages that stay, with their place and the remedy, in words, and messages that are lost. The listener sends
    /// those in its folder or its own stream.
    fn stays(&self) -> Vec<String> {
        let own = settings::server(&self.durable);
        let words = |(server, counts): (Option<&str>, (u64, u64))| {
            let is_other = server.is_some() && server != own;
            let remedy =
                if is_other { "create the listener again with that stream" } else { "create the listener again" };
            words(&self.place.words_of(server), remedy, counts)
        };
        self.stores.waiting().into_iter().flat_map(words).collect()
    }

    /// Sends the messages in the logs, of earlier generations first, until the sink has all or this time is over, and
    /// closes the logs. A former stream that fails for too long holds up the others no longer.
    async fn send_rest(&mut self, longest: Duration, shared: &Arc<Shared>, process: &Process) {
        let until = Instant::now() + longest;
        self.stores.stop();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sending = self.stores.sending().stores().cloned().collect();
            let is_given_up = select! {
                () = generations::drain(sending, left) => false,
                () = self.stores.until_given_up() => true,
            };
            if !is_given_up && !self.stores.pass_drained() {
                break;
            }
            self.send(shared, process);
        }
        generations::close(self.stores.handles()).await;
        self.stores.until_closed().await;
    }
}

/// The fate of messages that stay in this place, and of those that did not reach it, in words.
fn words(place: &str, remedy: &str, (messages, unpublished): (u64, u64)) -> impl Iterator<Item = String> + use<> {
    let count = |number| proxy_api::count(number, "message");
    let stay = (messages > 0).then(|| format!("{place} keeps {}: {remedy} to have them sent", count(messages)));
    let lost = (unpublished > 0)
        .then(|| format!("lost {} that had not reached {place}: check its NATS server", count(unpublished)));
    stay.into_iter().chain(lost)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proxy_api::{ListenerId, Origin};
    use tokio::task::LocalSet;

    use super::*;
    use crate::messages::{
        generation::Loss,
        generations::Opened,
        place::{PlaceOfLog, ServerFiles},
        tests::{
            disk,
            leftovers::{acknowledge, lost, opened},
            process_with, shared,
        },
    };

    #[test]
    fn messages_that_did_not_reach_their_stream_are_told_apart_from_those_that_stay_there() {
        let told = |counts| words("the stream", "do it", counts).collect::<Vec<String>>();
        let stay = "the stream keeps 2 messages: do it to have them sent";
        let lost = "lost 3 messages that had not reached the stream: check its NATS server";
        assert_eq!(told((0, 0)), [""; 0]);
        assert_eq!((told((2, 0)), told((0, 3))), (vec![stay.to_owned()], vec![lost.to_owned()]));
        assert_eq!(told((2, 3)), [stay, lost]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_after_a_stream_that_fails_is_sent_although_its_listener_is_gone() {
        let (home, process) = (tempfile::tempdir().expect("a folder"), process_with(None));
        let id = ListenerId::new(Origin::port_forward("ns", "f"), "l");
        let place = PlaceOfLog::new(&id, home.path(), ServerFiles::default());
        let test = async {
            let stream = lost(&home.path().join("a"), "nats://a").await;
            let messages: u64 = stream.present.stores().map(|store| store.figures().backlog()).sum();
            let mut log = Log::new(place, &disk(), stream, &process, Rc::default());
            log.stores.change(opened(&home.path().join("l")).await, &process);
            log.send_rest(Duration::from_secs(3600), &shared(disk()), &process).await;
            assert!(log.stores.is_one() && !log.sending.is_empty(), "the folder sends");
            let loss = Loss { server: "nats://a".to_owned(), messages, unpublished: 0 };
            assert_eq!(log.stores.losses(), [loss]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_former_stream_is_followed_by_the_next_log_once_its_sink_has_all() {
        let (id, process) = (ListenerId::new(Origin::port_forward("ns", "f"), "l"), process_with(None));
        let test = async {
            for (has_all, left) in [(false, vec![Some("nats://a"), None]), (true, vec![None])] {
                let home = tempfile::tempdir().expect("a folder");
                let place = PlaceOfLog::new(&id, home.path(), ServerFiles::default());
                let stream = Opened { server: Some("nats://a".to_owned()), ..opened(&home.path().join("a")).await };
                if has_all {
                    acknowledge(&stream.present).await;
                }
                let mut log = Log::new(place, &disk(), stream, &process, Rc::default());
                log.stores.change(opened(&home.path().join("l")).await, &process);
                log.send_rest(Duration::ZERO, &shared(disk()), &process).await;
                assert_eq!(log.stores.servers(), left);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_stays_is_told_for_each_place_with_what_to_do() {
        let (home, process) = (tempfile::tempdir().expect("a folder"), process_with(None));
        let id = ListenerId::new(Origin::port_forward("ns", "f"), "l");
        let place = PlaceOfLog::new(&id, home.path(), ServerFiles::default());
        let test = async {
            let stream = Opened { server: Some("nats://a".to_owned()), ..opened(&home.path().join("a")).await };
            let mut log = Log::new(place, &disk(), stream, &process, Rc::default());
            log.stores.change(opened(&home.path().join("l")).await, &process);
            let again = "create the listener again";
            let folder = format!("{} keeps 1 message: {again} to have them sent", log.place.words_of(None));
            let stream = "the stream portlane__ns__f__l of nats://a keeps 1 message";
            assert_eq!(log.stays(), [folder, format!("{stream}: {again} with that stream to have them sent")]);
            log.close().await;
        };
        LocalSet::new().run_until(test).await;
    }
}
