//! The lines that an operator follows on standard output.

use crate::chat::{Event, Record};
use crate::clock::Timestamp;
use crate::protocol::sentence;

/// An event as the console tells it: who wrote to whom, and the text of a private message only where that is wanted.
pub(super) fn told(event: &Event, at: Timestamp, with_texts: bool) -> String {
    match event {
        Event::Message { from, to, text, .. } if with_texts => {
            format!("{from} message to {to} \"{}\" at {}.", sentence::visible(text.as_str()), at.to_local_words())
        }
        Event::Message { from, to, .. } => format!("{from} message to {to} at {}.", at.to_local_words()),
        Event::GroupMessage { group, from, text, .. } if with_texts => {
            let text = sentence::visible(text.as_str());
            format!("{from} message to group {group} \"{text}\" at {}.", at.to_local_words())
        }
        Event::GroupMessage { group, from, .. } => {
            format!("{from} message to group {group} at {}.", at.to_local_words())
        }
        _ => sentence::past_event(&Record { seq: 0, at, event: event.clone() }, Timestamp::to_local_words),
    }
}
