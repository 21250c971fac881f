//! Active health checks.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Active health check: exactly one of `http`, `tcp`, `mysql` and `postgres`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.http), has(self.tcp), has(self.mysql), has(self.postgres)].exists_one(x, x)").message("exactly one of http, tcp, mysql and postgres must be set"))]
#[x_kube(validation = Rule::new("!has(self.timeoutSeconds) || !has(self.intervalSeconds) || self.timeoutSeconds <= self.intervalSeconds").message("timeoutSeconds must not be greater than intervalSeconds"))]
pub struct HealthCheck {
    /// An HTTP GET, which succeeds with a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A TCP connect, which succeeds if the connection is accepted and, with `expect`, answered. MySQL and MariaDB
    /// block hosts that connect without logging in: use `mysql` for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A login to MySQL or MariaDB, which succeeds if the server answers it. Unlike `tcp`, it never causes
    /// `max_connect_errors` to block the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlCheck>,
    /// A request to PostgreSQL, which succeeds if the server answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresCheck>,
    /// Time between checks, 1 to 3600 seconds. Absent: 5, or `timeoutSeconds` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: Option<u32>,
    /// Timeout of one check, 1 to 3600 seconds. Absent: 2, or `intervalSeconds` if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// Number of consecutive failures that make an endpoint unhealthy, 1 to 100. The first check of an endpoint counts
    /// immediately, regardless of the thresholds. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<u32>,
    /// Number of consecutive successes that make an endpoint healthy again, 1 to 100. Absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<u32>,
}

/// An active health check over HTTP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Port to check, 1 to 65535; required on UDP. Absent: the backend's own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Path of the request, with an optional query, such as `/primary`. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^/[!-~]*$"))]
    pub path: Option<String>,
}

/// An active health check by TCP connect.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.send) || has(self.expect)").message("send needs expect: without expect, no check reads the answer"))]
pub struct TcpCheck {
    /// Port to check, 1 to 65535; required on UDP. Absent: the backend's own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// What to send, 1 to 256 bytes: printable ASCII with the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`, such as
    /// `PING\r\n`. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^([ -\[\]-~]|\\[rnt0\\]|\\x[0-9a-fA-F]{2}){1,256}$"))]
    pub send: Option<String>,
    /// What the first 4096 bytes of the answer must contain, 1 to 256 bytes, written like `send`. Absent: the check
    /// succeeds once connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^([ -\[\]-~]|\\[rnt0\\]|\\x[0-9a-fA-F]{2}){1,256}$"))]
    pub expect: Option<String>,
}

/// An active health check of MySQL or MariaDB.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MysqlCheck {
    /// Port to check, 1 to 65535; required on UDP. Absent: the backend's own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Account without a password and without privileges, 1 to 80 printable ASCII characters, whose login the server
    /// must accept. Absent: an account that does not exist (`portlane-check`), whose login the server refuses; servers
    /// may log each refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80), pattern(r"^[!-~]+$"))]
    pub user: Option<String>,
}

/// An active health check of PostgreSQL.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresCheck {
    /// Port to check, 1 to 65535; required on UDP. Absent: the backend's own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Account, 1 to 80 printable ASCII characters, with which the check starts a session in the database `postgres`,
    /// up to the password request: it fails while the server starts up or shuts down. Absent: the check only asks
    /// whether the server supports encryption, which a server that is starting up also answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80), pattern(r"^[!-~]+$"))]
    pub user: Option<String>,
}
