//! Messages of a peer beyond the bounds of the contract are refused while they are decoded.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    Delivery, Digest, Failure, FailureReason, FromProxy, Held, Inspected, Lag, ListenerId, ListenerReport,
    ListenerState, LiveSession, LiveSessions, MAX_COUNTED, MAX_EPOCH_BYTES, MAX_FAILURE_BYTES, MAX_HASH_BYTES,
    MAX_INSTANCE_BYTES, MAX_LAG_ERROR_BYTES, MAX_LAGS, MAX_LIVE, MAX_LOADS, MAX_NAME_BYTES, MAX_REASON_BYTES,
    MAX_REASONS, MAX_REPORT_BYTES, MAX_SOFTWARE_BYTES, Octets, Origin, PARTS, ReportPart, Revision, SessionId,
    Transport, Version,
};
use serde_json::{Value, json};

fn read(message: Value) -> Result<FromProxy, serde_json::Error> {
    serde_json::from_value(message)
}

/// The bound holds for a message that is made from a length: the longest is read, a longer one is refused.
fn holds(most: usize, message: impl Fn(usize) -> Value) {
    read(message(most)).unwrap_or_else(|error| panic!("{most} are too many: {error}"));
    let error = read(message(most + 1)).expect_err("beyond the bound").to_string();
    assert!(error.contains(&most.to_string()), "the bound is named: {error}");
}

fn id(at: usize, bytes: usize) -> String {
    let start = format!("ns/{at}/");
    format!("{start}{}", "l".repeat(bytes - start.len()))
}

// C2
#[test]
fn texts_of_a_peer_are_bounded() {
    let text = |bytes: usize| "x".repeat(bytes);
    holds(MAX_SOFTWARE_BYTES, |bytes| json!({"hello": {"software": text(bytes)}}));
    holds(MAX_EPOCH_BYTES, |bytes| json!({"hello": {"epoch": text(bytes)}}));
    holds(MAX_HASH_BYTES, |bytes| json!({"hello": {"digest": text(bytes)}}));
    holds(MAX_EPOCH_BYTES, |bytes| json!({"report": {"epoch": text(bytes)}}));
    holds(MAX_HASH_BYTES, |bytes| json!({"report": {"digest": text(bytes)}}));
    holds(MAX_HASH_BYTES, |bytes| json!({"held": {"listeners": {"a/b/c": text(bytes)}}}));
    holds(MAX_HASH_BYTES, |bytes| json!({"held": {"endpoints": {"e": text(bytes)}}}));
    holds(MAX_NAME_BYTES, |bytes| json!({"held": {"endpoints": {text(bytes): "r"}}}));
    for named in ["agents", "peers", "sidecars"] {
        holds(MAX_HASH_BYTES, |bytes| json!({"held": {named: {"u": text(bytes)}}}));
        holds(MAX_NAME_BYTES, |bytes| json!({"held": {named: {text(bytes): "r"}}}));
    }
    holds(MAX_NAME_BYTES, |bytes| json!({"load": {"forwards": {text(bytes): {}}}}));
    let failed = |failure: Value| json!({"report": {"listeners": {"a/b/c": {"revision": "r", "state": "Failed", "failure": failure}}}});
    holds(MAX_FAILURE_BYTES, |bytes| failed(json!({"reason": "BindFailed", "message": text(bytes)})));
    holds(MAX_HASH_BYTES, |bytes| failed(json!({"reason": "BindFailed", "message": "", "serving": text(bytes)})));
    assert!(read(json!({"report": {"gone": [id(0, 513)]}})).is_err(), "ids are bounded where they are read");
    holds(MAX_NAME_BYTES, |bytes| inspected(&[session(json!({"backend": text(bytes)}))]));
    holds(MAX_NAME_BYTES, |bytes| inspected(&[session(json!({"serverName": text(bytes)}))]));
    holds(MAX_INSTANCE_BYTES, |bytes| inspected(&[session(json!({"instance": text(bytes)}))]));
    assert!(read(inspected(&[session(json!({"listener": id(0, 513)}))])).is_err(), "an id of a listener is bounded");
    holds(MAX_REASON_BYTES, |bytes| lags(&[lag(json!({"droppedByReason": {text(bytes): 1}}))]));
    holds(MAX_LAG_ERROR_BYTES, |bytes| lags(&[lag(json!({"error": text(bytes)}))]));
    assert!(read(lags(&[lag(json!({"listener": id(0, 513)}))])).is_err(), "an id of a listener is bounded");
}

/// A live session with these fields.
fn session(fields: Value) -> Value {
    with(json!({"listener": "a/b/c", "protocol": "TCP", "client": "192.0.2.1:1"}), fields)
}

/// A durable listener with these fields.
fn lag(fields: Value) -> Value {
    with(json!({"listener": "a/b/c", "delivery": "Behind"}), fields)
}

fn with(mut object: Value, fields: Value) -> Value {
    let (Value::Object(all), Value::Object(more)) = (&mut object, fields) else { panic!("objects") };
    all.extend(more);
    object
}

