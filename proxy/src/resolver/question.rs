//! One question: a full name, one family, the servers in their order.

use std::pin::pin;

use hickory_resolver::{
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};
use tokio::{task::JoinSet, time::sleep};

use super::system::{Client, System};
use crate::{
    core::dns::{
        answer::{Answer, Family},
        chain::{self, Data, follow},
        resolv_conf::Flag,
        tries::{STAGGER, Try},
    },
    deadline::within,
};

/// Asks the servers until one gives a definite answer, or none is left. Without `may_overlap`, one server is asked at a
/// time.
pub(super) async fn ask(system: &System, fqdn: &str, family: Family, may_overlap: bool) -> Answer {
    if family == Family::Six && system.conf.has(Flag::NoAaaa) {
        return Answer::NoData;
    }
    let name = match Name::from_ascii(fqdn) {
        Ok(name) => name,
        // No server is asked, so this is no silence: the search goes on.
        Err(error) => return Answer::Failed { why: error.to_string(), is_servfail: true },
    };
    let mut left = system.tries(may_overlap).peekable();
    let mut running = JoinSet::new();
    let mut worst: Option<Answer> = None;
    loop {
        let next_may_overlap = left.peek().is_some_and(|(one, _)| one.may_overlap);
        if running.is_empty() {
            match left.next() {
                Some((one, client)) => running.spawn(try_one(one, client, name.clone(), family)),
                None => return worst.unwrap_or_else(|| failed("there is no name server".to_owned())),
            };
            continue;
        }
        let answer = tokio::select! {
            Some(ended) = running.join_next() => ended.unwrap_or_else(|error| failed(error.to_string())),
            () = sleep(STAGGER), if next_may_overlap => {
                if let Some((one, client)) = left.next() {
                    running.spawn(try_one(one, client, name.clone(), family));
                }
                continue;
            }
        };
        if !answer.is_failed() {
            return answer;
        }
        worst = Some(match worst.take() {
            Some(earlier) => earlier.or_later(answer),
            None => answer,
        });
        if let Some((one, client)) = left.next_if(|(one, _)| one.may_overlap) {
            running.spawn(try_one(one, client, name.clone(), family));
        }
    }
}

async fn try_one(one: Try, client: Result<Client, String>, name: Name, family: Family) -> Answer {
    let client = match client {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    let record = match family {
        Family::Four => RecordType::A,
        Family::Six => RecordType::AAAA,
    };
    match within(one.timeout, pin!(client.lookup(name.clone(), record))).await {
        None => failed("lookup timed out".to_owned()),
        Some(Ok(lookup)) => found(&lookup, &name, record),
        Some(Err(error)) => unfound(&error, &name),
    }
}

/// What an answer with records says.
fn found(lookup: &Lookup, asked: &Name, record: RecordType) -> Answer {
    match lookup.message().metadata.response_code {
        ResponseCode::NoError => {}
        // Whatever the records are.
        ResponseCode::NXDomain => return Answer::NxDomain,
        code => return failed(code.to_string()),
    }
    let records: Vec<_> = lookup.answers().iter().map(|answer| of_core(answer, record)).collect();
    follow(asked, &records)
}

fn of_core(answer: &Record, record: RecordType) -> chain::Record<&Name> {
    let address = answer.data.ip_addr().filter(|_| answer.record_type() == record);
    let data = match (&answer.data, address) {
        (_, Some(ip)) => Data::Address(ip),
        (RData::CNAME(target), None) => Data::Alias(&target.0),
        _ => Data::Other,
    };
    chain::Record { owner: &answer.name, ttl: answer.ttl, data }
}

/// What an answer without records says, or why there is none.
fn unfound(error: &NetError, asked: &Name) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Answer::NxDomain
        }
        // The name is an alias of that one.
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.query.name() != asked => Answer::OtherRecords,
        NetError::Dns(DnsError::NoRecordsFound(_)) => Answer::NoData,
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            Answer::Failed { why: error.to_string(), is_servfail: true }
        }
        NetError::Timeout => failed("lookup timed out".to_owned()),
        error => failed(error.to_string()),
    }
}

fn failed(why: String) -> Answer {
    Answer::Failed { why, is_servfail: false }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_resolver::{
        net::NoRecords,
        proto::{
            op::Query,
            rr::rdata::{A, CNAME},
        },
    };

    use super::*;
    use crate::resolver::system::Latest;

    #[tokio::test]
    async fn a_name_that_cannot_be_asked_for_does_not_count_as_silence() {
        let system = Latest::default().system();
        let answer = ask(&system, &format!("{}.test.", "a".repeat(64)), Family::Four, true).await;
        assert!(matches!(answer, Answer::Failed { is_servfail: true, .. }), "{answer:?}");
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    #[test]
    fn the_shortest_ttl_of_an_answer_counts_and_only_addresses_of_the_family() {
        let query = Query::query(name("a.test."), RecordType::A);
        let alias = Record::from_rdata(name("a.test."), 30, RData::CNAME(CNAME(name("b.test."))));
        let address = Record::from_rdata(name("b.test."), 60, RData::A(A::new(192, 0, 2, 1)));
        let foreign = Record::from_rdata(name("c.test."), 5, RData::A(A::new(192, 0, 2, 66)));
        let lookup = Lookup::new_with_max_ttl(query, [alias, address, foreign]);
        let ips = vec![std::net::IpAddr::from([192, 0, 2, 1])];
        let asked = name("A.test.");
        assert_eq!(found(&lookup, &asked, RecordType::A), Answer::Addresses { ips, ttl: Duration::from_secs(30) });
        assert_eq!(found(&lookup, &asked, RecordType::AAAA), Answer::OtherRecords);
    }

    #[test]
    fn definite_answers_differ_from_failures() {
        let asked = name("a.test.");
        let none = |code| NetError::from(NoRecords::new(Query::query(name("a.test."), RecordType::A), code));
        assert_eq!(unfound(&none(ResponseCode::NXDomain), &asked), Answer::NxDomain);
        assert_eq!(unfound(&none(ResponseCode::NoError), &asked), Answer::NoData);
        assert_eq!(unfound(&none(ResponseCode::NoError), &name("alias.test.")), Answer::OtherRecords);
        let code = |code| unfound(&NetError::Dns(DnsError::ResponseCode(code)), &asked);
        assert!(matches!(code(ResponseCode::ServFail), Answer::Failed { is_servfail: true, .. }));
        assert!(matches!(code(ResponseCode::Refused), Answer::Failed { is_servfail: false, .. }));
        assert!(unfound(&NetError::Timeout, &asked).is_failed());
    }
}
