//! Notes about what a reading of sessions lacks, and why.

use super::{Of, Reading, SessionList};
use crate::units::count;

/// Most pods or forwards that notes name.
const NAMED: usize = 5;

/// Returns the notes about sessions that were read: requests that failed, lists that are cut, proxies that did not
/// answer. Each note is there once.
pub fn notes(reading: &[Reading]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut cut: Vec<(&Of, &SessionList)> = Vec::new();
    for (of, read) in reading {
        match read {
            Err(why) => notes.push(why.to_string()),
            Ok(list) => {
                if (list.items.len() as u64) < list.total {
                    cut.push((of, list));
                }
                if list.uncounted > 0 {
                    let sessions = count(list.uncounted, "session");
                    let note =
                        format!("a proxy has sessions of too many forwards: {sessions} not attributed to any forward");
                    notes.push(note);
                }
                notes.extend(unanswered(&list.unanswered));
            }
        }
    }
    if cut.len() > NAMED {
        let total = cut.iter().fold(0_u64, |sum, (_, list)| sum.saturating_add(list.total));
        let listed: usize = cut.iter().map(|(_, list)| list.items.len()).sum();
        notes.push(format!("{} forwards have {total} sessions, and the live API listed {listed}", cut.len()));
    } else {
        let note = |(of, list): &(&Of, &SessionList)| {
            format!("{} has {} sessions, and the live API listed {}", of.name(), list.total, list.items.len())
        };
        notes.extend(cut.iter().map(note));
    }
    notes.sort();
    notes.dedup();
    notes
}

/// Returns the note about proxies that have not answered, if any.
pub fn unanswered(pods: &[String]) -> Option<String> {
    proxies(pods, "has not answered", "have not answered")
}

/// Returns the note about proxies that are too old for the request, if any.
pub fn older(pods: &[String]) -> Option<String> {
    let line = proxies(pods, "is too old to report figures", "are too old to report figures")?;
    Some(format!("{line}; kubectl portlane status shows what to upgrade"))
}

/// Formats a note about one proxy, or about several.
fn proxies(pods: &[String], one: &str, several: &str) -> Option<String> {
    let named = pods.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match pods.len() {
        0 => None,
        1 => Some(format!("the proxy of pod {named} {one}")),
        all if all > NAMED => Some(format!("the proxies of {all} pods {several}: {named}, …")),
        _ => Some(format!("the proxies of pods {named} {several}")),
    }
}

#[cfg(test)]
mod tests {
    use operator_core::ObjectKey;

    use super::*;
    use crate::{
        access::Unknown,
        live::{Request, Session, usable},
    };

    #[test]
    fn a_note_names_cut_lists_and_silent_proxies_once() {
        let of = |name: &str| Of::Forward(ObjectKey::new("shop", name));
        let list = SessionList { total: 9, unanswered: vec!["shop/p1".to_owned()], ..SessionList::default() };
        let forbidden = || Err(Request::sessions(&of("db"), 7).refused(403, "", ""));
        let silent = SessionList { total: 0, ..list.clone() };
        let reading = [(of("a"), Ok(list)), (of("b"), Ok(silent)), (of("c"), forbidden()), (of("d"), forbidden())];
        let notes = notes(&reading);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes.contains(&"PortForward shop/a has 9 sessions, and the live API listed 0".to_owned()));
        assert!(notes.contains(&"the proxy of pod shop/p1 has not answered".to_owned()));
        assert_eq!(usable(&reading), Ok(()));
        let missing = [(of("a"), Err(Unknown::NotInstalled))];
        assert_eq!(usable(&missing), Err(Unknown::NotInstalled));
    }

    #[test]
    fn five_silent_proxies_are_named_and_of_more_the_first_five() {
        let silent = |count: usize| {
            let pods: Vec<String> = (1..=count).map(|at| format!("shop/p{at}")).collect();
            unanswered(&pods)
        };
        assert_eq!(silent(0), None);
        let five = "the proxies of pods shop/p1, shop/p2, shop/p3, shop/p4, shop/p5 have not answered";
        assert_eq!(silent(5).as_deref(), Some(five));
        let six = "the proxies of 6 pods have not answered: shop/p1, shop/p2, shop/p3, shop/p4, shop/p5, …";
        assert_eq!(silent(6).as_deref(), Some(six));
    }

    #[test]
    fn a_list_with_all_sessions_is_not_cut() {
        let of = || Of::Pod(ObjectKey::new("shop", "p"));
        let list = |total: u64| SessionList { total, items: vec![Session::default(); 2], ..SessionList::default() };
        assert!(notes(&[(of(), Ok(list(2)))]).is_empty());
        assert_eq!(notes(&[(of(), Ok(list(3)))]), ["pod shop/p has 3 sessions, and the live API listed 2"]);
    }

    #[test]
    fn of_many_cut_lists_the_sum_is_told() {
        let cut = |at: usize| {
            let list = SessionList { total: 9, items: vec![Session::default(); 2], ..SessionList::default() };
            (Of::Forward(ObjectKey::new("shop", format!("f{at}"))), Ok(list))
        };
        let few: Vec<Reading> = (0..NAMED).map(cut).collect();
        assert_eq!(notes(&few).len(), NAMED);
        let many: Vec<Reading> = (0..=NAMED).map(cut).collect();
        assert_eq!(notes(&many), ["6 forwards have 54 sessions, and the live API listed 12"]);
    }
}
