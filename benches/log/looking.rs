//! Looking back with the program itself: the state at any moment, the ways of `replay` beside the tools that everybody has,
//! and how soon `--follow` shows what was committed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use messenger::chat::{Event, Seq};
use messenger::eventlog::LogReader;
use serde_json::Value;

use super::server::{PASSWORD, Server, user};

const MESSENGER: &str = env!("CARGO_BIN_EXE_messenger");
/// How often each command of a comparison is run.
const ROUNDS: usize = 3;

/// The state at random moments, by event and by time in turn: the time of a whole run of the program.
pub fn state(data: &Path, moments: u64) -> anyhow::Result<u64> {
    let mut reader = LogReader::open(data)?;
    let last = reader.end();
    let mut took = Histogram::<u64>::new(3)?;
    let mut longest = (0, 0);
    let cpu = cpu_seconds()?;
    for number in 1..=moments {
        let seq = 1 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % last;
        let at = if number % 2 == 0 { seq.to_string() } else { time(&mut reader, seq)? };
        let start = Instant::now();
        let done = Command::new(MESSENGER).arg("replay").arg(data).args(["--state", "--at", &at]).output()?;
        let micros = u64::try_from(start.elapsed().as_micros())?;
        ensure!(done.status.success(), "--at {at}: {}", String::from_utf8_lossy(&done.stderr));
        let shown: Value = serde_json::from_slice(&done.stdout)?;
        ensure!(shown["seq"] == seq, "--at {at} is the state of event {}", shown["seq"]);
        took.record(micros)?;
        longest = longest.max((micros, seq));
    }
    let ms = |micros: u64| micros as f64 / 1e3;
    println!(
        "the state at {moments} moments: p50 {:.1} ms, max {:.1} ms (event {}); CPU {:.1} ms each; load {}",
        ms(took.value_at_quantile(0.5)),
        ms(longest.0),
        longest.1,
        (cpu_seconds()? - cpu) * 1e3 / moments as f64,
        load()
    );
    Ok(moments)
}

/// The moment of an event, which no other has.
fn time(reader: &mut LogReader, seq: Seq) -> anyhow::Result<String> {
    reader.seek(seq)?;
    let line = reader.next_line()?.context("the event is there")?;
    Ok(Event::decode(line.bytes)?.at.to_string())
}

/// The ways of `replay` beside `sha256sum`, `grep` and `jq` on the same files, in turn in one run.
pub fn compare(data: &Path) -> anyhow::Result<u64> {
    let last = LogReader::open(data)?.end();
    let (rare, late) = (last / 3, last - last / 200);
    let replay = |way: String| (format!("messenger replay DATA {way}"), format!("{MESSENGER} replay . {way}"));
    let tool = |command: String| (command.clone(), command);
    let rows = [
        ("checks every byte", replay("--verify".into())),
        ("hashes every byte", tool("sha256sum events/*.jsonl".into())),
        ("a rare text", replay(format!("--grep 'event {rare}:'"))),
        ("the same", tool(format!("grep -hF 'event {rare}:' events/*.jsonl"))),
        ("the same", tool(format!("jq -c 'select(.seq=={rare})' events/*.jsonl"))),
        ("a user whom no event names", replay("--user nobody".into())),
        ("the same", tool("grep -hF '\"nobody\"' events/*.jsonl; true".into())),
        ("the last 0.5 %, by number", replay(format!("--from {late}"))),
        ("the same", tool(format!("jq -c 'select(.seq>={late})' events/*.jsonl"))),
        ("counts by type, user and day", replay("--stats".into())),
        ("the state at the end", replay("--state".into())),
    ];
    let run = |command: &str| -> anyhow::Result<Vec<u8>> {
        let done = Command::new("sh").args(["-c", command]).current_dir(data).output()?;
        ensure!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(done.stdout)
    };
    // All of it is in the system's memory, for everybody.
    run("cat events/*.jsonl > /dev/null")?;
    let mut seconds = vec![Vec::new(); rows.len()];
    for _ in 0..ROUNDS {
        for (took, (_, (_, command))) in seconds.iter_mut().zip(&rows) {
            let (start, cpu) = (Instant::now(), cpu_seconds()?);
            run(command)?;
            took.push((start.elapsed().as_secs_f64(), cpu_seconds()? - cpu));
        }
    }
    let (found, grepped) = (run(&rows[2].1.1)?, run(&rows[3].1.1)?);
    ensure!(found == grepped && !found.is_empty(), "replay finds other lines than grep");
    println!("{last} events; each {ROUNDS} times in turn; load {}\n", load());
    println!("| work | command | seconds | CPU, s |\n| --- | --- | --- | --- |");
    for (took, (work, (shown, _))) in seconds.iter().zip(&rows) {
        let range = |values: Vec<f64>, digits: usize| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            format!("{least:.digits$} to {most:.digits$}")
        };
        let (wall, cpu) = took.iter().copied().unzip();
        let shown = shown.trim_end_matches("; true");
        println!("| {work} | `{shown}` | {} | {} |", range(wall, 3), range(cpu, 2));
    }
    Ok(last)
}

