//! The `json` interface, for scripts: every frame received is a line on standard output, to the byte; what the client
//! itself has to say is on standard error.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::contract::{Prompt, Show};
use super::input::{Ask, Input};
use super::interface::{Interface, Typed, Wake};
use super::line::told_elsewhere;
use super::printer::Printer;
use crate::names::UserName;

/// See the module's description.
pub struct JsonInterface {
    printer: Printer,
    input: Input,
}

impl JsonInterface {
    /// An interface on standard input, output and error.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(wake: Wake) -> io::Result<Self> {
        let printer = Printer::spawn(None, Arc::clone(&wake))?;
        let on_terminal = io::IsTerminal::is_terminal(&io::stdin());
        let input = if on_terminal { Input::terminal(None, wake)? } else { Input::pipe(wake)? };
        Ok(Self { printer, input })
    }
}

impl Interface for JsonInterface {
    fn show(&mut self, show: &Show, _: Instant) {
        if let Show::Frame(line) = show {
            self.printer.print(format!("{line}\n"));
        } else if let Some(text) = told_elsewhere(show) {
            eprintln!("messenger: {text}");
        }
    }

    fn ask(&mut self, prompt: Prompt) {
        let (text, ask) = match prompt {
            Prompt::None => return,
            Prompt::UserName => ("Username: ", Ask::Line),
            Prompt::Password => ("Password: ", Ask::Secret),
            Prompt::Command => ("", Ask::Command),
        };
        if self.input.ask(ask) {
            eprint!("{text}");
        }
    }

    fn take(&mut self) -> Option<Typed> {
        self.input.take()
    }

    fn set_user(&mut self, _: UserName, _: &Path) {}

    fn printing_bytes(&self) -> usize {
        self.printer.waiting_bytes()
    }

    fn is_broken(&self) -> bool {
        self.printer.is_broken()
    }

    fn close(&mut self) {
        self.printer.close();
        self.input.close();
    }
}
