//! Works that are about sessions rather than messages: idle ones, all that come back at once, joining a group.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use messenger::clock;

use crate::connections::{Connections, PATIENCE, ensure_open, only_open};
use crate::dialect::messenger::Messenger;
use crate::dialect::{Dialect, Incoming};
use crate::driver::{self, Shape, micros};
use crate::report::Figures;
use crate::subject::{Server, Subject};
use crate::usage::{Usage, own_usage};
use crate::works::Settings;

const NOBODY: Shape = Shape::Pairs { pairs: 0, idle: 0 };

pub fn cpu_seconds(before: Usage, after: Usage) -> f64 {
    after.cpu_seconds - before.cpu_seconds
}

/// Logs `connections` in, looks how much memory that took, and then for a while at what they cost.
///
/// # Errors
/// One could not be logged in, or was closed.
pub fn idle(server: &Server, connections: usize, watchers: usize, settings: &Settings) -> anyhow::Result<Figures> {
    let duration = settings.duration;
    let dialect: Box<dyn Dialect> = match server.subject {
        Subject::Messenger => Box::new(Messenger { watchers, ..Messenger::default() }),
        subject => subject.dialect(NOBODY, 0),
    };
    let mut clients = Connections::new(dialect)?;
    clients.tls = settings.tls.then(|| server.client_config()).transpose()?;
    // A server may say that it listens before its threads have begun; their memory is no connection's.
    std::thread::sleep(Duration::from_millis(500));
    let empty = server.process.usage()?;
    let generator = own_usage()?;
    let took =
        clients.log_in(server.process.address, 0..connections, server.subject.logins_under_way(), &mut only_open)?;
    let took = took.as_secs_f64();
    clients.settle()?;
    let full = server.process.usage()?;
    let generator_cpu_seconds = cpu_seconds(generator, own_usage()?);
    let start = clock::monotonic();
    while clock::monotonic() < start + duration {
        clients.turn(Duration::from_millis(100), &mut only_open)?;
    }
    let after = server.process.usage()?;
    let count = connections as f64;
    let mut figures = Figures::default();
    figures.push("connections", count);
    figures.push("logins_per_second", count / took);
    figures.push("server_cpu_us_per_login", cpu_seconds(empty, full) / count * 1e6);
    figures.push("generator_cpu_us_per_login", generator_cpu_seconds / count * 1e6);
    figures.push("server_memory_mib", after.memory_kib as f64 / 1024.0);
    figures.push("server_memory_kib_per_connection", (after.memory_kib as f64 - empty.memory_kib as f64) / count);
    figures.push("idle_cpu_percent", cpu_seconds(full, after) / duration.as_secs_f64() * 100.0);
    Ok(figures)
}

/// Logs all in, starts the server anew, and lets all log in at once from where they were, by the tokens they were given.
///
/// # Errors
/// One did not come back.
pub fn storm(server: Server, connections: usize) -> anyhow::Result<Figures> {
    let address = server.process.address;
    let mut seen = vec![None; connections];
    let mut tokens = vec![None; connections];
    let mut note = |client: usize, at: Instant, incoming: Incoming<'_>| {
        if let Incoming::Token(token) = incoming {
            tokens[client] = Some(String::from_utf8(token.to_vec())?);
        }
        note_live(&mut seen)(client, at, incoming)
    };
    let mut clients = Connections::new(Box::new(Messenger { want_tokens: true, ..Messenger::default() }))?;
    clients.log_in(address, 0..connections, server.subject.logins_under_way(), &mut note)?;
    clients.settle()?;

    let stopped = clock::monotonic();
    let server = server.restart()?;
    let restart = clock::monotonic() - stopped;
    let mut closed = 0;
    while closed < connections {
        ensure!(
            clock::monotonic() < stopped + PATIENCE,
            "{closed} of {connections} connections were closed by the stop"
        );
        clients.turn(Duration::from_millis(100), &mut |_, _, incoming| {
            closed += usize::from(incoming == Incoming::Closed);
            Ok(())
        })?;
    }

    ensure!(tokens.iter().all(Option::is_some), "a client was given no token");
    let returning = Messenger { after: seen, want_tokens: true, tokens: tokens.clone(), ..Messenger::default() };
    let mut clients = Connections::new(Box::new(returning))?;
    clients.addresses_passed = 16;
    let before = server.process.usage()?;
    let start = clock::monotonic();
    let mut latency_us = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    // A client is back when it has been told that nothing is missing.
    let mut back = 0;
    let mut tell = |client: usize, at: Instant, incoming: Incoming<'_>| {
        ensure_open(client, &incoming)?;
        if let Incoming::Token(token) = incoming {
            let is_same = tokens[client].as_deref().map(str::as_bytes) == Some(token);
            ensure!(is_same, "client {client} was given another token on the day it got the first");
        }
        if let Incoming::Live(_) = incoming {
            back += 1;
            latency_us.saturating_record(micros(at - start));
        }
        Ok(())
    };
    clients.log_in(address, 0..connections, connections, &mut tell)?;
    clients.settle()?;
    let after = server.process.usage()?;
    ensure!(back == connections, "{back} of {connections} clients are back");
    let count = connections as f64;
    let seconds = latency_us.max() as f64 / 1e6;
    let mut figures = Figures::default();
    figures.push("connections", count);
    figures.push("restart_ms", restart.as_secs_f64() * 1e3);
    figures.push("all_back_seconds", seconds);
    figures.push("logins_per_second", count / seconds);
    figures.push("back_p50_ms", latency_us.value_at_quantile(0.5) as f64 / 1e3);
    figures.push("back_p99_ms", latency_us.value_at_quantile(0.99) as f64 / 1e3);
    figures.push("server_cpu_us_per_login", cpu_seconds(before, after) / count * 1e6);
    figures.push("server_memory_mib", after.memory_kib as f64 / 1024.0);
    Ok(figures)
}

/// Notes how far each client has seen the log.
pub fn note_live(seen: &mut [Option<u64>]) -> impl FnMut(usize, Instant, Incoming<'_>) -> anyhow::Result<()> {
    |client, _, incoming| {
        ensure_open(client, &incoming)?;
        if let Incoming::Live(seq) = incoming {
            seen[client] = Some(seq);
        }
        Ok(())
    }
}

/// Makes a group and lets everybody join.
///
/// # Errors
/// The server refused one.
pub fn join(server: &Server, members: usize) -> anyhow::Result<Figures> {
    let shape = Shape::Group { members, writers: 1 };
    let mut clients = Connections::new(server.subject.dialect(shape, 0))?;
    clients.log_in(server.process.address, 0..members, server.subject.logins_under_way(), &mut only_open)?;
    clients.settle()?;
    let before = server.process.usage()?;
    let start = clock::monotonic();
    driver::join(&mut clients, members)?;
    let answered = clock::monotonic() - start;
    clients.settle()?;
    let after = server.process.usage()?;
    let count = members as f64;
    // Each is told of all who come later.
    let told = count * (count - 1.0) / 2.0;
    let mut figures = Figures::default();
    figures.push("members", count);
    figures.push("seconds", answered.as_secs_f64());
    figures.push("joins_per_second", count / answered.as_secs_f64());
    figures.push("server_cpu_us_per_join", cpu_seconds(before, after) / count * 1e6);
    figures.push("server_cpu_us_per_notice", cpu_seconds(before, after) / told * 1e6);
    figures.push("server_memory_mib", after.memory_kib as f64 / 1024.0);
    Ok(figures)
}
