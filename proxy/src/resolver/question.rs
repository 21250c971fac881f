//! One query: a full name, one family, the servers in their order.

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{exchange::NameServer, system::System};
use crate::core::resolution::dns::{
    answer::{Answer, Family},
    exchange::Question,
    resolv_conf::Flag,
    tries::{QUESTION, STAGGER, Try},
};

/// Queries the servers until one gives a definite answer, or none is left. Without `may_overlap`, one server is queried
/// at a time.
pub(super) async fn ask(system: &System, fqdn: &str, family: Family, may_overlap: bool) -> Answer {
    if family == Family::Six && system.conf.has(Flag::NoAaaa) {
        return Answer::NoData;
    }
    let Some(question) = Question::new(fqdn, family, system.conf.has(Flag::Edns0)) else {
        // No server is queried, so this is no silence: the search continues.
        return Answer::Failed { why: format!("{fqdn:?} is not a name of DNS"), is_servfail: true };
    };
    let end = Instant::now() + QUESTION;
    let mut left = system.tries(may_overlap).peekable();
    let mut running = JoinSet::new();
    let mut worst: Option<Answer> = None;
    loop {
        let next_may_overlap = left.peek().is_some_and(|(one, _)| one.may_overlap);
        if running.is_empty() {
            match left.next() {
                Some((one, server)) => running.spawn(try_one(one, server, question.clone(), end)),
                None => return worst.unwrap_or_else(|| failed("there is no name server".to_owned())),
            };
            continue;
        }
        let said = tokio::select! {
            Some(ended) = running.join_next() => ended.unwrap_or_else(|error| Err(failed(error.to_string()))),
            () = sleep(STAGGER), if next_may_overlap => {
                if let Some((one, server)) = left.next() {
                    running.spawn(try_one(one, server, question.clone(), end));
                }
                continue;
            }
        };
        let failure = match said {
            Ok(answer) => return answer,
            Err(failure) => failure,
        };
        worst = Some(match worst.take() {
            Some(earlier) => earlier.or_later(failure),
            None => failure,
        });
        if let Some((one, server)) = left.next_if(|(one, _)| one.may_overlap) {
            running.spawn(try_one(one, server, question.clone(), end));
        }
    }
}

/// The answer of a server, or why the next one is queried.
async fn try_one(one: Try, server: NameServer, question: Question, end: Instant) -> Result<Answer, Answer> {
    server.ask(&question, one.timeout, end).await
}

fn failed(why: String) -> Answer {
    Answer::Failed { why, is_servfail: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::system::Latest;

    #[tokio::test]
    async fn a_name_that_cannot_be_asked_for_does_not_count_as_silence() {
        let system = Latest::default().system().await;
        let answer = ask(&system, &format!("{}.test.", "a".repeat(64)), Family::Four, true).await;
        assert!(matches!(answer, Answer::Failed { is_servfail: true, .. }), "{answer:?}");
    }
}
