//! Measures a transfer between two processes on the loopback network: wall time, rate, and the processor time and
//! memory of both ends.
//!
//! `cargo run --release --example transfer_speed -- [MIB] [DIRECTORY] [DELAY_MS LOSS_PER_MILLE] [kill]`
//!
//! With a delay or loss the two talk through a relay in the sender's process that delays each datagram and loses some.
//! With `kill` the receiver is killed when it has half of the file, started again, and the rest is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and fails on the unexpected")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use messenger::chat::FileOffer;
use messenger::clock;
use messenger::names::TransferId;
use messenger::transfer::{Engine, Options, Tokens, TransferEvent};
use mio::{Events, Poll, Token, Waker};

const WAKER: Token = Token(0);
const TRANSFER: &str = "0123456789abcdef0123456789abcdef";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "receive") {
        return receive(Path::new(&arguments[1]));
    }
    let number = |place: usize, otherwise: u64| arguments.get(place).map_or(otherwise, |text| text.parse().unwrap());
    let directory = PathBuf::from(arguments.get(1).map_or("/dev/shm", String::as_str));
    let kills = arguments.get(4).is_some_and(|word| word == "kill");
    let (delay, lost) = (Duration::from_millis(number(2, 0)), number(3, 0));
    let directory = directory.join(format!("transfer-speed-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("in")).unwrap();
    let (path, mib) = (directory.join("file.bin"), number(0, 1_024));
    write_file(&path, mib);
    let (mut poll, mut engine) = open(&directory, "sender");
    if kills {
        send(&mut poll, &mut engine, &path, (delay, lost), (mib << 20) / 2);
        println!("the receiver was killed, and is started again");
    }
    send(&mut poll, &mut engine, &path, (delay, lost), u64::MAX);
    std::fs::remove_dir_all(directory).unwrap();
}

/// Starts a receiver and sends the file to it; kills it once so many bytes are done.
fn send(poll: &mut Poll, engine: &mut Engine, path: &Path, (delay, lost): (Duration, u64), kill_at: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("receive").arg(path.parent().unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, engine.udp_port()));
    let source = Engine::prepare(path).unwrap();
    let bytes = source.size_bytes();
    let key = lines.next().unwrap();
    let mut address: SocketAddr = lines.next().unwrap().parse().unwrap();
    let mut known_to_peer = own;
    if !delay.is_zero() || lost > 0 {
        (known_to_peer, address) = relay(own, address, delay, lost);
    }
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{} {known_to_peer} {bytes}", engine.public_key()).unwrap();
    assert_eq!(lines.next().unwrap(), "ready");
    let (began, used) = (clock::monotonic(), processor_seconds());
    engine.start(transfer(), source, &key, &[address], clock::monotonic());
    if !run(poll, engine, kill_at) {
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    let seconds = began.elapsed().as_secs_f64();
    let sender = processor_seconds() - used;
    let receiver = lines.next().unwrap();
    println!(
        "{} MiB in {seconds:.2} s: {:.0} MB/s; sender {sender:.2} s of processor, {} MiB of memory; receiver {receiver}",
        bytes >> 20,
        bytes as f64 / 1e6 / seconds,
        memory_mib()
    );
    child.wait().unwrap();
}

fn receive(directory: &Path) {
    let (mut poll, mut engine) = open(directory, "receiver");
    println!("{}\n127.0.0.1:{}", engine.public_key(), engine.udp_port());
    let line = std::io::stdin().lines().next().unwrap().unwrap();
    let mut words = line.split(' ');
    let (key, address) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let file = FileOffer { name: "file.bin".into(), size: words.next().unwrap().parse().unwrap() };
    let used = processor_seconds();
    engine.accept(transfer(), "yoda".parse().unwrap(), &file, key, &[address], clock::monotonic()).unwrap();
    println!("ready");
    run(&mut poll, &mut engine, u64::MAX);
    println!("{:.2} s of processor, {} MiB of memory", processor_seconds() - used, memory_mib());
}

fn open(directory: &Path, key: &str) -> (Poll, Engine) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
    let options = Options {
        bind: (Ipv4Addr::LOCALHOST, 0).into(),
        download_dir: directory.join("in"),
        key_file: directory.join(key),
        waker,
    };
    let tokens = Tokens { socket: Token(1), timer: Token(2) };
    let engine = Engine::new(poll.registry(), tokens, options).unwrap();
    (poll, engine)
}