fn lags(lag: &[Value]) -> Value {
    json!({"inspected": {"id": 7, "live": {"total": lag.len(), "lag": lag}}})
}

fn inspected(sessions: &[Value]) -> Value {
    json!({"inspected": {"id": 7, "live": {"total": sessions.len(), "sessions": sessions}}})
}

#[test]
fn the_room_for_revisions_is_known_before_they_are_read() {
    let ids: Vec<ListenerId> = ["shop/web/http", "shop/db/pg"].iter().map(|id| id.parse().expect("an id")).collect();
    let (set, uid) = ("shop/db:5432/TCP".to_owned(), "file-62f9570dff5ac8f14772c547e72ff85f".to_owned());
    let revision = || Revision("0".repeat(32).into());
    let held = Held {
        listeners: ids.iter().map(|id| (id.clone(), revision())).collect(),
        endpoints: [(set.clone(), revision())].into(),
        agents: [(uid.clone(), revision())].into(),
        peers: [("0f3a".to_owned(), revision())].into(),
        sidecars: [("5c1d".to_owned(), revision())].into(),
        ..Held::default()
    };
    let named = [uid, "0f3a".to_owned(), "5c1d".to_owned()];
    assert_eq!(Held::weight_of(ids.iter(), [set].iter(), named.iter()), held.weight());
}

// C2
#[test]
fn items_of_a_message_are_bounded() {
    let map = |items: usize, value: &str| -> Value { (0..items).map(|at| (id(at, 16), json!(value))).collect() };
    holds(PARTS, |items| json!({"held": {"listeners": map(items, "r")}}));
    holds(PARTS, |items| json!({"held": {"endpoints": map(items, "r")}}));
    for named in ["agents", "peers", "sidecars"] {
        holds(PARTS, |items| json!({"held": {named: map(items, "r")}}));
    }
    holds(PARTS, |items| json!({"report": {"gone": (0..items).map(|at| id(at, 16)).collect::<Vec<_>>()}}));
    let states = |items: usize| -> Value {
        (0..items).map(|at| (id(at, 16), json!({"revision": "r", "state": "Bound"}))).collect()
    };
    holds(PARTS, |items| json!({"report": {"listeners": states(items)}}));
    holds(
        MAX_LOADS,
        |items| json!({"load": {"forwards": (0..items).map(|at| (id(at, 16), json!({}))).collect::<Value>()}}),
    );
    holds(MAX_LIVE, |items| inspected(&vec![session(json!({})); items]));
    let counts = |items: usize| (0..items).map(|at| (format!("ns/{at}"), json!(1))).collect::<Value>();
    holds(MAX_COUNTED, |items| json!({"inspected": {"live": {"origins": counts(items)}}}));
    holds(MAX_LAGS, |items| lags(&vec![lag(json!({})); items]));
    let reasons = |items: usize| (0..items).map(|at| (format!("r{at}"), json!(1))).collect::<Value>();
    holds(MAX_REASONS, |items| lags(&[lag(json!({"droppedByReason": reasons(items)}))]));
}

#[test]
fn whatever_repeats_in_an_answer_is_an_item() {
    let dropped = lag(json!({"droppedByReason": {"Full": 1, "TooOld": 2}}));
    let live =
        json!({"sessions": [session(json!({}))], "origins": {"ns/a": 1, "ns/b": 2}, "lag": [dropped, lag(json!({}))]});
    let live: LiveSessions = serde_json::from_value(live).expect("decodes");
    assert_eq!(live.items(), 1 + 2 + (2 + 2));
}

#[test]
fn a_long_failure_is_cut_where_it_is_written_so_that_it_is_read() {
    let failure = Failure { reason: FailureReason::BindFailed, message: "ü".repeat(MAX_FAILURE_BYTES), serving: None };
    let written = serde_json::to_string(&failure).expect("encodes");
    let read: Failure = serde_json::from_str(&written).expect("decodes");
    assert_eq!(read.message, "ü".repeat(MAX_FAILURE_BYTES / 2));
}

#[test]
fn the_largest_part_of_an_honest_proxy_fits() {
    let hash = || "f".repeat(MAX_HASH_BYTES);
    let report = || ListenerReport {
        reached: None,
        looped: false,
        delivery: None,
        revision: Revision(hash().into()),
        state: ListenerState::Failed,
        failure: Some(Failure {
            reason: FailureReason::PermissionDenied,
            message: "m".repeat(MAX_FAILURE_BYTES),
            serving: Some(Revision(hash().into())),
        }),
        backends: proxy_api::BackendHealth::None,
    };
    let listeners = (0..PARTS).map(|at| (id(at, 512).parse::<ListenerId>().expect("an id"), report())).collect();
    let part = ReportPart {
        version: Version { epoch: "e".repeat(MAX_EPOCH_BYTES), number: u64::MAX },
        digest: Digest(hash()),
        listeners,
        ..ReportPart::default()
    };
    assert_eq!(part.items(), PARTS);
    let bytes = serde_json::to_vec(&FromProxy { report: Some(part), ..FromProxy::default() }).expect("encodes");
    assert!(bytes.len() <= MAX_REPORT_BYTES, "{} bytes", bytes.len());
}

