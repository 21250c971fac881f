//! Sends one request with notices to the user's webhook.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, header::CONTENT_TYPE};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use operator_core::{
    notices::{Format, Notice, body},
    schedule::deliveries::{Answer, answer},
};
use tokio::time::timeout;

/// Timeout of one request; shorter than the longest permitted time between two beats of the loop that waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request failed. The reason never contains the URL, which is a secret.
#[derive(Debug)]
pub(super) enum Sent {
    /// A retry may succeed.
    Again(String),
    /// A retry will fail too.
    Refused(String),
}

/// The client of the user's webhook.
pub(super) struct Sender {
    file: PathBuf,
    format: Format,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Sender {
    pub(super) fn new(file: PathBuf, format: Format) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { file, format, client })
    }

    /// Sends these notices as one request.
    pub(super) async fn send(&self, notices: &[Notice]) -> Result<(), Sent> {
        let url = tokio::fs::read_to_string(&self.file).await;
        let url = url.map_err(|error| Sent::Again(format!("{}: {error}", self.file.display())))?;
        let url: Uri = url.trim().parse().map_err(|_| Sent::Refused("the file does not hold a URL".to_owned()))?;
        let body = Bytes::from(body(self.format, notices).to_string());
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| Sent::Refused("the file does not hold the URL of a webhook".to_owned()))?;
        match timeout(PATIENCE, self.client.request(request)).await {
            Err(_) => Err(Sent::Again("no answer in time".to_owned())),
            Ok(Err(error)) if error.is_connect() => Err(Sent::Again("the webhook is unreachable".to_owned())),
            Ok(Err(_)) => Err(Sent::Again("the connection broke".to_owned())),
            Ok(Ok(answer)) => judge(answer.status()),
        }
    }
}

fn judge(status: StatusCode) -> Result<(), Sent> {
    let why = match status {
        StatusCode::TOO_MANY_REQUESTS => "the webhook limits the rate of requests".to_owned(),
        status => format!("the webhook answered {status}"),
    };
    match answer(status.as_u16()) {
        Answer::Delivered => Ok(()),
        Answer::Later => Err(Sent::Again(why)),
        Answer::Refused => Err(Sent::Refused(why)),
    }
}

#[cfg(test)]
mod tests {
    use operator_core::schedule::liveness::SILENCE;

    use super::*;
    use crate::platform::deadline::REQUEST;

    // C4
    #[test]
    fn a_request_that_is_never_answered_ends_before_its_loop_counts_as_one_that_hangs() {
        let margin = Duration::from_secs(10);
        assert!([PATIENCE, REQUEST].iter().all(|deadline| *deadline + margin < SILENCE));
    }
}
