//! What bounds a process: memory, and threads that hang.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    time::Duration,
};

use proxy::core::{
    limits::{
        capacity::{
            Capacity, FLOW_BYTES, FLOW_PLACES, FlowBounds, Messages, SESSION_BYTES, SESSION_PLACES, TunnelMemory,
            message_bytes, shards_datagrams, tunnel_bytes, workers,
        },
        cgroup::{allocated_by_others, lowest, memory_files, reclaimable, tightest},
        local_ports,
    },
    ports::no_ports::{self, Found, NoPorts},
    workers::heartbeat::{Beat, Judge, LONGEST_SILENCE, hung},
};
use proxy_api::doors::{Admission, Evict, Places};

const MIB: u64 = 1 << 20;
/// The default budget of buffered bytes.
const HELD: usize = 64 << 20;

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("not zero")
}

fn capacity(memory: u64) -> Capacity {
    Capacity::of(Some(memory), some(2), HELD, 0)
}

#[test]
fn a_process_without_a_memory_limit_has_what_the_user_asks_for() {
    let free = Capacity::of(None, some(2), HELD, 0);
    assert_eq!(free, Capacity { held_bytes: HELD, sessions: None });
    assert_eq!(free.places(), usize::MAX);
    assert_eq!(Capacity::of(None, some(2), HELD, 7).sessions, Some(7));
}

// D7
#[test]
fn sessions_fit_into_the_memory_beside_the_process_and_its_buffers() {
    // 512 MiB without 24 for the process, 2 times 3 for workers and 64 for buffers.
    let large = capacity(512 * MIB);
    assert_eq!(large, Capacity { held_bytes: HELD, sessions: Some(21_401) });
    const { assert!(21_401 * SESSION_BYTES + (24 + 6 + 64) * MIB <= 512 * MIB) };
    // Of 64 MiB, buffers get a quarter.
    let small = capacity(64 * MIB);
    assert_eq!(small, Capacity { held_bytes: 16 << 20, sessions: Some(921) });
    const { assert!(921 * SESSION_BYTES + (24 + 6 + 16) * MIB <= 64 * MIB) };
    let more_workers = Capacity::of(Some(512 * MIB), some(16), HELD, 0);
    assert!(more_workers.sessions < large.sessions);
}

// D7
#[test]
fn messages_that_have_not_ended_have_an_eighth_of_the_memory_while_durable_listeners_run() {
    assert_eq!(message_bytes(Some(96 * MIB)), 12 << 20);
    assert_eq!((message_bytes(Some(MIB)), message_bytes(Some(2048 * MIB)), message_bytes(None)), (4 << 20, HELD, HELD));
    let messages = Messages::new(None);
    let beside = |memory| messages.beside(memory);
    assert_eq!(beside(Some(96 * MIB)), Some(96 * MIB), "none runs");
    let share = messages.partial.share("ns");
    assert_eq!((beside(Some(96 * MIB)), beside(None)), (Some(84 * MIB), None));
    let of_stream = messages.waiting.share("ns");
    assert_eq!(beside(Some(96 * MIB)), Some(72 * MIB), "as much for a stream");
    drop((share, of_stream));
    assert_eq!(beside(Some(96 * MIB)), Some(96 * MIB));
}

// D7
#[test]
fn sessions_with_agents_have_a_quarter_of_the_memory_once_agents_can_connect() {
    assert_eq!(tunnel_bytes(Some(512 * MIB)), 128 * MIB);
    assert_eq!(
        (tunnel_bytes(Some(MIB)), tunnel_bytes(Some(4096 * MIB)), tunnel_bytes(None)),
        (8 * MIB, 256 * MIB, 256 * MIB)
    );
    let memory = TunnelMemory::new(Some(64 * MIB));
    assert_eq!((memory.bytes(), memory.resize(Some(256 * MIB)), memory.bytes()), (16 * MIB, 0, 64 * MIB));
    memory.begin();
    assert_eq!((memory.resize(Some(512 * MIB)), memory.bytes()), (128 * MIB, 128 * MIB));
}

#[test]
fn a_pod_with_hardly_any_memory_still_serves_somebody() {
    // An eighth of 16 MiB.
    assert_eq!(capacity(16 * MIB).sessions, Some(102));
    assert_eq!(capacity(1).sessions, Some(1));
}

#[test]
fn what_the_user_says_goes_before_what_fits() {
    assert_eq!(Capacity::of(Some(512 * MIB), some(2), HELD, 50).sessions, Some(50));
}

