//! `/etc/resolv.conf` and `/etc/hosts`. The first line is the name of the machine, the rest is read as both files.

#![no_main]

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use libfuzzer_sys::fuzz_target;
use proxy::core::resolution::dns::{
    candidates::candidates,
    hosts::Hosts,
    resolv_conf::{MOST_DOMAINS, MOST_SERVERS, ResolvConf},
};

/// Longest name, in bytes, without the dot at the end.
const NAME: usize = 253;
/// Most problems that are listed, and most bytes of one: 64 characters, each escaped as ten.
const PROBLEMS: (usize, usize) = (8, 1024);

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (hostname, file) = bytes.split_at(end);
    let hostname = String::from_utf8_lossy(hostname);
    let conf = ResolvConf::parse(file, &hostname);
    check(&conf);
    let hosts = Hosts::parse(file);
    let lines = file.split(|byte| *byte == b'\n').count();
    let words = file.split(|byte| byte.is_ascii_whitespace()).filter_map(|word| std::str::from_utf8(word).ok());
    for word in words.collect::<BTreeSet<&str>>() {
        let candidates = candidates(word, &conf);
        assert!(candidates.len() <= MOST_DOMAINS + 1);
        assert!(candidates.iter().all(|it| it.name.ends_with('.') && it.name.len() <= NAME + 1), "{candidates:?}");
        let Some(addresses) = hosts.addresses(word) else { continue };
        assert!((1..=lines).contains(&addresses.len()), "an address for each line, at most");
        assert!(addresses.iter().all(|address| is_written(*address, file)), "{addresses:?}");
        assert_eq!(hosts.addresses(&word.to_ascii_uppercase()), Some(addresses));
    }
});

/// Everything that is read has a bound.
fn check(conf: &ResolvConf) {
    assert!((1..=MOST_SERVERS).contains(&conf.servers.len()));
    assert!(conf.search.len() <= MOST_DOMAINS && conf.search.iter().all(|domain| domain.len() <= NAME));
    assert!(conf.ndots <= 15 && (1..=5).contains(&conf.attempts));
    assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&conf.timeout));
    let (most, longest) = PROBLEMS;
    assert!(conf.problems.len() <= most && conf.problems.iter().all(|problem| problem.len() <= longest));
}

/// Whether a line of the file begins with this address.
fn is_written(address: IpAddr, file: &[u8]) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| {
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
        let ends = |byte: &u8| is_blank(byte) || *byte == b'#';
        let start = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
        let word = line[start..].split(ends).next().unwrap_or_default();
        std::str::from_utf8(word).is_ok_and(|word| word.parse::<IpAddr>() == Ok(address))
    })
}
