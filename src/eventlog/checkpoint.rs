//! The head of a log as a signed note, in the forms that tools for transparency logs read: `tlog-checkpoint` and
//! `signed-note` of C2SP, with Ed25519. Pure: the key's file is `keyfile.rs`'s.
//!
//! ```text
//! messenger/LOGUUID                                     the origin, which is the name of the key too
//! 41                                                    the number of events
//! BASE64                                                the root over them
//!
//! — messenger/LOGUUID BASE64(key id, signature)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::proof_file::TreeHead;

/// Bytes of the seed of a key.
pub const SEED_BYTES: usize = 32;
/// What says that a signature is Ed25519, in the form of notes.
const ED25519: u8 = 1;
/// What a written key begins with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// The key that signs the heads of one log.
#[derive(Debug)]
pub struct NoteKey {
    name: String,
    pair: Ed25519KeyPair,
}

impl NoteKey {
    /// The key of a log from its seed.
    pub fn from_seed(log: Uuid, seed: &[u8; SEED_BYTES]) -> Self {
        Self::new(name(log), seed).expect("any 32 bytes are the seed of a key")
    }

    /// Reads a key as the file of the key holds it; `None` if it is none, or another log's.
    pub fn parse(log: Uuid, written: &str) -> Option<Self> {
        let mut parts = written.trim_end().strip_prefix(PRIVATE)?.splitn(3, '+');
        let (own_name, id, seed) = (parts.next()?, parts.next()?, STANDARD.decode(parts.next()?).ok()?);
        let (kind, seed) = seed.split_first()?;
        let key = Self::new(name(log), seed)?;
        let is_right = *kind == ED25519 && own_name == key.name && id == hex(key.id());
        is_right.then_some(key)
    }

    fn new(name: String, seed: &[u8]) -> Option<Self> {
        Some(Self { name, pair: Ed25519KeyPair::from_seed_unchecked(seed).ok()? })
    }

    /// A head as a signed note, with its last line feed.
    pub fn sign(&self, head: TreeHead) -> String {
        let Self { name, pair } = self;
        let text = format!("{name}\n{}\n{}\n", head.seq, STANDARD.encode(head.root.as_bytes()));
        let signature = [&self.id()[..], pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {name} {}\n", STANDARD.encode(signature))
    }

    /// What verifies its notes: name, id and public key, in the form of Go's `sumdb/note`.
    pub fn verifier(&self) -> String {
        let key = [&[ED25519], self.pair.public_key().as_ref()].concat();
        format!("{}+{}+{}", self.name, hex(self.id()), STANDARD.encode(key))
    }

    /// Four bytes that tell keys of one name apart.
    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.pair.public_key())
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

/// A key as its file has it, with a line feed: the form that Go's `sumdb/note` reads.
pub fn written_key(log: Uuid, seed: &[u8; SEED_BYTES]) -> String {
    let key = NoteKey::from_seed(log, seed);
    let secret = [&[ED25519], seed.as_slice()].concat();
    format!("{PRIVATE}{}+{}+{}\n", key.name, hex(key.id()), STANDARD.encode(secret))
}

fn name(log: Uuid) -> String {
    format!("messenger/{log}")
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519 as ALGORITHM, UnparsedPublicKey};

    use super::super::tree::Tree;
    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);
    const SEED: [u8; SEED_BYTES] = [9; SEED_BYTES];

    #[test]
    fn the_example_of_the_form_is_signed_to_the_byte() {
        // The key of Go's `sumdb/note` documentation, and the note that it shows.
        let seed = STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        let key = NoteKey::new("PeterNeumann".into(), &seed[1..]).unwrap();
        assert_eq!(key.verifier(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let signature = [&key.id()[..], key.pair.sign(text.as_bytes()).as_ref()].concat();
        assert_eq!(
            STANDARD.encode(signature),
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
        );
    }

    #[test]
    fn a_checkpoint_has_three_lines_and_a_signature_that_verifies() {
        let key = NoteKey::from_seed(LOG, &SEED);
        let note = key.sign(TreeHead { seq: 0, root: Tree::default().root() });
        let (text, signature) = note.split_once("\n\n").unwrap();
        let name = "messenger/00000000-0000-0000-0000-000000000007";
        assert_eq!(text, format!("{name}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="));
        let signature = signature.strip_prefix(&format!("\u{2014} {name} ")).unwrap().strip_suffix('\n').unwrap();
        let signature = STANDARD.decode(signature).unwrap();
        let (id, signature) = signature.split_at(4);
        assert_eq!(id, key.id());
        let public = UnparsedPublicKey::new(&ALGORITHM, key.pair.public_key());
        assert!(public.verify(format!("{text}\n").as_bytes(), signature).is_ok());
    }

    #[test]
    fn a_key_reads_back_for_its_own_log_only() {
        let written = written_key(LOG, &SEED);
        let key = NoteKey::parse(LOG, &written).unwrap();
        assert_eq!(key.verifier(), NoteKey::from_seed(LOG, &SEED).verifier());
        assert!(NoteKey::parse(Uuid::nil(), &written).is_none());
        assert!(NoteKey::parse(LOG, &written.replacen("AQkJ", "AQkK", 1)).is_none());
        for other in ["", "PRIVATE+KEY+", "PRIVATE+KEY+a+b", &written[8..]] {
            assert!(NoteKey::parse(LOG, other).is_none(), "{other}");
        }
    }
}
