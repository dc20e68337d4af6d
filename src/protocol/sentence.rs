//! Sentences for people: the one renderer of answers, refusals and events, for client, plain dialect and console.

use std::fmt::Write as _;

use super::{Answer, ErrorAnswer, UserEntry};
use crate::chat::{Addressee, Event, FileOffer, LogoutReason, Outcome, Record, Refusal};
use crate::clock::Timestamp;
use crate::names::{FormError, UserName};

/// How moments are written: the client's local time, or UTC.
pub type TimeForm = fn(Timestamp) -> String;

/// Text from others made harmless for a terminal: controls and bidirectional overrides become visible escapes, so
/// that one message is one line and nothing moves the cursor or turns the reading order.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || is_bidi_control(c) || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether a character changes the direction in which others are shown (Unicode UAX #9, section 2).
pub fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a command was refused. `command` is its word, where one was recognised.
pub fn refusal(refusal: &Refusal, command: Option<&str>) -> String {
    match refusal {
        Refusal::BadLine(why) => format!("Error. Not understood: {why}."),
        Refusal::LineTooLong => "Error. The line is too long (at most 65,536 bytes).".into(),
        Refusal::CleartextRefused => {
            "Error. This server takes no clear text from other machines: speak TLS, or see serve --allow-cleartext."
                .into()
        }
        Refusal::NotLoggedIn => "Please login".into(),
        Refusal::AlreadyLoggedIn => "You are already logged in.".into(),
        Refusal::BadCredentials { .. } => "Invalid Password. Please try again".into(),
        Refusal::Blocked { by_this: true, .. } => {
            "Invalid Password. Your account has been blocked. Please try again later".into()
        }
        Refusal::Blocked { .. } => {
            "Your account is blocked due to multiple login failures. Please try again later".into()
        }
        Refusal::TooManySessions => "You are logged in too many times already. End another session first.".into(),
        Refusal::UnknownCommand => "Error. Invalid command!".into(),
        Refusal::Usage { .. } if command == Some("creategroup") => {
            "Please enter at least one more active users.".into()
        }
        Refusal::Usage { usage } => format!("Usage: {usage}"),
        Refusal::Form(FormError::BadName(rule)) => format!("Error. Not a name: {rule}."),
        Refusal::Form(FormError::EmptyText) => "Error. The message is empty.".into(),
        Refusal::Form(FormError::TextTooLong) => "Error. The message is longer than 16,384 bytes.".into(),
        Refusal::UnknownUser(user) => format!("There is no user {user}."),
        Refusal::UnknownGroup(_) if command == Some("groupmsg") => "The group chat does not exist.".into(),
        Refusal::UnknownGroup(group) => format!("Groupchat {group} doesn't exist."),
        Refusal::GroupExists(group) => format!("Failed to create the group chat {group}: group name exists!"),
        Refusal::NotInvited(group) => format!("You are not invited to Groupchat {group}."),
        Refusal::NotJoined { invited: true, .. } if command == Some("groupmsg") => {
            "Please join the group before sending messages.".into()
        }
        Refusal::NotJoined { invited: true, group } => format!("Please join Groupchat {group} first."),
        Refusal::NotJoined { .. } => "You are not in this group chat.".into(),
        Refusal::AlreadyJoined { group, .. } if command == Some("joingroup") => {
            format!("You have already joined Groupchat {group}")
        }
        Refusal::AlreadyJoined { group, user } => format!("{user} has already joined Groupchat {group}"),
        Refusal::AlreadyInvited { group, user } => format!("{user} is already invited to Groupchat {group}"),
        Refusal::NoSuchPeer(user) => format!("{user} is offline"),
        Refusal::UnknownTransfer => "No such transfer is waiting.".into(),
        Refusal::OutOfOrder { expected } => format!("Error. The command's number should have been {expected}."),
        Refusal::Duplicate { .. } => "This was carried out before.".into(),
        Refusal::LimitReached { limit } => format!("Error. A limit of the server is reached: {limit}."),
        Refusal::StorageFailed => {
            "Error. The server cannot store anything now (is its disk full?). Nothing happened.".into()
        }
        Refusal::LogUnreadable => {
            "Error. The server's log is damaged there or cannot be read. Its administrator finds the \
                                   place with `messenger replay --verify`."
                .into()
        }
        Refusal::Replaced => "The same device logged in again; this session ends.".into(),
        Refusal::ShuttingDown => "The server is shutting down.".into(),
    }
}

