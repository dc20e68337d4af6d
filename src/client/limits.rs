//! Every bound of the client, in one place; the unit stands last in each name.

/// The longest line a person or script may give, in bytes with its line feed.
pub const TYPED_LINE_BYTES_MAX: usize = 65_536;
/// Numbered commands under way at a time.
pub const COMMANDS_UNDER_WAY_MAX: usize = 64;
/// Commands waiting to be sent above which no more are taken.
pub const COMMANDS_WAITING_MAX: usize = 1_000;
/// Commands waiting above which a script is not read on.
pub const COMMANDS_WAITING_READ: usize = 128;
/// Bytes read from a socket in one turn.
pub const READ_BYTES_PER_TURN: usize = 64 << 10;
/// Bytes waiting to be printed above which the server is not read.
pub const PRINTING_BYTES_MAX: usize = 1 << 20;
/// Unsent bytes above which no more commands are written.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// How long one address may take to be connected to, in milliseconds.
pub const CONNECT_MS: u64 = 5_000;
/// How long a login may take to be answered, in milliseconds.
pub const LOGIN_MS: u64 = 30_000;
/// The first pause before connecting again, in milliseconds; it doubles up to [`RECONNECT_MS_MAX`].
pub const RECONNECT_MS: u64 = 200;
/// The longest pause before connecting again, in milliseconds.
pub const RECONNECT_MS_MAX: u64 = 5_000;
/// How long a script goes on connecting again, in milliseconds; a person is never given up.
pub const SCRIPT_PATIENCE_MS: u64 = 60_000;
/// Silence after which the server is asked for a sign of life, in milliseconds: later than it asks by itself.
pub const SILENCE_PING_MS: u64 = 100_000;
/// Silence after that question at which the server is given up, in milliseconds.
pub const SILENCE_DEAD_MS: u64 = 20_000;
/// How often the server is asked for the head of its log, in milliseconds.
pub const HEAD_EVERY_MS: u64 = 300_000;
/// Heads of logs that are remembered.
pub const HEADS_MAX: usize = 1_000;
/// How long a goodbye may take once the client was interrupted, in milliseconds.
pub const GOODBYE_MS: u64 = 1_000;
/// Transfers that are not over, at a time.
pub const TRANSFERS_MAX: usize = 32;
/// How often a transfer that broke is offered again.
pub const OFFERS_AGAIN_MAX: u32 = 4;
/// The first pause before it is offered again, in milliseconds; it doubles.
pub const OFFER_AGAIN_MS: u64 = 1_000;
/// How long a transfer that broke is waited for by its receiver, in milliseconds.
pub const BROKEN_MS: u64 = 60_000;
/// Bytes of the journal of a device above which it is written anew.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 20;
/// Lines of the input history that are kept.
pub const HISTORY_LINES_MAX: usize = 1_000;
/// Devices a user has on one machine without naming them.
pub const DEVICES_MAX: u32 = 16;
/// Names remembered for completion, of users and of groups each.
pub const NAMES_MAX: usize = 20_000;
