//! The transfers of this session: which there are, how far each is, and the number by which a person names it.

use std::net::SocketAddr;
use std::time::Instant;

use crate::chat::FileOffer;
use crate::names::{TransferId, UserName};
use crate::protocol::sentence;

/// A transfer that is not over.
#[derive(Debug)]
pub(super) struct Transfer {
    /// What a person calls it by.
    pub(super) number: u32,
    /// What the two clients and the server call it by; absent until the file was looked at.
    pub(super) id: Option<TransferId>,
    pub(super) peer: UserName,
    pub(super) file: FileOffer,
    pub(super) side: Side,
    pub(super) done_bytes: u64,
    /// Whether it was given up here.
    pub(super) is_cancelled: bool,
}

/// Which way the bytes go, and how far it is.
#[derive(Debug)]
pub(super) enum Side {
    Sending {
        /// The file as it was typed.
        path: String,
        stage: Sending,
        /// How often it was offered.
        offers: u32,
    },
    Receiving {
        stage: Receiving,
        /// Where and by which key the sender is reached.
        peer: PeerPoint,
        /// Whether it was offered again before the engine noticed that it broke.
        is_offered_again: bool,
    },
}

/// How a peer is reached, by the server's word.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerPoint {
    pub(super) key: String,
    pub(super) addrs: Vec<SocketAddr>,
}

/// How far a transfer is at its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// The file is looked at.
    Preparing,
    /// Offered, or about to be.
    Offered,
    /// The engine has it.
    Running,
    /// It broke, and is offered again at a moment.
    Broken(Instant),
}

/// How far a transfer is at its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Whether a part of it is here from before is found out.
    Considered,
    /// The person is asked.
    Asked,
    /// The engine is made ready.
    Accepting,
    /// The engine has it.
    Running,
    /// It broke; whether the sender offers it again is waited for until a moment.
    Broken(Instant),
}

impl Transfer {
    /// Whether the engine has it.
    pub(super) fn is_running(&self) -> bool {
        matches!(
            self.side,
            Side::Sending { stage: Sending::Running, .. }
                | Side::Receiving { stage: Receiving::Running | Receiving::Accepting, .. }
        )
    }

    /// Whether it only waits for a word of this user, so that nothing is lost by leaving.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.side, Side::Receiving { stage: Receiving::Asked | Receiving::Considered, .. })
    }

    /// When something is due with it.
    fn due(&self) -> Option<Instant> {
        match self.side {
            Side::Sending { stage: Sending::Broken(at), .. } => Some(at),
            Side::Receiving { stage: Receiving::Broken(at), .. } => Some(at),
            _ => None,
        }
    }

    /// The file's name, harmless to show.
    pub(super) fn name(&self) -> String {
        sentence::visible(&self.file.name)
    }

    /// A line of `/transfers`.
    pub(super) fn told(&self) -> String {
        let Self { number, peer, .. } = self;
        let file = match self.id {
            Some(_) => sentence::file_list(std::slice::from_ref(&self.file)),
            None => self.name(),
        };
        let percent = percent(self.done_bytes, self.file.size);
        match &self.side {
            Side::Sending { stage, .. } => match stage {
                Sending::Preparing => format!("{number}: {file} to {peer}, being looked at"),
                Sending::Offered => format!("{number}: {file} to {peer}, waiting for an answer"),
                Sending::Running => format!("{number}: {file} to {peer}, {percent} %"),
                Sending::Broken(_) => format!("{number}: {file} to {peer}, broken, to be offered again"),
            },
            Side::Receiving { stage, .. } => match stage {
                Receiving::Considered | Receiving::Asked => {
                    format!("{number}: {file} from {peer}, waiting for your /accept {number} or /decline {number}")
                }
                Receiving::Accepting | Receiving::Running => format!("{number}: {file} from {peer}, {percent} %"),
                Receiving::Broken(_) => format!("{number}: {file} from {peer}, broken, waiting for {peer}"),
            },
        }
    }
}

/// How many hundredths are done.
pub(super) fn percent(done_bytes: u64, total_bytes: u64) -> u64 {
    let percent = u128::from(done_bytes) * 100 / u128::from(total_bytes.max(1));
    u64::try_from(percent.min(100)).unwrap_or(100)
}

/// All transfers of this session.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    list: Vec<Transfer>,
    last_number: u32,
    /// Whether any has failed.
    pub(super) has_failed: bool,
    /// Whether the person was told that leaving breaks them off.
    pub(super) is_warned: bool,
}

impl Transfers {
    pub(super) fn add(&mut self, id: Option<TransferId>, peer: UserName, file: FileOffer, side: Side) -> u32 {
        self.last_number += 1;
        let number = self.last_number;
        self.is_warned = false;
        self.list.push(Transfer { number, id, peer, file, side, done_bytes: 0, is_cancelled: false });
        number
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Transfer> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Transfer> {
        self.list.iter_mut()
    }

    pub(super) fn find(&mut self, number: u32) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|known| known.number == number)
    }

    pub(super) fn find_id(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|known| known.id == Some(id))
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Transfer> {
        let place = self.list.iter().position(|known| known.number == number)?;
        Some(self.list.remove(place))
    }

    pub(super) fn remove_id(&mut self, id: TransferId) -> Option<Transfer> {
        let place = self.list.iter().position(|known| known.id == Some(id))?;
        Some(self.list.remove(place))
    }

    /// Whether any is under way, or waits for the other side.
    pub(super) fn is_busy(&self) -> bool {
        self.list.iter().any(|known| !known.is_unanswered())
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.list.iter().filter_map(Transfer::due).min()
    }

    /// The numbers of those with something due.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        let is_due = |known: &&Transfer| known.due().is_some_and(|due| due <= now);
        self.list.iter().filter(is_due).map(|known| known.number).collect()
    }

    /// The only offer that waits for an answer, if there is exactly one.
    pub(super) fn only_asked(&self) -> Option<u32> {
        let mut asked = self.list.iter().filter(|known| known.is_unanswered());
        let only = asked.next()?;
        asked.next().is_none().then_some(only.number)
    }
}
