//! The HTTP/2 response body: pre-encoded frames, then the gRPC status in the trailers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::oneshot;
use tonic::Status;

use super::Answer;

/// Body of a gRPC response.
pub(crate) struct AnswerBody {
    frames: Option<Answer>,
    /// Dropped with the body, so that the connection learns of its end.
    _end: Option<oneshot::Sender<()>>,
}

/// Builds a streaming response.
pub(super) fn of(frames: Answer, end: oneshot::Sender<()>) -> Response<AnswerBody> {
    respond(AnswerBody { frames: Some(frames), _end: Some(end) })
}

/// Builds a response that carries only an error status.
pub(super) fn refused(status: &Status, end: Option<oneshot::Sender<()>>) -> Response<AnswerBody> {
    let mut response = respond(AnswerBody { frames: None, _end: end });
    response.headers_mut().extend(trailers(status));
    response
}

fn respond(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // The message cannot be encoded in a header; send the code alone.
        headers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    headers
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let status = match ready!(frames.poll_recv(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }
}
