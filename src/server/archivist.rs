//! The thread that archives: when a segment is closed it makes its index and a snapshot, from the disk alone.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use crate::chat::Seq;

/// Archives the closed segments up to an event, on a thread of its own; gives whether that is done.
pub type ArchiveThrough = Box<dyn FnMut(Seq) -> bool + Send>;

/// Starts the thread; it is given the last events of closed segments and gives those up to which all is archived. It
/// calls `wake` then, and ends with the channel.
///
/// # Errors
/// The system gives no thread.
pub(super) fn spawn(
    mut archive_through: ArchiveThrough,
    wake: impl Fn() + Send + 'static,
) -> io::Result<(Sender<Seq>, Receiver<Seq>)> {
    let (orders, todo) = mpsc::channel::<Seq>();
    let (done, archived) = mpsc::channel();
    std::thread::Builder::new().name("archivist".into()).spawn(move || {
        // The loop has the machine first. Where the system does not take it, nothing is lost but a little speed.
        let _ = rustix::process::nice(10);
        for through in todo {
            if archive_through(through) {
                if done.send(through).is_err() {
                    return;
                }
                wake();
            }
        }
    })?;
    Ok((orders, archived))
}
