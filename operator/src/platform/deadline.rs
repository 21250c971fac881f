//! Deadlines of requests to the API server: a lost response must not block its caller for ever.

use std::time::Duration;

use tokio::time::timeout;

/// Timeout of one request. An API server ends most requests only after 60 s, which is too long for an operator to wait.
pub const REQUEST: Duration = Duration::from_secs(10);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server refused the request, or cannot be reached.
    #[error("{}", message_of(.0))]
    Refused(Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", REQUEST.as_secs())]
    NoAnswer,
}

impl RequestError {
    /// The HTTP status code of the answer; `None` without an answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::NoAnswer => None,
        }
    }
}

/// The message of the API server, without the debug form that the client's error adds.
fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Awaits the answer to a request, within [`REQUEST`].
///
/// # Errors
/// The API server refused the request, cannot be reached, or did not answer in time.
pub async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    within(REQUEST, request).await
}

async fn within<T>(limit: Duration, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| RequestError::Refused(Box::new(error))),
        Err(_) => Err(RequestError::NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_without_an_answer_ends() {
        let lost = std::future::pending::<Result<(), kube::Error>>();
        let error = within(Duration::ZERO, lost).await.expect_err("no answer");
        assert_eq!(error.to_string(), "the API server did not answer within 10 s");
        assert_eq!(error.code(), None);
    }

    #[tokio::test]
    async fn an_answer_is_passed_on() {
        let status = kube::core::Status { code: 409, message: "conflict".to_owned(), ..kube::core::Status::default() };
        let refused = async { Err::<(), _>(kube::Error::Api(Box::new(status))) };
        let error = within(REQUEST, refused).await.expect_err("refused");
        assert_eq!((error.to_string().as_str(), error.code()), ("conflict", Some(409)));
        assert!(matches!(within(REQUEST, async { Ok(7) }).await, Ok(7)));
    }
}
