//! The rules, each as a sentence that is true, and the properties that hold for every run.

use proptest::prelude::*;

use super::policy::BLOCK_MS;
use super::*;
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, UserName};

/// A chat in memory: decides, applies, and keeps what a log would hold.
struct Chat {
    state: State,
    policy: Policy,
    log: Vec<Record>,
    at: Timestamp,
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn device(name: &str) -> DeviceName {
    name.parse().unwrap()
}

fn local() -> std::net::IpAddr {
    "127.0.0.1".parse().unwrap()
}

impl Chat {
    fn new() -> Self {
        let accounts = ["han", "leia", "luke", "yoda"].map(user).into_iter().collect();
        let at = Timestamp::from_ms(1_000_000);
        Self { state: State::default(), policy: Policy { failures_max: 3, accounts }, log: Vec::new(), at }
    }

    fn commit(&mut self, events: Vec<Event>) -> Vec<Event> {
        for event in &events {
            let seq = self.state.seq + 1;
            self.state.apply(seq, self.at, event);
            self.state.assert_invariants();
            self.log.push(Record { seq, at: self.at, event: event.clone() });
        }
        events
    }

    fn login_with(&mut self, name: &str, device: Option<DeviceName>) -> Result<Session, Refusal> {
        let request = LoginRequest { user: user(name), ip: local(), udp_port: None, device };
        self.state.check_block(request.user, self.at)?;
        let events = self.state.decide_login(&request)?;
        self.commit(events);
        Ok(Session { id: self.state.last_session, user: request.user, device })
    }

    fn login(&mut self, name: &str) -> Session {
        self.login_with(name, None).unwrap()
    }

    fn wrong_password(&mut self, name: &str) -> Refusal {
        if let Err(refusal) = self.state.check_block(user(name), self.at) {
            return refusal;
        }
        let (events, refusal) = self.state.decide_wrong_password(&self.policy, self.at, user(name), local());
        self.commit(events);
        refusal
    }

    fn numbered(&mut self, who: &Session, number: Option<u64>, line: &str) -> Result<Vec<Event>, Refusal> {
        let command = Command::parse(line)?;
        let before = self.state.clone();
        let events = self.state.decide(&self.policy, self.at, who, number, &command);
        assert!(before == self.state, "deciding changed the state");
        Ok(self.commit(events?))
    }

    fn say(&mut self, who: &Session, line: &str) -> Result<Vec<Event>, Refusal> {
        self.numbered(who, None, line)
    }

    fn code(&mut self, who: &Session, line: &str) -> &'static str {
        self.say(who, line).map_or_else(|refusal| refusal.code(), |_| "ok")
    }

    fn wait(&mut self, ms: u64) {
        self.at = self.at.plus_ms(ms);
    }
}

#[test]
fn the_nth_wrong_password_in_a_row_blocks_for_ten_seconds_from_it() {
    let mut chat = Chat::new();
    assert_eq!(chat.wrong_password("han"), Refusal::BadCredentials { attempts_left: 2 });
    assert_eq!(chat.wrong_password("han"), Refusal::BadCredentials { attempts_left: 1 });
    assert_eq!(chat.wrong_password("han"), Refusal::Blocked { retry_after_ms: BLOCK_MS, by_this: true });
    chat.wait(BLOCK_MS - 1);
    let refused = chat.login_with("han", None).unwrap_err();
    assert_eq!(refused, Refusal::Blocked { retry_after_ms: 1, by_this: false });
    chat.wait(1);
    chat.login("han");
}

#[test]
fn attempts_during_a_block_are_not_recorded_and_do_not_lengthen_it() {
    let mut chat = Chat::new();
    for _ in 0..3 {
        chat.wrong_password("han");
    }
    let events = chat.log.len();
    chat.wait(BLOCK_MS / 2);
    assert_eq!(chat.wrong_password("han"), Refusal::Blocked { retry_after_ms: BLOCK_MS / 2, by_this: false });
    assert_eq!(chat.log.len(), events);
}

#[test]
fn the_end_of_a_block_and_a_good_login_set_the_count_back() {
    let mut chat = Chat::new();
    for _ in 0..3 {
        chat.wrong_password("han");
    }
    chat.wait(BLOCK_MS);
    assert_eq!(chat.wrong_password("han"), Refusal::BadCredentials { attempts_left: 2 });
    chat.login("han");
    assert_eq!(chat.wrong_password("han"), Refusal::BadCredentials { attempts_left: 2 });
}

#[test]
fn one_allowed_failure_blocks_at_once() {
    let mut chat = Chat::new();
    chat.policy.failures_max = 1;
    assert!(matches!(chat.wrong_password("han"), Refusal::Blocked { by_this: true, .. }));
}

