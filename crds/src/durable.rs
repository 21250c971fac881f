//! Durable listeners: messages in, a log, messages out.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Durable forwarding: messages are kept in a log until they are delivered to a backend.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.enrich) || has(self.enrich.structuredDataId) || (has(self.send.http) && (!has(self.send.http.format) || self.send.http.format != 'Raw'))").message("enrich.structuredDataId is required unless send.http has the format Ndjson or JsonArray"))]
#[x_kube(validation = Rule::new("!has(self.enrich) || !has(self.enrich.structuredDataId) || !has(self.send.http) || (has(self.send.http.format) && self.send.http.format == 'Raw')").message("enrich.structuredDataId is not for send.http with the format Ndjson or JsonArray: write enrich: {}"))]
#[x_kube(validation = Rule::new("!has(self.lanes) || self.lanes == 1 || !has(self.store) || !has(self.store.jetStream)").message("lanes is for store.disk: remove lanes, or keep messages with store.disk"))]
#[x_kube(validation = Rule::new("!has(self.lanes) || !has(self.store) || !has(self.store.disk) || self.store.disk.maxBytes >= self.lanes * 16777216").message("store.disk.maxBytes must be at least 16777216 for each of the lanes"))]
#[x_kube(validation = Rule::new("!has(self.lanes) || !has(self.deadLetter) || self.deadLetter.maxBytes == 0 || self.deadLetter.maxBytes >= self.lanes * 16777216").message("deadLetter.maxBytes must be 0, or at least 16777216 for each of the lanes"))]
pub struct Durable {
    /// How messages are delimited. Datagram, for UDP only: each datagram is a message; there is no guarantee until it
    /// is in the log. For TCP: Newline, Nul, OctetCounting, Syslog (RFC 6587, octet counting or lines), Length2 and
    /// Length4 (a length in network byte order before each message): what TCP has acknowledged but is not synced yet is
    /// lost in a crash. Relp: an acknowledged message is synced to the disk of the proxy, or in the stream, whose
    /// servers sync it within their sync_interval. Absent: Datagram with protocol UDP, Newline with TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// Maximum length of a message, 64 to 1048576 bytes. Absent: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 1_048_576))]
    pub max_message_bytes: Option<u32>,
    /// What happens to a longer message. Truncate: only its beginning is kept. Drop: it is dropped. Both are counted.
    /// Absent: Truncate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oversize: Option<Oversize>,
    /// Where messages are kept until they are delivered. Absent: in a log of up to 1 GiB on the disk of the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<DurableStore>,
    /// Age at which messages are dropped and counted, 60 to 2592000 seconds. Absent: messages are not dropped because
    /// of their age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 2_592_000))]
    pub max_age_seconds: Option<u32>,
    /// What happens when the store is full. DropOldest: the oldest messages are dropped. DropNewest: the new message is
    /// dropped. Block, not with protocol UDP: clients are not read until there is space (backpressure). Dropped
    /// messages are counted. Absent: DropOldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
    /// Maximum time until a message is synced to the disk of `store.disk`, 0 to 10000 milliseconds. A power failure
    /// loses the messages of this time, and those that were not in the log yet. 0: after each write. A RELP
    /// acknowledgement always waits for the sync. Absent: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub sync_millis: Option<u32>,
    /// Number of logs, 1 to 16, with `store.disk` only; the address of a client decides which log its messages go to.
    /// Each log has an equal part of the bytes and its own connection to the sink, so that a message that the sink does
    /// not take delays only the messages of its own log. A changed number applies to new messages; those that wait are
    /// sent first. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub lanes: Option<u32>,
    /// How messages are sent to the backends of the listener: exactly one of `relp`, `tcp`, `udp` and `http`. Messages
    /// of one source are sent in order within one proxy, retries included. A message that is dropped because of a bound
    /// of the store, or that the sink permanently refuses, is not delivered, and is counted.
    pub send: DurableSend,
    /// Keeps messages that the sink permanently refuses as dead letters. Absent: they are dropped and counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Adds receive time, client address, forward and pod to messages, without rewriting them. For `send.http` with the
    /// format Ndjson or JsonArray, `enrich: {}` wraps each message in an object, with the fields `receivedAt`,
    /// `client`, `forward`, `pod` and `message` (`messageBase64` if it is not UTF-8), so that any message can be sent.
    /// Absent: nothing is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrich: Option<Enrich>,
}

