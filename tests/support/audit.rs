//! Holds what clients were told against the log as it lies on the disk: all that was answered, once, in order.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::load::{GROUP, Load, Told, command, is_message};
use crate::server::{Server, USERS, messenger};

/// The messages of a log, read from its files by nothing but their format, and further each time.
#[derive(Default)]
pub struct Audit {
    /// What has been read, over all segments.
    text: Vec<u8>,
    /// The last event.
    last: u64,
    /// The events of each user's commands, in their order.
    sent: HashMap<&'static str, Vec<u64>>,
    /// What each user is to get from others: the number of the event, and its line.
    owed: HashMap<&'static str, Vec<(u64, String)>>,
}

impl Audit {
    /// Checks the log of a server, and all that clients were told before its last start.
    ///
    /// # Errors
    /// What is lost, doubled, out of order or changed.
    pub fn check(&mut self, server: &Server, load: &Load) -> Result<(), String> {
        self.read_on(&server.data())?;
        load.try_for_each(|user, told| self.check_told(user, told))?;
        verify(server, load)
    }

    /// The same once all clients have settled: now nothing may be missing either, and what is derived from the log
    /// agrees. The server is stopped for it.
    ///
    /// # Errors
    /// As for [`Audit::check`].
    pub fn check_complete(&mut self, server: &mut Server, load: &Load) -> Result<(), String> {
        self.check(server, load)?;
        load.try_for_each(|user, told| {
            let (answered, there) = (told.answers.len(), self.sent[user].len());
            let (came, due) = (told.events.len(), self.owed[user].len());
            if answered == there && came == due {
                return Ok(());
            }
            Err(format!("{user}: {answered} of {there} commands answered, {came} of {due} messages came"))
        })?;
        assert!(server.stop().success(), "{}", server.errors());
        check_derived(server, Derived::Complete)
    }

    /// How many messages the log holds.
    pub fn messages(&self) -> usize {
        self.sent.values().map(Vec::len).sum()
    }

