//! Names with addresses of both families of which one leads nowhere.

use std::time::{Duration, Instant};

use harness::{Dns, Machine, RecordingServer, until};

use crate::{QUICK, SERVE, endpoints, forward_to, ip, session};

/// Longest start of a session beside a family that leads nowhere. A connection would be waited for three times as long.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn a_family_that_is_a_black_hole_does_not_keep_a_session_waiting() {
    // D24
    let machine = Machine::start(b"", QUICK);
    machine.black_hole(&["192.0.2.250", "2001:db8::dead"]);
    let zone = "six.test 127.0.0.91 2001:db8::dead\nfour.test 192.0.2.250 2001:db8::91\n";
    let _dns = Dns::start(&machine, "127.0.0.1", zone);
    let names = ["six.test", "four.test"];
    let _servers = [0, 1].map(|number| RecordingServer::start(&machine, "::", SERVE + number));
    let spec = "timeouts: {connectSeconds: 10}";
    let manifest: String = (0..).zip(names).map(|(number, name)| forward_to(number, name, spec)).collect();
    let _program = machine.run(&manifest);
    until("both names have both families", || endpoints(&machine) == [2, 2]);
    for _ in 0..4 {
        for (number, alive) in [(0, "127.0.0.91"), (1, "2001:db8::91")] {
            let began = Instant::now();
            assert_eq!(session(&machine, number).expect("the other family answers"), ip(alive));
            assert!(began.elapsed() < SOON, "{alive} after {:?}", began.elapsed());
        }
    }
}