impl Durable {
    /// Whether messages are kept in a stream of a server, rather than on the disk of the proxy.
    #[must_use]
    pub fn is_in_stream(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.jet_stream.is_some())
    }

    /// The format of a sink over HTTP that names none. Messages of syslog are not JSON, and only `enrich` makes JSON of
    /// them.
    #[must_use]
    pub fn usual_format(&self) -> HttpFormat {
        let is_text = self.framing == Some(Framing::Syslog) && self.enrich.is_none();
        if is_text { HttpFormat::Raw } else { HttpFormat::Ndjson }
    }
}

/// How messages are delimited in what clients send.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Framing {
    Datagram,
    Newline,
    Nul,
    OctetCounting,
    Syslog,
    Length2,
    Length4,
    Relp,
}

/// What happens to a message that is too long.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum Oversize {
    #[default]
    Truncate,
    Drop,
}

/// What happens when the store is full.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum WhenFull {
    #[default]
    DropOldest,
    DropNewest,
    Block,
}

/// Where messages are kept until they are delivered: exactly one of `disk` and `jetStream`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.disk), has(self.jetStream)].exists_one(x, x)").message("exactly one of disk and jetStream must be set"))]
pub struct DurableStore {
    /// A log on the disk of the proxy. A crash of the process loses nothing that RELP has acknowledged; the loss of the
    /// disk loses the log. In a cluster, the disk is an emptyDir, which is deleted with the pod, or the
    /// PersistentVolumeClaim of a gateway with `spec.durability`, which survives the pod. Absent: `jetStream` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStore>,
    /// A stream of NATS JetStream, which all proxies of the listener share. An acknowledged message is lost only if the
    /// servers that store it are lost. A server syncs it within its `sync_interval`, 2 minutes by default; `syncMillis`
    /// does not apply. In a cluster, this needs `placement.gateway`, and `spec.jetStream` of the gateway. Absent:
    /// `disk` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<JetStreamStore>,
}

/// A stream of NATS JetStream. Its name is built from the names of the namespace, the forward and the listener. All
/// proxies of the listener publish messages to it, and one of them sends the messages of all.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || self.replicas in [1, 3, 5]").message("replicas of jetStream must be 1, 3 or 5"),
    validation = Rule::new("has(self.url) || !has(self.credentialsRef) && !has(self.replicas)").message("credentialsRef and replicas of jetStream need url: without it they are those of the gateway")
)]
pub struct JetStreamStore {
    /// URL of a NATS server, for `portlane run`, and required there: `nats://HOST:PORT`, or `tls://HOST:PORT` for TLS.
    /// The proxy learns the other servers of the NATS cluster from it. Operators refuse this field (Accepted is False).
    /// Absent: the server in `spec.jetStream` of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^(nats|tls)://[^/@?# ]+$"))]
    pub url: Option<String>,
    /// Secret whose key `creds` is a NATS credentials file; for `portlane run`, `--jetstream-credentials FILE` takes
    /// its place. Absent: the server requires none, or the gateway names the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<CredentialsRef>,
    /// Number of servers of the NATS cluster that store each message (the replicas of the stream): 1, 3 or 5. Absent:
    /// 1, or the number of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// Maximum size of the stream, 16777216 (16 MiB) to 1099511627776 (1 TiB) bytes.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64), extend("format" = "int64"))]
    pub max_bytes: u64,
}

/// Credentials of a NATS server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    /// Name of a Secret in the namespace of the object that names it.
    #[schemars(
        length(min = 1, max = 253),
        pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// A log on disk.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskStore {
    /// Maximum size of the log, 16777216 (16 MiB) to 1099511627776 (1 TiB) bytes, in each proxy.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64), extend("format" = "int64"))]
    pub max_bytes: u64,
}

