//! Very many sessions in one hub: what each takes of memory and time, a large group joining, and a message to it.

use std::io;
use std::time::Instant;

use anyhow::ensure;
use messenger::clock;

use crate::table::{print_table, shown};
use crate::usage::own_usage;
use crate::world::{World, user};

/// Users who are told of all logins and logouts.
const WATCHERS: usize = 10;
/// Logins in one turn of the loop.
const LOGINS_A_TURN: usize = 256;
/// Rows of the table of logins.
const ROWS: usize = 10;
/// A line of a client has at most 64 KiB.
const NAMES_A_LINE: usize = 2_000;

/// Logs `sessions` users in, lets `members` of them join a group, and sends messages to it.
///
/// # Errors
/// A command was not carried out, or there is no `/proc`.
pub fn run(sessions: usize, members: usize) -> anyhow::Result<()> {
    ensure!(members <= sessions && WATCHERS < sessions / ROWS, "too few sessions for what is done with them");
    let mut world = World::new(sessions, false)?;
    world.turn()?;
    // Written to once, so that it is the hub's memory alone that grows from here.
    let first = world.log_in(0, true);
    let mut keys = vec![first; sessions];
    world.turn()?;
    // Alone in their turns, or they would have to be read what came behind them in theirs.
    for (number, key) in keys.iter_mut().enumerate().take(WATCHERS).skip(1) {
        *key = world.log_in(number, true);
        world.turn()?;
    }
    let before = own_usage()?;
    let mut rows = Vec::new();
    let mut logged_in = WATCHERS;
    for row in 1..=ROWS {
        let (start, first, end) = (clock::monotonic(), logged_in, sessions * row / ROWS);
        while logged_in < end {
            let turn_end = end.min(logged_in + LOGINS_A_TURN);
            for (number, key) in keys.iter_mut().enumerate().take(turn_end).skip(logged_in) {
                *key = world.log_in(number, false);
            }
            world.turn()?;
            logged_in = turn_end;
        }
        let us = micros_each(start, end - first);
        let cpu_us = (own_usage()?.cpu_seconds - before.cpu_seconds) * 1e6 / (end - WATCHERS) as f64;
        let kib = own_usage()?.memory_kib.saturating_sub(before.memory_kib) as f64 / (end - WATCHERS) as f64;
        rows.push(vec![shown(end as f64), shown(us), shown(cpu_us), format!("{kib:.3}")]);
    }
    let heading = ["sessions", "a login, µs", "CPU of a login so far, µs", "memory, KiB a session"];
    print_table(&mut io::stdout(), &heading, &rows)?;
    println!();

    let others: Vec<String> = (1..members).map(user).collect();
    for (number, names) in others.chunks(NAMES_A_LINE).enumerate() {
        let word = if number == 0 { "creategroup" } else { "invite" };
        world.command(keys[0], &format!("/{word} all {}", names.join(" ")));
        world.turn()?;
    }
    let start = clock::monotonic();
    for key in &keys[1..members] {
        world.command(*key, "/joingroup all");
        world.turn()?;
    }
    let join_us = micros_each(start, members - 1);
    // Each is told of all who come later.
    let notices = members as f64 * (members as f64 - 1.0) / 2.0;

    const MESSAGES: usize = 100;
    let told = world.told_connections;
    let start = clock::monotonic();
    for number in 0..MESSAGES {
        world.command(keys[number % members], &format!("/groupmsg all message {number}"));
        world.turn()?;
    }
    let message_us = micros_each(start, MESSAGES);
    let told = world.told_connections - told;
    ensure!(told == (MESSAGES * members) as u64, "{told} were told of {MESSAGES} messages to {members}");
    let rows = [
        vec![
            format!("joining a group of {}", shown(members as f64)),
            shown(join_us),
            each_ns(join_us, notices / (members - 1) as f64),
        ],
        vec![format!("a message to {}", shown(members as f64)), shown(message_us), each_ns(message_us, members as f64)],
    ];
    print_table(&mut io::stdout(), &["work", "each, µs", "of it for each who is told, ns"], &rows)?;
    Ok(())
}

fn micros_each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn each_ns(us: f64, count: f64) -> String {
    shown(us * 1e3 / count)
}
