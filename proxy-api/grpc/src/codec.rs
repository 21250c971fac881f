//! JSON messages as gRPC frames, and the client's codec. The operator encodes each message once, prefix included, and
//! shares the frame among all streams that send it.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// One encoded message with its gRPC prefix: the compression flag (0) and the length.
pub type Frame = Bytes;

/// Length of the gRPC prefix in bytes.
const PREFIX: usize = 5;

/// Encodes a message as a gRPC frame.
///
/// # Errors
/// Only if the preserved document of an unsupported listener does not serialise.
pub fn frame<T: Serialize>(message: &T) -> Result<Frame, serde_json::Error> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - PREFIX).map_err(serde::ser::Error::custom)?;
    bytes[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(Bytes::from(bytes))
}

/// Sends [`Frame`]s and receives `D`.
pub(crate) struct Json<D>(PhantomData<D>);

impl<D> Default for Json<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: DeserializeOwned + Send + 'static> Codec for Json<D> {
    type Encode = Bytes;
    type Decode = D;
    type Encoder = Out;
    type Decoder = In<D>;

    fn encoder(&mut self) -> Out {
        Out
    }

    fn decoder(&mut self) -> In<D> {
        In::default()
    }
}

pub(crate) struct Out;

impl Encoder for Out {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(4 << 10, 64 << 10)
    }
}

pub(crate) struct In<D>(PhantomData<D>);

impl<D> Default for In<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: DeserializeOwned> Decoder for In<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // tonic has already bounded the length of the message.
        serde_json::from_reader(from.reader())
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("cannot decode the message: {error}")))
    }
}
