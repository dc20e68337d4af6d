//! The result as people and programs read it.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::server::Usage;

/// What a run has measured, in the driver's own terms.
pub struct Outcome {
    pub sent: u64,
    pub delivered: u64,
    /// From the first send to the last delivery.
    pub elapsed: Duration,
    /// Of each delivery, in microseconds, from when the message was due.
    pub latency_us: Histogram<u64>,
}

pub struct Report {
    sent: u64,
    delivered: u64,
    seconds: f64,
    sent_per_second: f64,
    delivered_per_second: f64,
    cpu_seconds_per_million: f64,
    cpu_share: f64,
    memory_kib: u64,
    percentiles_us: [(&'static str, u64); 5],
}

impl Report {
    pub fn new(outcome: &Outcome, before: &Usage, after: &Usage) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        let at = |quantile| outcome.latency_us.value_at_quantile(quantile);
        Self {
            sent: outcome.sent,
            delivered: outcome.delivered,
            seconds,
            sent_per_second: outcome.sent as f64 / seconds,
            delivered_per_second: outcome.delivered as f64 / seconds,
            cpu_seconds_per_million: cpu_seconds / outcome.delivered as f64 * 1e6,
            cpu_share: cpu_seconds / seconds,
            memory_kib: after.memory_kib,
            percentiles_us: [
                ("p50", at(0.5)),
                ("p90", at(0.9)),
                ("p99", at(0.99)),
                ("p99.9", at(0.999)),
                ("max", outcome.latency_us.max()),
            ],
        }
    }

    pub fn print(&self, out: &mut impl Write, as_json: bool) -> io::Result<()> {
        writeln!(out, "sent         {:>12} messages, {:.0}/s", self.sent, self.sent_per_second)?;
        writeln!(out, "delivered    {:>12} checked, {:.0}/s", self.delivered, self.delivered_per_second)?;
        writeln!(
            out,
            "server CPU   {:>12.2} s per million deliveries, {:.0} % of a core",
            self.cpu_seconds_per_million,
            self.cpu_share * 100.0
        )?;
        writeln!(out, "server memory{:>12} KiB", self.memory_kib)?;
        for (name, value) in self.percentiles_us {
            writeln!(out, "latency {name:<5}{value:>12} µs")?;
        }
        if as_json {
            let percentiles: serde_json::Map<String, serde_json::Value> =
                self.percentiles_us.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            let all = json!({
                "sent": self.sent, "delivered": self.delivered, "seconds": self.seconds,
                "sent_per_second": self.sent_per_second, "delivered_per_second": self.delivered_per_second,
                "cpu_seconds_per_million": self.cpu_seconds_per_million, "memory_kib": self.memory_kib,
                "latency_us": percentiles,
            });
            writeln!(out, "{all}")?;
        }
        Ok(())
    }
}
