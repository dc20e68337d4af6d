//! The log alone: events made durable by its thread, as the server has it, and nothing else done with them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use messenger::chat::Event;
use messenger::clock::{self, Timestamp};
use messenger::eventlog::{self, Batch, Disk, Report, Writer};

use crate::generate;
use crate::looking::load;

/// Events that are made once and appended again and again under other numbers.
const EVENTS: u64 = 4_096;
/// The most events of a batch: about a megabyte.
const BATCH_EVENTS_MAX: u64 = 4_096;

/// Appends events for so long, as many as the log takes or so many a second. The time of each is from when it was due (to
/// be appended, or by the rate) until it was durable.
///
/// # Errors
/// The disk does not take them.
pub fn append(data: &Path, seconds: u64, rate: Option<u64>) -> anyhow::Result<u64> {
    std::fs::create_dir_all(data)?;
    let directory = tempfile::Builder::new().prefix("log-alone").tempdir_in(data)?;
    let log = eventlog::open(Disk::lock(directory.path())?, uuid::Uuid::new_v4(), clock::wall(), |_| {})?.log;
    let this = thread::current();
    let writer = Writer::spawn(log, move || this.unpark())?;
    let events = (1..=EVENTS).map(generate::event).collect::<Result<Vec<Event>, _>>()?;

    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut took = Histogram::<u64>::new(3)?;
    let mut batches = 0_u64;
    let mut open = Filling::after(0);
    let mut in_flight: Option<Filling> = None;
    loop {
        let now = Instant::now();
        let is_over = now >= end;
        let due = match rate {
            Some(rate) => u64::try_from((now.min(end) - start).as_nanos() * u128::from(rate) / 1_000_000_000)?,
            None => u64::MAX,
        };
        while (rate.is_some() || !is_over) && open.last() < due && open.count() < BATCH_EVENTS_MAX {
            open.push(
                &events,
                rate.map_or(now, |rate| start + Duration::from_secs_f64(open.last() as f64 / rate as f64)),
            );
        }
        if in_flight.is_none() && open.count() > 0 {
            let next = Filling::after(open.last());
            let mut full = std::mem::replace(&mut open, next);
            let lines = std::mem::take(&mut full.lines);
            writer.submit(Batch { lines, first: full.first, last: full.last(), at: full.at });
            in_flight = Some(full);
        } else if in_flight.is_none() && is_over {
            break;
        } else if in_flight.is_none() {
            thread::sleep(Duration::from_micros(10));
        } else if open.count() == BATCH_EVENTS_MAX || rate.is_some() || is_over {
            thread::park();
        }
        match writer.try_report() {
            None | Some(Report::Room { .. }) => {}
            Some(Report::Failed(error)) => bail!(error),
            Some(Report::Durable(_)) => {
                let now = Instant::now();
                batches += 1;
                for due in in_flight.take().iter().flat_map(|filling| &filling.due) {
                    took.record(u64::try_from(now.saturating_duration_since(*due).as_micros())?)?;
                }
            }
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    writer.close()?;
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{:.0} events a second in batches of {:.0}: p50 {:.2} ms, p99 {:.1} ms, max {:.1} ms; load {}",
        open.last() as f64 / elapsed,
        open.last() as f64 / batches as f64,
        ms(0.5),
        ms(0.99),
        took.max() as f64 / 1e3,
        load()
    );
    Ok(open.last())
}

/// A batch that is being filled.
struct Filling {
    lines: Vec<u8>,
    first: u64,
    at: Timestamp,
    /// When each of its events was due.
    due: Vec<Instant>,
}

impl Filling {
    fn after(last: u64) -> Self {
        Self { lines: Vec::new(), first: last + 1, at: clock::wall(), due: Vec::new() }
    }

    fn count(&self) -> u64 {
        self.due.len() as u64
    }

    /// Its last event, or the last one before it.
    fn last(&self) -> u64 {
        self.first + self.count() - 1
    }

    fn push(&mut self, events: &[Event], due: Instant) {
        let seq = self.first + self.count();
        let event = &events[usize::try_from(seq).unwrap_or_default() % events.len()];
        event.encode(seq, self.at, &mut self.lines);
        self.lines.push(b'\n');
        self.due.push(due);
    }
}
