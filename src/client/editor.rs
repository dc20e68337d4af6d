//! The line that a person edits: history, and completion of commands, names and files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustyline::completion::{Completer, FilenameCompleter, Pair, unescape};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, ExternalPrinter as _, Helper};

use super::interface::Typed;
use super::limits;
use super::printer::PrintAbove;
use super::requests::OWN_USAGES;
use crate::chat::command::USAGES;
use crate::names::{GroupName, UserName};

/// Names that can be completed, shared with whoever learns them.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) users: BTreeSet<UserName>,
    pub(super) groups: BTreeSet<GroupName>,
}

/// The editor of the terminal that is standard input and output.
pub(super) struct Editor {
    editor: rustyline::Editor<Completing, DefaultHistory>,
    prompt: &'static str,
    history_file: Option<PathBuf>,
}

impl Editor {
    /// An editor with a prompt, and what prints above its line; `None` on a terminal that cannot move its cursor.
    pub(super) fn new(prompt: &'static str, names: Arc<Mutex<Names>>) -> Option<(Self, PrintAbove)> {
        let config = Config::builder()
            .max_history_size(limits::HISTORY_LINES_MAX)
            .ok()?
            .history_ignore_dups(true)
            .ok()?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = rustyline::Editor::with_config(config).ok()?;
        editor.set_helper(Some(Completing { names, files: FilenameCompleter::new() }));
        let mut printer = editor.create_external_printer().ok()?;
        let print_above = Box::new(move |text: String| printer.print(text).is_ok());
        Some((Self { editor, prompt, history_file: None }, print_above))
    }

    /// Loads lines typed before from a file, and keeps those of this run there.
    pub(super) fn keep_history(&mut self, path: PathBuf) {
        // Without a history there is only less comfort.
        let _ = self.editor.load_history(&path);
        self.history_file = Some(path);
    }

    /// Has a line edited.
    pub(super) fn read(&mut self) -> Typed {
        let line = match self.editor.readline(self.prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => return Typed::Interrupt,
            Err(_) => return Typed::End,
        };
        if line.len() >= limits::TYPED_LINE_BYTES_MAX {
            return Typed::Bad("The line is too long (at most 65,536 bytes).");
        }
        if self.editor.add_history_entry(line.as_str()).unwrap_or(false)
            && let Some(path) = &self.history_file
        {
            let _ = self.editor.append_history(path);
        }
        Typed::Line(line)
    }
}

/// Completes what is before the cursor.
struct Completing {
    names: Arc<Mutex<Names>>,
    files: FilenameCompleter,
}

impl Helper for Completing {}
impl Highlighter for Completing {}
impl Validator for Completing {}

impl Hinter for Completing {
    type Hint = String;
}

impl Completer for Completing {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..position).unwrap_or_default();
        if let Some(start) = path_start(typed) {
            return self.complete_path(typed, start);
        }
        let names = self.names.lock();
        let Ok(names) = &names else { return Ok((position, Vec::new())) };
        let (start, words) = candidates(typed, names);
        let pair = |word: String| Pair { display: word.clone(), replacement: word + " " };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Completing {
    /// A path goes to the end of the line and may hold spaces; the completer of files wants them escaped.
    fn complete_path(&self, typed: &str, start: usize) -> rustyline::Result<(usize, Vec<Pair>)> {
        let escaped = typed.get(start..).unwrap_or_default().replace(' ', "\\ ");
        let (_, found) = self.files.complete_path(&escaped, escaped.len())?;
        let plain = |pair: Pair| Pair {
            display: pair.display,
            replacement: unescape(&pair.replacement, Some('\\')).into_owned(),
        };
        Ok((start, found.into_iter().map(plain).collect()))
    }
}

/// Where the path begins that `/p2pvideo USER` is given, once it is its turn.
fn path_start(typed: &str) -> Option<usize> {
    let rest = typed.strip_prefix("/p2pvideo ")?;
    let (user, path) = rest.trim_start().split_once(' ')?;
    (!user.is_empty()).then(|| typed.len() - path.trim_start().len())
}

/// What the word before the cursor may become, and where that word begins.
fn candidates(typed: &str, names: &Names) -> (usize, Vec<String>) {
    let start = typed.rfind(' ').map_or(0, |space| space + 1);
    let word = typed.get(start..).unwrap_or_default();
    let place = typed.split(' ').filter(|word| !word.is_empty()).count() - usize::from(!word.is_empty());
    let command = typed.split(' ').next().unwrap_or_default();
    let users = || names.users.iter().map(ToString::to_string);
    let groups = || names.groups.iter().map(ToString::to_string);
    let all: Vec<String> = match (place, command) {
        (0, _) => USAGES.iter().chain(&OWN_USAGES).map(|usage| format!("/{}", usage.word)).collect(),
        (1, "/msgto" | "/p2pvideo") => users().collect(),
        (1, "/joingroup" | "/leavegroup" | "/groupmsg" | "/invite") => groups().collect(),
        (1, "/history") => users().chain(groups().map(|group| format!("#{group}"))).collect(),
        (2.., "/creategroup" | "/invite") => users().collect(),
        _ => Vec::new(),
    };
    (start, all.into_iter().filter(|candidate| candidate.starts_with(word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(typed: &str) -> (usize, Vec<String>) {
        let names = Names {
            users: ["han", "hera", "yoda"].map(|name| name.parse().unwrap()).into(),
            groups: ["hoth"].map(|name| name.parse().unwrap()).into(),
        };
        candidates(typed, &names)
    }

    fn words(typed: &str) -> Vec<String> {
        completed(typed).1
    }

    #[test]
    fn commands_are_completed_first_then_what_each_of_them_takes() {
        assert_eq!(words("/msg"), ["/msgto"]);
        assert_eq!(completed("/msgto h"), (7, vec!["han".into(), "hera".into()]));
        assert_eq!(words("/groupmsg "), ["hoth"]);
        assert_eq!(words("/history #"), ["#hoth"]);
        assert_eq!(words("/invite hoth han y"), ["yoda"]);
        assert_eq!(words("/msgto han h"), Vec::<String>::new());
        assert_eq!(words("h"), Vec::<String>::new());
    }

    #[test]
    fn a_path_goes_to_the_end_of_the_line() {
        assert_eq!(path_start("/p2pvideo yoda /tmp/a b"), Some(15));
        assert_eq!(path_start("/p2pvideo yo"), None);
        assert_eq!(path_start("/msgto yoda /tmp"), None);
    }
}
