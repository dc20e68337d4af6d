//! How the cost of our server grows with what it is given: a series of one work for each.

use crate::plan::{Column, Row, Section};
use crate::subject::Subject;
use crate::works::{Settings, Work};

const MESSAGES: &[Column] = &[
    ("delivered a second", "delivered_per_second"),
    ("server CPU, µs a message", "server_cpu_us_per_message"),
    ("server CPU, µs a delivery", "server_cpu_us_per_delivery"),
    ("server memory, MiB", "server_memory_mib"),
    ("p50, µs", "latency_p50_us"),
    ("p99, µs", "latency_p99_us"),
];
const LOGINS: &[Column] = &[
    ("logins a second", "logins_per_second"),
    ("server CPU, µs a login", "server_cpu_us_per_login"),
    ("memory, KiB a connection", "server_memory_kib_per_connection"),
    ("CPU when idle, % of a core", "idle_cpu_percent"),
];
const JOINS: &[Column] = &[
    ("joins a second", "joins_per_second"),
    ("server CPU, µs a join", "server_cpu_us_per_join"),
    ("server CPU, µs a notice", "server_cpu_us_per_notice"),
    ("server memory, MiB", "server_memory_mib"),
];

/// Messages under way over all pairs, however many there are.
const UNDER_WAY: u64 = 3_200;

fn series<T: Copy + Into<u64>>(
    name: &'static str,
    title: &str,
    first: &'static str,
    columns: &'static [Column],
    values: &[T],
    row: impl Fn(u64) -> (Work, Settings),
) -> Section {
    let rows = values.iter().map(|value| {
        let value = (*value).into();
        let (work, settings) = row(value);
        Row { label: crate::table::shown(value as f64), work, subject: Subject::Messenger, settings }
    });
    Section { name, title: title.to_owned(), first, columns, ratio: None, rows: rows.collect() }
}

/// All series.
pub fn sections(settings: &Settings) -> Vec<Section> {
    let same = || settings.clone();
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let direct = |pairs, window, idle| Work::Direct { pairs, window, idle };
    vec![
        series(
            "connections",
            "Connections, half of them writing to the other half, 3,200 messages under way over all",
            "connections",
            MESSAGES,
            &[10_u32, 100, 1_000, 10_000],
            |value| (direct(size(value / 2), (2 * UNDER_WAY / value).max(1), 0), same()),
        ),
        series(
            "idle",
            "50 pairs writing beside connections that say nothing",
            "silent",
            MESSAGES,
            &[0_u32, 1_000, 10_000, 19_400],
            |value| (direct(50, 64, size(value)), same()),
        ),
        series(
            "group",
            "Members of a group, 4 of them writing",
            "members",
            MESSAGES,
            &[10_u32, 100, 1_000, 10_000],
            |value| (Work::Fanout { members: size(value), writers: 4, window: 16 }, same()),
        ),
        series(
            "log",
            "Events in the log at the start, 50 pairs writing",
            "events",
            MESSAGES,
            &[0_u32, 100_000, 1_000_000, 10_000_000],
            |value| (direct(50, 64, 0), Settings { log_events: value, ..same() }),
        ),
        series(
            "bytes",
            "Bytes of a message, 50 pairs writing, 16 messages of each under way",
            "bytes",
            MESSAGES,
            &[10_u32, 100, 1_000, 4_096, 16_384],
            |value| (direct(50, 16, 0), Settings { bytes: size(value), ..same() }),
        ),
        series(
            "logins",
            "Logins, ten of the users watching them",
            "logins",
            LOGINS,
            &[100_u32, 1_000, 10_000, 19_500],
            |value| (Work::Idle { connections: size(value), watchers: 10 }, same()),
        ),
        series(
            "joins",
            "Joining a group, all members being told",
            "members",
            JOINS,
            &[10_u32, 100, 1_000, 10_000],
            |value| (Work::Join { members: size(value) }, same()),
        ),
    ]
}
