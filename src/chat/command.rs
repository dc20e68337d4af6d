//! Commands, and the one parser that turns what a person types into them.

use super::{Refusal, Seq};
use crate::names::{GroupName, Text, UserName};

/// How many events `/history` gives without a count.
pub const HISTORY_COUNT_DEFAULT: usize = 50;
/// How many events `/history` gives at most.
pub const HISTORY_COUNT_MAX: usize = 1_000;

/// A conversation that has a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The private one with a user.
    User(UserName),
    /// A group's, written with `#`.
    Group(GroupName),
}

/// What a logged-in user can ask for, parsed: names are names, texts are texts, lists have no repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a row of USAGES, which says what it does")]
pub enum Command {
    MessageTo { to: UserName, text: Text },
    ActiveUsers,
    Users,
    CreateGroup { group: GroupName, users: Vec<UserName> },
    Invite { group: GroupName, users: Vec<UserName> },
    JoinGroup { group: GroupName },
    LeaveGroup { group: GroupName },
    GroupMessage { group: GroupName, text: Text },
    Groups,
    History { place: Place, count: usize, before: Option<Seq> },
    Help,
    Logout,
}

/// A command's word, how it is written, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The word without its slash, as answers carry it.
    pub word: &'static str,
    /// How the command is written.
    pub usage: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
}

/// All commands of the server, in the order `/help` shows them.
pub const USAGES: [Usage; 12] = [
    Usage { word: "msgto", usage: "/msgto USER TEXT", help: "Send a private message; it waits if USER is offline." },
    Usage { word: "activeuser", usage: "/activeuser", help: "Show who else is logged in." },
    Usage { word: "users", usage: "/users", help: "Show everybody who has an account." },
    Usage {
        word: "creategroup",
        usage: "/creategroup GROUP USER…",
        help: "Make a group and invite users; you are its first member.",
    },
    Usage { word: "invite", usage: "/invite GROUP USER…", help: "Invite more users to a group you are in." },
    Usage { word: "joingroup", usage: "/joingroup GROUP", help: "Join a group you are invited to." },
    Usage { word: "leavegroup", usage: "/leavegroup GROUP", help: "Leave a group." },
    Usage { word: "groupmsg", usage: "/groupmsg GROUP TEXT", help: "Send a message to every member of a group." },
    Usage { word: "groups", usage: "/groups", help: "Show your groups and who is in them." },
    Usage {
        word: "history",
        usage: "/history USER|#GROUP [COUNT] [before SEQ]",
        help: "Show past messages, the newest 50 unless COUNT says otherwise.",
    },
    Usage { word: "help", usage: "/help", help: "Show this list." },
    Usage { word: "logout", usage: "/logout", help: "End the session." },
];

/// The usage of the command whose word is `word`.
pub fn usage_of(word: &str) -> Option<&'static Usage> {
    USAGES.iter().find(|usage| usage.word == word)
}

impl Command {
    /// Parses what a person typed.
    ///
    /// # Errors
    /// Refused in this order: no such command, wrong arguments, wrong form of a name or text.
    pub fn parse(line: &str) -> Result<Self, Refusal> {
        let (word, rest) = Self::split(line)?;
        let mut words = Words { rest, usage: word.usage };
        match word.word {
            "msgto" => {
                let (to, text) = words.name_and_text()?;
                Ok(Self::MessageTo { to: to.parse()?, text: text.parse()? })
            }
            "groupmsg" => {
                let (group, text) = words.name_and_text()?;
                Ok(Self::GroupMessage { group: group.parse()?, text: text.parse()? })
            }
            "creategroup" => {
                let (group, users) = words.name_and_users()?;
                Ok(Self::CreateGroup { group, users })
            }
            "invite" => {
                let (group, users) = words.name_and_users()?;
                Ok(Self::Invite { group, users })
            }
            "joingroup" => Ok(Self::JoinGroup { group: words.only()?.parse()? }),
            "leavegroup" => Ok(Self::LeaveGroup { group: words.only()?.parse()? }),
            "history" => words.history(),
            bare => {
                words.end()?;
                Ok(match bare {
                    "activeuser" => Self::ActiveUsers,
                    "users" => Self::Users,
                    "groups" => Self::Groups,
                    "help" => Self::Help,
                    _ => Self::Logout,
                })
            }
        }
    }

