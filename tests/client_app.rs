//! The client's core against the server's hub, in memory: dialogue, breaks, crashes, and the signalling of transfers.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/clients.rs"]
mod clients;
#[path = "support/random.rs"]
mod random;
#[path = "support/world.rs"]
mod world;

use clients::{Client, options};
use messenger::client::{Accept, Ending, Keep, Options, Prompt, TransferAction};
use messenger::names::TransferId;
use messenger::transfer::{Failure, TransferEvent};
use random::Random;
use tempfile::TempDir;
use world::World;

/// A hub, clients, and a place for their state.
struct Scene {
    world: Option<World>,
    root: TempDir,
    clients: Vec<Client>,
}

impl Scene {
    fn new() -> Self {
        Self { world: Some(World::new()), root: tempfile::tempdir().unwrap(), clients: Vec::new() }
    }

    /// A scene with these users logged in, and what they saw by then taken off.
    fn with(users: &[&str]) -> Self {
        let mut scene = Self::new();
        for user in users {
            scene.add(options(user));
        }
        scene.settle();
        for client in &mut scene.clients {
            assert_eq!(client.seen(), ["Please login", "Welcome to Messenger!"]);
        }
        scene
    }

    fn add(&mut self, options: Options) -> usize {
        let client = Client::new(options, self.world());
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    fn world_mut(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn type_line(&mut self, client: usize, line: &str) {
        let world = self.world.as_ref().unwrap();
        self.clients[client].type_line(line, self.root.path(), world);
    }

    fn step(&mut self, client: usize, bytes_max: usize) {
        let world = self.world.as_mut().unwrap();
        self.clients[client].step(self.root.path(), world, bytes_max);
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            for client in 0..self.clients.len() {
                self.step(client, usize::MAX);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.world_mut().wait(ms);
        self.settle();
    }

    fn cut(&mut self, client: usize) {
        let world = self.world.as_mut().unwrap();
        self.clients[client].cut(world);
        self.clients[client].carry_out(self.root.path(), world);
    }

    fn kill(&mut self, client: usize, options: Options) {
        let world = self.world.as_mut().unwrap();
        self.clients[client].kill(options, world);
    }

    fn crash_server(&mut self) {
        let world = self.world.take().unwrap().crash();
        for client in &mut self.clients {
            client.lose_server(&world);
            client.carry_out(self.root.path(), &world);
        }
        self.world = Some(world);
    }

    fn seen(&mut self, client: usize) -> Vec<String> {
        self.clients[client].seen()
    }

    /// The texts of all private messages in the log.
    fn logged_texts(&self) -> Vec<String> {
        let texts = self.world().events().into_iter().filter_map(|record| match record.event {
            messenger::chat::Event::Message { text, .. } => Some(text.to_string()),
            _ => None,
        });
        texts.collect()
    }
}

const SENT: &str = "message sent at 14 Nov 2023 22:13:20.";
const LOST: &str = "The connection to the server is lost; trying again.";
const AGAIN: &str = "Connected again.";

fn incoming(from: &str, text: &str) -> String {
    format!("14 Nov 2023 22:13:20, {from}: {text}")
}

#[test]
fn a_person_is_asked_for_the_password_alone_again_until_the_name_is_blocked() {
    let mut scene = Scene::new();
    scene.add(Options { user: None, password: None, ..options("yoda") });
    scene.settle();
    assert_eq!(scene.clients[0].app.prompt(), Prompt::UserName);
    scene.type_line(0, "yoda");
    for _ in 0..2 {
        assert_eq!(scene.clients[0].app.prompt(), Prompt::Password);
        scene.type_line(0, "wrong");
        scene.settle();
    }
    assert_eq!(scene.clients[0].app.prompt(), Prompt::Password);
    scene.type_line(0, "wrong");
    scene.settle();
    let again = "Invalid Password. Please try again";
    let blocked = "Invalid Password. Your account has been blocked. Please try again later";
    assert_eq!(scene.seen(0), ["Please login", again, again, blocked]);
    assert_eq!(scene.clients[0].ending(), Some(Ending::LoginRefused));
}

#[test]
fn a_script_is_not_asked_again() {
    let mut scene = Scene::new();
    scene.add(Options { is_person: false, password: Some("wrong".into()), ..options("yoda") });
    scene.settle();
    assert_eq!(scene.clients[0].ending(), Some(Ending::LoginRefused));
}

#[test]
fn a_password_that_takes_longer_than_the_server_waits_is_sent_on_another_connection() {
    let mut scene = Scene::new();
    scene.add(Options { password: None, ..options("yoda") });
    scene.settle();
    scene.wait(40_000);
    assert!(!scene.clients[0].is_connected());
    scene.type_line(0, world::PASSWORD);
    scene.settle();
    scene.wait(10_000);
    assert!(scene.seen(0).contains(&"Welcome to Messenger!".to_owned()));
}

#[test]
fn a_refused_command_gives_its_number_to_those_behind_it_and_nothing_is_lost_or_turned_round() {
    let mut scene = Scene::with(&["han", "leia"]);
    for line in ["/msgto leia 1", "/msgto jabba 2", "/msgto leia 3", "/groupmsg none 4", "/msgto leia", "/msgto leia 5"]
    {
        scene.type_line(0, line);
    }
    scene.type_line(0, "/users");
    scene.settle();
    let seen = scene.seen(0);
    let refused = ["There is no user jabba.", "The group chat does not exist.", "Usage: /msgto USER TEXT"];
    assert_eq!(seen.iter().filter(|told| *told == SENT).count(), 3, "{seen:?}");
    assert!(refused.iter().all(|refused| seen.iter().any(|told| told == refused)), "{seen:?}");
    assert!(seen.last().unwrap().starts_with("han, online"), "the query comes after all before it: {seen:?}");
    assert_eq!(scene.seen(1), ["1", "3", "5"].map(|text| incoming("han", text)));
}

#[test]
fn what_is_typed_without_a_connection_is_sent_once_it_is_back() {
    let mut scene = Scene::with(&["han", "leia"]);
    scene.cut(0);
    scene.type_line(0, "/msgto leia 1");
    scene.type_line(0, "/msgto leia 2");
    scene.wait(10_000);
    let later = "Not connected now: it will be sent when the server is back.";
    let sent = "message sent at 14 Nov 2023 22:13:30.";
    assert_eq!(scene.seen(0), [LOST, later, later, AGAIN, sent, sent]);
    assert_eq!(scene.logged_texts(), ["1", "2"]);
}

#[test]
fn what_the_server_had_carried_out_before_the_break_is_confirmed_and_not_sent_again() {
    let mut scene = Scene::with(&["han", "leia"]);
    scene.type_line(0, "/msgto leia 1");
    scene.type_line(0, "/msgto leia 2");
    let bytes = scene.clients[0].app.output().to_vec();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // The server gets the first and half of the second, and its answer is lost.
    scene.world_mut().disk_is_slow = true;
    scene.step(0, first + 10);
    scene.cut(0);
    scene.world_mut().disk_is_slow = false;
    scene.world_mut().sync();
    assert_eq!(scene.logged_texts(), ["1"]);
    scene.wait(10_000);
    let sent = "message sent at 14 Nov 2023 22:13:30.";
    assert_eq!(scene.seen(0), [LOST, AGAIN, SENT, sent]);
    assert_eq!(scene.logged_texts(), ["1", "2"]);
}

#[test]
fn a_client_that_is_killed_loses_and_doubles_nothing() {
    let mut scene = Scene::with(&["han", "leia"]);
    scene.type_line(0, "/msgto leia 1");
    scene.step(0, usize::MAX);
    scene.clients[0].is_cut_off = true;
    scene.type_line(0, "/msgto leia 2");
    scene.kill(0, options("han"));
    scene.clients[0].is_cut_off = false;
    scene.settle();
    assert_eq!(scene.logged_texts(), ["1", "2"]);
    scene.kill(1, options("leia"));
    scene.settle();
    let seen = scene.seen(1);
    assert_eq!(seen.iter().filter(|told| told.contains("han: ")).count(), 2, "{seen:?}");
}

#[test]
fn another_log_is_said_and_numbered_from_what_it_holds() {
    let mut scene = Scene::with(&["han", "leia"]);
    for text in ["1", "2", "3"] {
        scene.type_line(0, &format!("/msgto leia {text}"));
    }
    scene.settle();
    scene.seen(0);
    // A server on an older copy of the log: here, an empty one.
    scene.world = Some(World::new());
    let world = scene.world.take().unwrap();
    scene.clients.iter_mut().for_each(|client| client.lose_server(&world));
    scene.world = Some(world);
    scene.type_line(0, "/msgto leia 4");
    scene.wait(10_000);
    let seen = scene.seen(0).join("\n");
    assert!(seen.contains("it was restored from an older copy"), "{seen}");
    assert_eq!(scene.logged_texts(), ["4"]);
    assert!(scene.clients[0].kept.contains(&Keep::Base(0)));
}

#[test]
fn what_is_in_another_log_already_is_no_news_and_what_comes_then_is() {
    let mut scene = Scene::with(&["han", "leia"]);
    let log = messenger::server::HubOptions { log: uuid::Uuid::from_u128(9), ..world::options() };
    let mut world = World::on(messenger::eventlog::memory::MemoryDisk::default(), log, 0);
    let key = world.logged_in("leia");
    for _ in 0..9 {
        world.command(key, "/msgto han before");
    }
    scene.clients.iter_mut().for_each(|client| client.lose_server(&world));
    scene.world = Some(world);
    scene.wait(10_000);
    let other = "The server has another log than before. Starting over from its end; /history shows what was before.";
    assert_eq!(scene.seen(0), [LOST, AGAIN, other]);
    scene.type_line(1, "/msgto han after");
    scene.settle();
    assert_eq!(scene.seen(0), ["14 Nov 2023 22:13:30, leia: after"]);
}

#[test]
fn an_event_is_shown_once_however_often_it_comes() {
    let mut scene = Scene::with(&["han"]);
    let now = scene.world().now().tick;
    let event = br#"{"seq":99,"ts":"2023-11-14T22:13:20.000Z","type":"message","from":"leia","to":"han","text":"x"}"#;
    for _ in 0..2 {
        scene.clients[0].app.handle_bytes(event, now);
        scene.clients[0].app.handle_bytes(b"\n", now);
    }
    scene.settle();
    assert_eq!(scene.seen(0), [incoming("leia", "x")]);
}

#[test]
fn a_query_whose_answer_was_lost_is_asked_again() {
    let mut scene = Scene::with(&["han"]);
    scene.type_line(0, "/activeuser");
    scene.world_mut().disk_is_slow = true;
    let count = scene.clients[0].app.output().len();
    scene.clients[0].app.handle_sent(count);
    scene.cut(0);
    scene.world_mut().disk_is_slow = false;
    scene.world_mut().sync();
    scene.wait(10_000);
    assert_eq!(scene.seen(0), [LOST, AGAIN, "no other active user"]);
}

#[test]
fn a_goodbye_whose_answer_was_lost_was_said() {
    let mut scene = Scene::with(&["han"]);
    scene.type_line(0, "/logout");
    scene.cut(0);
    assert_eq!(scene.clients[0].ending(), Some(Ending::Done));
}

#[test]
fn who_is_replaced_ends_and_does_not_come_back() {
    let mut scene = Scene::with(&["han"]);
    // Another program with a copy of the state: same device, so the server ends the first session.
    let device = scene.world().events().into_iter().find_map(|record| match record.event {
        messenger::chat::Event::Login { device, .. } => device,
        _ => None,
    });
    scene.world_mut().login_with("han", &serde_json::json!({ "device": device }));
    scene.settle();
    assert_eq!(scene.seen(0), ["The same device logged in again; this session ends."]);
    assert_eq!(scene.clients[0].ending(), Some(Ending::Failed));
}

#[test]
fn a_script_gives_up_after_a_minute_and_says_what_is_left() {
    let mut scene = Scene::new();
    scene.add(Options { is_person: false, ..options("han") });
    scene.settle();
    scene.seen(0);
    scene.clients[0].is_cut_off = true;
    scene.cut(0);
    scene.type_line(0, "/msgto leia 1");
    for _ in 0..30 {
        scene.wait(5_000);
    }
    let left = "The server does not come back. 1 command has not reached the server; it is kept and sent at the next \
                start.";
    assert_eq!(scene.seen(0), [LOST, left]);
    assert_eq!(scene.clients[0].ending(), Some(Ending::CannotConnect));
}

#[test]
fn the_end_of_the_input_waits_for_every_answer_and_says_goodbye() {
    let mut scene = Scene::new();
    scene.add(Options { is_person: false, ..options("han") });
    scene.settle();
    scene.type_line(0, "/msgto leia 1");
    scene.type_line(0, "/msgto jabba 2");
    scene.type_line(0, "/msgto leia 3");
    scene.clients[0].app.handle_input_end();
    scene.settle();
    let seen = scene.seen(0);
    assert_eq!(seen[2..], [SENT, "There is no user jabba.", SENT, "Bye, han!"]);
    assert_eq!(scene.clients[0].ending(), Some(Ending::Done));
}

#[test]
fn a_server_that_falls_silent_is_asked_and_then_given_up() {
    let mut scene = Scene::with(&["han"]);
    let (start, second) = (scene.world().now().tick, std::time::Duration::from_secs(1));
    let client = &mut scene.clients[0];
    assert_eq!(client.app.next_timeout(), Some(start + 100 * second));
    client.app.handle_timeout(start + 100 * second);
    assert_eq!(client.app.output(), b"{\"type\":\"ping\"}\n");
    assert_eq!(client.app.next_timeout(), Some(start + 120 * second));
    client.app.handle_timeout(start + 120 * second);
    assert!(matches!(client.app.poll_output(), Some(messenger::client::Output::Disconnect)));
}

#[test]
fn a_silent_hour_is_bridged_by_signs_of_life() {
    let mut scene = Scene::with(&["han"]);
    for _ in 0..60 {
        scene.wait(60_000);
    }
    assert!(scene.clients[0].is_connected());
    assert_eq!(scene.seen(0), Vec::<String>::new());
}

#[test]
fn a_name_that_is_blocked_by_strangers_does_not_end_a_session_that_was_there() {
    let mut scene = Scene::with(&["han"]);
    scene.world_mut().lose_tokens();
    block(&mut scene, "han");
    scene.cut(0);
    scene.wait(6_000);
    // The token is no longer good, of which the user is told nothing; and the password not yet.
    assert_eq!(scene.seen(0), [LOST]);
    scene.wait(6_000);
    scene.wait(6_000);
    assert_eq!(scene.seen(0), [AGAIN]);
}

#[test]
fn a_client_with_a_token_is_back_while_strangers_have_its_name_blocked() {
    let mut scene = Scene::new();
    scene.add(Options { echo_frames: true, ..options("han") });
    scene.settle();
    for _ in 0..2 {
        block(&mut scene, "han");
        scene.cut(0);
        scene.wait(6_000);
    }
    let seen = scene.seen(0);
    assert_eq!(seen.iter().filter(|told| *told == AGAIN).count(), 2, "{seen:?}");
    let welcomes: Vec<&String> = seen.iter().filter(|told| told.contains("\"command\":\"login\"")).collect();
    assert!(welcomes.len() == 3 && welcomes.iter().all(|frame| frame.ends_with(",\"sent\":0}")), "{welcomes:?}");
    assert!(!seen.iter().any(|told| told.contains("token") || told.contains("error")), "{seen:?}");
}

#[test]
fn a_token_that_is_refused_is_followed_by_the_password_at_once_and_without_a_word() {
    let mut scene = Scene::new();
    scene.add(Options { echo_frames: true, ..options("han") });
    scene.settle();
    scene.seen(0);
    scene.world_mut().lose_tokens();
    scene.cut(0);
    scene.wait(1_000);
    let seen = scene.seen(0);
    assert!(seen.contains(&AGAIN.to_owned()) && !seen.iter().any(|told| told.contains("bad_credentials")), "{seen:?}");
    let failures = scene.world().log().matches("login_failed").count();
    assert_eq!(failures, 0, "no wrong password was given");
}

/// Strangers give wrong passwords until the name is blocked.
fn block(scene: &mut Scene, user: &str) {
    let world = scene.world_mut();
    let key = world.connect();
    for _ in 0..3 {
        world.send(key, format!("{{\"type\":\"login\",\"username\":\"{user}\",\"password\":\"x\"}}\n"));
    }
    assert_eq!(world.frames(key).last().unwrap()["code"], "blocked");
}

fn transfer(digit: u8) -> TransferId {
    format!("{digit:032x}").parse().unwrap()
}

/// Has han offer leia a file, as far as leia's client has to say whether it has a part of it.
fn offered(scene: &mut Scene) {
    scene.type_line(0, "/p2pvideo leia a b.mp4");
    let prepare = TransferAction::Prepare { number: 1, path: "a b.mp4".into() };
    assert_eq!(std::mem::take(&mut scene.clients[0].actions), [prepare]);
    let looked = Ok((transfer(7), "a b.mp4".to_owned(), 1_536));
    assert_eq!(scene.clients[0].app.handle_prepared(1, looked), Some(transfer(7)));
    scene.settle();
    assert_eq!(scene.seen(0), ["a b.mp4 (1.5 KiB) is offered to leia, transfer 1."]);
    let considered = std::mem::take(&mut scene.clients[1].actions);
    assert!(matches!(&considered[..], [TransferAction::Consider { transfer: id, .. }] if *id == transfer(7)));
}

/// Has leia accept the offer of [`offered`], so that han's engine starts.
fn accepted(scene: &mut Scene) {
    offered(scene);
    scene.clients[1].app.handle_considered(transfer(7), false);
    scene.settle();
    assert_eq!(scene.seen(1), ["han offers a b.mp4 as 1"]);
    scene.type_line(1, "/accept 1");
    let accepting = std::mem::take(&mut scene.clients[1].actions);
    assert!(matches!(&accepting[..], [TransferAction::Accept { addrs, .. }] if addrs.len() == 1), "{accepting:?}");
    scene.clients[1].app.handle_accepting(transfer(7), Ok(()));
    scene.settle();
    let started = std::mem::take(&mut scene.clients[0].actions);
    assert!(matches!(&started[..], [TransferAction::Start { addrs, .. }] if addrs.len() == 1), "{started:?}");
}

fn done(client: &mut Client, saved_as: Option<&str>, now: std::time::Instant) {
    let (hash, saved_as) = ("00".repeat(32), saved_as.map(Into::into));
    client.app.handle_transfer_event(TransferEvent::Done { transfer: transfer(7), bytes: 1_536, hash, saved_as }, now);
}

fn failed(client: &mut Client, failure: Failure, now: std::time::Instant) {
    client.app.handle_transfer_event(TransferEvent::Failed { transfer: transfer(7), failure }, now);
}

#[test]
fn a_transfer_is_offered_accepted_and_told_by_both() {
    let mut scene = Scene::with(&["han", "leia"]);
    accepted(&mut scene);
    let now = scene.world().now().tick;
    done(&mut scene.clients[1], Some("./han_a b.mp4"), now);
    done(&mut scene.clients[0], None, now);
    scene.settle();
    assert_eq!(scene.seen(0), ["a b.mp4 has been uploaded"]);
    assert_eq!(scene.seen(1), ["Received a b.mp4 from han\nSaved as ./han_a b.mp4"]);
    assert!(scene.world().log().contains(r#""outcome":"done","bytes":1536"#));
    scene.type_line(0, "/logout");
    scene.settle();
    assert_eq!(scene.clients[0].ending(), Some(Ending::Done));
}

#[test]
fn who_is_interrupted_gives_transfers_up_and_says_so_to_the_server() {
    let mut scene = Scene::with(&["han", "leia"]);
    accepted(&mut scene);
    let now = scene.world().now().tick;
    scene.clients[0].app.handle_interrupt(now);
    scene.settle();
    assert_eq!(scene.clients[0].actions, [TransferAction::Cancel { transfer: transfer(7) }]);
    assert_eq!((scene.seen(0), scene.clients[0].ending()), (vec!["Bye, han!".into()], Some(Ending::Interrupted)));
    assert!(scene.world().log().contains(r#""outcome":"cancelled""#));
    assert!(matches!(&scene.clients[1].actions[..], [TransferAction::Cancel { .. }]));
}

#[test]
fn a_running_transfer_outlives_the_connection_of_either_side() {
    let mut scene = Scene::with(&["han", "leia"]);
    accepted(&mut scene);
    scene.cut(0);
    scene.cut(1);
    scene.wait(10_000);
    assert_eq!((scene.clients[0].actions.len(), scene.clients[1].actions.len()), (0, 0));
    let now = scene.world().now().tick;
    done(&mut scene.clients[1], Some("x"), now);
    done(&mut scene.clients[0], None, now);
    scene.settle();
    assert_eq!(scene.seen(0), [LOST, AGAIN, "a b.mp4 has been uploaded"]);
}

#[test]
fn an_offer_can_be_declined_by_a_person_or_by_rule() {
    let mut scene = Scene::with(&["han", "leia"]);
    offered(&mut scene);
    scene.clients[1].app.handle_considered(transfer(7), false);
    scene.settle();
    scene.type_line(1, "/decline");
    scene.settle();
    assert_eq!(scene.seen(0), ["leia declined a b.mp4."]);

    let mut scene = Scene::with(&["han"]);
    scene.add(Options { accept: Accept::None, ..options("leia") });
    scene.settle();
    offered(&mut scene);
    scene.clients[1].app.handle_considered(transfer(7), false);
    scene.settle();
    assert_eq!(scene.seen(0), ["leia declined a b.mp4."]);
    scene.type_line(0, "/logout");
    scene.settle();
    assert_eq!(scene.clients[0].ending(), Some(Ending::TransferFailed));
}

#[test]
fn a_transfer_that_broke_is_offered_again_under_its_number_and_taken_without_asking() {
    let mut scene = Scene::with(&["han", "leia"]);
    accepted(&mut scene);
    let now = scene.world().now().tick;
    failed(&mut scene.clients[0], Failure::PeerGone, now);
    failed(&mut scene.clients[1], Failure::TimedOut, now);
    scene.settle();
    scene.wait(1_000);
    let again = std::mem::take(&mut scene.clients[0].actions);
    assert!(again.contains(&TransferAction::Prepare { number: 1, path: "a b.mp4".into() }), "{again:?}");
    let looked = Ok((transfer(8), "a b.mp4".to_owned(), 1_536));
    assert_eq!(scene.clients[0].app.handle_prepared(1, looked), Some(transfer(7)));
    scene.settle();
    let accepting = std::mem::take(&mut scene.clients[1].actions);
    assert!(matches!(&accepting[..], [TransferAction::Accept { .. }]), "{accepting:?}");
}

#[test]
fn who_is_offline_is_said_and_the_transfer_has_failed() {
    let mut scene = Scene::with(&["han"]);
    scene.type_line(0, "/p2pvideo leia x");
    scene.clients[0].app.handle_prepared(1, Ok((transfer(7), "x".into(), 1)));
    scene.settle();
    assert_eq!(scene.seen(0), ["leia is offline"]);
    scene.type_line(0, "/transfers");
    assert_eq!(scene.seen(0), ["There are no transfers."]);
}

#[test]
fn an_offer_that_was_open_when_the_connection_broke_is_made_anew() {
    let mut scene = Scene::with(&["han", "leia"]);
    offered(&mut scene);
    scene.clients[1].app.handle_considered(transfer(7), false);
    scene.cut(0);
    scene.wait(10_000);
    assert!(scene.clients[0].actions.contains(&TransferAction::Prepare { number: 1, path: "a b.mp4".into() }));
    assert_eq!(scene.clients[0].app.handle_prepared(1, Ok((transfer(8), "a b.mp4".into(), 1_536))), Some(transfer(8)));
    scene.settle();
    let seen = scene.seen(1);
    assert!(seen.contains(&"The offer of a b.mp4 by han is no longer there.".to_owned()), "{seen:?}");
}

/// Whatever breaks, and whenever: each message is in the log once, in its sender's order, and seen once.
#[test]
fn through_any_breaks_and_crashes_nothing_is_lost_doubled_or_turned_round() {
    for seed in 0..40 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    const USERS: [&str; 3] = ["han", "leia", "luke"];
    let mut random = Random::new(seed);
    let mut scene = Scene::with(&USERS);
    let mut typed: Vec<Vec<String>> = vec![Vec::new(); USERS.len()];
    for number in 0..300 {
        let client = random.below(USERS.len());
        match random.below(20) {
            0..8 if scene.clients[client].app.prompt() == Prompt::Command => {
                let text = format!("{}-{number}", USERS[client]);
                scene.type_line(client, &format!("/msgto {} {text}", USERS[(client + 1) % USERS.len()]));
                typed[client].push(text);
            }
            8 if scene.clients[client].app.prompt() == Prompt::Command => {
                scene.type_line(
                    client,
                    random.pick::<&str>(&["/msgto jabba x", "/groupmsg none x", "/msgto", "/users"]),
                );
            }
            9 => scene.cut(client),
            10 if random.one_in(3) => scene.crash_server(),
            11 if random.one_in(2) => scene.kill(client, options(USERS[client])),
            12 => {
                let is_slow = &mut scene.world_mut().disk_is_slow;
                *is_slow = !*is_slow;
            }
            13 => scene.world_mut().wait(1_000),
            14 => scene.world_mut().sync(),
            _ => {
                let bytes_max = if random.one_in(2) { random.below(200) } else { usize::MAX };
                scene.step(client, bytes_max);
            }
        }
    }
    scene.world_mut().disk_is_slow = false;
    scene.world_mut().sync();
    for _ in 0..20 {
        scene.wait(6_000);
    }
    let logged = scene.logged_texts();
    for (user, typed) in USERS.iter().zip(&typed) {
        let own: Vec<&String> = logged.iter().filter(|text| text.starts_with(&format!("{user}-"))).collect();
        assert_eq!(own, typed.iter().collect::<Vec<_>>(), "seed {seed}: {user}'s messages in the log");
    }
    for (client, user) in USERS.iter().enumerate() {
        let from = USERS[(client + USERS.len() - 1) % USERS.len()];
        let seen = scene.seen(client);
        let own: Vec<&str> =
            seen.iter().filter_map(|told| told.split_once(&format!("{from}: ")).map(|(_, text)| text)).collect();
        let sent: Vec<&str> = typed[(client + USERS.len() - 1) % USERS.len()].iter().map(String::as_str).collect();
        assert_eq!(own, sent, "seed {seed}: what {user} has seen");
    }
}
