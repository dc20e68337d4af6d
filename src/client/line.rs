//! The `line` interface: prompts and sentences, one after another.
//!
//! On a terminal the line being typed stays at the bottom and everything appears above it. From a pipe, prompts are
//! lines of their own, so that every line of the output is one thing.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::contract::{Prompt, Show};
use super::editor::{Editor, Names};
use super::input::{Ask, Input};
use super::interface::{Interface, Typed, Wake};
use super::printer::Printer;
use super::transfers::percent;
use crate::clock::Timestamp;
use crate::names::UserName;
use crate::protocol::sentence;

/// What asks for a command, after the program's ancestor.
pub const COMMAND_PROMPT: &str = "Enter one of the following commands (/msgto, /activeuser, /creategroup, /joingroup, \
                                  /groupmsg, /p2pvideo, /logout): ";

/// The same where a person edits a line: short, behind the sentence that was shown once.
const SHORT_PROMPT: &str = "> ";

/// How long after the last one a line about a transfer's progress may follow.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Hundredths by which a transfer must have come on for another line.
const PROGRESS_STEP: u64 = 10;

/// How the user is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A terminal with a line that is edited.
    Editor,
    /// A terminal that only goes on.
    Terminal,
    /// A pipe or file.
    Pipe,
}

/// See the module's description.
pub struct LineInterface {
    way: Way,
    printer: Printer,
    input: Input,
    names: Arc<Mutex<Names>>,
    user: Option<UserName>,
    /// What was asked for last.
    prompt: Prompt,
    /// Whether the prompt is to be shown again: something was shown since.
    is_prompt_due: bool,
    /// Whether a command was asked for before.
    has_asked_for_command: bool,
    /// When each transfer's progress was last told, and the hundredths then.
    progress: HashMap<u32, (Instant, u64)>,
}

impl LineInterface {
    /// An interface on standard input and output.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(wake: Wake) -> io::Result<Self> {
        let names = Arc::new(Mutex::new(Names::default()));
        let on_terminal = io::stdin().is_terminal();
        let edited = if on_terminal && io::stdout().is_terminal() {
            Editor::new(SHORT_PROMPT, Arc::clone(&names))
        } else {
            None
        };
        let (way, editor, print_above) = match edited {
            Some((editor, print_above)) => (Way::Editor, Some(editor), Some(print_above)),
            None if on_terminal => (Way::Terminal, None, None),
            None => (Way::Pipe, None, None),
        };
        let printer = Printer::spawn(print_above, Arc::clone(&wake))?;
        let input = if on_terminal { Input::terminal(editor, wake)? } else { Input::pipe(wake)? };
        Ok(Self {
            way,
            printer,
            input,
            names,
            user: None,
            prompt: Prompt::None,
            is_prompt_due: false,
            has_asked_for_command: false,
            progress: HashMap::new(),
        })
    }

    fn print(&mut self, text: &str) {
        // Behind a prompt that stands there unanswered, a text begins on a line of its own.
        let is_behind_prompt = self.way == Way::Terminal && self.input.is_asked();
        let before = if is_behind_prompt { "\n" } else { "" };
        self.printer.print(format!("{before}{text}\n"));
        if self.way == Way::Pipe && self.prompt == Prompt::Command {
            self.show_prompt(COMMAND_PROMPT);
        } else {
            self.is_prompt_due = true;
        }
    }

    fn show_prompt(&mut self, text: &str) {
        let end = if self.way == Way::Pipe { "\n" } else { "" };
        self.printer.print(format!("{text}{end}"));
    }

    /// A line about a transfer's progress, where a person sees it and it says something new.
    fn tell_progress(&mut self, number: u32, name: &str, done_bytes: u64, total_bytes: u64, now: Instant) {
        if self.way == Way::Pipe {
            return;
        }
        let percent = percent(done_bytes, total_bytes);
        let (told_at, told) = self.progress.entry(number).or_insert((now, 0));
        if percent < *told + PROGRESS_STEP || now.saturating_duration_since(*told_at) < PROGRESS_PAUSE {
            return;
        }
        (*told_at, *told) = (now, percent);
        if percent >= 100 {
            self.progress.remove(&number);
        }
        let text = progress_bar(name, percent, done_bytes, total_bytes);
        self.print(&text);
    }
}

impl Interface for LineInterface {
    fn show(&mut self, show: &Show, now: Instant) {
        match show {
            Show::Names { users, groups } => {
                if let Ok(mut names) = self.names.lock() {
                    names.users.clone_from(users);
                    names.groups.clone_from(groups);
                }
            }
            Show::Progress { number, name, done_bytes, total_bytes } => {
                self.tell_progress(*number, name, *done_bytes, *total_bytes, now);
            }
            Show::Trouble(text) if self.way == Way::Pipe => eprintln!("messenger: {text}"),
            _ => {
                if let Some(text) = told(show, self.user) {
                    self.print(&text);
                }
            }
        }
    }

