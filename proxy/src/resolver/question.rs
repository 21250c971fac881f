//! One question: a full name, one family, the servers in their order.

use std::{pin::pin, time::Duration};

use hickory_resolver::{
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
};
use tokio::{task::JoinSet, time::sleep};

use super::system::{Client, System};
use crate::{
    core::dns::{
        answer::{Answer, Family},
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
    match within(one.timeout, pin!(client.lookup(name, record))).await {
        None => failed("lookup timed out".to_owned()),
        Some(Ok(lookup)) => found(&lookup, record),
        Some(Err(error)) => unfound(&error),
    }
}

/// The addresses of an answer. The shortest TTL counts, also that of an alias.
fn found(lookup: &Lookup, record: RecordType) -> Answer {
    let of_family = lookup.answers().iter().filter(|answer| answer.record_type() == record);
    let ips: Vec<_> = of_family.filter_map(|answer| answer.data.ip_addr()).collect();
    let ttl = lookup.answers().iter().map(|answer| answer.ttl).min().unwrap_or_default();
    if ips.is_empty() { Answer::NoData } else { Answer::Addresses { ips, ttl: Duration::from_secs(ttl.into()) } }
}

fn unfound(error: &NetError) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Answer::NxDomain
        }
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
    use hickory_resolver::{
        net::NoRecords,
        proto::{
            op::Query,
            rr::{
                RData, Record,
                rdata::{A, CNAME},
            },
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
        let lookup = Lookup::new_with_max_ttl(query, [alias, address]);
        let ips = vec![std::net::IpAddr::from([192, 0, 2, 1])];
        assert_eq!(found(&lookup, RecordType::A), Answer::Addresses { ips, ttl: Duration::from_secs(30) });
        assert_eq!(found(&lookup, RecordType::AAAA), Answer::NoData);
    }

    #[test]
    fn definite_answers_differ_from_failures() {
        let none = |code| NetError::from(NoRecords::new(Query::query(name("a.test."), RecordType::A), code));
        assert_eq!(unfound(&none(ResponseCode::NXDomain)), Answer::NxDomain);
        assert_eq!(unfound(&none(ResponseCode::NoError)), Answer::NoData);
        let code = |code| unfound(&NetError::Dns(DnsError::ResponseCode(code)));
        assert!(matches!(code(ResponseCode::ServFail), Answer::Failed { is_servfail: true, .. }));
        assert!(matches!(code(ResponseCode::Refused), Answer::Failed { is_servfail: false, .. }));
        assert!(unfound(&NetError::Timeout).is_failed());
    }
}
