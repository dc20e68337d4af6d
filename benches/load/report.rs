//! Figures as people and programs read them, and medians over several runs.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::driver::Outcome;
use crate::table::shown;
use crate::usage::Usage;

/// Named figures in the order in which they are shown; the unit stands last in each name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub fn push(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    /// What a run with messages has measured, and what it cost the server and the generator.
    pub fn of_messages(outcome: &Outcome, server: [Usage; 2], generator: [Usage; 2]) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let delivered = outcome.delivered as f64;
        let cpu = |[before, after]: [Usage; 2]| after.cpu_seconds - before.cpu_seconds;
        let latency = |quantile| outcome.latency_us.value_at_quantile(quantile) as f64;
        Self(vec![
            ("sent", outcome.sent as f64),
            ("delivered", delivered),
            ("seconds", seconds),
            ("sent_per_second", outcome.sent as f64 / seconds),
            ("delivered_per_second", delivered / seconds),
            ("server_cpu_us_per_delivery", cpu(server) / delivered * 1e6),
            ("server_cpu_us_per_message", cpu(server) / outcome.sent as f64 * 1e6),
            ("server_cpu_percent", cpu(server) / seconds * 100.0),
            ("server_memory_mib", server[1].memory_kib as f64 / 1024.0),
            ("generator_cpu_us_per_delivery", cpu(generator) / delivered * 1e6),
            ("generator_cpu_percent", cpu(generator) / seconds * 100.0),
            ("latency_p50_us", latency(0.5)),
            ("latency_p90_us", latency(0.9)),
            ("latency_p99_us", latency(0.99)),
            ("latency_p99_9_us", latency(0.999)),
            ("latency_max_us", outcome.latency_us.max() as f64),
        ])
    }

    /// The figure of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// Of each figure its median over several runs of one work.
    pub fn median(runs: &[Self]) -> Self {
        let Some(first) = runs.first() else { return Self::default() };
        let median = |name: &'static str| {
            let mut values: Vec<f64> = runs.iter().filter_map(|run| run.get(name)).collect();
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            let is_even = values.len().is_multiple_of(2);
            (name, if is_even { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] })
        };
        Self(first.0.iter().map(|(name, _)| median(name)).collect())
    }

    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>())
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (name, value) in &self.0 {
            writeln!(out, "{:<32}{:>14}", name.replace('_', " "), shown(*value))?;
        }
        Ok(())
    }
}
