//! Numbers about the events of a log: how many, of which type, by whom, on which day, how large, how fast.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{ReplayError, Scan, line};
use crate::chat::Seq;
use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::protocol::sentence;

/// How many names are counted one by one; names that nobody has can be tried without end.
const USERS_MAX: usize = 100_000;
/// How many names are shown as text.
const USERS_SHOWN_MAX: usize = 20;

/// Numbers about events.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    /// How many.
    pub events: u64,
    /// The bytes of their lines in the log, with line feeds.
    pub bytes: u64,
    /// The first of them.
    pub first: Option<Edge>,
    /// The last of them.
    pub last: Option<Edge>,
    /// Events a second between the first and the last.
    pub per_second: f64,
    /// The most events that had the same second.
    pub per_second_max: u64,
    /// How many of each type.
    pub by_type: BTreeMap<String, u64>,
    /// How many by each user who did something.
    pub by_user: BTreeMap<String, u64>,
    /// How many by users beyond the number that is counted one by one.
    pub by_other_users: u64,
    /// How many on each day, in UTC.
    pub by_day: BTreeMap<String, u64>,
    #[serde(skip)]
    this_second: (String, u64),
}

/// One end of what was counted.
#[derive(Debug, Clone, Serialize)]
pub struct Edge {
    /// The event.
    pub seq: Seq,
    /// Its moment.
    pub ts: Timestamp,
}

/// Counts the events of a scan.
///
/// # Errors
/// The log cannot be read.
pub fn stats(scan: &mut Scan) -> Result<Stats, ReplayError> {
    let mut stats = Stats::default();
    scan.for_each(|event| {
        stats.count(event);
        Ok::<_, ReplayError>(())
    })?;
    if let (Some(first), Some(last)) = (&stats.first, &stats.last) {
        let seconds = last.ts.ms_since(first.ts).max(1_000) as f64 / 1_000.0;
        // To a thousandth: more would only look exact.
        stats.per_second = (stats.events as f64 / seconds * 1_000.0).round() / 1_000.0;
    }
    Ok(stats)
}

impl Stats {
    pub(super) fn count(&mut self, event: &EventLine<'_>) {
        self.events += 1;
        self.bytes += event.bytes.len() as u64 + 1;
        add(&mut self.by_type, line::kind(event.bytes).unwrap_or("unknown"));
        if let Some(actor) = line::actor(event.bytes) {
            if self.by_user.len() < USERS_MAX || self.by_user.contains_key(actor) {
                add(&mut self.by_user, actor);
            } else {
                self.by_other_users += 1;
            }
        }
        let time = line::time(event.bytes).and_then(|time| std::str::from_utf8(time).ok()).unwrap_or_default();
        let (second, day) = (time.get(..19).unwrap_or_default(), time.get(..10).unwrap_or_default());
        add(&mut self.by_day, day);
        if self.this_second.0 != second {
            self.this_second = (second.to_owned(), 0);
        }
        self.this_second.1 += 1;
        self.per_second_max = self.per_second_max.max(self.this_second.1);
        if let Ok(ts) = time.parse() {
            let edge = Edge { seq: event.seq, ts };
            self.first.get_or_insert_with(|| edge.clone());
            self.last = Some(edge);
        }
    }
}

pub(super) fn add(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.to_owned(), 1)),
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events   {}, {}", self.events, sentence::byte_count(self.bytes))?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            writeln!(f, "from     {}, event {}", first.ts.to_local_words(), first.seq)?;
            writeln!(f, "to       {}, event {}", last.ts.to_local_words(), last.seq)?;
        }
        writeln!(f, "rate     {} a second, at most {}", self.per_second, self.per_second_max)?;
        f.write_str(&table("by type", &largest_first(&self.by_type), self.by_type.len()))?;
        f.write_str(&table("by user", &largest_first(&self.by_user), USERS_SHOWN_MAX))?;
        f.write_str(&table("by day (UTC)", &self.by_day.iter().collect::<Vec<_>>(), self.by_day.len()))
    }
}

pub(super) fn largest_first(counts: &BTreeMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    counts
}

fn table(title: &str, rows: &[(&String, &u64)], rows_max: usize) -> String {
    let mut out = format!("{title}\n");
    for (key, count) in rows.iter().take(rows_max) {
        // Writing to memory cannot fail.
        let _ = writeln!(out, "{count:>9}  {}", sentence::visible(key));
    }
    if rows.len() > rows_max {
        let _ = writeln!(out, "           and {} more", rows.len() - rows_max);
    }
    out
}
