//! Requests for certificates and reports of connected agents: what is read, what is refused, and what is never printed.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    AgentsReport, Applicant, ConnectedInstance, FromProxy, Issued, MAX_CERTIFICATE_BYTES, MAX_CONNECTED,
    MAX_INSTANCE_BYTES, MAX_NAME_BYTES, MAX_REFUSAL_BYTES, MAX_REPORT_BYTES, MAX_SIGN_REQUEST_BYTES,
    MAX_SOFTWARE_BYTES, MAX_TOKEN_BYTES, Sign, SignOutcome, SignReason, SignRefusal, Signed, ToProxy,
};
use serde_json::{Value, json};

fn from_proxy(message: Value) -> Result<FromProxy, serde_json::Error> {
    serde_json::from_value(message)
}

fn to_proxy(message: Value) -> Result<ToProxy, serde_json::Error> {
    serde_json::from_value(message)
}

fn base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// The bound holds for a message that is made from a length: the longest is read, a longer one is refused.
fn holds<T>(most: usize, read: impl Fn(usize) -> Result<T, serde_json::Error>) {
    assert!(read(most).is_ok(), "{most} are too many");
    let error = read(most + 1).err().unwrap_or_else(|| panic!("{} are read", most + 1)).to_string();
    assert!(error.contains(&most.to_string()), "the bound is named: {error}");
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn sign(request: &str, applicant: &Value) -> Value {
    json!({"sign": {"id": 7, "request": request, "applicant": applicant}})
}

#[test]
fn requests_and_answers_are_the_same_after_a_round_trip() {
    for (applicant, expected) in [
        (Applicant::Endpoint, json!({"kind": "endpoint"})),
        (
            Applicant::Token { namespace: "ns".to_owned(), name: "home".to_owned(), token: "AAAA".to_owned() },
            json!({"kind": "token", "namespace": "ns", "name": "home", "token": "AAAA"}),
        ),
        (
            Applicant::Agent { namespace: "ns".to_owned(), name: "home".to_owned(), uid: "u".to_owned(), rotation: 3 },
            json!({"kind": "agent", "namespace": "ns", "name": "home", "uid": "u", "rotation": 3}),
        ),
        (Applicant::Sidecar { gateway: "g-1".to_owned() }, json!({"kind": "sidecar", "gateway": "g-1"})),
    ] {
        let sent = Sign { id: 7, request: "MIIB".to_owned(), applicant };
        let message = FromProxy { sign: Some(sent), ..FromProxy::default() };
        let written = serde_json::to_value(&message).expect("encodes");
        assert_eq!(written, sign("MIIB", &expected));
        assert_eq!(from_proxy(written).expect("decodes"), message);
    }
    let refused = SignRefusal { reason: SignReason::Token, detail: "why".to_owned() };
    for (outcome, expected) in [
        (
            SignOutcome::Issued(Issued { certificate: "MIIC".to_owned(), root: "MIIR".to_owned() }),
            json!({"certificate": "MIIC", "root": "MIIR"}),
        ),
        (SignOutcome::Refused { refused }, json!({"refused": {"reason": "Token", "detail": "why"}})),
    ] {
        let message = ToProxy { signed: Some(Signed { id: 7, outcome }), ..ToProxy::default() };
        let written = serde_json::to_value(&message).expect("encodes");
        assert_eq!(written, json!({"signed": {"id": 7, "outcome": expected}}));
        assert_eq!(to_proxy(written).expect("decodes"), message);
    }
}

#[test]
fn a_message_without_certificates_and_agents_is_what_it_was() {
    assert_eq!(serde_json::to_value(FromProxy::default()).expect("encodes"), json!({}));
    assert_eq!(serde_json::to_value(ToProxy::default()).expect("encodes"), json!({}));
}

#[test]
fn an_applicant_or_a_reason_of_another_release_is_unknown_and_ends_no_stream() {
    let newer = from_proxy(sign("MIIB", &json!({"kind": "bridge", "to": "mars"}))).expect("decodes");
    assert_eq!(newer.sign.expect("a request").applicant, Applicant::Unknown);
    let newer = json!({"signed": {"outcome": {"refused": {"reason": "Moon", "detail": "d", "more": 1}}}});
    let refused = SignRefusal { reason: SignReason::Unknown, detail: "d".to_owned() };
    let expected = Signed { id: 0, outcome: SignOutcome::Refused { refused } };
    assert_eq!(to_proxy(newer).expect("decodes").signed, Some(expected));
}

#[test]
fn a_token_is_printed_nowhere() {
    let message = sign("MIIB", &json!({"kind": "token", "namespace": "ns", "name": "home", "token": "secret-token"}));
    let printed = format!("{:?}", from_proxy(message).expect("decodes"));
    assert!(printed.contains("ns/home") && !printed.contains("secret"), "{printed}");
}

// C2
#[test]
fn texts_of_requests_and_answers_are_bounded() {
    let token = |field: &str, bytes: usize| {
        let mut applicant = json!({"kind": "token", "namespace": "ns", "name": "home", "token": "t"});
        applicant[field] = json!(text(bytes));
        from_proxy(sign("r", &applicant))
    };
    let agent = |field: &str, bytes: usize| {
        let mut applicant = json!({"kind": "agent", "namespace": "ns", "name": "home", "uid": "u", "rotation": 0});
        applicant[field] = json!(text(bytes));
        from_proxy(sign("r", &applicant))
    };
    let endpoint = || json!({"kind": "endpoint"});
    holds(base64(MAX_SIGN_REQUEST_BYTES), |bytes| from_proxy(sign(&text(bytes), &endpoint())));
    holds(MAX_TOKEN_BYTES, |bytes| token("token", bytes));
    for field in ["namespace", "name"] {
        holds(MAX_NAME_BYTES, |bytes| token(field, bytes));
        holds(MAX_NAME_BYTES, |bytes| agent(field, bytes));
    }
    holds(MAX_NAME_BYTES, |bytes| agent("uid", bytes));
    let sidecar = |bytes: usize| from_proxy(sign("r", &json!({"kind": "sidecar", "gateway": text(bytes)})));
    holds(MAX_NAME_BYTES, sidecar);
    for field in ["certificate", "root"] {
        let read = |bytes: usize| {
            let mut issued = json!({"certificate": "c", "root": "r"});
            issued[field] = json!(text(bytes));
            serde_json::from_value::<Issued>(issued)
        };
        holds(base64(MAX_CERTIFICATE_BYTES), read);
    }
    holds(MAX_REFUSAL_BYTES, |bytes| serde_json::from_value::<SignRefusal>(json!({"detail": text(bytes)})));
}

#[test]
fn a_long_refusal_is_cut_where_it_is_written_so_that_it_is_read() {
    let refused = SignRefusal { reason: SignReason::Agent, detail: "ü".repeat(MAX_REFUSAL_BYTES) };
    let outcome = SignOutcome::Refused { refused };
    let written = serde_json::to_string(&Signed { id: 1, outcome }).expect("encodes");
    let SignOutcome::Refused { refused } = serde_json::from_str::<Signed>(&written).expect("decodes").outcome else {
        panic!("a refusal");
    };
    assert_eq!(refused.detail, "ü".repeat(MAX_REFUSAL_BYTES / 2));
}

// C2
#[test]
fn a_report_of_agents_is_bounded_in_its_texts_and_in_all_instances_together() {
    let one = |uid: &str, instance: &str, version: &str| {
        from_proxy(json!({"agents": {"agents": {uid: [{"instance": instance, "version": version}]}}}))
    };
    holds(MAX_NAME_BYTES, |bytes| one(&text(bytes), "i", "v"));
    holds(MAX_INSTANCE_BYTES, |bytes| one("u", &text(bytes), "v"));
    holds(MAX_SOFTWARE_BYTES, |bytes| one("u", "i", &text(bytes)));
    let instances = |count: usize| vec![json!({"instance": "i", "version": "v"}); count];
    let all = |agents: Value| from_proxy(json!({"agents": {"agents": agents}}));
    holds(MAX_CONNECTED, |count| all(json!({"u": instances(count)})));
    holds(MAX_CONNECTED, |count| all(json!({"a": instances(1000), "b": instances(count - 1000)})));
    holds(MAX_CONNECTED, |count| all((0..count).map(|at| (format!("u{at}"), json!([]))).collect()));
}

#[test]
fn the_largest_report_of_agents_fits() {
    let instance = || ConnectedInstance { instance: text(MAX_INSTANCE_BYTES), version: text(MAX_SOFTWARE_BYTES) };
    let uid = |at: usize| format!("{at:08}{}", text(MAX_NAME_BYTES - 8));
    let report = AgentsReport { agents: (0..MAX_CONNECTED).map(|at| (uid(at), vec![instance()])).collect() };
    assert_eq!(report.items(), MAX_CONNECTED);
    assert!(report.weight() > MAX_CONNECTED * (MAX_INSTANCE_BYTES + MAX_SOFTWARE_BYTES + MAX_NAME_BYTES));
    let message = FromProxy { agents: Some(report), ..FromProxy::default() };
    let bytes = serde_json::to_vec(&message).expect("encodes");
    assert!(bytes.len() <= MAX_REPORT_BYTES, "{} bytes", bytes.len());
    assert_eq!(serde_json::from_slice::<FromProxy>(&bytes).expect("decodes"), message);
}
