//! The condition `MessagesKept`: which failures the logs of durable listeners survive, and the delivery guarantees of
//! their messages.

use crds::{Durable, DurableSend, PortForward};

use crate::status::conditions::{ConditionType, Finding, Truth};

/// The place where messages are kept.
const IN_POD: &str = "messages of durable listeners are kept in an emptyDir volume of each pod: the log survives \
                      restarts of the proxy, not the pod";
const ON_CLAIM: &str = "messages of durable listeners are kept on the claim of each pod of the gateway: the log survives \
                        the pod, not the volume";
const IN_STREAM: &str = "kept in streams of the NATS servers of the gateway, which all its proxies share: they survive \
                         the pods; if more than half of the servers of a stream lose power, messages that were not \
                         synced are lost: those of the last 2 minutes, or of the sync_interval of the servers";

/// A mode of sending, as a predicate, and its delivery guarantee.
type Promise = (fn(&DurableSend) -> bool, &'static str);

/// The delivery guarantees of each mode, in the words of `docs/durable.md`.
const PROMISES: [Promise; 4] = [
    (|send| send.relp.is_some(), "over RELP they are delivered at least once: the sink acknowledges each of them"),
    (|send| send.http.is_some(), "over HTTP they are delivered at least once: the sink acknowledges each request"),
    (
        |send| send.tcp.is_some(),
        "over TCP they are acknowledged by the receiver's kernel: the receiver may not have read them",
    ),
    (|send| send.udp.is_some(), "over UDP they are sent: nothing acknowledges them"),
];
const ORDER: &str = "each proxy sends those of one source in order";
const NOT_DELIVERED: &str =
    "messages that are dropped because of a limit, or permanently refused by the sink, are counted";

/// The condition of a forward with durable listeners. `has_claims` says whether the pods of its gateway have claims.
pub(super) fn messages_kept(forward: &PortForward, has_claims: bool) -> Option<Finding> {
    let durable: Vec<&Durable> = forward.spec.listeners.iter().filter_map(|it| it.durable.as_deref()).collect();
    let streams = durable.iter().filter(|part| part.is_in_stream()).count();
    let on_disk = if has_claims { ("OnClaim", ON_CLAIM) } else { ("InPod", IN_POD) };
    let (reason, kept) = match streams {
        0 => (on_disk.0, on_disk.1.to_owned()),
        all if all == durable.len() => ("InStream", format!("messages of durable listeners are {IN_STREAM}")),
        _ => (on_disk.0, format!("{}; those of listeners with store.jetStream are {IN_STREAM}", on_disk.1)),
    };
    let sent = PROMISES.iter().filter(|(is_sent, _)| durable.iter().any(|part| is_sent(&part.send)));
    let sentences: Vec<&str> =
        [kept.as_str()].into_iter().chain(sent.map(|(_, it)| *it)).chain([ORDER, NOT_DELIVERED]).collect();
    let finding = || Finding::new(ConditionType::MessagesKept, Truth::True, reason, sentences.join("; "));
    (!durable.is_empty()).then(finding)
}