    fn ask(&mut self, prompt: Prompt) {
        let is_new = std::mem::replace(&mut self.prompt, prompt) != prompt;
        let (text, ask) = match prompt {
            Prompt::None => return,
            Prompt::UserName => ("Username: ", Ask::Line),
            Prompt::Password => ("Password: ", Ask::Secret),
            Prompt::Command => (COMMAND_PROMPT, Ask::Command),
        };
        if self.way == Way::Editor
            && prompt == Prompt::Command
            && !std::mem::replace(&mut self.has_asked_for_command, true)
        {
            self.printer.print(format!("{}\n", COMMAND_PROMPT.trim_end()));
        }
        let was_due = std::mem::take(&mut self.is_prompt_due);
        let is_asked_now = self.input.ask(ask);
        // The editor shows its prompt by itself.
        let is_shown_here = self.way != Way::Editor || prompt != Prompt::Command;
        if is_shown_here && (is_asked_now || is_new || was_due) {
            self.show_prompt(text);
        }
    }

    fn take(&mut self) -> Option<Typed> {
        let typed = self.input.take();
        if matches!(typed, Some(Typed::End)) && self.way != Way::Pipe && self.prompt != Prompt::Command {
            // The end was typed in the middle of a line.
            self.printer.print("\n".to_owned());
        }
        typed
    }

    fn set_user(&mut self, user: UserName, history_file: &Path) {
        self.user = Some(user);
        self.input.ask(Ask::History(history_file.to_owned()));
    }

    fn printing_bytes(&self) -> usize {
        self.printer.waiting_bytes()
    }

    fn is_broken(&self) -> bool {
        self.printer.is_broken()
    }

    fn close(&mut self) {
        let is_at_prompt = self.input.is_asked();
        self.printer.close();
        self.input.close();
        if is_at_prompt && self.way != Way::Pipe {
            // Off with what the editor has the terminal do with pasted text, and past the line that was begun.
            let off = if self.way == Way::Editor { "\x1b[?2004l" } else { "" };
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{off}").and_then(|()| out.flush());
        }
    }
}

/// A thing to show as people read it.
fn told(show: &Show, user: Option<UserName>) -> Option<String> {
    let time = Timestamp::to_local_words;
    Some(match show {
        Show::Answer { answer, .. } => sentence::answer(answer, time),
        Show::Refused { error, .. } => sentence::error(error),
        Show::Event(record) => match user {
            Some(user) => sentence::event(record, user, time),
            None => sentence::past_event(record, time),
        },
        Show::Offer { number, from, file } => {
            let file = sentence::file_list(std::slice::from_ref(file));
            format!("{from} offers you {file}: /accept {number} or /decline {number}")
        }
        Show::Notice(text) | Show::Trouble(text) | Show::Reply(text) => text.clone(),
        Show::Progress { .. } | Show::Names { .. } | Show::Frame(_) => return None,
    })
}

fn progress_bar(name: &str, percent: u64, done_bytes: u64, total_bytes: u64) -> String {
    const CELLS: usize = 20;
    let full = usize::try_from(percent).unwrap_or(100) * CELLS / 100;
    let (done, total) = (sentence::byte_count(done_bytes), sentence::byte_count(total_bytes));
    format!("{name} [{}{}] {percent} %, {done} of {total}", "#".repeat(full), ".".repeat(CELLS - full))
}

/// What is said to a person where there is no room for the thing itself.
pub(super) fn told_elsewhere(show: &Show) -> Option<String> {
    match show {
        Show::Notice(_) | Show::Trouble(_) | Show::Reply(_) | Show::Offer { .. } => told(show, None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_bar_with_numbers() {
        let expected = "a.mp4 [#######.............] 35 %, 3.5 MiB of 10.0 MiB";
        assert_eq!(progress_bar("a.mp4", 35, 3_670_016, 10 << 20), expected);
        assert!(progress_bar("a.mp4", 100, 1, 1).contains("[####################] 100 %"));
    }

    #[test]
    fn an_offer_says_how_to_answer_it_and_its_name_drives_no_terminal() {
        let file = crate::chat::FileOffer { name: "a\u{1b}[2J.mp4".into(), size: 1_536 };
        let show = Show::Offer { number: 3, from: "yoda".parse().unwrap(), file };
        let expected = "yoda offers you a\\u001b[2J.mp4 (1.5 KiB): /accept 3 or /decline 3";
        assert_eq!(told(&show, None).unwrap(), expected);
    }
}
