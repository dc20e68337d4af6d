//! How events are shown: as sentences, as the lines of the log, or as a table.

use serde_json::{Map, Value};

use super::ReplayError;
use crate::chat::Event;
use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::protocol::sentence;

/// The columns of the table: every field that any event has, in the order of the log.
const COLUMNS: [&str; 29] = [
    "seq", "ts", "type", "group", "from", "to", "by", "user", "text", "invited", "session", "ip", "udp_port",
    "failures", "until", "reason", "transfer", "files", "accept", "outcome", "bytes", "hash", "path", "key", "erased",
    "version", "device", "id", "leaf",
];

/// The form of what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Sentences for people, in local time.
    Text,
    /// The lines of the log, byte for byte.
    Json,
    /// A table with a header line.
    Csv,
}

/// Shows events in one form.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The form.
    pub format: Format,
    /// Whether a person's terminal shows it, which nothing in a table may drive.
    pub is_terminal: bool,
}

impl Printer {
    /// Appends what stands before the first event.
    pub fn begin(&self, out: &mut Vec<u8>) {
        if self.format == Format::Csv {
            put_row(out, COLUMNS);
        }
    }

    /// Appends an event, with its line feed.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn put(&self, event: &EventLine<'_>, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        match self.format {
            Format::Json => {
                out.extend_from_slice(event.bytes);
                out.push(b'\n');
            }
            Format::Text => {
                let record =
                    Event::decode(event.bytes).map_err(|source| ReplayError::Event { seq: event.seq, source })?;
                let told = sentence::past_event(&record, Timestamp::to_local_words);
                out.extend_from_slice(format!("{:>6}  {told}\n", record.seq).as_bytes());
            }
            Format::Csv => {
                let fields: Map<String, Value> = serde_json::from_slice(event.bytes)
                    .map_err(|error| ReplayError::Event { seq: event.seq, source: error.into() })?;
                put_row(out, COLUMNS.map(|column| self.cell(fields.get(column))));
            }
        }
        Ok(())
    }

    fn cell(self, value: Option<&Value>) -> String {
        let text = match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(items)) if !items.iter().any(Value::is_object) => {
                let items: Vec<String> = items.iter().map(|item| self.cell(Some(item))).collect();
                return items.join(" ");
            }
            Some(other) => other.to_string(),
        };
        if self.is_terminal { sentence::visible(&text) } else { text }
    }
}

fn put_row<T: AsRef<[u8]>>(out: &mut Vec<u8>, cells: [T; COLUMNS.len()]) {
    let mut row = csv::WriterBuilder::new().buffer_capacity(1_024).from_writer(out);
    row.write_record(cells).and_then(|()| Ok(row.flush()?)).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::samples::event;
    use proptest::prelude::*;

    fn shown(format: Format, is_terminal: bool, event: &Event) -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        event.encode(41, Timestamp::from_ms(1_685_631_600_000), &mut bytes);
        Printer { format, is_terminal }.put(&EventLine::of(&bytes).unwrap(), &mut out).unwrap();
        (bytes, out)
    }

    fn message(text: &str) -> Event {
        let (from, to) = ("yoda".parse().unwrap(), "han".parse().unwrap());
        Event::Message { from, to, text: text.parse().unwrap(), origin: None }
    }

    #[test]
    fn a_table_keeps_a_text_as_it_is_but_on_a_terminal() {
        let event = message("a,\"b\"\n\u{1b}[2J");
        let row = |is_terminal| {
            let (_, out) = shown(Format::Csv, is_terminal, &event);
            let mut rows = csv::ReaderBuilder::new().has_headers(false).from_reader(&*out).into_records();
            let row = rows.next().unwrap().unwrap();
            assert!(rows.next().is_none());
            row.iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let column = |name| COLUMNS.iter().position(|column| *column == name).unwrap();
        assert_eq!(row(false)[column("text")], "a,\"b\"\n\u{1b}[2J");
        assert_eq!(row(true)[column("text")], "a,\"b\"\\n\\u001b[2J");
        assert_eq!(row(false)[column("seq")], "41");
        assert_eq!(row(false)[column("to")], "han");
    }

    proptest! {
        #[test]
        fn every_event_is_one_harmless_line_of_text_and_its_own_bytes_of_json(event in event()) {
            let (_, out) = shown(Format::Text, false, &event);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.matches('\n').count(), 1);
            let harmful = |c: char| (c.is_control() && c != '\n') || sentence::is_bidi_control(c);
            prop_assert!(!text.contains(harmful));
            let (mut bytes, out) = shown(Format::Json, false, &event);
            bytes.push(b'\n');
            prop_assert_eq!(bytes, out);
        }

        #[test]
        fn every_field_of_every_event_has_a_column(event in event()) {
            let (bytes, _) = shown(Format::Json, false, &event);
            let fields: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
            for field in fields.keys() {
                prop_assert!(COLUMNS.contains(&field.as_str()), "{}", field);
            }
        }
    }
}