/// What an answer says, one line or several.
pub fn answer(answer: &Answer, time: TimeForm) -> String {
    let group = answer.group.map(|group| group.to_string()).unwrap_or_default();
    if answer.duplicate == Some(true) {
        return "This was carried out before.".into();
    }
    match answer.command.as_str() {
        "login" => "Welcome to Messenger!".into(),
        "msgto" => format!("message sent at {}.", answer.ts.map(time).unwrap_or_default()),
        "activeuser" => active_users(answer.users.as_deref().unwrap_or_default(), time),
        "users" => lines(answer.users.iter().flatten().map(|entry| {
            let presence = if entry.online == Some(true) { "online" } else { "offline" };
            format!("{}, {presence}", entry.user)
        })),
        "creategroup" => format!(
            "Group chat room has been created, room name: {group}, users in this room: {}",
            names(answer.joined.iter().chain(&answer.invited).flatten())
        ),
        "invite" => format!("Invited to the group chat {group}: {}", names(answer.invited.iter().flatten())),
        "joingroup" => format!("Joined the group chat: {group} successfully."),
        "leavegroup" => format!("Left the group chat: {group}."),
        "groupmsg" => "Group chat message sent.".into(),
        "groups" => {
            let groups = answer.groups.as_deref().unwrap_or_default();
            if groups.is_empty() {
                return "You are in no group.".into();
            }
            lines(groups.iter().map(|entry| {
                let joined = names(&entry.joined);
                if entry.invited.is_empty() {
                    format!("{}, made by {}, joined: {joined}", entry.group, entry.creator)
                } else {
                    let invited = names(&entry.invited);
                    format!("{}, made by {}, joined: {joined}, invited: {invited}", entry.group, entry.creator)
                }
            }))
        }
        "history" => history(answer, time),
        "help" => lines(answer.commands.iter().flatten().map(|entry| format!("{:<42} {}", entry.usage, entry.help))),
        "logout" => match answer.user {
            Some(user) => format!("Bye, {user}!"),
            None => "Bye!".into(),
        },
        "ping" => {
            format!("The log stands at {} {}", answer.seq.unwrap_or(0), answer.root.as_deref().unwrap_or_default())
        }
        other => format!("{other}: done."),
    }
}

/// An error as the server worded it, with what helps.
pub fn error(error: &ErrorAnswer) -> String {
    visible(&error.message)
}

fn active_users(users: &[UserEntry], time: TimeForm) -> String {
    if users.is_empty() {
        return "no other active user".into();
    }
    lines(users.iter().map(|entry| {
        let ip = entry.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let port = entry.udp_port.map_or_else(|| "no UDP port".into(), |port| port.to_string());
        format!("{}, {ip}, {port}, active since {}.", entry.user, entry.since.map(time).unwrap_or_default())
    }))
}

fn history(answer: &Answer, time: TimeForm) -> String {
    let mut told: Vec<String> = Vec::new();
    if answer.more == Some(true) {
        let first = answer.events.iter().flatten().find_map(|line| Event::decode(line.get().as_bytes()).ok());
        told.push(format!("(there is more: add \"before {}\")", first.map_or(0, |record| record.seq)));
    }
    for line in answer.events.iter().flatten() {
        if let Ok(record) = Event::decode(line.get().as_bytes()) {
            told.push(past_event(&record, time));
        }
    }
    if told.is_empty() { "Nothing yet.".into() } else { told.join("\n") }
}

