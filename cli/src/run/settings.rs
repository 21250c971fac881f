//! The settings of the proxy, from the arguments.

use std::num::NonZeroUsize;

use proxy::{
    log::{Level, LogFormat},
    settings::Settings,
};

use super::args::{Log, Run};

pub(super) fn settings(args: &Run) -> Settings {
    let usual = Settings::default();
    Settings {
        workers: args.workers.and_then(|n| NonZeroUsize::new(n.into())).unwrap_or(usual.workers),
        held_bytes: args.held_bytes,
        max_sessions: args.max_sessions,
        max_flows: args.max_flows,
        log_format: if args.log == Log::Json { LogFormat::Json } else { LogFormat::text() },
        log_level: if args.quiet { Level::Warn } else { usual.log_level },
        quiet_start: args.log == Log::Text,
        health: args.health_address,
        admin: args.admin_address,
        drain_seconds: args.drain_seconds,
        data: args.tunnels.data.clone(),
        jetstream_credentials: args.tunnels.jetstream_credentials.clone(),
        jetstream_ca: args.tunnels.jetstream_ca.clone(),
        #[cfg(feature = "tunnels")]
        tunnels: args.tunnels.settings(),
        ..usual
    }
}
