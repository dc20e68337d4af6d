//! The same works for our server, the bare forwarder and the others.

use crate::plan::{Column, Row, Section};
use crate::subject::{SUBJECTS, Subject};
use crate::works::{Settings, Work};

const MESSAGES: &[Column] = &[
    ("delivered a second", "delivered_per_second"),
    ("server CPU, µs a delivery", "server_cpu_us_per_delivery"),
    ("server memory, MiB", "server_memory_mib"),
    ("p50, µs", "latency_p50_us"),
    ("p99, µs", "latency_p99_us"),
    ("generator CPU, µs a delivery", "generator_cpu_us_per_delivery"),
];
const LATENCY: &[Column] = &[
    ("delivered a second", "delivered_per_second"),
    ("p50, µs", "latency_p50_us"),
    ("p90, µs", "latency_p90_us"),
    ("p99, µs", "latency_p99_us"),
    ("p99.9, µs", "latency_p99_9_us"),
    ("server CPU, µs a delivery", "server_cpu_us_per_delivery"),
];
const IDLE: &[Column] = &[
    ("logins a second", "logins_per_second"),
    ("server CPU, µs a login", "server_cpu_us_per_login"),
    ("memory, KiB a connection", "server_memory_kib_per_connection"),
    ("CPU when idle, % of a core", "idle_cpu_percent"),
];
const STORM: &[Column] = &[
    ("all back, s", "all_back_seconds"),
    ("logins a second", "logins_per_second"),
    ("p50, ms", "back_p50_ms"),
    ("p99, ms", "back_p99_ms"),
    ("server CPU, µs a login", "server_cpu_us_per_login"),
    ("stop and start, ms", "restart_ms"),
];
const CATCH_UP: &[Column] = &[
    ("delivered a second", "delivered_per_second"),
    ("server CPU, µs a delivery", "server_cpu_us_per_delivery"),
    ("server memory before, MiB", "server_memory_before_mib"),
    ("after, MiB", "server_memory_mib"),
];

/// All works for all servers that are installed.
pub fn sections(subjects: &[Subject], settings: &Settings) -> Vec<Section> {
    let subjects = if subjects.is_empty() { &SUBJECTS[..] } else { subjects };
    let is_installed = |subject: &&Subject| {
        let is_installed = subject.program().is_some();
        if !is_installed {
            eprintln!("{subject} is not installed and left out; benches/load/install_peers installs it");
        }
        is_installed
    };
    let subjects: Vec<Subject> = subjects.iter().filter(is_installed).copied().collect();
    let section = |name, title: &str, work: Work, columns, ratio| Section {
        name,
        title: title.to_owned(),
        first: "server",
        columns,
        ratio,
        rows: subjects
            .iter()
            .filter(|subject| work.is_for(**subject) && is_reasonable(&work, **subject))
            .map(|subject| Row {
                label: subject.to_string(),
                work: work.clone(),
                subject: *subject,
                settings: settings.clone(),
            })
            .collect(),
    };
    let delivered = Some(("deliveries, first row = 1", "delivered_per_second"));
    let cpu = Some(("CPU, first row = 1", "server_cpu_us_per_delivery"));
    let direct = Work::Direct { pairs: 50, window: 64, idle: 0 };
    let rate = Work::Rate { pairs: 50, per_second: 5_000 };
    let fanout = |members| Work::Fanout { members, writers: 4, window: 16 };
    let idle = |connections| Work::Idle { connections, watchers: 0 };
    let storm = |connections| Work::Storm { connections };
    let catch_up = Work::Catchup { users: 1_000, messages: 1_000 };
    let sections = vec![
        section("direct", "50 pairs, 64 messages of each under way", direct, MESSAGES, delivered),
        section("rate", "50 pairs, 5,000 messages a second", rate, LATENCY, cpu),
        section("fanout", "A group of 100, 4 of them writing", fanout(100), MESSAGES, delivered),
        section("fanout", "A group of 1,000, 4 of them writing", fanout(1_000), MESSAGES, delivered),
        section("idle", "10,000 connections that say nothing", idle(10_000), IDLE, None),
        section("idle", "19,500 connections that say nothing", idle(19_500), IDLE, None),
        section("storm", "10,000 come back after a restart", storm(10_000), STORM, None),
        section("storm", "19,500 come back after a restart", storm(19_500), STORM, None),
        section("catchup", "1,000 users come back, each having missed 1,000 messages", catch_up, CATCH_UP, None),
    ];
    sections.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

/// Left out is what takes a server minutes: a large group in Prosody, and ten thousand logins.
fn is_reasonable(work: &Work, subject: Subject) -> bool {
    let is_large = match work {
        Work::Fanout { members, .. } => *members > 100,
        Work::Idle { connections, .. } => *connections > 1_000,
        _ => false,
    };
    subject != Subject::Prosody || !is_large
}
