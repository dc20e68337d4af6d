//! Every bound of the server, in one place; the unit stands last in each name.

/// Unsent bytes of a connection above which events are no longer queued but read from the log later.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Unsent bytes of a connection above which no further command is taken from it: an answer may have 1 MiB more.
pub const OUTPUT_COMMAND_BYTES_MAX: usize = 256 << 10;
/// Sent bytes of a connection's output that are kept at most, while others are unsent.
pub const OUTPUT_SENT_BYTES_MAX: usize = 128 << 10;
/// The most bytes of empty buffers that are kept to be used again.
pub const SPARE_BYTES_MAX: usize = 256 << 10;
/// The most bytes of one of them.
pub const SPARE_BUFFER_BYTES_MAX: usize = 16 << 10;
/// The most bytes of each buffer of a batch that are kept for another however long there is none.
pub const SPARE_BATCH_BYTES_MAX: usize = 8 << 10;
/// How long larger ones are kept at most, also while they are used.
pub const SPARE_BATCH_MS: u64 = 1_000;
/// Bytes of durable batches that connections are told of and not sent, above which all are written to.
pub const SHARED_BYTES_MAX: usize = 256 << 10;
/// The same of pieces of them, 16 bytes each: of a message to a group each member has one.
pub const SHARED_PIECES_MAX: usize = 1 << 19;
/// Connections that wait to be written to, above which one with an answer waits as they do.
pub const ANSWERS_FIRST_MAX: usize = 256;
/// Connections of the members of groups that are remembered for the next message to the group.
pub const AUDIENCES_KEYS_MAX: usize = 64 << 10;
/// Unsent bytes below which a connection that fell behind goes on reading the log.
pub const OUTPUT_RESUME_BYTES: usize = 128 << 10;
/// Bytes read from a socket in one turn.
pub const READ_BYTES_PER_TURN: usize = 64 << 10;
/// Handshakes of TLS that are gone on with in one turn: each takes some hundred microseconds.
pub const HANDSHAKES_PER_TURN: usize = 8;
/// Bytes of TLS records that are kept until the rest of them comes: one record (RFC 8446, section 5.2) and some.
pub const TLS_UNREAD_BYTES_MAX: usize = 18 << 10;
/// Bytes of output that are encrypted at once: one record (RFC 8446, section 5.1). What of them a socket does not take is
/// kept beside the output.
pub const TLS_RECORD_BYTES_MAX: usize = 16 << 10;
/// Bytes of an open batch above which no socket is read until the disk has caught up.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Deliveries of an open batch above which no socket is read until the disk has caught up.
pub const BATCH_DELIVERIES_MAX: usize = 1 << 20;
/// Events taken from the log in one step of catching up.
pub const CATCH_UP_EVENTS_MAX: usize = 512;
/// Bytes taken from the log in one step of catching up.
pub const CATCH_UP_BYTES_MAX: usize = 256 << 10;
/// Events made by a session's own commands while it is fed from the log, above which nothing more is taken from it until
/// it has passed them.
pub const OWN_EVENTS_MAX: usize = 16 << 10;
/// Chunks read from the log that wait for the loop, and that it takes in one turn.
pub const CHUNKS_PER_TURN: usize = 16;
/// Bytes of the events in an answer to `/history`, leaving room for its other fields in a line of 1 MiB.
pub const HISTORY_BYTES_MAX: usize = (1 << 20) - 1_024;
/// How long a connection may stay without a login, in milliseconds.
pub const LOGIN_MS: u64 = 30_000;
/// Silence after which a client is asked for a sign of life, in milliseconds.
pub const IDLE_PING_MS: u64 = 90_000;
/// Silence after which a client is given up, in milliseconds.
pub const IDLE_CLOSE_MS: u64 = 120_000;
/// How long a connection that is being closed may take to read what was sent, in milliseconds.
pub const DRAIN_MS: u64 = 2_000;
/// How long it is waited again where a connection's last bytes have not been offered to its socket by then.
pub const DRAIN_AGAIN_MS: u64 = 100;
/// How long an offer waits for an answer, in milliseconds.
pub const OFFER_MS: u64 = 600_000;
/// How long a transfer waits for its receiver's client to come back after its session broke, in milliseconds.
pub const RECEIVER_AWAY_MS: u64 = 5_000;
/// The same after the server was started anew.
pub const START_AWAY_MS: u64 = 60_000;
/// The longest frame that offers a transfer, in bytes.
pub const OFFER_BYTES_MAX: usize = 4 << 10;
/// Commands a client may send at once before its rate counts.
pub const BURST_COMMANDS: u32 = 1_000;
/// Bytes of the log that one line of a client may need: each of its bytes, escaped, takes at most six.
pub const LINE_ROOM_BYTES: u64 = 6 * (64 << 10) + 1_024;
/// Bytes of the log kept free for what cannot be refused: the end of the server and, per session, a logout.
pub const RESERVE_BYTES: u64 = 64 << 10;
/// Bytes of the log kept free for each session's logout.
pub const RESERVE_SESSION_BYTES: u64 = 256;
/// Bytes of console lines waiting to be printed, above which lines are skipped and counted.
pub const CONSOLE_BYTES_MAX: usize = 4 << 20;
/// How long after indexes or snapshots could not be made it is tried again, in milliseconds; it doubles up to
/// [`ARCHIVE_AGAIN_MS_MAX`].
pub const ARCHIVE_AGAIN_MS: u64 = 60_000;
/// The longest time after which it is tried again, in milliseconds.
pub const ARCHIVE_AGAIN_MS_MAX: u64 = 600_000;
/// Bytes that the snapshots of a log may take together, beside the newest two.
pub const SNAPSHOTS_BYTES_MAX: u64 = 256 << 20;
/// How long a login token is good, in milliseconds: 30 days.
pub const TOKEN_MS: u64 = 30 * 86_400_000;
/// How long a login token is fresh, in milliseconds: so long no other follows it, and a login by it writes nothing.
pub const TOKEN_FRESH_MS: u64 = 86_400_000;
/// Devices of a user that have a login token.
pub const TOKENS_PER_USER_MAX: usize = 64;
/// The longest line of the file of tokens, in bytes.
pub const TOKEN_LINE_BYTES_MAX: usize = 1_024;
/// Lines of that file that say nothing any more, above which, and above half of all, it is written anew at a start.
pub const TOKEN_LINES_DEAD_MAX: usize = 1_000;