/// An event as a bystander tells it: when, and who did what to whom.
pub fn past_event(record: &Record, time: TimeForm) -> String {
    format!("{}, {}", time(record.at), happening(&record.event, time))
}

/// What happened, as a bystander tells it, without its own moment.
pub fn happening(event: &Event, time: TimeForm) -> String {
    match event {
        Event::Message { from, to, text, .. } => format!("{from} to {to}: {}", visible(text.as_str())),
        Event::GroupMessage { group, from, text, .. } => format!("{group}, {from}: {}", visible(text.as_str())),
        // Said otherwise than any message is, so that no text can pose as it.
        Event::Erased { from, to: Addressee::User(to), .. } => format!("a message of {from} to {to} was erased"),
        Event::Erased { from, to: Addressee::Group(group), .. } => format!("{group}: a message of {from} was erased"),
        Event::GroupCreated { group, by, invited, .. } => {
            format!("{by} created the group chat {group} and invited {}", names(invited))
        }
        Event::GroupInvited { group, by, invited, .. } => format!("{group}: {by} invited {}", names(invited)),
        Event::GroupJoined { group, user, .. } => format!("{group}: {user} joined"),
        Event::GroupLeft { group, user, .. } => format!("{group}: {user} left"),
        Event::Login { user, session, ip, udp_port, device } => {
            let mut told = format!("{user} logged in from {ip}, session {session}");
            if let Some(device) = device {
                let _ = write!(told, ", device {device}");
            }
            if let Some(port) = udp_port {
                let _ = write!(told, ", UDP port {port}");
            }
            told
        }
        Event::LoginFailed { user, ip, failures } => format!("{user} failed to log in from {ip}, {failures} in a row"),
        Event::UserBlocked { user, until } => format!("{user} is blocked until {}", time(*until)),
        Event::Logout { user, session, reason } => {
            format!("{user} logged out, session {session}: {}", logout_reason(*reason))
        }
        Event::TransferOffered { from, to, transfer, files } => {
            format!("{from} offers {to} {}, transfer {}", file_list(files), beginning(transfer.as_str()))
        }
        Event::TransferAnswered { transfer, user, accept } => {
            let verb = if *accept { "accepts" } else { "declines" };
            format!("{user} {verb} transfer {}", beginning(transfer.as_str()))
        }
        Event::TransferEnded { transfer, outcome, bytes, .. } => {
            let bytes = bytes.map(|bytes| format!(", {}", byte_count(bytes))).unwrap_or_default();
            format!("transfer {} {}{bytes}", beginning(transfer.as_str()), outcome_words(*outcome))
        }
        Event::KeyBound { user, key, .. } => format!("{user} uses the key {}…", beginning(&visible(key))),
        Event::Erasure { by, reason, erased } => {
            let erased: Vec<String> = erased.iter().map(u64::to_string).collect();
            format!("{} had the text of {} erased: {}", visible(by), erased.join(", "), visible(reason))
        }
        Event::ServerStarted { version } => format!("the server started, version {}", visible(version)),
        Event::ServerStopped { version } => format!("the server stopped, version {}", visible(version)),
    }
}

/// As much of a long number in hexadecimal as tells it from others at hand.
fn beginning(number: &str) -> String {
    number.chars().take(8).collect()
}

/// An event as it is shown to `viewer` when it comes in.
pub fn event(record: &Record, viewer: UserName, time: TimeForm) -> String {
    let at = time(record.at);
    match &record.event {
        Event::Message { from, to, text, .. } if *from == viewer && *to != viewer => {
            format!("{at}, {from} to {to}: {}", visible(text.as_str()))
        }
        Event::Message { from, text, .. } => format!("{at}, {from}: {}", visible(text.as_str())),
        Event::GroupCreated { group, by, invited, .. } if invited.contains(&viewer) => {
            format!("{at}, {by} created the group chat {group} and invited you: /joingroup {group}")
        }
        Event::GroupInvited { group, by, invited, .. } if invited.contains(&viewer) => {
            format!("{at}, {by} invited you to the group chat {group}: /joingroup {group}")
        }
        Event::Login { user, .. } => format!("{at}, {user} logged in"),
        Event::Logout { user, .. } => format!("{at}, {user} logged out"),
        _ => past_event(record, time),
    }
}

