//! The HTTP/2 response body: pre-encoded frames, then the gRPC status in the trailers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use hyper::body::{Body, Bytes, Frame};
use tonic::Status;

use super::Answer;

/// Body of a gRPC response.
pub(crate) struct AnswerBody(Option<Answer>);

/// A streaming response.
pub(super) fn of(frames: Answer) -> Response<AnswerBody> {
    respond(AnswerBody(Some(frames)))
}

/// A response that carries only an error status.
pub(super) fn refused(status: &Status) -> Response<AnswerBody> {
    let mut response = respond(AnswerBody(None));
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
        let Some(frames) = &mut self.0 else { return Poll::Ready(None) };
        let status = match ready!(frames.poll_recv(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