    /// Reads what a log has acknowledged since the last call. What was acknowledged before may not have changed.
    fn read_on(&mut self, data: &Path) -> Result<(), String> {
        let events = data.join("events");
        // Before the segments: what a server that runs writes behind it is not on the disk yet, perhaps.
        let head = std::fs::read(events.join("HEAD")).map_err(|error| format!("lost: there is no log: {error}"))?;
        let slots = head.chunks(128).filter_map(|slot| serde_json::from_slice::<Value>(slot).ok());
        let end = slots.filter_map(|slot| slot["end"].as_u64()).max().unwrap_or(0);
        let mut segments: Vec<_> = std::fs::read_dir(&events)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        segments.sort();
        let mut texts: Vec<Vec<u8>> = segments.into_iter().map(|segment| std::fs::read(segment).unwrap()).collect();
        // HEAD speaks of the newest.
        texts.last_mut().ok_or("lost: there is no segment")?.truncate(usize::try_from(end).unwrap());
        let text = texts.concat();
        if !text.starts_with(&self.text) {
            return Err("lost: what was acknowledged before is changed or gone".to_owned());
        }
        let known = std::mem::replace(&mut self.text, text).len();
        let new = self.text[known..].to_vec();
        for line in new.split(|byte| *byte == b'\n').filter(|line| line.starts_with(br#"{"seq""#)) {
            let event: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            self.last += 1;
            if event["seq"] != self.last {
                return Err(format!("event {} is missing, {} stands there", self.last, event["seq"]));
            }
            if is_message(&event) {
                self.take(self.last, &event, line)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, seq: u64, event: &Value, line: &[u8]) -> Result<(), String> {
        let user = USERS.into_iter().find(|user| event["from"] == *user).unwrap();
        let sent = self.sent.entry(user).or_default();
        let due = sent.len() as u64 + 1;
        let number: u64 = event["text"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        if number != due {
            let how = if number < due { "is there twice" } else { "is there before others" };
            return Err(format!("event {seq}: command {number} of {user} {how}, {due} was due"));
        }
        let (to, text) = command(user, number);
        let is_as_sent = match to.strip_prefix('#') {
            Some(group) => event["group"] == group,
            None => event["to"] == to,
        };
        if !is_as_sent || event["text"] != text {
            return Err(format!("event {seq} is not what {user} sent as command {number}: {event}"));
        }
        sent.push(seq);
        for each in USERS.into_iter().filter(|each| *each != user && (event["to"] == *each || event["group"] == GROUP))
        {
            self.owed.entry(each).or_default().push((seq, String::from_utf8(line.to_vec()).unwrap()));
        }
        Ok(())
    }

    /// Checks what a user was told so far: it may be less than what is in the log, and nothing else.
    fn check_told(&self, user: &str, told: &Told) -> Result<(), String> {
        if let Some(wrong) = &told.wrong {
            return Err(wrong.clone());
        }
        let sent = self.sent.get(user).map_or(&[][..], Vec::as_slice);
        let owed = self.owed.get(user).map_or(&[][..], Vec::as_slice);
        if sent.len() < told.answers.len() {
            let (answered, there) = (told.answers.len(), sent.len());
            return Err(format!("lost: {answered} commands of {user} were answered, {there} are in the log"));
        }
        for (number, (answer, there)) in told.answers.iter().zip(sent).enumerate() {
            if answer.is_some_and(|answer| answer != *there) {
                let number = number + 1;
                return Err(format!(
                    "command {number} of {user} was answered as event {answer:?}, and is event {there}"
                ));
            }
        }
        if owed.len() < told.events.len() {
            return Err(format!("lost: {} messages came to {user}, {} are in the log", told.events.len(), owed.len()));
        }
        match told.events.iter().zip(owed).find(|(came, there)| came != there) {
            Some((came, there)) => Err(format!("{user} was due {there:?}, and got {came:?}")),
            None => Ok(()),
        }
    }
}

/// Has the program verify the log, and that it holds the last head that each client has seen.
fn verify(server: &Server, load: &Load) -> Result<(), String> {
    let mut command = messenger();
    command.args(["replay", "--verify", &server.data_argument()]);
    load.try_for_each(|_, told| {
        command.args(told.heads.last().map(|head| format!("--expect={head}")));
        Ok::<(), String>(())
    })?;
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// How much of the log the derived files have to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    /// A part from the beginning, in whole lines: the server was killed.
    Beginning,
    /// All of it.
    Complete,
}

/// Compares the derived files with what the program derives from the log now. No server may run.
///
/// # Errors
/// Which file differs.
pub fn check_derived(server: &Server, expected: Derived) -> Result<(), String> {
    let fresh = tempfile::tempdir().unwrap();
    let output = messenger()
        .args(["replay", &server.data_argument(), "--derive", fresh.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["messagelog.txt".to_owned(), format!("{GROUP}_messagelog.txt"), "userlog.txt".to_owned()] {
        let is_complete = expected == Derived::Complete;
        let kept = std::fs::read(server.data().join(&name));
        let Ok(kept) = kept.or_else(|error| if is_complete { Err(error) } else { Ok(Vec::new()) }) else {
            return Err(format!("{name} is missing"));
        };
        let derived = std::fs::read(fresh.path().join(&name)).unwrap();
        // Who was logged in when the server was killed says nothing about now.
        let agrees = match expected {
            Derived::Complete => kept == derived,
            Derived::Beginning if name == "userlog.txt" => kept.last().is_none_or(|byte| *byte == b'\n'),
            Derived::Beginning => derived.starts_with(&kept) && kept.last().is_none_or(|byte| *byte == b'\n'),
        };
        if !agrees {
            return Err(format!("{name} does not agree with the log: {}", String::from_utf8_lossy(&kept)));
        }
    }
    Ok(())
}
