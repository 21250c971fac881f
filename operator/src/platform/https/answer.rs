//! Answers to requests, and the bodies in which they are sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// The most bytes of a body that are sent at once.
const PIECE: usize = 64 << 10;

/// The answer to a request.
pub struct Answer {
    /// HTTP status code.
    pub status: StatusCode,
    /// The body.
    pub content: Content,
}

/// The body of an answer.
pub enum Content {
    /// A JSON value.
    Json(Value),
    /// Plain text without its final newline.
    Plain(&'static str),
    /// JSON that may be large.
    Written {
        /// The JSON.
        json: String,
        /// The places of the request, which last until the client has read the body.
        places: Vec<OwnedSemaphorePermit>,
    },
}

impl Answer {
    /// An answer with a JSON value.
    #[must_use]
    pub fn json(status: StatusCode, value: Value) -> Self {
        Self { status, content: Content::Json(value) }
    }

    /// An answer with a plain text, without its final newline.
    #[must_use]
    pub fn plain(status: StatusCode, text: &'static str) -> Self {
        Self { status, content: Content::Plain(text) }
    }
}

impl Content {
    /// The media type and the body.
    pub(super) fn into_body(self) -> (&'static str, Pieces) {
        let json = "application/json";
        match self {
            Self::Json(value) => (json, Pieces { left: value.to_string().into(), _places: Vec::new() }),
            Self::Plain(text) => {
                ("text/plain; charset=utf-8", Pieces { left: format!("{text}\n").into(), _places: Vec::new() })
            }
            Self::Written { json: text, places } => (json, Pieces { left: text.into(), _places: places }),
        }
    }
}

/// A body that is sent piece by piece: the part that its client has not read is not copied into the buffer of the
/// connection.
pub(super) struct Pieces {
    left: Bytes,
    _places: Vec<OwnedSemaphorePermit>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_large_body_leaves_in_pieces_and_keeps_its_place_until_then() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().expect("a place");
        let json = "x".repeat(PIECE + 1);
        let (kind, mut body) = Content::Written { json: json.clone(), places: vec![place] }.into_body();
        assert_eq!((kind, body.size_hint().exact()), ("application/json", Some(json.len() as u64)));
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame;
            pieces.push(frame.into_data().expect("data"));
            assert_eq!(places.available_permits(), 0);
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, 1]);
        assert_eq!(pieces.iter().flatten().copied().collect::<Vec<u8>>(), json.as_bytes());
        drop(body);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn values_and_texts_have_their_media_type() {
        let read = async |content: Content| {
            let (kind, body) = content.into_body();
            let Ok(body) = body.collect().await;
            (kind, body.to_bytes())
        };
        assert_eq!(read(Content::Json(Value::Null)).await, ("application/json", Bytes::from("null")));
        let plain = read(Answer::plain(StatusCode::NOT_FOUND, "none").content).await;
        assert_eq!(plain, ("text/plain; charset=utf-8", Bytes::from("none\n")));
    }
}
