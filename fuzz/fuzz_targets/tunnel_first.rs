//! The first frame of a connection of a tunnel, from either end, or a join string.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use tunnel_core::{
    Violation,
    enrolment::{Enrol, Outcome},
    hello::{Answer, Hello},
    join::JoinString,
};

fuzz_target!(|bytes: &[u8]| {
    check(bytes, Hello::read, Hello::frame);
    check(bytes, Answer::read, Answer::frame);
    check(bytes, Enrol::read, Enrol::frame);
    check(bytes, Outcome::read, Outcome::frame);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(join) = JoinString::parse(text) {
        assert_eq!(JoinString::parse(&join.encode()), Ok(join));
    }
});

fn check<T: Debug + PartialEq>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Violation>,
    frame: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(Some((value, length))) = read(bytes) else { return };
    assert!(length <= bytes.len());
    let written = frame(&value);
    assert_eq!(read(&written), Ok(Some((value, written.len()))));
}