/// How messages are sent: exactly one of `relp`, `tcp`, `udp` and `http`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.relp), has(self.tcp), has(self.udp), has(self.http)].exists_one(x, x)").message("exactly one of relp, tcp, udp and http must be set"))]
pub struct DurableSend {
    /// RELP: at-least-once delivery, because the sink acknowledges each message. After a broken connection, at most one
    /// window of messages arrives twice, with store.disk also after a crash of the proxy; after a power failure, more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relp: Option<RelpSink>,
    /// Framed TCP: each message is acknowledged by the receiver's kernel, which does not say that the receiver read it.
    /// Messages that were acknowledged but not read when a connection is reset are lost, except for `rewindBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpSink>,
    /// UDP: each message is sent once, in one datagram, without acknowledgement; after a crash of the proxy some are
    /// sent again. A message that is too long for a datagram counts as permanently refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpSink>,
    /// HTTP POST: at-least-once delivery, because the sink acknowledges each request with a status of 200 to 299. After
    /// a broken connection, at most one batch of messages arrives twice, with store.disk also after a crash of the
    /// proxy; after a power failure, more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSink>,
}

/// Sends messages by RELP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelpSink {
    /// Maximum number of unacknowledged messages in flight, 1 to 1024. Absent: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub window_messages: Option<u32>,
}

/// Sends messages by framed TCP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSink {
    /// How messages are delimited. A message that the framing cannot carry, such as one that contains a line end with
    /// Newline, counts as permanently refused. Absent: Newline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<SinkFraming>,
    /// Number of acknowledged bytes that are sent again after a connection was reset, 0 to 16777216, as whole messages,
    /// which may arrive twice. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_777_216))]
    pub rewind_bytes: Option<u32>,
}

/// How messages are delimited in what is sent.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum SinkFraming {
    #[default]
    Newline,
    Nul,
    OctetCounting,
    Length2,
    Length4,
}

/// Sends messages by UDP.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpSink {}

/// Sends messages by HTTP POST, in batches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSink {
    /// Path of the requests, with an optional query, such as `/ingest?index=logs`. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^/[!-~]*$"))]
    pub path: Option<String>,
    /// Body of a request. Ndjson: a message on each line. JsonArray: an array of the messages. Both carry only messages
    /// that are JSON. Raw: the messages as they are, with a newline between two. Absent: Raw for the framing Syslog
    /// without `enrich`, otherwise Ndjson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<HttpFormat>,
    /// Maximum bytes of messages in a request, 1024 to 16777216; a longer message is sent alone. Absent: 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub batch_bytes: Option<u32>,
    /// Maximum number of messages in a request, 1 to 10000. Absent: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_messages: Option<u32>,
    /// Maximum time that a message waits for others to fill its request, 0 to 60000 milliseconds. Absent: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60_000))]
    pub linger_millis: Option<u32>,
}

/// Bodies of HTTP requests.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum HttpFormat {
    Ndjson,
    JsonArray,
    Raw,
}

/// A log of messages that the sink permanently refuses.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.maxBytes == 0 || self.maxBytes >= 16777216").message("maxBytes of deadLetter must be 0, or at least 16777216"))]
pub struct DeadLetter {
    /// Maximum size of a separate log of such messages, 16777216 (16 MiB) to 1099511627776 (1 TiB) bytes, on the disk
    /// of the proxy or in a second stream. The oldest are dropped when it is full. 0: such messages are dropped and
    /// counted.
    #[schemars(range(min = 0, max = 1_099_511_627_776_u64), extend("format" = "int64"))]
    pub max_bytes: u64,
}

/// How receive time, client address, forward and pod are added to messages.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrich {
    /// Name of the structured data that each syslog message (RFC 5424) gets, such as `portlane@32473`: a name, '@' and
    /// a private enterprise number, 3 to 32 characters; other messages stay as they are. Required, unless `send.http`
    /// has the format Ndjson or JsonArray, which do not allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), pattern(r"^[!#-<>?A-\\^-~]+@[0-9]+([.][0-9]+)*$"))]
    pub structured_data_id: Option<String>,
}