/// Users write at a rate to a server, and `replay --follow` is read: from the answer to each message, which says that it is
/// committed, to its line. The answers are told apart by whether a closed segment was being archived meanwhile.
pub fn follow(data: &Path, seconds: u64, per_second: u32, bytes: usize) -> anyhow::Result<u64> {
    const SENDERS: u32 = 4;
    std::fs::create_dir_all(data)?;
    let server = Server::start(SENDERS as usize + 1, Some(data))?;
    let mut following = Command::new(MESSENGER)
        .arg("replay")
        .arg(server.data())
        .args(["--follow", "--type", "message"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let shown = BufReader::new(following.stdout.take().context("it has an output")?);
    let (lines, seen) = mpsc::channel();
    thread::spawn(move || shown.lines().map_while(Result::ok).try_for_each(|line| lines.send((line, Instant::now()))));
    let end = Instant::now() + Duration::from_secs(seconds);
    let pause = Duration::from_secs(1) * SENDERS / per_second;
    let senders: Vec<_> = (0..SENDERS as usize)
        .map(|number| {
            let address = server.address;
            thread::spawn(move || write_until(end, pause, TcpStream::connect(address)?, number, bytes))
        })
        .collect();
    let mut written = Vec::new();
    for sender in senders {
        written.append(&mut sender.join().map_err(|_| anyhow::anyhow!("a sender failed"))??);
    }
    let committed: HashMap<Seq, Instant> = written.iter().map(|message| (message.seq, message.answered)).collect();
    let mut took = Histogram::<u64>::new(3)?;
    let mut expected = committed.len();
    while expected > 0 {
        let (line, at) = seen.recv_timeout(Duration::from_secs(10)).context("an event was never shown")?;
        let seq = serde_json::from_str::<Value>(&line)?["seq"].as_u64().context("an event has a number")?;
        let told: &Instant = committed.get(&seq).context("nobody wrote this")?;
        // It may be shown before the answer has come: then it took no time.
        took.record(u64::try_from(at.saturating_duration_since(*told).as_micros())?)?;
        expected -= 1;
    }
    let segments = moments_of_writing(&server.data().join("events"), "jsonl")?.len();
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "from the commit to the line: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; {} segments; load {}",
        ms(0.5),
        ms(0.99),
        took.max() as f64 / 1e3,
        segments,
        load()
    );
    tell_answers(&written, &archiving(&server.data())?)?;
    following.kill()?;
    following.wait()?;
    server.stop()?;
    Ok(committed.len() as u64)
}

/// When the files of a directory with this ending were written last, rising.
fn moments_of_writing(directory: &Path, ending: &str) -> anyhow::Result<Vec<Instant>> {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let mut moments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == ending) {
            moments.extend(now.checked_sub(wall.duration_since(entry.metadata()?.modified()?).unwrap_or_default()));
        }
    }
    moments.sort_unstable();
    Ok(moments)
}

/// From the end of each closed segment to the snapshot behind it.
fn archiving(data: &Path) -> anyhow::Result<Vec<(Instant, Instant)>> {
    let mut closed = moments_of_writing(&data.join("events"), "jsonl")?;
    closed.pop();
    let snapshots = moments_of_writing(&data.join("snapshots"), "json").unwrap_or_default();
    let until = |end: &Instant| snapshots.iter().find(|snapshot| *snapshot >= end).copied();
    Ok(closed.into_iter().filter_map(|end| Some((end, until(&end)?))).collect())
}

fn tell_answers(written: &[Written], archiving: &[(Instant, Instant)]) -> anyhow::Result<()> {
    let mut took = [Histogram::<u64>::new(3)?, Histogram::new(3)?];
    for Written { sent, answered, .. } in written {
        let is_beside = archiving.iter().any(|(begin, end)| sent <= end && begin <= answered);
        took[usize::from(!is_beside)].record(u64::try_from((*answered - *sent).as_micros())?)?;
    }
    for (took, when) in took.iter().zip(["while a closed segment was archived", "at other times"]) {
        let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99, max) = (ms(0.5), ms(0.99), took.max() as f64 / 1e3);
        println!(
            "from a message to its answer {when}: {} answers, p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
            took.len()
        );
    }
    let longest = archiving.iter().map(|(begin, end)| *end - *begin).max().unwrap_or_default();
    println!("{} segments were archived, each within {:.3} s", archiving.len(), longest.as_secs_f64());
    Ok(())
}

/// A message that was answered.
struct Written {
    seq: Seq,
    sent: Instant,
    answered: Instant,
}

/// A user who writes one message after the other, each once the one before is answered and its time has come.
fn write_until(
    end: Instant,
    pause: Duration,
    mut stream: TcpStream,
    number: usize,
    bytes: usize,
) -> anyhow::Result<Vec<Written>> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let name = user(number);
    stream.write_all(
        format!("{{\"type\":\"login\",\"username\":\"{name}\",\"password\":\"{PASSWORD}\"}}\n").as_bytes(),
    )?;
    let mut answer = |wanted: &str| -> anyhow::Result<Value> {
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "the server has closed the connection");
            let frame: Value = serde_json::from_str(&line)?;
            ensure!(frame["type"] != "error", "{frame}");
            if frame["type"] == wanted {
                return Ok(frame);
            }
        }
    };
    answer("live")?;
    let message = format!("{{\"type\":\"command\",\"text\":\"/msgto {} {}\"}}\n", user(4), "x".repeat(bytes));
    let mut written = Vec::new();
    let mut due = Instant::now();
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        stream.write_all(message.as_bytes())?;
        let frame = answer("ok")?;
        let answered = Instant::now();
        written.push(Written { seq: frame["seq"].as_u64().context("a message has a number")?, sent, answered });
        due += pause;
    }
    Ok(written)
}

/// CPU time of all processes that were started and have ended, to a hundredth of a second.
fn cpu_seconds() -> anyhow::Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): fields 16 and 17 are the ticks of children, user and system; the name before may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(13..15).context("stat has its fields")?.iter().flat_map(|ticks| ticks.parse::<u64>()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// How busy the machine is, as the system has it for the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
