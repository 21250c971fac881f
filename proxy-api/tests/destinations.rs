//! Which resolved addresses a listener may connect to.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, net::IpAddr};

use proxy_api::{Denial, Destinations, forms};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What a gateway with these networks allows.
fn gateway(cidrs: &[&str]) -> Destinations {
    let cidrs = cidrs.iter().map(|text| text.parse().expect("a network")).collect();
    Destinations { refuse_local: true, cidrs }
}

/// Why an address is refused at port 443.
fn refused(by: &Destinations, text: &str) -> Option<Denial> {
    by.refuses(ip(text), &(443..=443))
}

/// Each address with the IPv4 address that it wraps, and why a gateway refuses it.
const TABLE: [(&str, Option<&str>, Option<Denial>); 41] = [
    ("10.0.0.1", None, None),
    ("192.0.2.1", None, None),
    ("100.64.0.1", None, None),
    ("2001:db8::1", None, None),
    ("fd00::1", None, None),
    ("127.0.0.1", None, Some(Denial::Local)),
    ("127.9.9.9", None, Some(Denial::Local)),
    ("0.0.0.0", None, Some(Denial::Local)),
    ("0.1.2.3", None, Some(Denial::Local)),
    ("169.254.1.1", None, Some(Denial::Local)),
    ("224.0.0.1", None, Some(Denial::Local)),
    ("255.255.255.255", None, Some(Denial::Local)),
    ("::1", Some("0.0.0.1"), Some(Denial::Local)),
    ("::", Some("0.0.0.0"), Some(Denial::Local)),
    ("fe80::1", None, Some(Denial::Local)),
    ("ff02::1", None, Some(Denial::Local)),
    ("169.254.169.254", None, Some(Denial::Metadata)),
    ("169.254.170.2", None, Some(Denial::Metadata)),
    ("169.254.170.23", None, Some(Denial::Metadata)),
    ("168.63.129.16", None, Some(Denial::Metadata)),
    ("100.100.100.200", None, Some(Denial::Metadata)),
    ("192.0.0.192", None, Some(Denial::Metadata)),
    ("fd00:ec2::254", None, Some(Denial::Metadata)),
    ("fd00:ec2::23", None, Some(Denial::Metadata)),
    ("fd20:ce::254", None, Some(Denial::Metadata)),
    ("fd00:c1::a9fe:a9fe", None, Some(Denial::Metadata)),
    ("fd00:42::42", None, Some(Denial::Metadata)),
    ("fd00:a9fe:a9fe::1", None, Some(Denial::Metadata)),
    // Mapped addresses are IPv4 addresses.
    ("::ffff:10.0.0.1", None, None),
    ("::ffff:127.0.0.1", None, Some(Denial::Local)),
    ("::ffff:169.254.169.254", None, Some(Denial::Metadata)),
    // NAT64.
    ("64:ff9b::10.0.0.1", Some("10.0.0.1"), None),
    ("64:ff9b::127.0.0.1", Some("127.0.0.1"), Some(Denial::Local)),
    ("64:ff9b::169.254.169.254", Some("169.254.169.254"), Some(Denial::Metadata)),
    ("64:ff9b:1::168.63.129.16", Some("168.63.129.16"), Some(Denial::Metadata)),
    // 6to4.
    ("2002:a00:1::", Some("10.0.0.1"), None),
    ("2002:a9fe:a9fe::1", Some("169.254.169.254"), Some(Denial::Metadata)),
    // Translated, compatible and Teredo addresses.
    ("::ffff:0:127.0.0.1", Some("127.0.0.1"), Some(Denial::Local)),
    ("::100.100.100.200", Some("100.100.100.200"), Some(Denial::Metadata)),
    ("2001:0:1:2:3:4:80ff:fffe", Some("127.0.0.1"), Some(Denial::Local)),
    ("2001:0:1:2:3:4:f5ff:fffe", Some("10.0.0.1"), None),
];

