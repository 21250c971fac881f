//! How a session handles a silent carrier.

use std::time::Duration;

use tunnel_core::{Limits, Notice, Session, Side};

#[test]
fn a_silent_carrier_is_suspect_after_two_heartbeats_whenever_it_was_heard_last() {
    for last in [0, 1, 40, 4999].map(Duration::from_millis) {
        let limits = Limits::default();
        let [mut session, mut peer] =
            [Side::Dialler, Side::Listener].map(|side| Session::new(side, limits.clone(), Duration::ZERO));
        assert!(session.attach(1, Duration::ZERO) && peer.attach(1, Duration::ZERO));
        let mut frames = Vec::new();
        peer.transmit(1, &mut frames, usize::MAX, Duration::ZERO).expect("attached");
        session.receive(1, &frames, last).expect("a peer that keeps to the protocol");
        let mut notices = Vec::new();
        while session.is_attached() {
            let at = session.deadline().expect("a carrier has one");
            session.advance(at);
            notices.extend(std::iter::from_fn(|| session.poll()).map(|notice| (at, notice)));
        }
        let expected =
            [(last + limits.heartbeat * 2, Notice::Suspect), (last + limits.dead_after, Notice::CarrierLost)];
        assert_eq!(notices, expected);
    }
}