    /// The usage of the command a line starts with, and what follows its word.
    ///
    /// # Errors
    /// The line starts with no command.
    pub fn split(line: &str) -> Result<(&'static Usage, &str), Refusal> {
        let line = line.trim_start_matches(' ');
        let end = word_length(line);
        let word = line[..end].strip_prefix('/').ok_or(Refusal::UnknownCommand)?;
        Ok((usage_of(word).ok_or(Refusal::UnknownCommand)?, &line[end..]))
    }

    /// The word without its slash.
    pub fn word(&self) -> &'static str {
        match self {
            Self::MessageTo { .. } => "msgto",
            Self::ActiveUsers => "activeuser",
            Self::Users => "users",
            Self::CreateGroup { .. } => "creategroup",
            Self::Invite { .. } => "invite",
            Self::JoinGroup { .. } => "joingroup",
            Self::LeaveGroup { .. } => "leavegroup",
            Self::GroupMessage { .. } => "groupmsg",
            Self::Groups => "groups",
            Self::History { .. } => "history",
            Self::Help => "help",
            Self::Logout => "logout",
        }
    }

    /// Whether the command makes an event that its device numbers.
    pub fn is_changing(&self) -> bool {
        word_is_changing(self.word())
    }
}

/// Whether the command of this word makes an event that its device numbers.
pub fn word_is_changing(word: &str) -> bool {
    matches!(word, "msgto" | "groupmsg" | "creategroup" | "invite" | "joingroup" | "leavegroup")
}

/// What is left of a line, read word by word.
struct Words<'a> {
    rest: &'a str,
    usage: &'static str,
}

/// How long the word at the beginning is. Words are short: byte by byte is quicker than a call that looks at many.
fn word_length(text: &str) -> usize {
    text.bytes().position(|byte| byte == b' ').unwrap_or(text.len())
}

