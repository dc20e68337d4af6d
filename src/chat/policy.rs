//! What a server's flags and files decide: used to decide, never to fold.

use super::Refusal;
use crate::names::{NameSet, UserName};

/// The most sessions one user has at a time.
pub const SESSIONS_PER_USER_MAX: usize = 8;
/// The most devices of one user that number their commands.
pub const DEVICES_PER_USER_MAX: usize = 1_000;
/// The most groups there are.
pub const GROUPS_MAX: usize = 65_536;
/// The most users in a group, joined and invited together.
pub const GROUP_USERS_MAX: usize = 20_000;
/// The most offers of one sender that wait for an answer.
pub const OFFERS_PENDING_PER_USER_MAX: usize = 8;
/// The most bytes of a file offered.
pub const FILE_BYTES_MAX: u64 = 1 << 40;
/// How long a block lasts, in milliseconds.
pub const BLOCK_MS: u64 = 10_000;

/// The rules that a server is run with.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Wrong passwords in a row before a name is blocked.
    pub failures_max: u32,
    /// Who has an account, sorted.
    pub accounts: NameSet<UserName>,
}

impl Policy {
    /// Refuses a name without an account.
    pub(super) fn check_account(&self, user: UserName) -> Result<(), Refusal> {
        if self.accounts.contains(&user) { Ok(()) } else { Err(Refusal::UnknownUser(user)) }
    }
}
