//! Settings of a `PortForward` that apply to all its listeners.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Timeouts, in seconds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Timeout of one attempt to connect to an endpoint, 1 to 300 seconds. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_seconds: Option<u32>,
    /// Time without traffic in either direction after which a TCP session is closed, 1 to 604800 seconds. Absent: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub idle_seconds: Option<u32>,
    /// Idle timeout of a half-closed TCP session, in which one side has finished sending, 1 to 604800 seconds. Absent:
    /// 300, or `idleSeconds` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub half_close_seconds: Option<u32>,
    /// Time without traffic in either direction after which a UDP flow ends, 1 to 86400 seconds. Absent: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub udp_idle_seconds: Option<u32>,
    /// Idle time before TCP keepalive probes start, 1 to 7200 seconds. Absent: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7200))]
    pub keepalive_seconds: Option<u32>,
    /// Timeout for a client to send what its session needs to start, such as a PROXY header or a TLS ClientHello, 1 to
    /// 300 seconds; after that, its connection is reset. Absent: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub handshake_seconds: Option<u32>,
    /// Maximum lifetime of a session, active or idle, 1 to 31536000 seconds. After that, a TCP session is reset, and a
    /// UDP flow starts over with its next datagram. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub max_session_seconds: Option<u32>,
}

/// Retries of a connection to a backend. Only the connect phase is retried: no byte is ever sent twice.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.initialBackoffMillis) || !has(self.maxBackoffMillis) || self.initialBackoffMillis <= self.maxBackoffMillis").message("initialBackoffMillis must not be greater than maxBackoffMillis"))]
pub struct Retry {
    /// Maximum number of attempts to connect, including the first, 1 to 10; on a backend with addresses of both
    /// families one more may run in parallel. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// Backoff before the same endpoint is tried again, doubled with each further attempt, 1 to 60000 milliseconds;
    /// another endpoint is tried immediately. Absent: 50, or `maxBackoffMillis` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub initial_backoff_millis: Option<u32>,
    /// Maximum backoff between attempts, 1 to 60000 milliseconds. Absent: 2000, or `initialBackoffMillis` if that is
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub max_backoff_millis: Option<u32>,
}

/// What happens to live sessions affected by a change: their backend entry was removed, the port, bind or protocol of
/// their listener changed, or the listener, the object or the pod is being removed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// Keep: affected sessions stay until they end. Drain: they are closed within `drainSeconds`, spread over that
    /// time. Close: they are reset immediately. A drain continues even if the change is reverted. Sessions to an
    /// address that is removed from its DNS name or Service are not affected and stay. Absent: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_update: Option<OnUpdate>,
    /// What happens to live sessions whose endpoint becomes unhealthy. Keep: they stay until they end. Close: they are
    /// reset. Absent: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unhealthy: Option<OnUnhealthy>,
    /// Maximum duration of a drain, 1 to 86400 seconds. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<u32>,
}

/// Treatment of live sessions affected by a change.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum OnUpdate {
    #[default]
    Keep,
    Drain,
    Close,
}

/// Treatment of live sessions whose endpoint becomes unhealthy.
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
    /// Disabled: no records. Close: one record per session, when it closes. `OpenAndClose`: also a record when it
    /// opens. Absent: Close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessLogMode>,
    /// Interval of additional records for long sessions, 1 to 86400 seconds. Absent: no records between open and close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub interval_seconds: Option<u32>,
}

/// Access log modes. No mode has a spelling that YAML 1.1 reads as a boolean.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a doc on a variant would turn the schema's enum into a oneOf")]
pub enum AccessLogMode {
    Disabled,
    #[default]
    Close,
    OpenAndClose,
}
