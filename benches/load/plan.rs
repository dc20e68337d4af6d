//! Many works after one another: round by round, so that what else the machine does meets all alike; then medians.

use std::io::Write;

use anyhow::ensure;
use messenger::clock;
use serde_json::{Value, json};

use crate::report::Figures;
use crate::subject::Subject;
use crate::table::{print_table, shown};
use crate::works::{Settings, Work};

/// A column: its heading and the name of its figure.
pub type Column = (&'static str, &'static str);

/// A table to be filled.
pub struct Section {
    /// The work's name, by which it can be asked for alone.
    pub name: &'static str,
    pub title: String,
    /// The heading of the first column.
    pub first: &'static str,
    pub columns: &'static [Column],
    /// The figure that is shown once more relative to the first row's, round by round.
    pub ratio: Option<Column>,
    pub rows: Vec<Row>,
}

/// A line of a table.
pub struct Row {
    pub label: String,
    pub work: Work,
    pub subject: Subject,
    pub settings: Settings,
}

/// What came of a row.
#[derive(Default)]
struct Runs {
    done: Vec<Figures>,
    /// The row's figure relative to the first row's of the same round.
    ratios: Vec<f64>,
    failed: Option<String>,
}

/// Does all works in each round, and prints a table for each section; as JSON too, if wanted.
///
/// # Errors
/// Nothing is to be done, or the tables cannot be written. A work that fails is told of, and left out from then on.
pub fn run(sections: &[Section], rounds: usize, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    ensure!(rounds > 0 && !sections.is_empty(), "there is nothing to do: give at least one round and one work");
    let begun = clock::wall().to_string();
    let mut loads = Vec::new();
    let mut runs: Vec<Vec<Runs>> =
        sections.iter().map(|section| section.rows.iter().map(|_| Runs::default()).collect()).collect();
    for round in 1..=rounds {
        loads.push(load());
        for (section, runs) in sections.iter().zip(&mut runs) {
            run_section(section, runs, round);
        }
    }
    let load = loads.join(", ");
    writeln!(out, "{rounds} rounds from {begun}; load of the machine at the start of each: {load}.")?;
    for (section, runs) in sections.iter().zip(&runs) {
        print_section(section, runs, out)?;
    }
    if as_json {
        let results = sections.iter().zip(&runs).map(|(section, runs)| section_json(section, runs));
        let all = json!({ "begun": begun, "rounds": rounds, "load": loads, "works": results.collect::<Vec<_>>() });
        writeln!(out, "\n{all}")?;
    }
    Ok(())
}

/// The machine's load in the last minute, in programs that want to run.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn run_section(section: &Section, runs: &mut [Runs], round: usize) {
    let mut first = None;
    for (row, runs) in section.rows.iter().zip(runs) {
        if runs.failed.is_some() {
            continue;
        }
        eprintln!("round {round}: {}, {}", section.title, row.label);
        match row.work.run(row.subject, &row.settings) {
            Ok(figures) => {
                let value = section.ratio.and_then(|(_, name)| figures.get(name));
                first = first.or(value);
                runs.ratios.extend(value.zip(first).map(|(value, first)| value / first));
                runs.done.push(figures);
            }
            Err(error) => {
                eprintln!("  failed: {error:#}");
                runs.failed = Some(format!("{error:#}"));
            }
        }
    }
}

fn print_section(section: &Section, runs: &[Runs], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\n### {}\n", section.title)?;
    let mut heading = vec![section.first];
    heading.extend(section.columns.iter().map(|(heading, _)| *heading));
    heading.extend(section.ratio.map(|(heading, _)| heading));
    let mut rows = Vec::new();
    for (row, runs) in section.rows.iter().zip(runs) {
        if let Some(failed) = &runs.failed {
            writeln!(out, "{}, {}: {failed}", row.subject, row.label)?;
            continue;
        }
        let median = Figures::median(&runs.done);
        let mut cells = vec![row.label.clone()];
        cells.extend(section.columns.iter().map(|(_, name)| median.get(name).map_or_else(String::new, shown)));
        cells.extend(
            section.ratio.map(|_| middle(&runs.ratios).map_or_else(String::new, |ratio| format!("{ratio:.2}"))),
        );
        rows.push(cells);
    }
    Ok(print_table(out, &heading, &rows)?)
}

fn middle(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn section_json(section: &Section, runs: &[Runs]) -> Value {
    let rows = section.rows.iter().zip(runs).map(|(row, runs)| {
        json!({
            "row": row.label,
            "server": row.subject.to_string(),
            "runs": runs.done.iter().map(Figures::to_json).collect::<Vec<_>>(),
            "median": Figures::median(&runs.done).to_json(),
            "failed": runs.failed,
        })
    });
    json!({ "work": section.title, "rows": rows.collect::<Vec<_>>() })
}
