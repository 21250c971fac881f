//! Defaults of the settings that all listeners of a forward share.

use std::cmp;

use crds::AccessLogMode;
use proxy_api::{Retry, Sessions, Timeouts};

pub(super) fn timeouts(spec: Option<&crds::Timeouts>) -> Timeouts {
    let spec = spec.cloned().unwrap_or_default();
    let idle_seconds = spec.idle_seconds.unwrap_or(3600);
    Timeouts {
        connect_seconds: spec.connect_seconds.unwrap_or(5),
        idle_seconds,
        half_close_seconds: spec.half_close_seconds.unwrap_or_else(|| cmp::min(300, idle_seconds)),
        udp_idle_seconds: spec.udp_idle_seconds.unwrap_or(60),
        keepalive_seconds: spec.keepalive_seconds.unwrap_or(60),
        handshake_seconds: spec.handshake_seconds,
        max_session_seconds: spec.max_session_seconds,
    }
}

pub(super) fn retry(spec: Option<&crds::Retry>) -> Retry {
    let spec = spec.cloned().unwrap_or_default();
    let initial =
        spec.initial_backoff_millis.unwrap_or_else(|| cmp::min(50, spec.max_backoff_millis.unwrap_or(u32::MAX)));
    Retry {
        attempts: spec.attempts.unwrap_or(3).max(1),
        initial_backoff_millis: initial,
        max_backoff_millis: spec.max_backoff_millis.unwrap_or_else(|| cmp::max(2000, initial)),
    }
}

pub(super) fn sessions(spec: Option<&crds::Sessions>) -> Sessions {
    let spec = spec.cloned().unwrap_or_default();
    Sessions {
        on_update: match spec.on_update.unwrap_or_default() {
            crds::OnUpdate::Keep => proxy_api::OnUpdate::Keep,
            crds::OnUpdate::Drain => proxy_api::OnUpdate::Drain,
            crds::OnUpdate::Close => proxy_api::OnUpdate::Close,
        },
        on_unhealthy: match spec.on_unhealthy.unwrap_or_default() {
            crds::OnUnhealthy::Keep => proxy_api::OnUnhealthy::Keep,
            crds::OnUnhealthy::Close => proxy_api::OnUnhealthy::Close,
        },
        drain_seconds: spec.drain_seconds.unwrap_or(300),
    }
}

pub(super) fn access_log(spec: Option<&crds::AccessLog>) -> proxy_api::AccessLog {
    let spec = spec.cloned().unwrap_or_default();
    proxy_api::AccessLog {
        mode: match spec.mode.unwrap_or_default() {
            AccessLogMode::Disabled => proxy_api::AccessLogMode::Disabled,
            AccessLogMode::Close => proxy_api::AccessLogMode::Close,
            AccessLogMode::OpenAndClose => proxy_api::AccessLogMode::OpenAndClose,
        },
        interval_seconds: spec.interval_seconds.unwrap_or(0),
    }
}
