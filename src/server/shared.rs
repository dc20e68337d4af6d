//! What connections are told of batches that became durable, by reference to the batches' own bytes: a message to a
//! thousand is copied for each of them by the system alone. A batch comes behind those that are not written to all yet, so
//! that a socket is written to once for several; what a socket does not take is kept with its connection.

use std::num::NonZeroU32;
use std::ops::Range;

use super::limits::{SHARED_BYTES_MAX, SHARED_PIECES_MAX};
use super::spare::{is_large, shrink};

/// Which bytes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Event lines.
    Lines,
    /// Answers and signals.
    Notes,
}

/// Where what a connection is told is found: its place in the list of those that are told something, counted from 1, so that
/// a connection needs four bytes for it.
pub(super) type ToldPlace = NonZeroU32;

/// The bytes of batches, which all connections share that are told of them, and who is told what.
#[derive(Debug, Default)]
pub(super) struct Shared {
    lines: Vec<u8>,
    notes: Vec<u8>,
    told: Vec<Told>,
    pieces: Vec<Piece>,
    /// How many connections have something left to be sent.
    unsent_count: usize,
}

/// What one connection is told: a chain of pieces.
#[derive(Debug)]
struct Told {
    /// The first piece that is not sent, and the last.
    first: u32,
    last: u32,
    /// Bytes left.
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    source: Source,
    start: u32,
    end: u32,
    /// The next piece for the same connection, where this is not its last.
    next: u32,
}

impl Shared {
    /// Takes a batch's bytes, behind those that are not sent to all yet, and leaves empty buffers in their place. Gives
    /// where its lines and its notes begin.
    pub(super) fn begin(&mut self, lines: &mut Vec<u8>, notes: &mut Vec<u8>) -> (usize, usize) {
        if self.unsent_count == 0 {
            self.clear();
            std::mem::swap(&mut self.lines, lines);
            std::mem::swap(&mut self.notes, notes);
            return (0, 0);
        }
        let begins = (self.lines.len(), self.notes.len());
        self.lines.append(lines);
        self.notes.append(notes);
        begins
    }

    /// Whether so much is in it that all should be sent now, and the memory used again.
    pub(super) fn is_full(&self) -> bool {
        let is_much = self.lines.len() + self.notes.len() > SHARED_BYTES_MAX || self.pieces.len() > SHARED_PIECES_MAX;
        self.unsent_count > 0 && is_much
    }

    /// Tells a connection these bytes of the batch, behind what it is told already.
    pub(super) fn tell(&mut self, place: &mut Option<ToldPlace>, source: Source, bytes: Range<usize>) {
        let (start, end) = (narrow(bytes.start), narrow(bytes.end));
        if start == end {
            return;
        }
        let new = narrow(self.pieces.len());
        match place.map(index) {
            Some(told) => {
                let told = &mut self.told[told];
                told.bytes += bytes.len();
                let last = &mut self.pieces[told.last as usize];
                if last.source == source && last.end == start {
                    last.end = end;
                    return;
                }
                last.next = new;
                told.last = new;
            }
            None => {
                self.told.push(Told { first: new, last: new, bytes: bytes.len() });
                *place = NonZeroU32::new(narrow(self.told.len()));
                self.unsent_count += 1;
            }
        }
        self.pieces.push(Piece { source, start, end, next: new });
    }

    /// Lines of the batch.
    pub(super) fn lines(&self, bytes: Range<usize>) -> &[u8] {
        &self.lines[bytes]
    }

    /// How many bytes a connection is told that are not sent.
    pub(super) fn bytes(&self, place: ToldPlace) -> usize {
        self.told[index(place)].bytes
    }

    /// What a connection is told and is not sent.
    pub(super) fn slices(&self, place: ToldPlace) -> impl Iterator<Item = &[u8]> {
        let told = &self.told[index(place)];
        let mut next = Some(told.first);
        std::iter::from_fn(move || {
            let piece = &self.pieces[next? as usize];
            next = (next != Some(told.last)).then_some(piece.next);
            let bytes = match piece.source {
                Source::Lines => &self.lines,
                Source::Notes => &self.notes,
            };
            Some(&bytes[piece.start as usize..piece.end as usize])
        })
    }

    /// The first `count` bytes that a connection is told are sent, or kept elsewhere; `place` is gone with the last.
    pub(super) fn take(&mut self, place: &mut Option<ToldPlace>, mut count: usize) {
        let Some(told) = place.map(|place| &mut self.told[index(place)]) else { return };
        told.bytes -= count;
        if told.bytes == 0 {
            *place = None;
            self.unsent_count -= 1;
            return;
        }
        loop {
            let piece = &mut self.pieces[told.first as usize];
            let length = (piece.end - piece.start) as usize;
            if count < length {
                piece.start += narrow(count);
                return;
            }
            count -= length;
            told.first = piece.next;
        }
    }