/// Names of files with their sizes, made harmless.
pub fn file_list(files: &[FileOffer]) -> String {
    let told: Vec<String> =
        files.iter().map(|file| format!("{} ({})", visible(&file.name), byte_count(file.size))).collect();
    told.join(", ")
}

/// A number of bytes as people say it, in powers of 1,024.
pub fn byte_count(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut whole = bytes;
    let mut tenths = 0;
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        tenths = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{whole}.{tenths} {}", UNITS[unit]) }
}

fn logout_reason(reason: LogoutReason) -> &'static str {
    match reason {
        LogoutReason::Logout => "said goodbye",
        LogoutReason::Disconnected => "connection lost",
        LogoutReason::Timeout => "silent for too long",
        LogoutReason::Replaced => "the same device logged in again",
        LogoutReason::Shutdown => "the server stopped",
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "is done",
        Outcome::Declined => "was declined",
        Outcome::Cancelled => "was cancelled",
        Outcome::Failed => "failed",
    }
}

fn names<'a>(users: impl IntoIterator<Item = &'a UserName>) -> String {
    let names: Vec<&str> = users.into_iter().map(UserName::as_str).collect();
    names.join(", ")
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: Event, viewer: &str) -> String {
        let record = Record { seq: 1, at: "2023-06-01T15:00:01Z".parse().unwrap(), event };
        super::event(&record, viewer.parse().unwrap(), Timestamp::to_utc_words)
    }

    fn message(text: &str) -> Event {
        let (from, to) = ("yoda".parse().unwrap(), "obiwan".parse().unwrap());
        Event::Message { from, to, text: text.parse().unwrap(), origin: None }
    }

    #[test]
    fn a_message_names_its_sender_to_the_receiver_and_its_receiver_to_the_sender() {
        assert_eq!(told(message("hello"), "obiwan"), "01 Jun 2023 15:00:01, yoda: hello");
        assert_eq!(told(message("hello"), "yoda"), "01 Jun 2023 15:00:01, yoda to obiwan: hello");
    }

    #[test]
    fn no_text_can_forge_a_line_or_drive_the_terminal() {
        let shown = told(message("a\n01 Jun 2023 15:00:01, han: b\u{1b}[2J\u{202e}"), "obiwan");
        assert_eq!(shown, "01 Jun 2023 15:00:01, yoda: a\\n01 Jun 2023 15:00:01, han: b\\u001b[2J\\u202e");
    }

    #[test]
    fn byte_counts_are_said_in_powers_of_1024() {
        assert_eq!(byte_count(1_023), "1023 bytes");
        assert_eq!(byte_count(1_536), "1.5 KiB");
        assert_eq!(byte_count(1 << 30), "1.0 GiB");
        assert_eq!(byte_count(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn answers_are_the_ancestors_sentences() {
        let ts = "2023-06-01T15:00:01Z".parse().ok();
        let sent = Answer { command: "msgto".into(), ts, ..Answer::default() };
        assert_eq!(answer(&sent, Timestamp::to_utc_words), "message sent at 01 Jun 2023 15:00:01.");
        let nobody = Answer { command: "activeuser".into(), users: Some(vec![]), ..Answer::default() };
        assert_eq!(answer(&nobody, Timestamp::to_utc_words), "no other active user");
        let bye = Answer { command: "logout".into(), user: "Yoda".parse().ok(), ..Answer::default() };
        assert_eq!(answer(&bye, Timestamp::to_utc_words), "Bye, Yoda!");
    }
}