// C5
#[test]
fn a_gateway_refuses_its_own_machine_its_link_and_metadata_in_every_form_of_their_addresses() {
    let open = gateway(&[]);
    for (text, wrapped, why) in TABLE {
        let inner: Vec<IpAddr> = forms(ip(text)).skip(1).collect();
        assert_eq!(inner, wrapped.map(ip).into_iter().collect::<Vec<_>>(), "{text}");
        assert_eq!(refused(&open, text), why, "{text}");
        assert_eq!(open.refuses_endpoint(ip(text)), why, "{text} as an endpoint of a Service");
        assert_eq!(refused(&Destinations::default(), text), None, "{text} in a sidecar");
        assert_eq!(Destinations::default().refuses_endpoint(ip(text)), None, "{text} in a sidecar");
    }
}

#[test]
fn addresses_outside_the_networks_of_a_gateway_are_refused() {
    let within = gateway(&["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"]);
    for text in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2001:db8::1", "192.0.2.7"] {
        assert_eq!(refused(&within, text), None, "{text}");
    }
    for text in ["198.51.100.1", "64:ff9b::198.51.100.1", "2001:db9::1", "2002:a01:203::1", "192.0.3.1"] {
        assert_eq!(refused(&within, text), Some(Denial::Outside), "{text}");
        assert_eq!(within.refuses_endpoint(ip(text)), None, "{text} is where the cluster put a pod");
    }
    assert_eq!(refused(&gateway(&["::/0"]), "10.0.0.1"), Some(Denial::Outside), "a network of the other family");
    assert_eq!(refused(&gateway(&["::ffff:0:0/96"]), "10.0.0.1"), None, "the mapped addresses");
    assert_eq!(refused(&gateway(&["::fffe:0:0/95"]), "10.0.0.1"), Some(Denial::Outside), "these and others");
}

// C5
#[test]
fn metadata_services_and_kubelets_are_used_only_if_their_address_is_named() {
    for text in ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"] {
        for wide in [&["0.0.0.0/0", "::/0"][..], &["169.254.0.0/16", "64:ff9b::/96"]] {
            assert_eq!(refused(&gateway(wide), text), Some(Denial::Metadata), "{text} in {wide:?}");
        }
        assert_eq!(refused(&gateway(&["169.254.169.254/32"]), text), None, "{text} is named");
    }
    assert_eq!(refused(&gateway(&["fd00:ec2::254/128"]), "fd00:ec2::254"), None);
    assert_eq!(refused(&gateway(&["169.254.20.10/32"]), "169.254.20.10"), None, "an address of the link that is named");
    for never in ["127.0.0.1", "::1", "224.0.0.1"] {
        let named = format!("{never}/{}", if ip(never).is_ipv4() { 32 } else { 128 });
        assert_eq!(refused(&gateway(&[&named]), never), Some(Denial::Local), "{never}");
    }
    let at = |by: &Destinations, first: u16, last: u16| by.refuses(ip("10.0.0.1"), &(first..=last));
    for (first, last, why) in [
        (10250, 10250, Some(Denial::Kubelet)),
        (10255, 10255, Some(Denial::Kubelet)),
        (10000, 10300, Some(Denial::Kubelet)),
        (10251, 10254, None),
    ] {
        assert_eq!(at(&gateway(&[]), first, last), why, "{first}-{last}");
        assert_eq!(at(&gateway(&["10.0.0.0/8"]), first, last), why, "{first}-{last}");
        assert_eq!(at(&gateway(&["10.0.0.1/32"]), first, last), None, "{first}-{last} of an address that is named");
        assert_eq!(at(&Destinations::default(), first, last), None, "{first}-{last} in a sidecar");
    }
}

#[test]
fn every_denial_has_its_own_name_position_and_words() {
    for (at, denial) in Denial::ALL.into_iter().enumerate() {
        assert_eq!((denial.index(), denial.as_str()), (at, format!("{denial:?}").as_str()));
    }
    let words: BTreeSet<String> = Denial::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), Denial::ALL.len());
}
