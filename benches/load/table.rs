//! Figures in tables, as people read them.

use std::io::{self, Write};

/// A figure with three digits at least, and none that says nothing.
pub fn shown(value: f64) -> String {
    if value.abs() >= 100.0 || value == value.trunc() {
        let digits = format!("{:.0}", value.abs());
        let groups: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", groups.join(","));
    }
    format!("{value:.*}", if value.abs() >= 10.0 { 1 } else { 2 })
}

/// A table in Markdown: a heading and rows of cells.
pub fn print_table(out: &mut impl Write, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    writeln!(out, "| {} |", heading.join(" | "))?;
    writeln!(out, "|{}", " --- |".repeat(heading.len()))?;
    for row in rows {
        writeln!(out, "| {} |", row.join(" | "))?;
    }
    Ok(())
}