impl<'a> Words<'a> {
    fn wrong(&self) -> Refusal {
        Refusal::Usage { usage: self.usage }
    }

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start_matches(' ');
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        let end = word_length(rest);
        self.rest = &rest[end..];
        Some(&rest[..end])
    }

    fn need(&mut self) -> Result<&'a str, Refusal> {
        self.next().ok_or_else(|| self.wrong())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.next().map_or(Ok(()), |_| Err(self.wrong()))
    }

    fn only(&mut self) -> Result<&'a str, Refusal> {
        let word = self.need()?;
        self.end()?;
        Ok(word)
    }

    /// A name, and everything behind the one space after it.
    fn name_and_text(&mut self) -> Result<(&'a str, &'a str), Refusal> {
        let name = self.need()?;
        let text = self.rest.strip_prefix(' ').ok_or_else(|| self.wrong())?;
        Ok((name, text))
    }

    /// A group, and at least one user; repeats collapse.
    fn name_and_users(&mut self) -> Result<(GroupName, Vec<UserName>), Refusal> {
        let group = self.need()?;
        let mut words = vec![self.need()?];
        words.extend(std::iter::from_fn(|| self.next()));
        let group = group.parse()?;
        let mut seen = std::collections::HashSet::new();
        let mut users = Vec::new();
        for word in words {
            let user: UserName = word.parse()?;
            if seen.insert(user) {
                users.push(user);
            }
        }
        Ok((group, users))
    }

    fn history(&mut self) -> Result<Command, Refusal> {
        let place = self.need()?;
        let mut count = HISTORY_COUNT_DEFAULT;
        let mut before = None;
        let mut next = self.next();
        if let Some(word) = next.filter(|word| *word != "before") {
            if word.bytes().any(|byte| !byte.is_ascii_digit()) || word.bytes().all(|byte| byte == b'0') {
                return Err(self.wrong());
            }
            // What no number holds is more than the most, too.
            count = word.parse().unwrap_or(HISTORY_COUNT_MAX).min(HISTORY_COUNT_MAX);
            next = self.next();
        }
        if let Some(word) = next {
            let number = if word == "before" { self.need()?.parse().ok() } else { None };
            before = Some(number.ok_or_else(|| self.wrong())?);
        }
        self.end()?;
        let place = match place.strip_prefix('#') {
            Some(group) => Place::Group(group.parse()?),
            None => Place::User(place.parse()?),
        };
        Ok(Command::History { place, count, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(line: &str) -> &'static str {
        Command::parse(line).unwrap_err().code()
    }

    #[test]
    fn text_is_the_rest_of_the_line_after_one_space() {
        let Command::MessageTo { to, text } = Command::parse("/msgto   yoda  a  b\n c ").unwrap() else { panic!() };
        assert_eq!((to.as_str(), text.as_str()), ("yoda", " a  b\n c "));
    }

    #[test]
    fn words_are_separated_by_any_number_of_spaces_and_repeats_collapse() {
        let command = Command::parse("/creategroup  g1   yoda r2d2  yoda ").unwrap();
        let users = vec!["yoda".parse().unwrap(), "r2d2".parse().unwrap()];
        assert_eq!(command, Command::CreateGroup { group: "g1".parse().unwrap(), users });
    }

    #[test]
    fn what_is_no_command_is_unknown() {
        for line in ["", "hello", "/", "/MSGTO a b", "/login yoda x", "msgto yoda hi", "/msgto\nyoda hi"] {
            assert_eq!(code(line), "unknown_command", "{line:?}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_before_wrong_forms() {
        for line in
            ["/msgto", "/msgto yoda", "/msgto b@d", "/groupmsg g", "/creategroup", "/creategroup g-1", "/invite g"]
        {
            assert_eq!(code(line), "usage", "{line:?}");
        }
        for line in ["/activeuser x", "/joingroup", "/joingroup a b", "/groups all", "/logout now", "/help msgto"] {
            assert_eq!(code(line), "usage", "{line:?}");
        }
    }

    #[test]
    fn forms_are_refused_by_what_is_wrong_with_them() {
        assert_eq!(code("/msgto b@d hi"), "bad_name");
        assert_eq!(code("/creategroup g-1 yoda"), "bad_name");
        assert_eq!(code("/history #g-1"), "bad_name");
        assert_eq!(code("/msgto yoda "), "empty_text");
        assert_eq!(code("/groupmsg g1  \n"), "empty_text");
        assert_eq!(code(&format!("/msgto yoda {}", "x".repeat(16_385))), "text_too_long");
    }

    #[test]
    fn history_takes_a_count_and_a_place_to_end_before() {
        let parsed = |line: &str| match Command::parse(line).unwrap() {
            Command::History { count, before, .. } => (count, before),
            other => panic!("{other:?}"),
        };
        assert_eq!(parsed("/history yoda"), (50, None));
        assert_eq!(parsed("/history #g1 5"), (5, None));
        assert_eq!(parsed("/history #g1 5000 before 99"), (1_000, Some(99)));
        assert_eq!(parsed("/history yoda before 99"), (50, Some(99)));
        assert_eq!(parsed("/history yoda 99999999999999999999999"), (1_000, None));
        for line in ["/history", "/history yoda 0", "/history yoda x", "/history yoda 5 before", "/history yoda 5 6"] {
            assert_eq!(code(line), "usage", "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "[/a-z #0-9\n]{0,40}|\\PC*") {
            if let Ok(command) = Command::parse(&line) {
                prop_assert!(usage_of(command.word()).is_some());
            }
        }
    }
}
