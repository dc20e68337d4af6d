//! The form of a line: fields behind `; `, from which every text reads back exactly.
//!
//! Written and read by the `csv` crate with the delimiter `;`, every field after the first beginning with one space that
//! is part of it. Backslash, line feed, carriage return and other controls stand as `\\`, `\n`, `\r` and `\u00XX`, so
//! that one message is one line and no text can forge another.

use std::io;

use memchr::{memchr, memchr_iter, memchr3};

use crate::chat::json;

/// A number in decimal, from 0: counted up it costs less than to be written anew for each line.
#[derive(Debug)]
pub(super) struct Counter {
    /// As many as a number of 64 bits has at most.
    digits: [u8; 20],
    start: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self { digits: [b'0'; 20], start: 19 }
    }
}

impl Counter {
    pub(super) fn count_up(&mut self) {
        for (place, digit) in self.digits.iter_mut().enumerate().rev() {
            self.start = self.start.min(place);
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Lines in the making.
#[derive(Debug, Default)]
pub(super) struct LineWriter {
    lines: Vec<u8>,
}

impl LineWriter {
    /// Appends a line.
    pub(super) fn put(&mut self, number: &Counter, fields: &[impl AsRef<[u8]>]) {
        let start = self.lines.len();
        self.lines.extend_from_slice(number.as_bytes());
        for field in fields {
            self.lines.extend_from_slice(b"; ");
            escape(field.as_ref(), &mut self.lines);
        }
        self.lines.push(b'\n');
        let line = &self.lines[start..];
        // With a delimiter or a quote in a field it is quoted: which rarely happens, and is for the crate to do.
        if memchr(b'"', line).is_some() || memchr_iter(b';', line).count() != fields.len() {
            self.lines.truncate(start);
            self.put_quoted(number, fields);
        }
    }

    /// Appends a line as [`LineWriter::put`] does, of fields without quotes, backslashes and controls below 0x20. Only the
    /// last may hold anything else that is escaped or quoted.
    pub(super) fn put_straight(&mut self, number: &Counter, fields: [&[u8]; 3]) {
        let [.., text] = fields;
        // DEL, what C1 controls begin with, and the delimiter.
        if memchr3(0x7F, 0xC2, b';', text).is_some() {
            return self.put(number, &fields);
        }
        self.lines.extend_from_slice(number.as_bytes());
        for field in fields {
            self.lines.extend_from_slice(b"; ");
            self.lines.extend_from_slice(field);
        }
        self.lines.push(b'\n');
    }

    /// All lines, each with its line feed.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.lines
    }

    fn put_quoted(&mut self, number: &Counter, fields: &[impl AsRef<[u8]>]) {
        let mut form = csv::WriterBuilder::new();
        form.delimiter(b';').terminator(csv::Terminator::Any(b'\n'));
        let mut line = form.from_writer(&mut self.lines);
        let first = number.as_bytes().to_vec();
        let others = fields.iter().map(|field| {
            let mut escaped = vec![b' '];
            escape(field.as_ref(), &mut escaped);
            escaped
        });
        line.write_record(std::iter::once(first).chain(others)).expect("a line of its own may have any fields");
        line.flush().expect("writing to memory cannot fail");
    }
}

/// Why a file is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// It cannot be read, or has no lines of fields.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A field is not as it is written.
    #[error("{0:?} is no field of a derived file")]
    Field(String),
}

/// Reads the lines of a derived file: each its number and further fields, as they were before they were written.
pub fn read(file: impl io::Read) -> impl Iterator<Item = Result<Vec<String>, FieldError>> {
    let mut form = csv::ReaderBuilder::new();
    form.delimiter(b';').has_headers(false).terminator(csv::Terminator::Any(b'\n'));
    form.from_reader(file).into_records().map(|line| {
        let line = line?;
        let plain = |(place, field): (usize, &str)| match place {
            0 => Ok(field.to_owned()),
            _ => field.strip_prefix(' ').and_then(unescape).ok_or_else(|| FieldError::Field(field.to_owned())),
        };
        line.iter().enumerate().map(plain).collect()
    })
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        // What JSON escapes is what is escaped here, and the quote.
        let (plain, special) = rest.split_at(json::plain_length(rest));
        out.extend_from_slice(plain);
        rest = match special {
            [] => return,
            [b'\n', rest @ ..] => {
                out.extend_from_slice(b"\\n");
                rest
            }
            [b'\r', rest @ ..] => {
                out.extend_from_slice(b"\\r");
                rest
            }
            [b'\\', rest @ ..] => {
                out.extend_from_slice(b"\\\\");
                rest
            }
            // C1 controls are U+0080 to U+009F, in UTF-8 0xC2 and a byte from 0x80 to 0x9F.
            [control @ (..0x20 | 0x7F), rest @ ..] | [0xC2, control @ 0x80..=0x9F, rest @ ..] => {
                out.extend_from_slice(format!("\\u{control:04x}").as_bytes());
                rest
            }
            [byte, rest @ ..] => {
                out.push(*byte);
                rest
            }
        };
    }
}

