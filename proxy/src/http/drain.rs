//! The request to drain the process.

use std::time::Duration;

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes};

use super::{Role, View, ending, text};
use crate::{core::logging::farewell::farewell, log::Level, supervisor::Control};

/// The response to a request with this query, at an address or socket of this role.
pub(super) async fn begin(view: &View, role: Role, query: Option<&str>) -> Response<Full<Bytes>> {
    let seconds = query.and_then(|query| query.strip_prefix("seconds=")).map_or(Ok(300), str::parse::<u64>);
    let Ok(seconds) = seconds else {
        return text(StatusCode::BAD_REQUEST, "seconds must be a whole number: POST /drain?seconds=30\n");
    };
    let Ok(permit) = view.control.reserve().await else { return ending() };
    // The log names the cause before its effects.
    let message = words(role, view.metrics.live_sessions(), seconds);
    view.process.log.notice(Level::Info, "draining", "process", message);
    permit.send(Control::Drain(Duration::from_secs(seconds)));
    text(StatusCode::ACCEPTED, "draining\n")
}

/// Describes who asked for the drain, and what happens to the live sessions.
fn words(role: Role, live: u64, seconds: u64) -> String {
    let place = match role {
        Role::Local => "unix socket",
        Role::Health | Role::Admin => "admin address",
    };
    format!("POST /drain at the {place}: {}", farewell(live, Some(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_names_who_asked_for_it_and_what_happens_to_the_sessions() {
        for (role, live, seconds, expected) in [
            (Role::Admin, 0, 60, "POST /drain at the admin address: no session is live"),
            (Role::Admin, 2, 0, "POST /drain at the admin address: ending 2 live sessions now"),
            (Role::Local, 2, 60, "POST /drain at the unix socket: 2 live sessions can continue for up to 60 s"),
        ] {
            assert_eq!(words(role, live, seconds), expected);
        }
    }
}