#[test]
fn a_flow_takes_half_the_places_of_a_session_as_it_takes_half_the_memory() {
    assert_eq!(SESSION_BYTES / FLOW_BYTES, (SESSION_PLACES / FLOW_PLACES) as u64);
    let capacity = Capacity { held_bytes: 0, sessions: Some(10) };
    assert_eq!(capacity.places(), 10 * SESSION_PLACES);
    assert_eq!(capacity.flow_places(None), 15, "sessions keep a quarter");
    assert_eq!(Capacity { held_bytes: 0, sessions: Some(1) }.flow_places(None), 2);
}

#[test]
fn flows_have_three_quarters_of_the_files_that_listeners_leave_and_no_more_than_fit_into_memory() {
    // T6
    assert_eq!(FlowBounds::of(usize::MAX, 136, 36), FlowBounds { most: 75, kept: 14, spare: 4 });
    assert_eq!(FlowBounds::of(20, 136, 36), FlowBounds { most: 20, kept: 4, spare: 1 });
    assert_eq!(FlowBounds::of(20, 136, 200).most, 0);
    assert_eq!(Capacity { held_bytes: 0, sessions: None }.flow_places(None), 65_536, "not all files of a process");
}

#[test]
fn flows_leave_an_eighth_of_the_local_ports_to_others() {
    let (linux, unlimited) = (Some(28_232), Capacity::of(None, some(2), HELD, 0));
    let with_512_mib = capacity(512 * MIB);
    assert_eq!((with_512_mib.flow_places(None), with_512_mib.flow_places(linux)), (32_102, 24_703));
    assert_eq!(unlimited.flow_places(linux), 24_703);
    assert_eq!(Capacity::of(None, some(2), HELD, 50_000).flow_places(linux), 24_703, "also if the user asks for more");
    assert_eq!(capacity(64 * MIB).flow_places(linux), 1382, "memory is what runs short");
    assert_eq!(unlimited.flow_places(Some(1)), 1);
}

#[test]
fn local_ports_are_counted_from_the_first_to_the_last_and_nonsense_is_no_bound() {
    assert_eq!(local_ports::count("32768\t60999\n"), Some(28_232));
    assert_eq!((local_ports::count("7 7"), local_ports::count("0 65535")), (Some(1), Some(65_536)));
    for text in ["", "32768", "60999 32768", "1 65536", "1 2 3", "-1 2", "a b"] {
        assert_eq!(local_ports::count(text), None, "{text}");
    }
}

#[test]
fn flows_give_way_before_the_last_of_their_room_is_taken() {
    let bounds = FlowBounds { most: 80, kept: 20, spare: 5 };
    assert!(!bounds.is_short(70, 1000) && bounds.is_short(71, 1000));
    assert!(!bounds.is_short(5, 10) && bounds.is_short(5, 9), "sessions have taken the rest");
    assert!(!FlowBounds { most: 100_000, kept: 0, spare: 0 }.is_short(99_744, 100_000), "a bound");
    assert!(!FlowBounds { most: 2, kept: 0, spare: 0 }.is_short(2, 0), "few flows use all their room");
}

#[test]
fn connections_and_sources_with_many_flows_leave_room_that_is_spare() {
    let bounds = FlowBounds { most: 80, kept: 15, spare: 5 };
    let left = |is_light, is_awaited| [15, 16].map(|flows| bounds.left_by_flow(flows, is_light, is_awaited));
    assert_eq!((left(true, false), left(true, true)), ([Some(0); 2], [Some(0); 2]));
    assert_eq!((left(false, false), left(false, true)), ([Some(2), Some(5)], [Some(2), None]));
    assert_eq!([0, 3, 80].map(|flows| bounds.left_by_session(flows)), [0, 3, 5], "without flows, sessions take all");
    assert_eq!(FlowBounds::of(usize::MAX, 1 << 20, 0).spare, 64, "a bound");
}

#[test]
fn flows_that_give_way_to_one_with_many_leave_some_unless_nothing_else_could_be_replaced() {
    let left = |spare| {
        let bounds = FlowBounds { most: 80, kept: 15, spare };
        [(true, false), (true, true), (false, false), (false, true)]
            .map(|(is_light, is_awaited)| bounds.left_to_flows(is_light, is_awaited))
    };
    assert_eq!(left(5), [0, 0, 15, 15], "none stays if the source has few");
    assert_eq!(left(0), [0, 0, 0, 15], "without spare places they stay for connections that wait");
}

#[test]
fn the_memory_of_messages_is_used_by_listeners_that_take_some_and_by_those_with_streams() {
    let messages = Messages::new(None);
    assert!(!messages.is_used());
    for part in [&messages.partial, &messages.waiting] {
        let share = part.share("ns");
        assert!(messages.is_used());
        drop(share);
        assert!(!messages.is_used());
    }
}

