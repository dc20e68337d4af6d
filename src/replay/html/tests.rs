//! A page is what its template says, and no text in a log changes what it is.

use proptest::prelude::*;

use super::*;
use crate::chat::samples::event;
use crate::clock::Timestamp;
use crate::eventlog::EventLine;

fn page(events: &[Event]) -> Page {
    let (mut totals, mut newest) = (Totals::default(), Newest::default());
    for (seq, event) in (1..).zip(events) {
        let mut bytes = Vec::new();
        event.encode(seq, Timestamp::from_ms(1_685_631_600_000 + seq), &mut bytes);
        totals.count(&EventLine::of(&bytes).unwrap());
        newest.push(&bytes);
    }
    Page { source: "</script><!--".into(), conditions: vec!["\u{202e}<script>".into()], totals, newest }
}

fn written(page: &Page) -> String {
    let mut out = Vec::new();
    page.put(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What stands in the blocks of a class.
fn blocks<'a>(html: &'a str, class: &str) -> Vec<&'a str> {
    let begin = format!("<script type=\"application/json\" class=\"{class}\">");
    html.split(&begin[..]).skip(1).map(|rest| rest.split_once("</script>").unwrap().0).collect()
}

#[test]
fn an_empty_page_is_whole() {
    let html = written(&page(&[]));
    assert!(html.starts_with("<!doctype html>\n") && html.ends_with("</html>\n") && !html.contains("{{"));
    assert_eq!((blocks(&html, "about").len(), blocks(&html, "events").len()), (1, 0));
}

#[test]
fn the_policy_names_what_stands_in_the_page() {
    let html = written(&page(&[]));
    for (begin, end) in [("<style>", "</style>"), ("<script>", "</script>")] {
        let (_, rest) = html.split_once(begin).unwrap();
        let (inside, _) = rest.split_once(end).unwrap();
        assert!(html.contains(&format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))), "{begin}");
        assert_eq!(html.matches(begin).count(), 1);
    }
    // Neither would be one script any more.
    assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !STYLE.contains("</"));
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!html.contains("unsafe-") && !addresses.contains("http:") && !addresses.contains("https:"));
}

#[test]
fn only_the_newest_are_held_and_all_are_counted() {
    let mut newest = Newest::default();
    for number in 0..PAGE_EVENTS_MAX + 5 {
        newest.push(number.to_string().as_bytes());
    }
    assert_eq!(newest.lines.len(), PAGE_EVENTS_MAX);
    assert_eq!(newest.lines.front().map(Vec::as_slice), Some(&b"5"[..]));
    let long = vec![b'x'; PAGE_LINES_BYTES_MAX / 2];
    newest.push(&long);
    newest.push(&long);
    assert_eq!((newest.lines.len(), newest.bytes), (2, PAGE_LINES_BYTES_MAX));
    newest.push(b"short");
    assert_eq!((newest.lines.len(), newest.bytes), (2, long.len() + 5));
}

proptest! {
    #[test]
    fn no_event_leaves_its_block(events in proptest::collection::vec(event(), 0..8)) {
        let (html, empty) = (written(&page(&events)), written(&page(&[])));
        let about = &blocks(&html, "about")[0];
        let texts = blocks(&html, "events");
        for block in texts.iter().chain([about]) {
            let is_plain = |c: char| !matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') && !c.is_control();
            prop_assert!(block.chars().all(is_plain));
            prop_assert!(!block.contains(crate::protocol::sentence::is_bidi_control));
        }
        let tags = |html: &str| html.matches('<').count();
        prop_assert_eq!(tags(&html), tags(&empty) + 2 * texts.len());
        let rows: Vec<serde_json::Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let told: Vec<&str> = rows
            .iter()
            .flat_map(|block| block["events"].as_array().unwrap())
            .map(|row| row[5].as_str().unwrap())
            .collect();
        prop_assert_eq!(told.len(), events.len());
        for (told, event) in told.iter().zip(&events) {
            if let Event::Message { text, .. } | Event::GroupMessage { text, .. } = event {
                prop_assert_eq!(*told, text.as_str());
            }
        }
    }
}
