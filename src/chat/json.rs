//! Writing JSON the one way the log allows: controls escaped so that no line can drive a terminal.

use crate::clock::digits;

/// Appends `text` as a JSON string with its quotes.
///
/// `"`, `\`, everything below 0x20, DEL and the C1 controls are escaped, by the short form where JSON has one, else
/// as `\u00` and two lower-case digits; all else stands as it is.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_length(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = match &rest[plain..] {
            [] => break,
            // C1 controls are U+0080 to U+009F, in UTF-8 0xC2 and a byte from 0x80 to 0x9F.
            [0xC2, control @ 0x80..=0x9F, rest @ ..] => {
                escape(*control, out);
                rest
            }
            [0xC2, rest @ ..] => {
                out.push(0xC2);
                rest
            }
            [byte, rest @ ..] => {
                escape(*byte, out);
                rest
            }
        };
    }
    out.push(b'"');
}

/// How many bytes at the beginning of a text stand for themselves in JSON.
pub fn plain_length(bytes: &[u8]) -> usize {
    // Without a branch, so that the compiler looks at the bytes of a piece all at once.
    let is_special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7F) | (byte == 0xC2);
    let (pieces, _) = bytes.as_chunks::<16>();
    let is_plain = |piece: &&[u8; 16]| !piece.iter().fold(false, |any, byte| any | is_special(*byte));
    let start = 16 * pieces.iter().take_while(is_plain).count();
    // What is left is shorter than a piece: it is the end of one that begins before it.
    if start == 16 * pieces.len() && bytes.last_chunk().is_some_and(|last| is_plain(&last)) {
        return bytes.len();
    }
    bytes[start..].iter().position(|byte| is_special(*byte)).map_or(bytes.len(), |place| start + place)
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0C => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// What stands before the value of a field that is not the first: its name, as one literal.
macro_rules! label {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}
pub(crate) use label;

/// The same, for a value in quotes.
macro_rules! quoted {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"").as_bytes()
    };
}
pub(crate) use quoted;

/// Appends a number in decimal.
pub fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut written = [0_u8; 20];
    let mut start = written.len();
    while value >= 10 {
        start -= 2;
        written[start..start + 2].copy_from_slice(&digits(value % 100));
        value /= 100;
    }
    if value > 0 || start == written.len() {
        start -= 1;
        written[start] = digits(value)[1];
    }
    out.extend_from_slice(&written[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn controls_are_escaped_and_all_else_stands() {
        assert_eq!(written("naïve \"a\\b\"\n"), r#""naïve \"a\\b\"\n""#);
        assert_eq!(written("\u{1b}[2J\u{7f}\u{9b}\u{85}é"), r#""\u001b[2J\u007f\u009b\u0085é""#);
        assert_eq!(written("\u{8}\u{c}\r\t\0"), r#""\b\f\r\t\u0000""#);
    }

    proptest! {
        #[test]
        fn every_string_reads_back_and_holds_no_control(text in any::<String>()) {
            let line = written(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            prop_assert!(!line.chars().any(char::is_control));
        }

        #[test]
        fn every_number_is_written_in_decimal(value in any::<u64>()) {
            let mut out = Vec::new();
            number(value, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