#[test]
fn names_without_an_account_count_and_block_within_a_bounded_table() {
    let mut chat = Chat::new();
    for _ in 0..3 {
        chat.wrong_password("nobody");
    }
    assert_eq!(chat.wrong_password("nobody").code(), "blocked");
    for number in 0..login::STRANGERS_MAX {
        let event = Event::LoginFailed { user: user(&format!("stranger{number}")), ip: local(), failures: 1 };
        chat.state.apply(chat.state.seq + 1, chat.at, &event);
    }
    chat.state.assert_invariants();
    assert_eq!(chat.wrong_password("nobody").code(), "bad_credentials", "the oldest name is forgotten");
}

#[test]
fn a_block_is_not_forgotten_for_who_has_ever_logged_in() {
    let mut chat = Chat::new();
    chat.login("han");
    for _ in 0..3 {
        chat.wrong_password("han");
    }
    for number in 0..=login::STRANGERS_MAX {
        let event = Event::LoginFailed { user: user(&format!("stranger{number}")), ip: local(), failures: 1 };
        chat.state.apply(chat.state.seq + 1, chat.at, &event);
    }
    assert_eq!(chat.wrong_password("han").code(), "blocked");
}

#[test]
fn the_ninth_session_is_refused_unless_it_replaces_one() {
    let mut chat = Chat::new();
    chat.login_with("han", Some(device("falcon"))).unwrap();
    for _ in 0..7 {
        chat.login("han");
    }
    assert_eq!(chat.login_with("han", None).unwrap_err(), Refusal::TooManySessions);
    chat.login_with("han", Some(device("falcon"))).unwrap();
    assert_eq!(chat.state.users[&user("han")].sessions.len(), 8);
}

#[test]
fn a_second_login_of_a_device_ends_the_first_session() {
    let mut chat = Chat::new();
    let first = chat.login_with("han", Some(device("falcon"))).unwrap();
    chat.login_with("han", Some(device("falcon"))).unwrap();
    let replaced = &chat.log[1].event;
    assert_eq!(*replaced, Event::Logout { user: first.user, session: first.id, reason: LogoutReason::Replaced });
}

#[test]
fn a_login_is_owed_everything_since_the_last_logout_or_the_login_of_a_session_that_broke() {
    let mut chat = Chat::new();
    let han = chat.login("han");
    assert_eq!(chat.state.resume_after(han.user), Some(0), "a first login gets everything");
    chat.say(&han, "/logout").unwrap();
    let logout_seq = chat.state.seq;
    let again = chat.login("han");
    assert_eq!(chat.state.resume_after(han.user), Some(logout_seq));
    let login_seq = chat.state.seq;
    chat.login("han");
    assert_eq!(chat.state.resume_after(han.user), None, "another session is there");
    let second = Session { id: chat.state.last_session, ..again };
    let event = chat.state.logout_event(&second, LogoutReason::Logout);
    chat.commit(vec![event]);
    let event = chat.state.logout_event(&again, LogoutReason::Disconnected);
    chat.commit(vec![event]);
    assert_eq!(chat.state.resume_after(han.user), Some(login_seq));
}

#[test]
fn a_start_ends_all_sessions_and_all_transfers_of_the_last_run() {
    let mut chat = Chat::new();
    let han = chat.login("han");
    let login_seq = chat.state.seq;
    chat.login("leia");
    let transfer = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let files = [FileOffer { name: "a".into(), size: 1 }];
    let events = chat.state.decide_offer(&chat.policy, &han, user("leia"), transfer, &files, "00ff").unwrap();
    assert_eq!(chat.commit(events).len(), 2, "the key is bound with the offer");
    let events = chat.state.decide_start("1.0");
    let ended = Event::TransferEnded { transfer, outcome: Outcome::Cancelled, bytes: None, hash: None, path: None };
    assert_eq!(chat.commit(events), [Event::ServerStarted { version: "1.0".into() }, ended]);
    assert_eq!(chat.state.sessions().count(), 0);
    assert_eq!(chat.state.resume_after(han.user), Some(login_seq));
}

#[test]
fn messages_go_to_whoever_has_an_account_online_or_not() {
    let mut chat = Chat::new();
    let han = chat.login("han");
    assert_eq!(chat.code(&han, "/msgto leia I know"), "ok");
    assert_eq!(chat.code(&han, "/msgto han note to self"), "ok");
    assert_eq!(chat.code(&han, "/msgto jabba pay"), "unknown_user");
}

#[test]
fn the_maker_of_a_group_is_its_first_member_and_the_others_are_invited() {
    let mut chat = Chat::new();
    let han = chat.login("han");
    chat.say(&han, "/creategroup falcon leia han leia").unwrap();
    let made = &chat.state.groups[&group("falcon")];
    assert!(made.joined.keys().eq(&[user("han")]) && made.invited.iter().eq(&[user("leia")]));
}

