//! Instructions of each path, counted by callgrind: the difference of two runs, so that what each begins with does not count.

use std::io;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;

use crate::paths::Path;
use crate::table::{print_table, shown};

/// How often each path is gone in the two runs: whole batches of 64, and of 100.
const TIMES: [usize; 2] = [6_400, 12_800];

/// Runs this program again under valgrind, for each path twice, and prints a table.
///
/// # Errors
/// There is no valgrind, or a path failed.
pub fn run(paths: &[Path]) -> anyhow::Result<()> {
    let paths = if paths.is_empty() { Path::value_variants() } else { paths };
    let mut rows = Vec::new();
    for path in paths {
        let [fewer, more] = TIMES;
        let instructions = (count(*path, more)? - count(*path, fewer)?) / (more - fewer) as f64;
        rows.push(vec![path.name(), path.describe(), shown(three_digits(instructions))]);
    }
    print_table(&mut io::stdout(), &["path", "what it is", "instructions"], &rows)?;
    Ok(())
}

fn count(path: Path, times: usize) -> anyhow::Result<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    command.args(["path", &path.name(), "--times", &times.to_string()]);
    let output = command.output().context("valgrind cannot be started: install it (Debian: `valgrind`)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", path.name());
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    collected.and_then(|count| count.parse().ok()).with_context(|| format!("valgrind gave no count: {said}"))
}

/// The tables of names are hashed by a number drawn at each start, which moves the count by less than a thousandth or two.
fn three_digits(count: f64) -> f64 {
    let unit = 10_f64.powf((count.log10().floor() - 2.0).max(0.0));
    (count / unit).round() * unit
}