    fn clear(&mut self) {
        self.told.clear();
        self.pieces.clear();
        self.lines.clear();
        self.notes.clear();
    }

    /// Whether its buffers have grown large.
    pub(super) fn is_large(&self) -> bool {
        is_large(&self.told) || is_large(&self.pieces) || is_large(&self.lines) || is_large(&self.notes)
    }

    /// Gives large buffers back, unless something in them is still to be sent.
    pub(super) fn shrink(&mut self) {
        if self.unsent_count > 0 {
            return;
        }
        self.clear();
        shrink(&mut self.told);
        shrink(&mut self.pieces);
        shrink(&mut self.lines);
        shrink(&mut self.notes);
    }
}

fn index(place: ToldPlace) -> usize {
    place.get() as usize - 1
}

/// A place, length or count of a batch: all are far below 2^32, for nothing more comes into a batch that is full.
pub(super) fn narrow(place: usize) -> u32 {
    u32::try_from(place).expect("a batch is far shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::super::limits::SPARE_BATCH_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        Tell { connection: usize, in_notes: bool, start: usize, length: usize },
        Take { connection: usize, count: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Begin),
            6 => (0..3_usize, any::<bool>(), 0..40_usize, 0..10_usize)
                .prop_map(|(connection, in_notes, start, length)| Step::Tell { connection, in_notes, start, length }),
            3 => (0..3_usize, 0..60_usize).prop_map(|(connection, count)| Step::Take { connection, count }),
        ]
    }

    proptest! {
        #[test]
        fn each_connection_is_told_what_it_was_told_in_its_order(steps in proptest::collection::vec(step(), 0..60)) {
            let mut shared = Shared::default();
            let (mut lines, mut notes) = (Vec::new(), Vec::new());
            let (mut lines_begin, mut notes_begin) = (0, 0);
            let mut places = [None; 3];
            let mut expected: [Vec<u8>; 3] = Default::default();
            for (step, first) in [Step::Begin].into_iter().chain(steps).zip(0_u8..) {
                match step {
                    Step::Begin => {
                        (lines, notes) = ((first..first + 50).collect(), (first + 100..first + 150).collect());
                        (lines_begin, notes_begin) = shared.begin(&mut lines.clone(), &mut notes.clone());
                        let is_all_sent = expected.iter().all(Vec::is_empty);
                        prop_assert_eq!((lines_begin, notes_begin) == (0, 0), is_all_sent, "memory is used again");
                    }
                    Step::Tell { connection, in_notes, start, length } => {
                        let (source, begin, bytes) = match in_notes {
                            true => (Source::Notes, notes_begin, &notes),
                            false => (Source::Lines, lines_begin, &lines),
                        };
                        shared.tell(&mut places[connection], source, begin + start..begin + start + length);
                        expected[connection].extend_from_slice(&bytes[start..start + length]);
                    }
                    Step::Take { connection, count } => {
                        let count = count.min(expected[connection].len());
                        shared.take(&mut places[connection], count);
                        expected[connection].drain(..count);
                    }
                }
                for (place, expected) in places.iter().zip(&expected) {
                    let told = place.map(|place| shared.slices(place).collect::<Vec<_>>().concat());
                    prop_assert_eq!(place.map_or(0, |place| shared.bytes(place)), expected.len());
                    prop_assert_eq!(&told.unwrap_or_default(), expected);
                }
            }
        }
    }

    #[test]
    fn lines_that_stand_together_are_one_slice() {
        let mut shared = Shared::default();
        shared.begin(&mut vec![0; 30], &mut Vec::new());
        let mut place = None;
        for start in [0, 10, 20] {
            shared.tell(&mut place, Source::Lines, start..start + 10);
        }
        // A batch behind it, too.
        assert_eq!(shared.begin(&mut vec![0; 10], &mut Vec::new()), (30, 0));
        shared.tell(&mut place, Source::Lines, 30..40);
        assert_eq!(shared.slices(place.unwrap()).map(<[u8]>::len).collect::<Vec<_>>(), [40]);
    }

    #[test]
    fn buffers_are_used_again_and_large_ones_given_back_when_nothing_is_in_them() {
        let mut shared = Shared::default();
        let (usual, large) = (SPARE_BATCH_BYTES_MAX, SPARE_BATCH_BYTES_MAX + 1);
        let (mut lines, mut notes) = (Vec::with_capacity(usual), vec![0; large]);
        shared.begin(&mut lines, &mut notes);
        assert_eq!((lines.capacity(), notes.capacity()), (0, 0));
        let mut place = None;
        shared.tell(&mut place, Source::Notes, 0..1);
        shared.shrink();
        assert_eq!(shared.notes.len(), large, "something in it is still to be sent");
        shared.take(&mut place, 1);
        shared.shrink();
        assert_eq!((shared.lines.capacity(), shared.notes.capacity()), (usual, 0));
    }
}
