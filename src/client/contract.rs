//! What goes into the core and comes out of it: options, prompts, things to show, to keep and to have done.

#[cfg(doc)]
use super::app::App;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use uuid::Uuid;

use super::heads::{SeenHead, SeenHeads};
use super::outbox::Outbox;
use crate::chat::{FileOffer, Record, Seq};
use crate::names::{DeviceName, GroupName, TransferId, UserName};
use crate::protocol::{Answer, ErrorAnswer};

/// What becomes of incoming offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// The person is asked.
    Ask,
    /// They are taken.
    All,
    /// They are declined for this session.
    None,
}

/// What a client is run with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The user's name, where it is not to be asked for.
    pub user: Option<UserName>,
    /// The password, where it is not to be asked for.
    pub password: Option<String>,
    /// Whether a person types: asked again after a wrong password, and never given up.
    pub is_person: bool,
    /// What becomes of incoming offers.
    pub accept: Accept,
    /// Whether every frame received is shown as it came.
    pub echo_frames: bool,
    /// Whether to ask for the names of users and groups, to complete them.
    pub learn_names: bool,
    /// Spreads the pauses between attempts to connect.
    pub seed: u64,
}

/// What is to be typed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Nothing.
    None,
    /// The user's name.
    UserName,
    /// The password.
    Password,
    /// A command.
    Command,
}

/// How the client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All done.
    Done,
    /// The session ended against the user's will.
    Failed,
    /// No connection.
    CannotConnect,
    /// The login was refused.
    LoginRefused,
    /// A transfer failed.
    TransferFailed,
    /// Interrupted.
    Interrupted,
}

/// Something for the user to see. Texts of others are raw where they are typed data, and made visible in sentences.
#[derive(Debug, Clone)]
pub enum Show {
    /// A command was carried out.
    Answer {
        /// The command as it was typed.
        typed: String,
        /// What the server says.
        answer: Answer,
    },
    /// A command was refused.
    Refused {
        /// The command as it was typed.
        typed: String,
        /// Why.
        error: ErrorAnswer,
    },
    /// Something happened.
    Event(Record),
    /// Somebody offers a file, and is to be answered.
    Offer {
        /// The transfer's number for `/accept` and `/decline`.
        number: u32,
        /// Who offers.
        from: UserName,
        /// The file.
        file: FileOffer,
    },
    /// How far a transfer is.
    Progress {
        /// The transfer's number.
        number: u32,
        /// The file's name.
        name: String,
        /// Bytes that are done.
        done_bytes: u64,
        /// Bytes of the whole.
        total_bytes: u64,
    },
    /// A sentence of the client's own.
    Notice(String),
    /// Why the client cannot go on.
    Trouble(String),
    /// A reply to a command of the client's own.
    Reply(String),
    /// Names that are known now, for completion.
    Names {
        /// Of users.
        users: BTreeSet<UserName>,
        /// Of groups.
        groups: BTreeSet<GroupName>,
    },
    /// A frame as it came, without its line feed.
    Frame(String),
}

/// A change of what outlives the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The login was good: what was made for it stays.
    LoggedIn,
    /// A command was taken into the outbox. It must be durable before it is sent.
    Added(String),
    /// This many commands at the front of the outbox are carried out.
    Settled(u64),
    /// The command of this number is taken out; the later ones move down by one.
    Refused(u64),
    /// The outbox is counted from behind this number. Must be durable before anything is sent.
    Base(u64),
    /// All up to this event of this log has been shown.
    Cursor(Uuid, Seq),
    /// A head of the server's log was seen.
    Head(SeenHead),
}

/// Something for the engine of transfers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferAction {
    /// Look at a file that is to be sent. [`App::handle_prepared`] is owed.
    Prepare {
        /// The transfer's number.
        number: u32,
        /// The file as it was typed.
        path: String,
    },
    /// Say whether a part of an offered file is here. [`App::handle_considered`] is owed.
    Consider {
        /// The transfer.
        transfer: TransferId,
        /// Who offers.
        from: UserName,
        /// The file.
        file: FileOffer,
    },
    /// Be ready to receive. [`App::handle_accepting`] is owed.
    Accept {
        /// The transfer.
        transfer: TransferId,
        /// Who sends.
        from: UserName,
        /// The file.
        file: FileOffer,
        /// The sender's key.
        peer_key: String,
        /// Where the sender may be reached.
        addrs: Vec<SocketAddr>,
    },
    /// Send the file that was prepared.
    Start {
        /// The transfer.
        transfer: TransferId,
        /// The receiver's key.
        peer_key: String,
        /// Where the receiver may be reached.
        addrs: Vec<SocketAddr>,
    },
    /// The peer may be reached here, too.
    AddAddress {
        /// The transfer.
        transfer: TransferId,
        /// Where.
        addr: SocketAddr,
    },
    /// Give it up.
    Cancel {
        /// The transfer.
        transfer: TransferId,
    },
    /// What was prepared for it is not needed.
    Forget {
        /// The transfer.
        transfer: TransferId,
    },
}

/// Something for the shell to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Show it.
    Show(Show),
    /// Keep it.
    Keep(Keep),
    /// Open the state of this user, and the engine. [`App::handle_opened`] or [`App::handle_not_opened`] is owed.
    Open(UserName),
    /// Have the engine do it.
    Transfer(TransferAction),
    /// Close the connection. [`App::handle_disconnected`] is owed.
    Disconnect,
}

/// What the shell has opened for a user.
#[derive(Debug, Clone)]
pub struct Opened {
    /// This device's name.
    pub device: DeviceName,
    /// What an earlier run left to be sent.
    pub outbox: Outbox,
    /// The event up to which all has been shown, and its log.
    pub cursor: Option<(Uuid, Seq)>,
    /// The heads of logs that were seen.
    pub heads: SeenHeads,
    /// The port and the public key of the engine of transfers, where it runs.
    pub engine: Option<(u16, String)>,
}