#[test]
fn groups_are_refused_in_the_order_usage_existence_membership() {
    let mut chat = Chat::new();
    let (han, leia, luke) = (chat.login("han"), chat.login("leia"), chat.login("luke"));
    assert_eq!(chat.code(&han, "/creategroup falcon han"), "usage");
    assert_eq!(chat.code(&han, "/creategroup falcon jabba"), "unknown_user");
    assert_eq!(chat.code(&han, "/creategroup falcon leia"), "ok");
    assert_eq!(chat.code(&luke, "/creategroup falcon han"), "group_exists");
    assert_eq!(chat.code(&luke, "/creategroup falcon luke"), "usage");
    for line in ["/joingroup x", "/leavegroup x", "/groupmsg x hi", "/invite x leia", "/history #x"] {
        assert_eq!(chat.code(&luke, line), "unknown_group", "{line}");
    }
    assert_eq!(chat.code(&luke, "/joingroup falcon"), "not_invited");
    for line in ["/leavegroup falcon", "/groupmsg falcon hi", "/invite falcon yoda", "/history #falcon"] {
        assert_eq!(chat.code(&luke, line), "not_joined", "{line}");
        assert_eq!(chat.code(&leia, line), "not_joined", "{line}: invited is not joined");
    }
    assert_eq!(chat.code(&luke, "/invite falcon jabba"), "unknown_user");
    assert_eq!(chat.code(&leia, "/joingroup falcon"), "ok");
    assert_eq!(chat.code(&leia, "/joingroup falcon"), "already_joined");
    assert_eq!(chat.code(&leia, "/invite falcon han"), "already_joined");
    assert_eq!(chat.code(&leia, "/invite falcon luke"), "ok");
    assert_eq!(chat.code(&leia, "/invite falcon yoda luke"), "already_invited");
    assert!(!chat.state.groups[&group("falcon")].invited.contains(&user("yoda")), "all or nothing");
}

#[test]
fn who_left_comes_back_by_invitation_and_sees_up_to_the_own_leaving() {
    let mut chat = Chat::new();
    let (han, leia) = (chat.login("han"), chat.login("leia"));
    chat.say(&han, "/creategroup falcon leia").unwrap();
    chat.say(&leia, "/joingroup falcon").unwrap();
    let joined = chat.state.seq;
    chat.say(&leia, "/leavegroup falcon").unwrap();
    let left = chat.state.seq;
    assert_eq!(chat.code(&leia, "/joingroup falcon"), "not_invited");
    assert_eq!(chat.state.history_span(&chat.policy, &leia, Place::Group(group("falcon"))), Ok(left));
    chat.say(&han, "/invite falcon leia").unwrap();
    chat.say(&leia, "/joingroup falcon").unwrap();
    let again = chat.state.seq;
    assert_eq!(chat.state.membership_spans(leia.user, group("falcon")), [(joined, left), (again, Seq::MAX)]);
    assert_eq!(chat.state.history_span(&chat.policy, &leia, Place::Group(group("falcon"))), Ok(Seq::MAX));
}

#[test]
fn a_group_that_all_have_left_keeps_its_name() {
    let mut chat = Chat::new();
    let han = chat.login("han");
    chat.say(&han, "/creategroup falcon leia").unwrap();
    chat.say(&han, "/leavegroup falcon").unwrap();
    assert_eq!(chat.code(&han, "/creategroup falcon leia"), "group_exists");
}

#[test]
fn a_device_numbers_its_changing_commands_without_gaps() {
    let mut chat = Chat::new();
    let han = chat.login_with("han", Some(device("falcon"))).unwrap();
    let msg = "/msgto leia hi";
    assert_eq!(chat.numbered(&han, None, msg), Err(Refusal::OutOfOrder { expected: 1 }));
    assert_eq!(chat.numbered(&han, Some(2), msg), Err(Refusal::OutOfOrder { expected: 1 }));
    assert_eq!(chat.numbered(&han, Some(0), msg), Err(Refusal::OutOfOrder { expected: 1 }));
    chat.numbered(&han, Some(1), msg).unwrap();
    let made = Some((chat.state.seq, chat.at));
    assert_eq!(chat.numbered(&han, Some(1), msg), Err(Refusal::Duplicate { made }));
    chat.numbered(&han, Some(2), msg).unwrap();
    assert_eq!(chat.numbered(&han, Some(1), msg), Err(Refusal::Duplicate { made: None }));
    assert_eq!(chat.numbered(&han, Some(1), "/groups"), Ok(vec![]), "queries carry any number");
}

#[test]
fn a_refused_command_does_not_use_its_number_up() {
    let mut chat = Chat::new();
    let han = chat.login_with("han", Some(device("falcon"))).unwrap();
    assert_eq!(chat.numbered(&han, Some(1), "/msgto jabba hi").unwrap_err().code(), "unknown_user");
    chat.numbered(&han, Some(1), "/msgto leia hi").unwrap();
    assert_eq!(chat.state.sent(han.user, device("falcon")), 1);
}

