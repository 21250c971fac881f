//! Settings of a `PortForward` that hold for all its listeners.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long things may take, in seconds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// One try to connect to an endpoint, 1 to 300 seconds. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_seconds: Option<u32>,
    /// A TCP session without a byte either way ends after this, 1 to 604800 seconds. Absent: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub idle_seconds: Option<u32>,
    /// The same once one side has finished sending, 1 to 604800 seconds. Absent: 300, or `idleSeconds` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub half_close_seconds: Option<u32>,
    /// A UDP flow without a datagram either way ends after this, 1 to 86400 seconds. Absent: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub udp_idle_seconds: Option<u32>,
    /// Quiet time before TCP keepalive probes start, 1 to 7200 seconds. Absent: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7200))]
    pub keepalive_seconds: Option<u32>,
    /// All that a client has to send before its session can begin, such as a PROXY header, 1 to 300 seconds; after that
    /// it is reset. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub handshake_seconds: Option<u32>,
    /// A session ends after this, however busy it is, 1 to 31536000 seconds: TCP is reset, a UDP flow is made anew with
    /// its next datagram. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub max_session_seconds: Option<u32>,
}

/// How a connection to a backend is tried again. Only the connect phase: no byte is ever sent twice.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.initialBackoffMillis) || !has(self.maxBackoffMillis) || self.initialBackoffMillis <= self.maxBackoffMillis").message("initialBackoffMillis must not be greater than maxBackoffMillis"))]
pub struct Retry {
    /// Tries in all, the first included, 1 to 10. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// Pause before an endpoint is tried again, doubled for each further try, 1 to 60000 milliseconds; another
    /// endpoint is tried at once. Absent: 50, or `maxBackoffMillis` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub initial_backoff_millis: Option<u32>,
    /// Longest pause between tries, 1 to 60000 milliseconds. Absent: 2000, or `initialBackoffMillis` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub max_backoff_millis: Option<u32>,
}

/// What happens to live sessions that a change concerns: their backend entry is gone, or their listener's port, bind
/// or protocol changed, or the listener, the object or the pod goes away.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// Keep: they stay until they end. Drain: closed within `drainSeconds`, spread over it. Close: reset at once.
    /// Absent: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_update: Option<OnUpdate>,
    /// When the endpoint of a session is put aside as unhealthy. Keep: nothing. Close: the session is reset.
    /// Absent: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unhealthy: Option<OnUnhealthy>,
    /// Longest time a drain takes, 1 to 86400 seconds. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<u32>,
}

/// Treatment of live sessions that a change concerns.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum OnUpdate {
    #[default]
    Keep,
    Drain,
    Close,
}

/// Treatment of live sessions whose endpoint became unhealthy.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum OnUnhealthy {
    #[default]
    Keep,
    Close,
}

/// Which sessions are written to the access log.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// Disabled: none. Close: each once, when it closes. `OpenAndClose`: also when it opens. Absent: Close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessLogMode>,
    /// A session that lives longer is also written every so many seconds, 1 to 86400. Absent: not in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub interval_seconds: Option<u32>,
}

/// Access log modes. None is spelled so that YAML 1.1 reads it as a boolean.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum AccessLogMode {
    Disabled,
    #[default]
    Close,
    OpenAndClose,
}
