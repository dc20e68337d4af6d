//! Any bytes as an event's line: no reader panics, and what the straight one takes the general one reads the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    messenger::chat::Event::assert_readers_agree(line);
    // What can be read is written, and then reads back the same.
    if let Ok(record) = messenger::chat::Event::decode(line) {
        let mut written = Vec::new();
        record.event.encode(record.seq, record.at, &mut written);
        messenger::chat::Event::assert_readers_agree(&written);
        let again = messenger::chat::Event::decode(&written).expect("what was written can be read");
        assert_eq!(again, record);
    }
});
