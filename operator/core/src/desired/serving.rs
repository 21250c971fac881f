//! The user's own serving certificate for the webhook and the metrics API: its flaws, and how API servers move from one
//! certificate to the next without a failed handshake.

use std::net::IpAddr;

/// Seconds between the first sight of a certificate of another CA and its first use: by then, the leader has published
/// the CA, whichever replica saw the certificate first.
pub const SETTLE: u64 = 30;
/// Seconds for which the CA of the previous certificate stays published: by then, every replica uses the new
/// certificate.
pub const OVERLAP: u64 = 90;
/// Most names of a certificate that a message quotes.
const NAMED: usize = 5;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The fields of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// Begin of its validity, seconds since 1970.
    pub begin: u64,
    /// End of its validity, seconds since 1970.
    pub end: u64,
}

/// Why API servers refuse a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The certificate has expired.
    #[error("expired {0} s ago: renew it")]
    Expired(u64),
    /// The certificate is not valid yet.
    #[error("becomes valid only in {0} s: check the clocks")]
    NotYet(u64),
    /// The certificate lacks a name that API servers call.
    #[error("is valid for {has}, but API servers call {lacks}: issue it for that DNS name")]
    OtherNames {
        /// The missing name.
        lacks: String,
        /// The names of the certificate.
        has: String,
    },
    /// The CA certificates beside the certificate did not sign it.
    #[error("is not signed by a CA certificate of ca.crt: correct ca.crt")]
    Untrusted,
}

impl Flaw {
    /// The value of the label `result`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Expired(_) => "expired",
            Self::NotYet(_) => "not_yet_valid",
            Self::OtherNames { .. } => "other_names",
            Self::Untrusted => "untrusted",
        }
    }
}

/// The first reason why API servers that call these hosts refuse a certificate, if any.
#[must_use]
pub fn flaw(facts: &Facts, hosts: &[String], now: u64) -> Option<Flaw> {
    if facts.end <= now {
        return Some(Flaw::Expired(now - facts.end));
    }
    if facts.begin > now {
        return Some(Flaw::NotYet(facts.begin - now));
    }
    let lacks = hosts.iter().find(|host| !facts.names.iter().any(|name| covers(name, host)))?.clone();
    let mut has: Vec<&str> = facts.names.iter().take(NAMED).map(String::as_str).collect();
    if facts.names.len() > NAMED {
        has.push("…");
    }
    let has = if has.is_empty() { "no name".to_owned() } else { has.join(", ") };
    Some(Flaw::OtherNames { lacks, has })
}

/// Whether a name of a certificate is valid for a host.
fn covers(name: &str, host: &str) -> bool {
    if let (Ok(name), Ok(host)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return name == host;
    }
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    let beyond_first = |host: &str| host.split_once('.').map(|(_, rest)| rest.to_owned());
    name == host || name.strip_prefix("*.").is_some_and(|rest| beyond_first(&host).as_deref() == Some(rest))
}

/// A usable certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<T> {
    /// Hash of certificate, key and CA certificates.
    pub id: u64,
    /// CA certificates, PEM; empty if there are none.
    pub bundle: String,
    /// End of the validity, seconds since 1970.
    pub end: u64,
    /// Whether API servers refuse the certificate, see [`Flaw`].
    pub is_flawed: bool,
    /// The certificate with its key.
    pub key: T,
}

/// The certificate in use, and its successor.
#[derive(Clone, Debug)]
pub struct Handover<T> {
    used: Option<Offer<T>>,
    /// The next certificate, and when it was first seen.
    next: Option<(Offer<T>, u64)>,
    /// The CA certificates of the previous certificate, and until when they are published.
    before: Option<(String, u64)>,
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self { used: None, next: None, before: None }
    }
}

impl<T> Handover<T> {
    /// Takes the certificate that is stored now. A certificate that API servers refuse never replaces one that they
    /// accept, for example while a client writes the Secret key by key.
    pub fn offer(&mut self, offer: Offer<T>, now: u64) {
        let Some(used) = &mut self.used else {
            self.used = Some(offer);
            return;
        };
        let is_accepted = !used.is_flawed && used.end > now;
        if used.id == offer.id {
            used.is_flawed = offer.is_flawed;
            self.next = None;
        } else if offer.is_flawed && is_accepted {
            // The certificate in use stays, and so does a flawless next one.
        } else if used.end <= now || certificates(&used.bundle) == certificates(&offer.bundle) {
            (self.used, self.next) = (Some(offer), None);
        } else if self.next.as_ref().is_none_or(|(next, _)| next.id != offer.id) {
            self.next = Some((offer, now));
        }
    }

