//! Requests whose driver and proxies are played by the test.

use serde_json::{Value, json};
use tokio::task::yield_now;

use super::*;

const OF_FORWARD: &str = "/apis/live.portlane.dev/v1alpha1/namespaces/ns/portforwards/web/sessions";

/// An API, and the questions that it asks.
fn api() -> (Arc<LiveApi>, mpsc::Receiver<Question>) {
    let (questions, asked) = mpsc::channel(8);
    (Arc::new(LiveApi::new(questions, Arc::default())), asked)
}

/// Begins a request for the sessions of a forward.
fn request(api: &Arc<LiveApi>, query: &'static str) -> tokio::task::JoinHandle<Answer> {
    let api = api.clone();
    tokio::spawn(async move { api.answer(OF_FORWARD, query).await })
}

/// Answers the next question with proxies: their names, and the queues of their streams.
async fn has_proxies(asked: &mut mpsc::Receiver<Question>, proxies: Vec<(String, Option<mpsc::Sender<Ask>>)>) {
    let Some(Question::Live(LiveQuestion::Proxies { of, reply })) = asked.recv().await else { panic!("no question") };
    assert_eq!(of, Of::Forward(Origin::port_forward("ns", "web")));
    let proxies = proxies.into_iter().map(|(name, asks)| LiveProxy {
        pod: ObjectKey::new("ns", name),
        asks,
        rates: None,
        carried: None,
    });
    reply.send(Some(proxies.collect())).expect("the request waits");
}

fn value(answer: Answer) -> (u16, Value) {
    let value = match answer.content {
        Content::Json(value) => value,
        Content::Written { json, .. } => serde_json::from_str(&json).expect("JSON"),
        Content::Plain(text) => panic!("{text}"),
    };
    (answer.status.as_u16(), value)
}

fn live(total: u64) -> LiveSessions {
    LiveSessions { total, ..LiveSessions::default() }
}

fn counted(api: &LiveApi, result: &'static str) -> u64 {
    api.metrics.inquiries.get_or_create(&[("result", result)]).get()
}

#[tokio::test]
async fn totals_of_proxies_add_up_and_those_without_an_answer_are_named() {
    let (api, mut asked) = api();
    let request = request(&api, "limit=7");
    let (one, mut of_one) = mpsc::channel(1);
    let (two, of_two) = mpsc::channel::<Ask>(1);
    drop(of_two);
    let proxies = vec![("p1".into(), Some(one)), ("p2".into(), Some(two)), ("p3".into(), None)];
    has_proxies(&mut asked, proxies).await;
    let Ask { selection, reply } = of_one.recv().await.expect("an ask");
    assert_eq!((selection.origin, selection.limit), (Some(Origin::port_forward("ns", "web")), 7));
    reply.send(live(9)).expect("the request waits");
    let (status, list) = value(request.await.expect("an answer"));
    assert_eq!((status, &list["total"], &list["unanswered"]), (200, &json!(9), &json!(["ns/p2", "ns/p3"])));
    assert_eq!((counted(&api, "answered"), counted(&api, "refused"), counted(&api, "limited")), (1, 1, 0));
}

#[tokio::test]
async fn few_proxies_are_asked_at_once_and_too_many_are_not_asked() {
    let (api, mut asked) = api();
    let request = request(&api, "");
    let (asks, mut all) = mpsc::channel(2 * INQUIRIES);
    let name = |at: usize| (format!("p{at:03}"), Some(asks.clone()));
    has_proxies(&mut asked, (0..MAX_PROXIES + 3).map(name).collect()).await;
    let mut held = Vec::new();
    for _ in 0..MAX_PROXIES {
        held.push(all.recv().await.expect("an ask"));
        if held.len() == INQUIRIES {
            for _ in 0..100 {
                yield_now().await;
            }
            assert!(all.try_recv().is_err(), "more than {INQUIRIES} proxies are asked at once");
            for ask in held.drain(..) {
                ask.reply.send(live(1)).expect("the request waits");
            }
        }
    }
    for ask in held {
        ask.reply.send(live(1)).expect("the request waits");
    }
    let (_, list) = value(request.await.expect("an answer"));
    assert_eq!(list["total"], MAX_PROXIES);
    assert_eq!(list["unanswered"], json!(["ns/p500", "ns/p501", "ns/p502"]));
    assert_eq!(counted(&api, "limited"), 3);
}

