//! CPU time and memory of a process, from `/proc`.

use std::path::PathBuf;

use anyhow::Context as _;

/// What a process has used so far, and holds.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of all threads, user and system.
    pub cpu_seconds: f64,
    /// Memory, shared pages counted in parts. What the kernel holds for its sockets is not in it.
    pub memory_kib: u64,
}

/// What this process has used.
pub fn own_usage() -> anyhow::Result<Usage> {
    usage(std::process::id())
}

/// What a process has used so far, and holds.
pub fn usage(process: u32) -> anyhow::Result<Usage> {
    let process = PathBuf::from(format!("/proc/{process}"));
    let stat = std::fs::read_to_string(process.join("stat"))?;
    // proc_pid_stat(5): fields 14 and 15 are the ticks in user and system mode; the name before may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..13).context("stat has its fields")?;
    let ticks: u64 = ticks.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let memory = std::fs::read_to_string(process.join("smaps_rollup"))?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup has its fields")?;
    let memory_kib = memory.trim().trim_end_matches(" kB").parse()?;
    const TICKS_PER_SECOND: f64 = 100.0;
    Ok(Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, memory_kib })
}
