//! JSON messages as gRPC frames; what goes out is encoded already, so that many streams share one encoding.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// One encoded message.
pub type Frame = Bytes;

/// Encodes a message.
///
/// # Errors
/// Only if a listener that was kept as it came does not serialise.
pub fn frame<T: Serialize>(message: &T) -> Result<Frame, serde_json::Error> {
    serde_json::to_vec(message).map(Bytes::from)
}

/// Sends [`Frame`]s and receives `D`.
pub(crate) struct Json<D>(PhantomData<D>);

impl<D> Default for Json<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: DeserializeOwned + Send + 'static> Codec for Json<D> {
    type Encode = Frame;
    type Decode = D;
    type Encoder = Out;
    type Decoder = In<D>;

    fn encoder(&mut self) -> Out {
        Out
    }

    fn decoder(&mut self) -> In<D> {
        In(PhantomData)
    }
}

pub(crate) struct Out;

impl Encoder for Out {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, item: Frame, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(4 << 10, 64 << 10)
    }
}

pub(crate) struct In<D>(PhantomData<D>);

impl<D: DeserializeOwned> Decoder for In<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // The length of a message is bounded by the stream before it comes here.
        serde_json::from_reader(from.reader())
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("the message cannot be read: {error}")))
    }
}