#[test]
fn a_transfer_ends_once_and_by_the_receivers_word() {
    let mut chat = Chat::new();
    let (han, leia) = (chat.login("han"), chat.login("leia"));
    let transfer = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let files = [FileOffer { name: "a".into(), size: 1 }];
    let offer = |chat: &Chat, to: &str| chat.state.decide_offer(&chat.policy, &han, user(to), transfer, &files, "00ff");
    assert_eq!(offer(&chat, "luke").unwrap_err(), Refusal::NoSuchPeer(user("luke")));
    let events = offer(&chat, "leia").unwrap();
    chat.commit(events);
    assert_eq!(offer(&chat, "leia").unwrap_err(), Refusal::UnknownTransfer, "the number is taken");
    assert!(chat.state.decide_answer(&han, transfer, true, Some("aa")).is_err(), "only the receiver answers");
    let events = chat.state.decide_answer(&leia, transfer, true, Some("aa")).unwrap();
    chat.commit(events);
    let done = Ending::bare(Outcome::Done);
    assert_eq!(chat.state.decide_ending(&han, transfer, done.clone()), Ok(vec![]), "the sender's word waits");
    let events = chat.state.decide_ending(&leia, transfer, done.clone()).unwrap();
    assert_eq!(chat.commit(events).len(), 1);
    assert_eq!(chat.state.decide_ending(&leia, transfer, done), Ok(vec![]), "it has ended");
}

#[derive(Debug, Clone)]
enum Step {
    Login(usize, Option<usize>),
    WrongPassword(usize),
    Say(usize, u64, String),
    Break(usize),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![Just("han"), Just("leia"), Just("luke"), Just("yoda"), Just("jabba")];
    let place = prop_oneof![Just("g1"), Just("g2")];
    let line = (0..10_u8, name.clone(), name, place).prop_map(|(kind, a, b, g)| match kind {
        0 | 1 => format!("/msgto {a} hello"),
        2 => format!("/creategroup {g} {a} {b}"),
        3 => format!("/invite {g} {a}"),
        4 | 5 => format!("/joingroup {g}"),
        6 => format!("/leavegroup {g}"),
        7 => format!("/groupmsg {g} hello"),
        8 => format!("/history #{g}"),
        _ => "/logout".into(),
    });
    prop_oneof![
        4 => (0..4_usize, proptest::option::of(0..2_usize)).prop_map(|(user, device)| Step::Login(user, device)),
        2 => (0..4_usize).prop_map(Step::WrongPassword),
        16 => (0..8_usize, 0..6_u64, line).prop_map(|(session, number, line)| Step::Say(session, number, line)),
        1 => (0..8_usize).prop_map(Step::Break),
        1 => (0..12_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Invariants are checked after every event by `commit`, and that deciding changes nothing by `numbered`.
    #[test]
    fn folding_the_log_of_any_run_gives_the_live_state(steps in proptest::collection::vec(step(), 0..120)) {
        let names = ["han", "leia", "luke", "yoda"];
        let devices = ["one", "two"];
        let mut chat = Chat::new();
        for step in steps {
            let open: Vec<Session> = chat.state.sessions()
                .map(|(user, open)| Session { id: open.id, user, device: open.device })
                .collect();
            match step {
                Step::Login(who, on) => { let _ = chat.login_with(names[who], on.map(|on| device(devices[on]))); }
                Step::WrongPassword(who) => { let _ = chat.wrong_password(names[who]); }
                Step::Say(who, number, line) => if let Some(session) = open.get(who) {
                    let _ = chat.numbered(session, Some(number), &line);
                },
                Step::Break(who) => if let Some(session) = open.get(who) {
                    let event = chat.state.logout_event(session, LogoutReason::Disconnected);
                    chat.commit(vec![event]);
                },
                Step::Wait(ms) => chat.wait(ms),
                Step::Restart => {
                    let events = chat.state.decide_start("test");
                    chat.commit(events);
                }
            }
        }
        let mut folded = State::default();
        for record in &chat.log {
            let mut line = Vec::new();
            record.event.encode(record.seq, record.at, &mut line);
            let read = Event::decode(&line).unwrap();
            folded.apply(read.seq, read.at, &read.event);
        }
        prop_assert!(folded == chat.state);
    }

    /// Any event can follow any other: a log is folded without panic, whatever it says.
    #[test]
    fn folding_is_total(events in proptest::collection::vec(samples::event(), 0..40)) {
        let mut state = State::default();
        for (index, event) in events.iter().enumerate() {
            state.apply(index as u64 + 1, Timestamp::from_ms(index as u64), event);
        }
        prop_assert_eq!(state.seq, events.len() as u64);
    }
}