#[tokio::test]
async fn a_request_whose_proxies_stay_silent_delays_no_other() {
    let (api, mut asked) = api();
    let first = request(&api, "");
    let (silent, _never_read) = mpsc::channel(64);
    has_proxies(&mut asked, (0..64).map(|at| (format!("p{at:02}"), Some(silent.clone()))).collect()).await;
    while silent.capacity() > 64 - INQUIRIES {
        yield_now().await;
    }
    let second = request(&api, "");
    let (asks, mut all) = mpsc::channel(1);
    has_proxies(&mut asked, vec![("one".into(), Some(asks))]).await;
    let ask = timeout(PATIENCE / 3, all.recv()).await.expect("before the silent ones have had their time");
    ask.expect("an ask").reply.send(live(1)).expect("the request waits");
    assert_eq!(value(second.await.expect("an answer")).1["total"], 1);
    first.abort();
}

#[tokio::test]
async fn a_request_beyond_those_in_work_is_to_be_repeated() {
    let (api, mut asked) = api();
    let mut waiting: Vec<_> = (0..REQUESTS_OF_NAMESPACE).map(|_| request(&api, "")).collect();
    let mut replies = Vec::new();
    for _ in 0..REQUESTS_OF_NAMESPACE {
        replies.push(asked.recv().await.expect("a question"));
    }
    assert_eq!(value(api.answer(OF_FORWARD, "").await).0, 429, "a namespace has half of the places");
    for namespace in ["a", "b"] {
        let (own, path) = (api.clone(), OF_FORWARD.replace("/ns/", &format!("/{namespace}/")));
        waiting.push(tokio::spawn(async move { own.answer(&path, "").await }));
        replies.push(asked.recv().await.expect("the others have the other half"));
    }
    assert_eq!((waiting.len(), counted(&api, "busy")), (REQUESTS, 1));
    let (status, refusal) = value(api.answer(OF_FORWARD, "").await);
    assert_eq!((status, &refusal["kind"], &refusal["code"]), (429, &json!("Status"), &json!(429)));
    assert_eq!(counted(&api, "busy"), 2);
    let (discovery, _) = value(api.answer("/apis/live.portlane.dev", "").await);
    assert_eq!(discovery, 200, "discovery needs no place");

    // A replica that does not lead drops the questions.
    drop(replies);
    for request in waiting {
        assert_eq!(value(request.await.expect("an answer")).0, 503);
    }
    let last = request(&api, "");
    has_proxies(&mut asked, Vec::new()).await;
    let answer = last.await.expect("an answer");
    assert_eq!(api.requests.available_permits(), REQUESTS - 1, "an answer that is not read keeps its place");
    assert_eq!(value(answer).0, 200);
    assert_eq!(api.requests.available_permits(), REQUESTS);
}

#[tokio::test]
async fn each_proxy_is_asked_once_for_all_forwards_of_a_namespace() {
    let (api, mut asked) = api();
    let own = api.clone();
    let path = "/apis/live.portlane.dev/v1alpha1/namespaces/ns/portforwards/*/sessions";
    let request = tokio::spawn(async move { own.answer(path, "limit=7").await });
    let question = asked.recv().await;
    let Some(Question::Live(LiveQuestion::Together { namespace, reply })) = question else { panic!("no question") };
    assert_eq!(namespace.as_deref(), Some("ns"));
    let (asks, mut all) = mpsc::channel(2);
    let proxies = vec![LiveProxy { pod: ObjectKey::new("ns", "p1"), asks: Some(asks), rates: None, carried: None }];
    let (db, web) = (Origin::port_forward("ns", "db"), Origin::port_forward("ns", "web"));
    let rates = [(db.clone(), None), (web.clone(), None)].into();
    reply.send((proxies, Forwards { rates, omitted: 0 })).expect("the request waits");
    let Ask { selection, reply } = all.recv().await.expect("an ask");
    assert_eq!((selection.namespace.as_deref(), selection.by_origin, selection.limit), (Some("ns"), true, 7));
    let answer = LiveSessions { total: 5, origins: [(db, 2), (web, 3)].into(), ..LiveSessions::default() };
    reply.send(answer).expect("the request waits");
    let (status, list) = value(request.await.expect("an answer"));
    let forwards = json!([{"forward": "ns/db", "total": 2}, {"forward": "ns/web", "total": 3}]);
    assert_eq!((status, &list["total"], &list["forwards"]), (200, &json!(5), &forwards));
    assert!(all.recv().await.is_none(), "the proxy is asked once");
    assert_eq!(counted(&api, "answered"), 1);
}

