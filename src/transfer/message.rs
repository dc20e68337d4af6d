//! What the two sides tell each other: the messages of the control stream and the header of a block.
//!
//! ```text
//! message  kind (1) | length of the body (4, big-endian) | body
//! block    index (4, big-endian) | value (32) | the block's bytes
//! ```
//!
//! The sender opens the control stream with `Offer`; the receiver answers with `Have`; the sender sends each missing
//! block on a stream of its own and `Value` for each that is there, and at the end `Root`; the receiver asks for wrong
//! blocks with `Again`, and says `Verified` when the whole file is right and safe on its disk.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::names::TransferId;

use super::blocks::{VALUE_BYTES, Value};
use super::limits::OFFER_BYTES_MAX;

/// Names the protocol and its version in the handshake.
pub const PROTOCOL: &[u8] = b"messenger-transfer/1";

/// Bytes before the bytes of a block.
pub const BLOCK_HEADER_BYTES: usize = 4 + VALUE_BYTES;

const HEADER_BYTES: usize = 5;
/// The longest body, in bytes: the bitmap of the largest file.
const BODY_BYTES_MAX: usize = 128 << 10;

/// The file as its sender announces it; it must be the one that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which transfer.
    pub transfer: TransferId,
    /// The file's name as its sender has it.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
}

/// One message of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The sender's first: which file.
    Offer(Offer),
    /// The receiver's first: a bit for each block that it has, as [`super::blocks::Bitmap`] writes it.
    Have(Vec<u8>),
    /// The value of a block that is not sent, as the receiver has it.
    Value {
        /// Which block.
        index: u32,
        /// Its value at the sender.
        value: Value,
    },
    /// All blocks were sent; the hash of the file.
    Root(Value),
    /// A block must be sent, or sent again.
    Again {
        /// Which block.
        index: u32,
    },
    /// The receiver has the whole file, and its hash.
    Verified(Value),
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not keep to the protocol: {0}")]
pub struct MessageError(pub &'static str);

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Offer(offer) => {
                // A name, two numbers: nothing that JSON could not hold.
                out.extend_from_slice(&serde_json::to_vec(offer).unwrap_or_default());
            }
            Self::Have(bitmap) => out.extend_from_slice(bitmap),
            Self::Value { index, value } => {
                out.extend_from_slice(&index.to_be_bytes());
                out.extend_from_slice(value);
            }
            Self::Root(value) | Self::Verified(value) => out.extend_from_slice(value),
            Self::Again { index } => out.extend_from_slice(&index.to_be_bytes()),
        }
        let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    /// Takes the first message off `input`, if it is there whole.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, MessageError> {
        let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if length > BODY_BYTES_MAX || (kind == OFFER && length > OFFER_BYTES_MAX) {
            return Err(MessageError("a message is too long"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        let body = input.split_to(length).freeze();
        Self::decode(kind, &body).map(Some)
    }

    fn decode(kind: u8, body: &Bytes) -> Result<Self, MessageError> {
        const WRONG: MessageError = MessageError("a message has a wrong length");
        Ok(match kind {
            OFFER => Self::Offer(serde_json::from_slice(body).map_err(|_| MessageError("an offer cannot be read"))?),
            HAVE => Self::Have(body.to_vec()),
            VALUE => {
                let (index, value) = body.split_first_chunk().ok_or(WRONG)?;
                Self::Value { index: u32::from_be_bytes(*index), value: value.try_into().map_err(|_| WRONG)? }
            }
            ROOT => Self::Root(body.as_ref().try_into().map_err(|_| WRONG)?),
            AGAIN => Self::Again { index: u32::from_be_bytes(body.as_ref().try_into().map_err(|_| WRONG)?) },
            VERIFIED => Self::Verified(body.as_ref().try_into().map_err(|_| WRONG)?),
            _ => return Err(MessageError("a message has an unknown kind")),
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Offer(_) => OFFER,
            Self::Have(_) => HAVE,
            Self::Value { .. } => VALUE,
            Self::Root(_) => ROOT,
            Self::Again { .. } => AGAIN,
            Self::Verified(_) => VERIFIED,
        }
    }
}

const OFFER: u8 = 1;
const HAVE: u8 = 2;
const VALUE: u8 = 3;
const ROOT: u8 = 4;
const AGAIN: u8 = 5;
const VERIFIED: u8 = 6;

/// The header of a block's stream.
pub fn block_header(index: u32, value: &Value) -> [u8; BLOCK_HEADER_BYTES] {
    let mut header = [0; BLOCK_HEADER_BYTES];
    header[..4].copy_from_slice(&index.to_be_bytes());
    header[4..].copy_from_slice(value);
    header
}

/// Index and value of a block, from the header of its stream.
pub fn read_block_header(header: &[u8; BLOCK_HEADER_BYTES]) -> (u32, Value) {
    let [a, b, c, d, value @ ..] = *header;
    (u32::from_be_bytes([a, b, c, d]), value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let value = any::<[u8; 32]>();
        prop_oneof![
            ("[0-9a-f]{32}", "\\PC{0,200}", any::<u64>()).prop_map(|(transfer, name, size)| {
                Message::Offer(Offer { transfer: transfer.parse().unwrap(), name, size })
            }),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Message::Have),
            (any::<u32>(), value).prop_map(|(index, value)| Message::Value { index, value }),
            value.prop_map(Message::Root),
            any::<u32>().prop_map(|index| Message::Again { index }),
            value.prop_map(Message::Verified),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(messages in prop::collection::vec(message(), 0..8), cut in 1_usize..40) {
            let mut bytes = BytesMut::new();
            for message in &messages {
                message.encode(&mut bytes);
            }
            let (mut input, mut read) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(message) = Message::take(&mut input).unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = Message::take(&mut input) {}
        }
    }

    #[test]
    fn a_message_that_claims_too_much_is_refused_before_it_is_waited_for() {
        for header in [[HAVE, 1, 0, 0, 0], [OFFER, 0, 0, 0x10, 1], [HAVE, 0xFF, 0xFF, 0xFF, 0xFF]] {
            assert!(Message::take(&mut BytesMut::from(header.as_slice())).is_err(), "{header:?}");
        }
        assert!(Message::take(&mut BytesMut::from([9, 0, 0, 0, 0].as_slice())).is_err());
    }

    #[test]
    fn the_header_of_a_block_is_its_index_and_its_value() {
        let header = block_header(0x0102_0304, &[7; 32]);
        assert_eq!(header[..4], [1, 2, 3, 4]);
        assert_eq!(read_block_header(&header), (0x0102_0304, [7; 32]));
    }
}