#[test]
fn handshakes_leave_most_of_the_room_to_sessions() {
    let bounds = |sessions| {
        let bounds = Capacity { held_bytes: 0, sessions }.handshakes();
        assert_eq!((bounds.evict, bounds.rates), (Evict::Silent, None));
        (bounds.strangers, bounds.known)
    };
    assert_eq!(bounds(Some(400)), (50, 50));
    assert_eq!([bounds(None), bounds(Some(1_000_000))], [(512, 512); 2]);
    assert_eq!(bounds(Some(1)), (1, 1));
}

#[test]
fn many_clients_behind_one_address_are_in_a_handshake_at_once_and_keep_nobody_else_out() {
    let mut places = Places::new(Capacity::of(None, some(2), HELD, 0).handshakes());
    let source = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    for _ in 0..512 {
        assert!(matches!(places.admit(source(1), Duration::ZERO), Admission::Admit(_)));
    }
    for last in 2..10 {
        let admission = places.admit(source(last), Duration::ZERO);
        assert!(matches!(admission, Admission::AdmitAfterEvicting { .. }), "{admission:?}");
    }
}

// D3
#[test]
fn workers_follow_the_cpus_up_to_a_bound() {
    assert_eq!(workers(some(4), some(2)), some(2));
    assert_eq!(workers(some(4), some(16)), some(4));
}

#[test]
fn udp_sockets_have_shards_where_workers_are_many_and_files_to_spare() {
    assert!(shards_datagrams(3, (100, 4096)) && !shards_datagrams(2, (100, 4096)));
    assert!(shards_datagrams(16, (496, 4096)) && !shards_datagrams(16, (497, 4096)));
}

#[test]
fn the_limits_of_all_groups_above_the_process_count() {
    let two = memory_files("0::/kubepods.slice/pod1/proxy\n");
    let expected = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/kubepods.slice/memory.max",
        "/sys/fs/cgroup/kubepods.slice/pod1/memory.max",
        "/sys/fs/cgroup/kubepods.slice/pod1/proxy/memory.max",
    ];
    assert_eq!(two, expected);
    assert_eq!(memory_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
}