    /// The certificate to use now.
    pub fn using(&mut self, now: u64) -> Option<&Offer<T>> {
        let is_over = self.used.as_ref().is_none_or(|used| used.end <= now);
        if self.next.as_ref().is_some_and(|(_, since)| is_over || *since + SETTLE <= now)
            && let Some((next, _)) = self.next.take()
            && let Some(used) = self.used.replace(next)
        {
            self.before = Some((used.bundle, now + OVERLAP));
        }
        self.used.as_ref()
    }

    /// The CA certificates that API servers should trust now, PEM, each once. Empty while the certificate in use has no
    /// CA certificates: another client then keeps `caBundle`, and the CA certificates of another certificate would
    /// replace the right ones.
    #[must_use]
    pub fn bundle(&self, now: u64) -> String {
        let before = self.before.as_ref().filter(|(_, until)| *until > now).map(|(bundle, _)| bundle);
        let next = self.next.as_ref().map(|(next, _)| &next.bundle);
        let used = self.used.as_ref().map(|used| &used.bundle);
        if used.is_some_and(|bundle| certificates(bundle).is_empty()) {
            return String::new();
        }
        let mut all: Vec<String> = Vec::new();
        for certificate in used.into_iter().chain(next).chain(before).flat_map(|bundle| certificates(bundle)) {
            if !all.contains(&certificate) {
                all.push(certificate);
            }
        }
        all.concat()
    }
}

