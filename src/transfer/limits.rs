//! Every bound of a transfer, in one place; the unit stands last in each name.

use std::time::Duration;

/// Transfers under way at once, in each direction.
pub const TRANSFERS_MAX: usize = 4;
/// The largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 40;
/// The longest offer on the control stream, in bytes.
pub const OFFER_BYTES_MAX: usize = 4 << 10;
/// Addresses of a peer that are tried.
pub const ADDRESSES_MAX: usize = 16;
/// Block streams that a peer may have open at once.
pub const STREAMS_MAX: u32 = 64;
/// Buffers of one block each that a sender fills: read ahead, waiting, or sent and not yet acknowledged.
pub const SEND_BUFFERS_MAX: usize = 20;
/// Blocks that a sender reads ahead of what the connection takes.
pub const READ_AHEAD_BLOCKS_MAX: usize = 4;
/// Buffers of one block each that a receiver fills, or that wait for the disk; beyond them no stream is read.
pub const RECEIVE_BUFFERS_MAX: usize = 12;
/// Bytes that a connection takes without an acknowledgement; also its share of memory on the sender.
pub const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// Bytes that a peer may send before they are read: at first, so that no socket buffer overflows on a fast network.
pub const RECEIVE_WINDOW_FIRST_BYTES: u32 = 1 << 20;
/// The same, at most, on a long path.
pub const RECEIVE_WINDOW_MAX_BYTES: u32 = 12 << 20;
/// Bytes that a peer may send on one stream before they are read: a block, its header and the longest control message.
pub const STREAM_WINDOW_BYTES: u32 = (1 << 20) + (64 << 10);
/// Unsent bytes of the control stream above which nothing more is planned.
pub const CONTROL_BYTES_MAX: usize = 256 << 10;
/// Chaining values of blocks from before that wait to be compared.
pub const COMPARES_MAX: usize = 256;
/// How often a block may arrive wrong before the transfer is given up.
pub const TRIES_PER_BLOCK_MAX: u8 = 3;
/// Batches of datagrams read in one turn.
pub const RECEIVE_BATCHES_PER_TURN: usize = 4;
/// Batches of datagrams sent in one turn.
pub const SENDS_PER_TURN: usize = 16;
/// Parts and finished files of one name that are told apart by a number.
pub const NAMES_MAX: u32 = 9_999;
/// The longest name of a file that was received, in bytes; leaves room for a number and the endings of a part.
pub const NAME_BYTES_MAX: usize = 200;
/// Punch packets sent to one address.
pub const PUNCHES_PER_ADDRESS_MAX: usize = 60;

/// The least time between two punch packets to one address.
pub const PUNCH_INTERVAL: Duration = Duration::from_millis(50);
/// How long a better address is waited for after the first has answered.
pub const PUNCH_GRACE: Duration = Duration::from_millis(30);
/// How long a sender tries to reach its peer, the cryptographic handshake included.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a receiver waits for the sender after it accepted.
pub const AWAIT_SENDER: Duration = Duration::from_secs(30);
/// Silence after which a connection is given up.
pub const IDLE: Duration = Duration::from_secs(30);
/// Silence after which a sign of life is sent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a receiver that is done waits for the sender to close.
pub const LINGER: Duration = Duration::from_secs(5);
/// The least time between two reports of progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// The least time that pacing sleeps: a timer that fired for each packet would leave nothing to send in one call.
pub const PACING_FLOOR: Duration = Duration::from_micros(500);
/// A path with a shorter round trip is a local network.
pub const LOCAL_ROUND_TRIP: Duration = Duration::from_millis(2);
