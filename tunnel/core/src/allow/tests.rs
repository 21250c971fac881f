use proptest::prelude::*;

use super::*;

fn list(entries: &[&str]) -> AllowList {
    AllowList::parse(Side::Dialler, entries).expect("a list")
}

fn target(protocol: Protocol, host: &str, port: u16) -> Target {
    Target { protocol, host: host.to_owned(), port }
}

fn allows(entries: &[&str], host: &str, port: u16) -> bool {
    list(entries).check(&target(Protocol::Tcp, host, port)).is_ok()
}

#[test]
fn an_empty_list_allows_nothing_not_even_loopback() {
    for host in ["127.0.0.1", "::1", "localhost", "db.example.com"] {
        assert!(!allows(&[], host, 5432), "{host}");
    }
}

#[test]
fn names_are_compared_without_regard_to_case_and_to_a_dot_at_the_end() {
    for host in ["db.example.com", "DB.Example.com", "db.example.com."] {
        assert!(allows(&["db.Example.COM:5432"], host, 5432), "{host}");
        assert!(allows(&["db.example.com.:5432"], host, 5432), "{host}");
    }
    for host in ["example.com", "a.db.example.com", "db.example.co", "db.example.com.."] {
        assert!(!allows(&["db.example.com:5432"], host, 5432), "{host}");
    }
}

#[test]
fn a_name_allows_no_address_and_an_address_no_name() {
    assert!(!allows(&["localhost:80"], "127.0.0.1", 80));
    assert!(!allows(&["127.0.0.1:80", "[::1]:80"], "localhost", 80));
    assert!(allows(&["127.0.0.1:80", "localhost:80"], "localhost", 80));
}

#[test]
fn ports_and_protocols_are_those_of_the_entry() {
    let ports = [5431, 5432, 5440, 5441].map(|port| allows(&["127.0.0.1:5432-5440"], "127.0.0.1", port));
    assert_eq!(ports, [false, true, true, false]);
    let udp = list(&["udp/10.0.0.1:53"]);
    assert!(udp.check(&target(Protocol::Udp, "10.0.0.1", 53)).is_ok());
    assert!(udp.check(&target(Protocol::Tcp, "10.0.0.1", 53)).is_err());
    assert!(list(&["tcp/10.0.0.1:53"]).check(&target(Protocol::Udp, "10.0.0.1", 53)).is_err());
}

#[test]
fn networks_hold_their_addresses_in_every_form() {
    assert!(allows(&["10.0.0.0/8:443"], "10.255.0.1", 443));
    assert!(!allows(&["10.0.0.0/8:443"], "11.0.0.1", 443));
    assert!(allows(&["10.0.0.0/8:443"], "::ffff:10.0.0.1", 443));
    assert!(allows(&["[::ffff:10.0.0.1]:443"], "10.0.0.1", 443));
    assert!(allows(&["[fd00::/8]:443", "[2001:db8::1]:443"], "2001:DB8:0::1", 443));
    assert!(!allows(&["[fd00::/8]:443"], "fe80::1", 443));
    // A text with a zone is not an address, and other spellings of an address are names.
    assert!(!allows(&["[fe80::/10]:443"], "fe80::1%eth0", 443));
    assert!(!allows(&["127.0.0.0/8:443"], "127.1", 443));
}

#[test]
fn a_name_leads_to_addresses_of_the_link_and_of_clouds_only_if_they_are_listed() {
    let refused = |entries: &[&str], ip: &str| list(entries).check_address(ip.parse().expect("an address")).is_err();
    for ip in ["169.254.169.254", "169.254.0.7", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"] {
        assert!(refused(&["db.example.com:80", "0.0.0.0/0:80", "[::/0]:80"], ip), "{ip}");
    }
    assert!(!refused(&["169.254.169.254:80"], "169.254.169.254"));
    assert!(refused(&["169.254.169.253:80"], "169.254.169.254"));
    for ip in ["127.0.0.1", "::1", "192.168.0.2", "2001:db8::1"] {
        assert!(!refused(&["db.example.com:80"], ip), "{ip}");
    }
}

