use proptest::prelude::*;

use super::*;

fn extension_of(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), content].concat()
}

fn names(names: &[&[u8]]) -> Vec<u8> {
    let each = |name: &&[u8]| {
        let length = u16::try_from(name.len()).expect("short");
        [&[0][..], &length.to_be_bytes(), name].concat()
    };
    let list: Vec<u8> = names.iter().flat_map(each).collect();
    let length = u16::try_from(list.len()).expect("short");
    extension_of(0, &[&length.to_be_bytes()[..], &list].concat())
}

/// A `ClientHello` of RFC 8446 with these extensions.
fn message_with(extensions: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extensions.len()).expect("short");
    let body =
        [&[3, 3][..], &[7; 32], &[32], &[9; 32], &[0, 4, 0x13, 1, 0x13, 2], &[1, 0], &length.to_be_bytes(), extensions]
            .concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("short");
        [&[22, 3, 1][..], &length.to_be_bytes(), part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

fn hello(host: &[u8]) -> Vec<u8> {
    records(&message_with(&names(&[host])), 4096)
}

proptest! {
    #[test]
    fn the_name_is_found_in_records_of_any_size_and_cut_at_every_byte_it_is_incomplete(
        host in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?([.][a-z]{1,10}){1,3}", padding in 0_usize..3000, size in 1_usize..2000,
    ) {
        // Large extensions, such as a key share, before and after the name.
        let extensions = [extension_of(51, &vec![5; padding]), names(&[host.as_bytes()]), extension_of(21, &[0; 9])].concat();
        let whole = records(&message_with(&extensions), size.max(padding / 400 + 1));
        for cut in 0..whole.len() {
            prop_assert_eq!(read(&whole[..cut]), Hello::Incomplete, "cut at {}", cut);
        }
        prop_assert_eq!(read(&whole), Hello::Name(host.clone()));
        prop_assert_eq!(read(&[&whole[..], b"more"].concat()), Hello::Name(host));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600), good in 0_usize..300) {
        let start = hello(b"example.com");
        let _ = read(&[&start[..good.min(start.len())], &bytes].concat());
    }

    #[test]
    fn a_changed_byte_is_never_a_panic(at in 0_usize..200, to in any::<u8>()) {
        let mut bytes = hello(b"example.com");
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = read(&bytes);
    }
}

#[test]
fn an_address_and_what_no_host_may_be_called_are_no_server_name() {
    assert_eq!(read(&records(&message_with(&[]), 4096)), Hello::NoName);
    assert_eq!(read(&hello(b"192.0.2.1")), Hello::NoName);
    assert_eq!(read(&hello(b"2001:db8::1")), Hello::NoName);
    assert_eq!(read(&hello(b"")), Hello::NoName);
    for name in [&b"a..b"[..], b"a.example..", b".example", &[b'a'; 64]] {
        assert_eq!(read(&hello(name)), Hello::NoName, "a label has 1 to 63 bytes");
    }
    assert_eq!(read(&hello(b"a b")), Hello::NoName);
    assert_eq!(read(&hello("b\u{fc}cher.example".as_bytes())), Hello::NoName);
    assert_eq!(read(&records(&message_with(&names(&[])), 4096)), Hello::NoName);
}

#[test]
fn a_server_name_is_read_in_lower_case_and_without_a_dot_at_its_end() {
    assert_eq!(read(&hello(b"DB.Example.COM.")), Hello::Name("db.example.com".to_owned()));
}

#[test]
fn what_breaks_the_rules_is_not_tls() {
    let twice = [names(&[b"a.example"]), names(&[b"b.example"])].concat();
    let two = names(&[b"a.example", b"b.example"]);
    for extensions in [twice, two] {
        assert_eq!(read(&records(&message_with(&extensions), 4096)), Hello::NotTls);
    }
    for bytes in [&b"GET / HTTP/1.1"[..], b"\x16\x02", b"\x15\x03\x01\x00\x02", b"\x16\x03\x01\x00\x00", b"SSH-2.0"] {
        assert_eq!(read(bytes), Hello::NotTls, "{bytes:?}");
    }
    // A ServerHello.
    assert_eq!(read(&[22, 3, 3, 0, 4, 2]), Hello::NotTls);
}

#[test]
fn the_longest_message_is_taken_and_one_byte_more_is_not() {
    let room = LONGEST - message_with(&names(&[b"a.example"])).len() - 4;
    let with = |size: usize| message_with(&[names(&[b"a.example"]), extension_of(51, &vec![1; size])].concat());
    assert_eq!(with(room).len(), LONGEST);
    assert_eq!(read(&records(&with(room), 16_000)), Hello::Name("a.example".to_owned()));
    assert_eq!(read(&records(&with(room + 1), 16_000)), Hello::NotTls);
    // Also refused if record headers outweigh the message.
    assert_eq!(read(&records(&with(room), 1)), Hello::NotTls);
}

#[test]
fn the_most_specific_name_comes_first() {
    let all: Vec<String> = candidates("a.b.example.com").collect();
    assert_eq!(all, ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com"]);
}
