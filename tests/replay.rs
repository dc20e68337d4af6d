//! `messenger replay` on the logs of real servers.

#[path = "support/server.rs"]
mod server;

use messenger::eventlog::LogReader;
use server::Server;

#[test]
fn what_was_answered_is_in_the_log_after_a_kill() {
    let mut server = Server::start();
    let seq = server.login("yoda").command("/msgto obiwan hello")["seq"].as_u64().unwrap();
    server.kill();
    let mut reader = LogReader::open(&server.data()).unwrap();
    reader.seek(seq).unwrap();
    let line = reader.next_line().unwrap().unwrap();
    assert!(String::from_utf8_lossy(line.bytes).ends_with(r#""text":"hello"}"#));
}