/// Runs the loop until the transfer is done and its connection over; false if it stopped at so many bytes.
fn run(poll: &mut Poll, engine: &mut Engine, stop_at: u64) -> bool {
    let mut events = Events::with_capacity(64);
    let mut is_done = false;
    let mut turns = Vec::new();
    while !is_done {
        let now = clock::monotonic();
        let timeout = engine.next_timeout().map(|due| due.saturating_duration_since(now));
        poll.poll(&mut events, timeout).unwrap();
        let now = clock::monotonic();
        for event in &events {
            match event.token() {
                WAKER => engine.handle_woken(now),
                _ => engine.handle_ready(event, now),
            }
        }
        if engine.next_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        turns.push(now.elapsed());
        while let Some(event) = engine.poll_event() {
            match event {
                TransferEvent::Done { .. } => is_done = true,
                TransferEvent::Failed { failure, .. } => panic!("{failure}"),
                TransferEvent::Progress { done_bytes, .. } if done_bytes >= stop_at => return false,
                TransferEvent::Progress { .. } => {}
            }
        }
    }
    turns.sort();
    let at = |share: usize| turns[(turns.len() - 1) * share / 1_000];
    eprintln!("{} turns: half within {:?}, 99 % {:?}, 99.9 % {:?}", turns.len(), at(500), at(990), at(999));
    // The other side may still need what closes the connection.
    let until = clock::monotonic() + Duration::from_millis(300);
    while engine.is_busy() && clock::monotonic() < until {
        poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
        let now = clock::monotonic();
        for event in events.iter().filter(|event| event.token() != WAKER) {
            engine.handle_ready(event, now);
        }
        engine.handle_timeout(now);
    }
    true
}

/// Two sockets between two clients, on a thread each way; gives the address of each client as the other knows it.
fn relay(first: SocketAddr, second: SocketAddr, delay: Duration, lost: u64) -> (SocketAddr, SocketAddr) {
    let facing = [first, second].map(|_| Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()));
    for (side, end) in [(0, second), (1, first)] {
        let (heard, told) = (Arc::clone(&facing[side]), Arc::clone(&facing[1 - side]));
        std::thread::spawn(move || pass(&heard, &told, end, delay, lost));
    }
    (facing[1].local_addr().unwrap(), facing[0].local_addr().unwrap())
}

fn pass(heard: &UdpSocket, told: &UdpSocket, end: SocketAddr, delay: Duration, lost: u64) {
    rustix::net::sockopt::set_socket_recv_buffer_size(heard, 8 << 20).unwrap();
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 65_536];
    let mut state: u64 = 1;
    loop {
        let now = clock::monotonic();
        while let Some((due, bytes)) = waiting.pop_front() {
            if due > now {
                waiting.push_front((due, bytes));
                break;
            }
            let _ = told.send_to(&bytes, end);
        }
        let patience =
            waiting.front().map(|(due, _)| due.saturating_duration_since(now).max(Duration::from_micros(50)));
        heard.set_read_timeout(patience).unwrap();
        if let Ok((length, _)) = heard.recv_from(&mut buffer) {
            // Xorshift (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state % 1_000 >= lost {
                waiting.push_back((clock::monotonic() + delay, buffer[..length].to_vec()));
            }
        }
    }
}

fn write_file(path: &Path, mib: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut block = vec![0_u8; 1 << 20];
    for number in 0..mib {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
    }
}

fn transfer() -> TransferId {
    TRANSFER.parse().unwrap()
}

/// User and system time of this process.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// The most memory this process had.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}
