//! Cutting a stream of bytes into lines, with a bound on what is kept.

use memchr::memchr;

/// What stood between two line feeds.
#[derive(Debug, PartialEq, Eq)]
pub enum CutLine<'a> {
    /// A line without its end (LF or CR LF); it may be empty, and need not be UTF-8.
    Whole(&'a [u8]),
    /// A line over the limit was skipped to its end.
    TooLong,
}

/// A buffer that bytes go into and lines come out of.
#[derive(Debug)]
pub struct LineCutter {
    buffer: Vec<u8>,
    /// Where the first line not yet given out starts.
    start: usize,
    /// How far from `start` there is surely no line feed.
    searched: usize,
    /// Whether there is one there.
    is_found: bool,
    line_bytes_max: usize,
    skipping: bool,
}

impl LineCutter {
    /// A cutter for lines of at most `line_bytes_max` bytes with their line feed.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, is_found: false, line_bytes_max, skipping: false }
    }

    /// Takes in bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held and not yet given out.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether nothing is held, not even that a line is being skipped: as good as new.
    pub fn is_empty(&self) -> bool {
        self.pending_bytes() == 0 && !self.skipping
    }

    /// Gives the memory back that what is held does not need.
    pub fn release(&mut self) {
        if self.buffer.capacity() / 2 > self.pending_bytes() {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.shrink_to_fit();
        }
    }

    /// The first byte that is no line end; such bytes before it are skipped.
    pub fn first_byte(&mut self) -> Option<u8> {
        let ends = self.buffer[self.start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if ends > 0 {
            self.start += ends;
            (self.searched, self.is_found) = (0, false);
        }
        self.buffer.get(self.start).copied()
    }

    /// Whether [`LineCutter::next_line`] has something to give.
    pub fn has_line(&mut self) -> bool {
        if !self.is_found {
            match memchr(b'\n', &self.buffer[self.start + self.searched..]) {
                Some(found) => {
                    self.searched += found;
                    self.is_found = true;
                }
                None => self.skip_if_too_long(),
            }
        }
        self.is_found
    }

    /// The next line, or `None` until more bytes come.
    pub fn next_line(&mut self) -> Option<CutLine<'_>> {
        if !self.has_line() {
            return None;
        }
        let line_start = self.start;
        let line_end = line_start + self.searched;
        self.start = line_end + 1;
        (self.searched, self.is_found) = (0, false);
        if std::mem::take(&mut self.skipping) || line_end - line_start >= self.line_bytes_max {
            return Some(CutLine::TooLong);
        }
        let line = &self.buffer[line_start..line_end];
        Some(CutLine::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Without a line feed in the buffer: forgets what is surely part of a line over the limit.
    fn skip_if_too_long(&mut self) {
        self.searched = self.buffer.len() - self.start;
        if self.skipping || self.searched >= self.line_bytes_max {
            self.skipping = true;
            self.buffer.clear();
            self.start = 0;
            self.searched = 0;
        }
    }

    /// At the end of the stream: what stood there without a line feed, if anything.
    pub fn last_line(&mut self) -> Option<CutLine<'_>> {
        let rest = self.start..self.buffer.len();
        self.start = self.buffer.len();
        (self.searched, self.is_found) = (0, false);
        if std::mem::take(&mut self.skipping) || rest.len() >= self.line_bytes_max {
            return Some(CutLine::TooLong);
        }
        let line = &self.buffer[rest];
        (!line.is_empty()).then(|| CutLine::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(cutter: &mut LineCutter) -> Vec<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while let Some(line) = cutter.next_line() {
            out.push(match line {
                CutLine::Whole(line) => Some(line.to_vec()),
                CutLine::TooLong => None,
            });
        }
        out
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let mut cutter = LineCutter::new(8);
        cutter.push(b"1234567\n12345678\nab\r\n\n");
        assert_eq!(lines(&mut cutter), [Some(b"1234567".to_vec()), None, Some(b"ab".to_vec()), Some(vec![])]);
    }

    #[test]
    fn an_endless_line_holds_no_memory_and_the_next_is_read() {
        let mut cutter = LineCutter::new(8);
        for _ in 0..1_000 {
            cutter.push(b"xxxxxxxx");
            assert_eq!(cutter.next_line(), None);
            assert!(cutter.pending_bytes() <= 8);
        }
        cutter.push(b"\nok\n");
        assert_eq!(lines(&mut cutter), [None, Some(b"ok".to_vec())]);
    }

    #[test]
    fn memory_that_what_is_held_does_not_need_is_given_back() {
        let mut cutter = LineCutter::new(8);
        cutter.push(&b"1234567\n".repeat(1_000));
        cutter.push(b"123");
        assert_eq!(lines(&mut cutter).len(), 1_000);
        assert!(!cutter.is_empty());
        cutter.release();
        assert!(cutter.buffer.capacity() <= 8, "{} bytes", cutter.buffer.capacity());
        cutter.push(b"4\n");
        assert_eq!(cutter.next_line(), Some(CutLine::Whole(b"1234")));
        assert!(cutter.is_empty());
        cutter.push(b"123456789");
        assert_eq!(cutter.next_line(), None);
        assert!(!cutter.is_empty(), "the rest of the line is still to be skipped");
    }

    #[test]
    fn what_has_no_line_feed_at_the_end_is_the_last_line() {
        let mut cutter = LineCutter::new(8);
        cutter.push(b"a\nlast");
        assert_eq!(lines(&mut cutter), [Some(b"a".to_vec())]);
        assert_eq!(cutter.last_line(), Some(CutLine::Whole(b"last")));
        assert_eq!(cutter.last_line(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(String),
        HasLine,
        NextLine,
        Release,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => "[a\r\n]{0,12}".prop_map(Step::Push),
            2 => Just(Step::HasLine),
            2 => Just(Step::NextLine),
            1 => Just(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_in_between_each_line_comes_once(steps in proptest::collection::vec(step(), 0..40)) {
            let (mut cutter, mut model) = (LineCutter::new(1_000), String::new());
            if let Some(Step::Push(text)) = steps.first() {
                // As a server does, before it looks for a line.
                cutter.push(text.as_bytes());
                model.push_str(text.trim_start_matches(['\r', '\n']));
                prop_assert_eq!(cutter.first_byte(), model.bytes().next());
            }
            for step in steps.iter().skip(1) {
                match step {
                    Step::Push(text) => {
                        cutter.push(text.as_bytes());
                        model.push_str(text);
                    }
                    Step::HasLine => prop_assert_eq!(cutter.has_line(), model.contains('\n')),
                    Step::NextLine => {
                        let split = model.split_once('\n').map(|(line, rest)| (line.to_owned(), rest.to_owned()));
                        let expected = split.as_ref().map(|(line, _)| line.strip_suffix('\r').unwrap_or(line).as_bytes());
                        prop_assert_eq!(cutter.next_line(), expected.map(CutLine::Whole));
                        model = split.map_or(model, |(_, rest)| rest);
                    }
                    Step::Release => cutter.release(),
                }
                prop_assert_eq!(cutter.pending_bytes(), model.len());
            }
            let last = (!model.is_empty() && !model.contains('\n')).then(|| model.strip_suffix('\r').unwrap_or(&model));
            if !model.contains('\n') {
                prop_assert_eq!(cutter.last_line(), last.map(|last| CutLine::Whole(last.as_bytes())));
            }
        }

        #[test]
        fn the_cut_does_not_depend_on_how_the_bytes_arrive(
            text in "[a\r\n]{0,60}",
            cuts in proptest::collection::vec(0_usize..60, 0..8),
        ) {
            let mut whole = LineCutter::new(10);
            whole.push(text.as_bytes());
            let expected = lines(&mut whole);

            let mut pieces = LineCutter::new(10);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                pieces.push(&text.as_bytes()[pair[0]..pair[1]]);
                found.extend(lines(&mut pieces));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
