//! Between the core and the engine of transfers: carries out what the one asks of the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::app::App;
use super::contract::TransferAction;
use crate::names::TransferId;
use crate::transfer::{Engine, Source};

/// The engine, and the files that are to be sent once their offers are accepted.
pub(super) struct Sharing {
    pub(super) engine: Engine,
    sources: HashMap<TransferId, Source>,
}

impl Sharing {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, sources: HashMap::new() }
    }

    /// Whether the engine has something to do yet.
    pub(super) fn is_busy(&self) -> bool {
        self.engine.is_busy()
    }

    /// Carries an action out, and tells the core what it owes it.
    pub(super) fn act(&mut self, action: TransferAction, app: &mut App, now: Instant) {
        match action {
            TransferAction::Prepare { number, path } => self.prepare(number, &path, app),
            TransferAction::Consider { transfer, from, file } => {
                app.handle_considered(transfer, self.engine.holds_part(transfer, from, &file));
            }
            TransferAction::Accept { transfer, from, file, peer_key, addrs } => {
                let is_ready = self.engine.accept(transfer, from, &file, &peer_key, &addrs, now);
                app.handle_accepting(transfer, is_ready.map_err(|failure| failure.to_string()));
            }
            TransferAction::Start { transfer, peer_key, addrs } => {
                if let Some(source) = self.sources.remove(&transfer) {
                    self.engine.start(transfer, source, &peer_key, &addrs, now);
                }
            }
            TransferAction::AddAddress { transfer, addr } => self.engine.add_address(transfer, addr, now),
            TransferAction::Cancel { transfer } => self.engine.cancel(transfer, now),
            TransferAction::Forget { transfer } => drop(self.sources.remove(&transfer)),
        }
    }

    fn prepare(&mut self, number: u32, path: &str, app: &mut App) {
        let looked = Engine::prepare(&expand(path)).map_err(|error| error.to_string());
        let (source, looked) = match looked {
            Ok(source) => {
                let about = (source.name().to_owned(), source.size_bytes());
                (Some(source), Ok(about))
            }
            Err(why) => (None, Err(why)),
        };
        let looked = draw().ok_or_else(|| "the system gives no random numbers".to_owned()).and_then(|fresh| {
            let (name, size) = looked?;
            Ok((fresh, name, size))
        });
        if let (Some(transfer), Some(source)) = (app.handle_prepared(number, looked), source) {
            self.sources.insert(transfer, source);
        }
    }
}

/// A path as a shell would read it: `~/` is the home directory.
fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// A number for a transfer that no other has.
fn draw() -> Option<TransferId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().ok()
}