#[test]
fn a_refusal_says_what_its_reader_can_do() {
    let asked = target(Protocol::Udp, "::1", 53);
    let refusal = list(&[]).check(&asked).expect_err("refused");
    assert_eq!(refusal.reason, Reason::NotAllowed);
    assert_eq!(refusal.detail, "the agent does not allow this target: start it with --allow udp/[::1]:53");
    let server = AllowList::parse::<&str>(Side::Listener, &[]).expect("a list");
    let refusal = server.check(&target(Protocol::Tcp, "db", 5432)).expect_err("refused");
    assert_eq!(refusal.detail, "spec.targets of the ForwardAgent does not list db:5432: add it");
}

#[test]
fn an_entry_that_is_wrong_is_named_with_its_place_and_the_remedy() {
    for (text, says) in [
        ("localhost", "has no port"),
        ("10.0.0.0/8", "has no port"),
        ("::1", "has no port"),
        ("[::1]", "has no port"),
        ("localhost:", "has the port \"\""),
        ("localhost:0", "has the port \"0\""),
        ("localhost:+80", "has the port \"+80\""),
        ("localhost:65536", "has the port"),
        ("localhost:90-80", "has the port \"90-80\""),
        ("localhost:80-", "has the port"),
        (":80", "has the host \"\""),
        ("a b:80", "has the host"),
        ("300.1.1.1:80", "has the host \"300.1.1.1\""),
        ("10.0.0.0/33:80", "has the host"),
        ("2001:db8::1:80x", "has the host"),
        ("[fe80::1%eth0]:80", "has the host"),
        ("[10.0.0.1]:80", "has the host"),
        ("udp/udp/a:80", "has the host"),
        ("*.example.com:80", "has the host"),
    ] {
        let error = AllowList::parse(Side::Dialler, &["127.0.0.1:1", text]).expect_err(text).to_string();
        let start = format!("entry 2 of the allowed targets, {text:?}, {says}");
        assert!(error.starts_with(&start) && error.contains(": write "), "{error}");
    }
    let many = vec!["a:1"; 65];
    assert_eq!(AllowList::parse(Side::Dialler, &many), Err(AllowError::TooMany(65)));
}

#[test]
fn a_list_has_64_entries_and_a_name_253_bytes_at_most() {
    assert!(AllowList::parse(Side::Dialler, &["a:1"; 64]).is_ok());
    let names = [["a"; 127].join("."), format!("{}.aa", ["a"; 126].join("."))];
    assert_eq!(names.each_ref().map(String::len), [253, 254]);
    assert_eq!(names.map(|name| format!("{name}:1").parse::<Entry>().is_ok()), [true, false]);
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_is_printed(
        udp: bool,
        host in prop_oneof![
            "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z][a-z0-9]{0,5}){0,3}",
            any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<(std::net::Ipv4Addr, u8)>().prop_map(|(ip, bits)| format!("{ip}/{}", bits % 33)),
            any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
            any::<(Ipv6Addr, u8)>().prop_map(|(ip, bits)| format!("[{ip}/{}]", bits % 129)),
        ],
        first in 1..=u16::MAX,
        more: u16,
    ) {
        let last = first.saturating_add(more);
        let text = format!("{}{host}:{first}-{last}", if udp { "udp/" } else { "" });
        let entry: Entry = text.parse().expect("an entry");
        prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
    }

    #[test]
    fn any_text_is_read_or_refused(text: String, host in "[a-z0-9.:%\\[\\]/-]{0,40}") {
        let _ = text.parse::<Entry>();
        let _ = host.parse::<Entry>();
        let _ = list(&["10.0.0.0/8:1-65535"]).check(&target(Protocol::Tcp, &host, 1));
    }
}