/// Takes escapes back; `None` where one is not as it is written.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let length = match escaped.bytes().next()? {
            b'\\' => {
                out.push('\\');
                1
            }
            b'n' => {
                out.push('\n');
                1
            }
            b'r' => {
                out.push('\r');
                1
            }
            b'u' => {
                out.push(char::from_u32(u32::from_str_radix(escaped.get(1..5)?, 16).ok()?)?);
                5
            }
            _ => return None,
        };
        rest = escaped.get(length..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(number: u64) -> Counter {
        let mut counter = Counter::default();
        (0..number).for_each(|_| counter.count_up());
        counter
    }

    fn line(number: u64, fields: &[&str]) -> String {
        let mut lines = LineWriter::default();
        lines.put(&counted(number), fields);
        String::from_utf8(lines.into_bytes()).unwrap()
    }

    #[test]
    fn a_counter_counts_in_decimal() {
        let mut counter = Counter::default();
        for number in 0..20_000 {
            assert_eq!(counter.as_bytes(), number.to_string().as_bytes());
            counter.count_up();
        }
    }

    #[test]
    fn lines_have_the_ancestors_form() {
        assert_eq!(
            line(1, &["01 Jun 2022 21:30:04", "Yoda", "129.64.1.11", "6666"]),
            "1; 01 Jun 2022 21:30:04; Yoda; 129.64.1.11; 6666\n"
        );
    }

    #[test]
    fn a_text_with_separators_or_quotes_is_quoted_with_its_space() {
        assert_eq!(line(1, &["a;b"]), "1;\" a;b\"\n");
        assert_eq!(line(1, &["say \"hi\""]), "1;\" say \"\"hi\"\"\"\n");
    }

    #[test]
    fn controls_are_escaped_so_that_a_text_is_one_line() {
        assert_eq!(line(7, &["a\nb\r\t\\n\u{1b}\u{7f}\u{85}é"]), "7; a\\nb\\r\\u0009\\\\n\\u001b\\u007f\\u0085é\n");
    }

    #[test]
    fn a_straight_line_is_the_same_wherever_what_needs_care_stands() {
        for special in ["", ";", "\u{7f}", "\u{80}", "\u{9f}", "\u{a0}", "é", "☃"] {
            for (before, behind) in (0..40).flat_map(|before| (0..40).map(move |behind| (before, behind))) {
                let text = "a".repeat(before) + special + &"b".repeat(behind);
                let (mut straight, mut quoted) = (LineWriter::default(), LineWriter::default());
                straight.put_straight(&counted(7), [b"01 Jun 2022 21:30:04", b"yoda", text.as_bytes()]);
                quoted.put_quoted(&counted(7), &["01 Jun 2022 21:30:04", "yoda", &text]);
                assert_eq!(straight.into_bytes(), quoted.into_bytes(), "{text:?}");
            }
        }
    }

    #[test]
    fn what_nobody_wrote_is_no_field() {
        for bad in ["1;no space", "1; \\x", "1; \\u00", "1; \\uzzzz", "1; \\"] {
            assert!(read(bad.as_bytes()).next().unwrap().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_text_reads_back_and_is_one_line(texts in proptest::collection::vec(".*|[\\x00-\\x20;\"\\\\n\\u{80}-\\u{a0}]*", 1..4)) {
            let fields: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut lines = LineWriter::default();
            lines.put(&counted(1), &fields);
            lines.put(&counted(2), &fields);
            let bytes = lines.into_bytes();
            let mut quoted = LineWriter::default();
            quoted.put_quoted(&counted(1), &fields);
            quoted.put_quoted(&counted(2), &fields);
            prop_assert_eq!(&bytes, &quoted.into_bytes());
            prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
            let back: Vec<Vec<String>> = read(&*bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&back[0][1..], &texts[..]);
            prop_assert_eq!(&back[1][1..], &texts[..]);
        }
    }
}
