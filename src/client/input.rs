//! Threads that read what is typed: on a terminal one answer to one question, from a pipe line after line.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use super::editor::Editor;
use super::interface::{Typed, Wake};
use super::limits::TYPED_LINE_BYTES_MAX;
use crate::protocol::{CutLine, LineCutter};

/// Lines of a pipe read ahead.
const LINES_AHEAD: usize = 128;

/// What a terminal is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    /// A line that is seen as it is typed.
    Line,
    /// A line that is not seen.
    Secret,
    /// A command, with the comforts of editing.
    Command,
    /// From now on, lines are kept in this file.
    History(PathBuf),
}

/// The thread's other end.
pub(super) struct Input {
    /// Questions for a terminal; a pipe is not asked.
    asks: Option<Sender<Ask>>,
    typed: Receiver<Typed>,
    /// Whether a question is unanswered.
    is_asked: bool,
    /// The terminal as it was found.
    found: Option<Termios>,
}

impl Input {
    /// Reads standard input line after line.
    pub(super) fn pipe(wake: Wake) -> std::io::Result<Self> {
        let (lines, typed) = mpsc::sync_channel(LINES_AHEAD);
        std::thread::Builder::new().name("input".into()).spawn(move || read_pipe(&lines, &wake))?;
        Ok(Self { asks: None, typed, is_asked: false, found: None })
    }

    /// Asks the terminal that is standard input; commands are typed in the editor, where there is one.
    pub(super) fn terminal(editor: Option<Editor>, wake: Wake) -> std::io::Result<Self> {
        let (asks, questions) = mpsc::channel();
        let (answers, typed) = mpsc::channel();
        let thread = move || answer_all(&questions, editor, &answers, &wake);
        std::thread::Builder::new().name("input".into()).spawn(thread)?;
        let found = termios::tcgetattr(std::io::stdin()).ok();
        Ok(Self { asks: Some(asks), typed, is_asked: false, found })
    }

    /// Asks the terminal, unless a question is open. Gives whether it was asked now.
    pub(super) fn ask(&mut self, ask: Ask) -> bool {
        let Some(asks) = self.asks.as_ref().filter(|_| !self.is_asked) else { return false };
        self.is_asked = !matches!(ask, Ask::History(_));
        asks.send(ask).is_ok()
    }

    /// Whether a question to the terminal is open.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    pub(super) fn take(&mut self) -> Option<Typed> {
        let typed = self.typed.try_recv().ok()?;
        self.is_asked = false;
        Some(typed)
    }

    /// Gives the terminal back as it was.
    pub(super) fn close(&mut self) {
        self.asks = None;
        if let Some(found) = &self.found {
            // A terminal that is gone needs nothing.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, found);
        }
    }
}

fn read_pipe(lines: &SyncSender<Typed>, wake: &Wake) {
    let mut input = std::io::stdin().lock();
    let mut cutter = LineCutter::new(TYPED_LINE_BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        cutter.push(buffer.get(..count).unwrap_or_default());
        while let Some(line) = cutter.next_line() {
            if !hand_over(lines, wake, typed(&line)) {
                return;
            }
        }
        wake();
    }
    if let Some(line) = cutter.last_line()
        && !hand_over(lines, wake, typed(&line))
    {
        return;
    }
    hand_over(lines, wake, Typed::End);
    wake();
}

/// Waits for room where there is none, and has the loop make some.
fn hand_over(lines: &SyncSender<Typed>, wake: &Wake, typed: Typed) -> bool {
    match lines.try_send(typed) {
        Ok(()) => true,
        Err(TrySendError::Full(typed)) => {
            wake();
            lines.send(typed).is_ok()
        }
        Err(TrySendError::Disconnected(_)) => false,
    }
}

fn typed(line: &CutLine<'_>) -> Typed {
    match line {
        CutLine::TooLong => Typed::Bad("The line is too long (at most 65,536 bytes)."),
        CutLine::Whole(line) => match std::str::from_utf8(line) {
            Ok(line) => Typed::Line(line.to_owned()),
            Err(_) => Typed::Bad("The line is not UTF-8."),
        },
    }
}

fn answer_all(questions: &Receiver<Ask>, mut editor: Option<Editor>, answers: &Sender<Typed>, wake: &Wake) {
    for ask in questions {
        let answer = match ask {
            Ask::History(path) => {
                if let Some(editor) = &mut editor {
                    editor.keep_history(path);
                }
                continue;
            }
            Ask::Line => read_line(),
            Ask::Secret => read_secret(),
            Ask::Command => editor.as_mut().map_or_else(read_line, Editor::read),
        };
        if answers.send(answer).is_err() {
            return;
        }
        wake();
    }
}

fn read_line() -> Typed {
    let mut line = Vec::new();
    let mut input = std::io::stdin().lock();
    let bound = TYPED_LINE_BYTES_MAX as u64;
    match (&mut input).take(bound).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => Typed::End,
        Ok(_) if line.len() as u64 == bound && line.last() != Some(&b'\n') => {
            let _ = input.skip_until(b'\n');
            typed(&CutLine::TooLong)
        }
        Ok(_) => {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            typed(&CutLine::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
        }
    }
}

/// Reads a line that the terminal does not show.
fn read_secret() -> Typed {
    let stdin = std::io::stdin();
    let Ok(shown) = termios::tcgetattr(&stdin) else { return read_line() };
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    if termios::tcsetattr(&stdin, OptionalActions::Now, &hidden).is_err() {
        return read_line();
    }
    let line = read_line();
    let _ = termios::tcsetattr(&stdin, OptionalActions::Now, &shown);
    let _ = std::io::stdout().flush();
    line
}