/// The certificates of a PEM text in canonical form, without comments and other text.
fn certificates(pem: &str) -> Vec<String> {
    let bodies = pem.split(BEGIN).skip(1).filter_map(|part| part.split_once(END)).map(|(body, _)| body.trim());
    bodies.map(|body| format!("{BEGIN}\n{body}\n{END}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(names: &[&str]) -> Facts {
        Facts { names: names.iter().map(|name| (*name).to_owned()).collect(), begin: 100, end: 200 }
    }

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_is_judged_as_an_api_server_would() {
        let good = facts(&["Operator.Portlane.svc"]);
        let calls = hosts(&["operator.portlane.svc"]);
        assert_eq!(flaw(&good, &calls, 150), None);
        assert_eq!(flaw(&good, &calls, 199), None);
        assert_eq!(flaw(&good, &calls, 200), Some(Flaw::Expired(0)));
        assert_eq!(flaw(&good, &calls, 100), None);
        assert_eq!(flaw(&good, &calls, 99), Some(Flaw::NotYet(1)));
        assert_eq!(flaw(&good, &calls, 60), Some(Flaw::NotYet(40)));
        for (name, host, is_good) in [
            ("*.portlane.svc", "operator.portlane.svc", true),
            ("*.svc", "operator.portlane.svc", false),
            ("*.portlane.svc", "portlane.svc", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "0:0:0:0:0:0:0:1", true),
            ("operator", "operator.portlane.svc", false),
        ] {
            assert_eq!(flaw(&facts(&[name]), &hosts(&[host]), 150).is_none(), is_good, "{name} for {host}");
        }
        let one = flaw(&good, &hosts(&["operator.portlane.svc", "metrics.portlane.svc"]), 150).expect("a flaw");
        let text =
            "is valid for Operator.Portlane.svc, but API servers call metrics.portlane.svc: issue it for that DNS name";
        assert_eq!((one.to_string().as_str(), one.as_str()), (text, "other_names"));
        let none = flaw(&facts(&[]), &calls, 150).expect("a flaw").to_string();
        assert!(none.starts_with("is valid for no name,"), "{none}");
        let many = flaw(&facts(&["a", "b", "c", "d", "e", "f"]), &calls, 150).expect("a flaw").to_string();
        assert!(many.starts_with("is valid for a, b, c, d, e, …,"), "{many}");
    }

    #[test]
    fn five_names_of_a_certificate_are_all_told() {
        let five = facts(&["a", "b", "c", "d", "e"]);
        let told = flaw(&five, &hosts(&["operator.portlane.svc"]), 150).expect("a flaw").to_string();
        assert!(told.starts_with("is valid for a, b, c, d, e, but"), "{told}");
    }

    fn pem(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    fn offer(id: u64, ca: &str, end: u64) -> Offer<u64> {
        Offer { id, bundle: if ca.is_empty() { String::new() } else { pem(ca) }, end, is_flawed: false, key: id }
    }

    fn used(handover: &mut Handover<u64>, now: u64) -> Option<u64> {
        handover.using(now).map(|offer| offer.key)
    }

    #[test]
    fn the_next_ca_is_trusted_before_its_certificate_is_used_and_the_old_one_for_a_while_after() {
        let mut handover = Handover::default();
        assert_eq!((used(&mut handover, 0), handover.bundle(0)), (None, String::new()));
        handover.offer(offer(1, "A", 1000), 0);
        assert_eq!((used(&mut handover, 0), handover.bundle(0)), (Some(1), pem("A")));
        handover.offer(offer(2, "B", 1000), 10);
        handover.offer(offer(2, "B", 1000), 20);
        assert_eq!((used(&mut handover, 10 + SETTLE - 1), handover.bundle(20)), (Some(1), pem("A") + &pem("B")));
        let at = 10 + SETTLE;
        assert_eq!((used(&mut handover, at), handover.bundle(at)), (Some(2), pem("B") + &pem("A")));
        handover.offer(offer(2, "B", 1000), at);
        assert_eq!(handover.bundle(at + OVERLAP - 1), pem("B") + &pem("A"));
        assert_eq!((used(&mut handover, at + OVERLAP), handover.bundle(at + OVERLAP)), (Some(2), pem("B")));
    }

    #[test]
    fn a_renewed_certificate_of_the_same_ca_and_one_after_an_expired_one_are_used_at_once() {
        let mut handover = Handover::default();
        handover.offer(offer(1, "A", 100), 0);
        handover.offer(Offer { bundle: format!("# our CA\n{}", pem("A")), ..offer(2, "A", 200) }, 50);
        assert_eq!(used(&mut handover, 50), Some(2));
        handover.offer(offer(3, "B", 900), 200);
        assert_eq!(used(&mut handover, 200), Some(3), "nobody trusts an expired one");
        handover.offer(offer(4, "C", 900), 300);
        handover.offer(offer(3, "B", 900), 310);
        assert_eq!((used(&mut handover, 400), handover.bundle(400)), (Some(3), pem("B")), "it was put back");
    }

    #[test]
    fn a_certificate_that_api_servers_refuse_never_replaces_one_that_they_accept() {
        let flawed = |id: u64, ca: &str| Offer { is_flawed: true, ..offer(id, ca, 900) };
        let mut handover = Handover::default();
        handover.offer(flawed(1, "A"), 0);
        assert_eq!(used(&mut handover, 0), Some(1), "the first one: no other would be better");
        handover.offer(offer(2, "A", 500), 10);
        handover.offer(flawed(3, "A"), 20);
        assert_eq!((used(&mut handover, 20), handover.bundle(20)), (Some(2), pem("A")), "half of the Secret is new");
        handover.offer(flawed(4, "B"), 100);
        assert_eq!((used(&mut handover, 100 + SETTLE), handover.bundle(100)), (Some(2), pem("A")));
        handover.offer(flawed(3, "A"), 500);
        assert_eq!(used(&mut handover, 500), Some(3), "the accepted one has expired");
        handover.offer(offer(3, "A", 900), 510);
        handover.offer(flawed(4, "A"), 520);
        assert_eq!(used(&mut handover, 520), Some(3), "the same one, whose flaw has passed");
    }

    #[test]
    fn a_certificate_without_ca_certificates_leaves_the_bundle_to_others_while_it_is_in_use() {
        let mut handover = Handover::default();
        handover.offer(offer(1, "", 1000), 0);
        handover.offer(offer(2, "B", 1000), 10);
        assert_eq!((used(&mut handover, 10), handover.bundle(10)), (Some(1), String::new()));
        assert_eq!((used(&mut handover, 10 + SETTLE), handover.bundle(10 + SETTLE)), (Some(2), pem("B")));
        handover.offer(offer(3, "", 1000), 200);
        assert_eq!((used(&mut handover, 200), handover.bundle(200)), (Some(2), pem("B")));
        assert_eq!((used(&mut handover, 200 + SETTLE), handover.bundle(200 + SETTLE)), (Some(3), String::new()));
    }

    #[test]
    fn a_certificate_that_expires_while_the_next_one_waits_gives_way_at_once() {
        let mut handover = Handover::default();
        handover.offer(offer(1, "A", 100), 0);
        handover.offer(offer(2, "B", 900), 95);
        assert_eq!((used(&mut handover, 99), used(&mut handover, 100)), (Some(1), Some(2)));
    }

    #[test]
    fn the_bundle_has_certificates_only_and_each_once() {
        let text =
            format!("# a comment\n{}-----BEGIN PRIVATE KEY-----\nX\n-----END PRIVATE KEY-----\n{}", pem("A"), pem("A"));
        let mut handover = Handover::default();
        handover.offer(Offer { bundle: text, ..offer(1, "", 100) }, 0);
        assert_eq!(handover.bundle(0), pem("A"));
        let mut without = Handover::default();
        without.offer(offer(1, "", 100), 0);
        assert_eq!(without.bundle(0), "");
    }
}
