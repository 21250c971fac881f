//! A server's hint when a client should retry: gRPC's retry pushback (proposal A6).

use std::time::Duration;

use tonic::{Status, metadata::MetadataValue};

/// Metadata key of the hint, in milliseconds.
const KEY: &str = "grpc-retry-pushback-ms";
/// Longest hint that a client honours.
const MOST: Duration = Duration::from_secs(60);

/// The status with a hint.
#[must_use]
pub fn with_retry_after(mut status: Status, after: Duration) -> Status {
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert(KEY, MetadataValue::from(millis));
    status
}

/// The hint of a status, no longer than a minute.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    let millis = status.metadata().get(KEY)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_as_it_was_written_and_is_bounded() {
        let status = || Status::unavailable("busy");
        assert_eq!(retry_after(&status()), None);
        let hinted = |after| retry_after(&with_retry_after(status(), after));
        assert_eq!(hinted(Duration::from_millis(1500)), Some(Duration::from_millis(1500)));
        assert_eq!(hinted(Duration::from_secs(86_400)), Some(MOST));
        let mut negative = status();
        negative.metadata_mut().insert(KEY, MetadataValue::from_static("-1"));
        assert_eq!(retry_after(&negative), None, "a server that asks for no retry is asked by its backoff");
    }
}