#[tokio::test]
async fn the_lag_of_a_forward_is_asked_for_without_sessions_and_an_older_proxy_is_named() {
    let (api, mut asked) = api();
    let request = request(&api, "lag=true&limit=7");
    let ((one, mut of_one), (two, mut of_two)) = (mpsc::channel(1), mpsc::channel(1));
    let proxies = vec![("p1".into(), Some(one)), ("p2".into(), Some(two)), ("p3".into(), None)];
    has_proxies(&mut asked, proxies).await;
    let Ask { selection, reply } = of_one.recv().await.expect("an ask");
    assert_eq!((selection.origin, selection.limit), (Some(Origin::port_forward("ns", "web")), 0));
    assert!(selection.lag);
    reply.send(LiveSessions { lag: Some(Vec::new()), ..live(0) }).expect("the request waits");
    of_two.recv().await.expect("an ask").reply.send(live(9)).expect("the request waits");
    let (status, list) = value(request.await.expect("an answer"));
    assert_eq!((status, &list["kind"], &list["items"]), (200, &json!("LagList"), &json!([])));
    assert_eq!((&list["older"], &list["unanswered"]), (&json!(["ns/p2"]), &json!(["ns/p3"])));
}

#[tokio::test]
async fn of_all_forwards_a_proxy_tells_the_lag_of_those_of_namespaces_that_it_carries() {
    let (api, mut asked) = api();
    let own = api.clone();
    let path = "/apis/live.portlane.dev/v1alpha1/portforwards/*/sessions";
    let request = tokio::spawn(async move { own.answer(path, "lag=true").await });
    let question = asked.recv().await;
    let Some(Question::Live(LiveQuestion::Together { namespace: None, reply })) = question else {
        panic!("no question about all namespaces")
    };
    let (asks, mut all) = mpsc::channel(1);
    let carried = Some(vec![Arc::new(["ns".to_owned()].into())]);
    let proxies = vec![LiveProxy { pod: ObjectKey::new("ns", "p1"), asks: Some(asks), rates: None, carried }];
    reply.send((proxies, Forwards::default())).expect("the request waits");
    let lag =
        |listener: &str| serde_json::from_value(json!({"listener": listener, "delivery": "Behind"})).expect("a lag");
    let told = LiveSessions { lag: Some(vec![lag("ns/web/a"), lag("other/web/a")]), ..live(2) };
    all.recv().await.expect("an ask").reply.send(told).expect("the request waits");
    let (status, list) = value(request.await.expect("an answer"));
    assert_eq!((status, list["items"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(list["items"][0]["listener"], json!("ns/web/a"));
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let (api, mut asked) = api();
    let sessions = request(&api, "");
    let Some(Question::Live(LiveQuestion::Proxies { reply, .. })) = asked.recv().await else { panic!("no question") };
    assert!(reply.send(None).is_ok());
    let (status, refusal) = value(sessions.await.expect("an answer"));
    assert_eq!((status, &refusal["message"]), (404, &json!("PortForward ns/web does not exist")));

    let own = api.clone();
    let path = "/apis/live.portlane.dev/v1alpha1/namespaces/ns/pods/p1/config";
    let config = tokio::spawn(async move { own.answer(path, "").await });
    let Some(Question::Live(LiveQuestion::Config { pod, reply })) = asked.recv().await else { panic!("no question") };
    assert!(reply.send(None).is_ok());
    assert_eq!(pod, ObjectKey::new("ns", "p1"));
    let (status, refusal) = value(config.await.expect("an answer"));
    assert_eq!((status, &refusal["reason"]), (404, &json!("NotFound")));
    assert_eq!(value(api.answer(OF_FORWARD, "limit=x").await).0, 400);
}