#[test]
fn the_largest_answer_about_sessions_fits() {
    let text = || Some("b".repeat(MAX_NAME_BYTES));
    let address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
    let session = |at: usize| LiveSession {
        session: Some(SessionId(u64::MAX)),
        listener: id(at, 512).parse().expect("an id"),
        protocol: Transport::Tcp,
        client: address,
        backend: text(),
        endpoint: Some(address),
        instance: Some("i".repeat(MAX_INSTANCE_BYTES)),
        server_name: text(),
        bytes_up: u64::MAX,
        bytes_down: u64::MAX,
        seconds: u64::MAX,
    };
    let origin = |at: usize| Origin::port_forward(format!("n{at:06}"), "f".repeat(504));
    let live = LiveSessions {
        total: u64::MAX,
        sessions: (0..MAX_LIVE).map(session).collect(),
        origins: (0..MAX_COUNTED).map(|at| (origin(at), u64::MAX)).collect(),
        lag: None,
    };
    let answer = FromProxy { inspected: Some(Inspected { id: u64::MAX, live }), ..FromProxy::default() };
    let json = serde_json::to_vec(&answer).expect("encodes");
    assert!(json.len() <= MAX_REPORT_BYTES, "{} bytes", json.len());
    assert_eq!(serde_json::from_slice::<FromProxy>(&json).expect("decodes"), answer);
}

/// Errors may have what a sink answered, so any character.
#[test]
fn the_largest_answer_about_durable_listeners_fits_and_longer_errors_are_cut() {
    let reasons = || (0..MAX_REASONS).map(|at| (format!("{at:0>MAX_REASON_BYTES$}"), u64::MAX)).collect();
    let listener = |at: usize| Lag {
        listener: id(at, 512).parse().expect("an id"),
        delivery: Delivery::StoreFailed,
        oldest_seconds: u64::MAX,
        backlog: u64::MAX,
        log_bytes: u64::MAX,
        received: u64::MAX,
        delivered: u64::MAX,
        resent: u64::MAX,
        dropped: u64::MAX,
        dropped_by_reason: reasons(),
        dead_lettered: u64::MAX,
        lanes: u64::MAX,
        error: "\u{1}".repeat(2 * MAX_LAG_ERROR_BYTES),
    };
    let live =
        LiveSessions { total: u64::MAX, lag: Some((0..MAX_LAGS).map(listener).collect()), ..LiveSessions::default() };
    let answer = FromProxy { inspected: Some(Inspected { id: u64::MAX, live }), ..FromProxy::default() };
    let json = serde_json::to_vec(&answer).expect("encodes");
    assert!(json.len() <= MAX_REPORT_BYTES, "{} bytes", json.len());
    let read = serde_json::from_slice::<FromProxy>(&json).expect("decodes").inspected.expect("an answer").live;
    let lag = read.lag.expect("durable listeners");
    assert_eq!((read.total, lag.len(), lag[0].error.len()), (u64::MAX, MAX_LAGS, MAX_LAG_ERROR_BYTES));
    let texts = lag.iter().map(Lag::weight).sum::<usize>();
    assert!(json.len() > texts && json.len() < 2 * texts, "{} bytes, {texts} of texts", json.len());
}

#[test]
fn the_weight_of_a_message_grows_with_its_items_and_texts() {
    let held = |items: usize, bytes: usize| Held {
        listeners: (0..items).map(|at| (id(at, bytes).parse().expect("an id"), Revision("r".into()))).collect(),
        ..Held::default()
    };
    assert_eq!(Held::default().weight(), 0);
    assert!(held(2, 16).weight() > held(1, 16).weight() && held(1, 500).weight() > held(1, 16).weight() + 400);
    let gone = ReportPart { gone: [id(0, 500).parse().expect("an id")].into(), ..ReportPart::default() };
    assert!(gone.weight() > ReportPart::default().weight() + 500);
}

#[test]
fn a_value_of_another_form_is_refused_with_what_it_should_be() {
    for (message, expected) in [
        (json!({"hello": {"software": 7}}), "a software version of at most 256 bytes"),
        (json!({"held": {"listeners": 7}}), "a map of at most 1000 items"),
        (json!({"report": {"gone": 7}}), "a list of at most 1000 items"),
        (json!({"inspected": {"live": {"sessions": 7}}}), "a list of at most 1000 items"),
        (json!({"agents": {"agents": 7}}), "at most 1024 instances of agents"),
        (inspected(&[session(json!({"session": 7}))]), "16 hexadecimal digits"),
    ] {
        let error = read(message).expect_err(expected).to_string();
        assert!(error.contains(&format!("expected {expected}")), "{error}");
    }
    let error = serde_json::from_value::<Octets>(json!("no digits")).expect_err("other text").to_string();
    assert!(error.contains("expected at most 256 bytes as pairs of hexadecimal digits"), "{error}");
}
