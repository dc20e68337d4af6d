//! The names that people and devices go by, made only by parsing: whoever holds one knows that its form is right.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a string is no name or text: what was wrong with its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A user, group or device name has a character or a length that is not allowed.
    #[error("{0}")]
    BadName(&'static str),
    /// A text is empty or only white space.
    #[error("the text is empty")]
    EmptyText,
    /// A text is longer than [`TEXT_BYTES_MAX`].
    #[error("the text is longer than {TEXT_BYTES_MAX} bytes")]
    TextTooLong,
}

/// The longest text of a message, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 16_384;

/// A map by name, in the order in which names came. Its hash is quick, and seeded anew for each map, so that nobody can
/// choose names that collide.
pub type NameMap<K, V> = IndexMap<K, V, foldhash::quality::RandomState>;
/// A set of names, as [`NameMap`].
pub type NameSet<K> = IndexSet<K, foldhash::quality::RandomState>;

/// ASCII text of at most `N` bytes, stored in place, so that names are copied and compared without allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Inline<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Inline<N> {
    /// The characters that are allowed, as far as they go on from the beginning of a text, and what follows them.
    fn parse_start<'a>(text: &'a [u8], is_allowed: &[bool; 256]) -> Option<(Self, &'a [u8])> {
        let mut bytes = [0; N];
        let mut length = 0;
        // Names are short: byte by byte is quicker than a call that copies.
        for (to, from) in bytes.iter_mut().zip(text) {
            if !is_allowed[usize::from(*from)] {
                break;
            }
            *to = *from;
            length += 1;
        }
        let name = Self { bytes, length: u8::try_from(length).ok()? };
        (length > 0).then_some((name, &text[length..]))
    }

    /// The same, as it stands there.
    fn split_start<'a>(text: &'a [u8], is_allowed: &[bool; 256]) -> Option<(&'a [u8], &'a [u8])> {
        let longest = &text[..text.len().min(N)];
        let end = longest.iter().position(|byte| !is_allowed[usize::from(*byte)]);
        Some(text.split_at(end.unwrap_or(longest.len()))).filter(|(name, _)| !name.is_empty())
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> Hash for Inline<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All of it, for no name has a zero: a few words instead of a number of bytes that is not known before.
        let (words, []) = self.bytes.as_chunks::<8>() else { return state.write(self.as_bytes()) };
        words.iter().for_each(|word| state.write_u64(u64::from_ne_bytes(*word)));
    }
}

/// What all names can.
pub trait Name {
    /// Appends the name: ASCII, in which nothing needs escaping.
    fn append_to(&self, out: &mut Vec<u8>);
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $allowed:pat, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Inline<$bytes>);

        impl $name {
            /// The longest name, in bytes.
            pub const BYTES_MAX: usize = $bytes;

            /// Parses a name.
            ///
            /// # Errors
            /// [`FormError::BadName`] for any byte or length that is not allowed.
            pub fn from_bytes(text: &[u8]) -> Result<Self, FormError> {
                let found = Self::from_start(text).filter(|(_, rest)| rest.is_empty());
                found.map(|(name, _)| name).ok_or(FormError::BadName($rule))
            }

            const IS_ALLOWED: [bool; 256] = {
                let mut is_allowed = [false; 256];
                let mut byte = u8::MIN;
                while byte < u8::MAX {
                    is_allowed[byte as usize] = matches!(byte, $allowed);
                    byte += 1;
                }
                is_allowed
            };

            /// The name that a text begins with, up to a byte that is not allowed or to the length that is; and what
            /// follows it. `None` if there is none.
            #[inline]
            pub fn from_start(text: &[u8]) -> Option<(Self, &[u8])> {
                Inline::parse_start(text, &Self::IS_ALLOWED).map(|(name, rest)| (Self(name), rest))
            }

            /// As [`Self::from_start`], for whoever need not keep it: the name as it stands there.
            #[inline]
            pub fn split_start(text: &[u8]) -> Option<(&[u8], &[u8])> {
                Inline::<$bytes>::split_start(text, &Self::IS_ALLOWED)
            }

            /// The bytes of the name, all of them ASCII.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// The name as it was typed.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl Name for $name {
            #[inline]
            fn append_to(&self, out: &mut Vec<u8>) {
                // As many bytes as a name may have, and those that it has not taken back: a few stores, not a call.
                out.extend_from_slice(&self.0.bytes);
                out.truncate(out.len() - $bytes + usize::from(self.0.length));
            }
        }

        impl FromStr for $name {
            type Err = FormError;

            fn from_str(text: &str) -> Result<Self, FormError> {
                Self::from_bytes(text.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

name_type!(
    /// A user's name: 1 to 32 of `A-Z a-z 0-9 . _ -`, case-sensitive.
    UserName,
    32,
    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-',
    "a user name is 1 to 32 of A-Z a-z 0-9 . _ -"
);
name_type!(
    /// A group's name: 1 to 32 of `A-Z a-z 0-9`, case-sensitive.
    GroupName,
    32,
    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9',
    "a group name is 1 to 32 letters and digits"
);
name_type!(
    /// The name of one device of a user: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    DeviceName,
    64,
    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-',
    "a device name is 1 to 64 of A-Z a-z 0-9 . _ -"
);
name_type!(
    /// The number of a peer transfer: 32 lower-case hexadecimal digits, drawn by the sender.
    TransferId,
    32,
    b'0'..=b'9' | b'a'..=b'f',
    "a transfer is 32 lower-case hexadecimal digits"
);

/// The text of a message: 1 to [`TEXT_BYTES_MAX`] bytes, not only white space, kept exactly as typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(Arc<str>);

impl Text {
    /// Checks whether a string may be the text of a message.
    ///
    /// # Errors
    /// [`FormError::TextTooLong`] or [`FormError::EmptyText`].
    pub fn check(text: &str) -> Result<(), FormError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FormError::TextTooLong);
        }
        // Most texts begin with a letter: only the others are looked at as a whole.
        if !text.bytes().next().is_some_and(|first| first.is_ascii_graphic()) && text.trim().is_empty() {
            return Err(FormError::EmptyText);
        }
        Ok(())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Text {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_one_to_32_word_characters() {
        for good in ["y", "yoda", "Obi-wan.K_2", &"x".repeat(32)] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "naïve", "a/b", "a\n", &"x".repeat(33)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_group_name_has_letters_and_digits_only() {
        assert!("learning3331".parse::<GroupName>().is_ok());
        for bad in ["", "a-b", "a.b", "ü"] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_differ_by_case_and_sort_as_their_text() {
        let name = |text: &str| text.parse::<UserName>().unwrap();
        assert_ne!(name("Yoda"), name("yoda"));
        assert!(name("a") < name("ab") && name("ab") < name("b"));
    }

    #[test]
    fn a_transfer_is_exactly_32_hexadecimal_digits() {
        assert!("0123456789abcdef0123456789abcdef".parse::<TransferId>().is_ok());
        assert!("0123456789ABCDEF0123456789ABCDEF".parse::<TransferId>().is_err());
    }

    #[test]
    fn a_text_is_kept_as_it_is_within_its_limit() {
        assert_eq!(" a\nb ".parse::<Text>().unwrap().as_str(), " a\nb ");
        assert_eq!(" \n\t".parse::<Text>(), Err(FormError::EmptyText));
        assert_eq!("x".repeat(TEXT_BYTES_MAX + 1).parse::<Text>(), Err(FormError::TextTooLong));
        assert!("x".repeat(TEXT_BYTES_MAX).parse::<Text>().is_ok());
    }
}
