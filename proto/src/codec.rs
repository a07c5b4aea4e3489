//! The codec of every service here: prost's messages, encoded by way of a plain vector.
//!
//! Straight into tonic's buffer, prost writes byte by byte through `BytesMut::put_slice`, which is
//! no inlined call; that was a tenth of a client's CPU time. A vector per thread, filled once and
//! copied once, costs less than that, and the buffer grows in one step instead of by doubling.
//! Decoding stays prost's own: keys and values are slices of what was received.

use std::{cell::RefCell, marker::PhantomData};

use prost::{Message, bytes::BufMut};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Memory that a thread keeps for the next message, in bytes.
const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module. `Out` is sent, `In` received.
pub struct Messages<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Default for Messages<Out, In> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Out, In> Codec for Messages<Out, In>
where
    Out: Message + Send + 'static,
    In: Message + Default + Send + 'static,
{
    type Encode = Out;
    type Decode = In;
    type Encoder = MessageEncoder<Out>;
    type Decoder = ProstDecoder<In>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Out, In>::raw_decoder(BufferSettings::default())
    }
}

/// Encodes one kind of message.
pub struct MessageEncoder<Out>(PhantomData<Out>);

impl<Out: Message> Encoder for MessageEncoder<Out> {
    type Item = Out;
    type Error = Status;

    fn encode(&mut self, item: Out, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            // A vector grows as it must, so that the length need not be counted first.
            item.encode_raw(scratch);
            buffer.reserve(scratch.len());
            buffer.put_slice(scratch);
            if scratch.capacity() > KEPT_BYTES {
                *scratch = Vec::new();
            }
        });
        Ok(())
    }
}