#[test]
fn version_1_has_the_limit_in_the_group_of_its_memory_controller() {
    let one = memory_files("5:cpu,cpuacct:/a\n4:hugetlb,memory:/b\n3:memory_recursive:/c\n");
    assert_eq!(one, ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/b/memory.limit_in_bytes"]);
}

#[test]
fn a_path_out_of_the_namespace_is_followed_no_further_and_nonsense_not_at_all() {
    assert_eq!(memory_files("0::/../../other\n"), ["/sys/fs/cgroup/memory.max"]);
    assert!(memory_files("nonsense\n\n4:memory\n3::/a\n0:cpu:/a\n").is_empty());
}

#[test]
fn the_lowest_limit_counts_and_the_words_for_no_limit_do_not() {
    assert_eq!(lowest(["max\n", "536870912\n", "1073741824\n"]), Some(512 * MIB));
    assert_eq!(lowest(["max\n", "9223372036854771712\n", ""]), None);
}

#[test]
fn the_group_of_version_2_with_the_lowest_limit_is_the_one_whose_memory_is_looked_at() {
    let files = [("/m/memory.max", "max\n"), ("/m/a/memory.max", "7\n"), ("/m/a/b/memory.max", "7\n")];
    assert_eq!(tightest(files), Some(("/m/a", 7)), "the outer one of equals");
    assert_eq!(tightest([("/m/memory.max", "8"), ("/m/a/memory.max", "7")]), Some(("/m/a", 7)));
    assert_eq!(tightest([("/m/memory.max", "max"), ("/m/a/memory.max", "nonsense")]), None);
    assert_eq!(tightest([("/m/memory/memory.limit_in_bytes", "7")]), None, "version 1 does not count sockets there");
}

#[test]
fn what_files_take_is_reclaimable_and_what_tmpfs_takes_is_not() {
    let stat = "anon 1\nfile 110\nsock 3\nshmem 80\ninactive_anon 80\ninactive_file 10\nactive_file 20\n\
                slab_reclaimable 5\nslab_unreclaimable 7\nslab 12\n";
    assert_eq!(reclaimable(stat), 35);
    assert_eq!((reclaimable(""), reclaimable("active_file\ninactive_file -1\nactive_file x")), (0, 0));
}

#[test]
fn other_programs_of_a_group_have_allocated_what_the_process_has_not() {
    let (stat, status) =
        ("file 7\nanon_thp 9\nanon 10240\n", "VmRSS:\t      9 kB\nRssAnon:\t       4 kB\nRssFile:\t 5 kB\n");
    assert_eq!(allocated_by_others(stat, status), 6 << 10);
    assert_eq!(allocated_by_others("anon 4096\n", status), 0, "the process is alone");
    assert_eq!(allocated_by_others("anon 4000\n", status), 0, "the two numbers are not of the same moment");
    for (stat, status) in [("", status), (stat, ""), (stat, "RssAnon:\t4 MB"), (stat, "RssAnon:\tx kB")] {
        assert_eq!(allocated_by_others(stat, status), 0, "{stat} {status}");
    }
}

// D12
#[test]
fn who_is_silent_for_too_long_hangs() {
    let beats = |at: u64| [Beat { name: "worker-0", at }, Beat { name: "worker-1", at: at + 1 }];
    assert!(hung(100, beats(100 - LONGEST_SILENCE)).is_empty());
    assert_eq!(hung(101, beats(100 - LONGEST_SILENCE)), ["worker-0"]);
    assert_eq!(hung(102, beats(100 - LONGEST_SILENCE)), ["worker-0", "worker-1"]);
    assert!(hung(5, beats(100)).is_empty(), "a beat while the caller looked at the clock");
}

#[test]
fn silence_does_not_count_right_after_a_freeze_and_counts_where_every_round_is_late() {
    let mut judge = Judge::default();
    let counts = [1, 3600, 1, 60, 60, 60, 1].map(|after| judge.counts(Duration::from_secs(after)));
    assert_eq!(counts, [true, false, true, false, true, true, true]);
}

#[test]
fn datagrams_without_a_port_are_read_for_both_families() {
    // T25
    let four = "Icmp: InMsgs\nIcmp: 7\nUdp: InDatagrams NoPorts InErrors\nUdp: 100 5 9\nUdpLite: InDatagrams \
                NoPorts\nUdpLite: 1 2\n";
    let six = "Udp6InDatagrams                 \t8\nUdp6NoPorts                     \t3\nUdpLite6NoPorts \t4\n";
    assert_eq!(no_ports::count(four, six), Some(8));
    assert_eq!((no_ports::count(four, ""), no_ports::count("", six)), (Some(5), Some(3)));
    for text in ["", "Udp:", "Udp: NoPorts\nUdp:", "Udp: NoPorts\nUdp: x", "Udp: InErrors\nUdp: 1"] {
        assert_eq!(no_ports::count(text, "Udp6NoPorts"), None, "{text}");
    }
}

#[test]
fn datagrams_without_a_port_count_while_flows_live_and_are_logged_every_ten_minutes() {
    // T25
    let mut seen = NoPorts::since(Some(10));
    let none = Found::default();
    assert_eq!(seen.observe(Some(11), false, 1), none, "no flow was live");
    assert_eq!(seen.observe(Some(14), true, 2), Found { new: 3, to_log: Some(3) });
    assert_eq!(seen.observe(Some(15), false, 3), Found { new: 1, to_log: None }, "a flow was live a moment ago");
    assert_eq!(seen.observe(Some(20), false, 4), none);
    assert_eq!(seen.observe(None, true, 5), none);
    assert_eq!(seen.observe(Some(30), true, 6), none, "nothing to compare with");
    assert_eq!(seen.observe(Some(32), true, 602), Found { new: 2, to_log: Some(3) });
    assert_eq!(seen.observe(Some(32), true, 2000), none, "none is new");
}

#[test]
fn a_round_is_late_after_more_than_five_seconds() {
    let mut judge = Judge::default();
    assert!(judge.counts(Duration::from_secs(5)), "exactly the longest pause");
    assert!(!judge.counts(Duration::from_millis(5001)));
}

#[test]
fn a_limit_of_a_control_group_counts_below_an_exbibyte() {
    let lowest = |limit: u64| lowest([limit.to_string().as_str()]);
    assert_eq!((lowest((1 << 60) - 1), lowest(1 << 60)), (Some((1 << 60) - 1), None));
}

#[test]
fn the_next_notice_about_datagrams_without_a_port_is_due_after_ten_minutes() {
    let mut seen = NoPorts::since(Some(0));
    assert_eq!(seen.observe(Some(1), true, 100), Found { new: 1, to_log: Some(1) });
    assert_eq!(seen.observe(Some(3), true, 699), Found { new: 2, to_log: None });
    assert_eq!(seen.observe(Some(4), true, 700), Found { new: 1, to_log: Some(3) });
}
