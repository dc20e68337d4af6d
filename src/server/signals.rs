//! The operator's signals: SIGTERM and SIGINT to stop, SIGHUP to read the accounts again, as pipes that wake the loop.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long after a signal to stop another one counts as a second.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_millis(250);

/// The signals of the operator, as pipes that wake the loop.
pub(super) struct Signals {
    pub(super) stop: UnixStream,
    pub(super) reload: UnixStream,
    /// Once it is set, the next signal to stop ends the process at once, also while the loop waits for the disk.
    is_stopping: Arc<AtomicBool>,
}

impl Signals {
    /// From a moment later on, a signal to stop ends the process. What comes within that moment is the same one, sent to
    /// the process and to its group.
    pub(super) fn expect_second(&self) {
        let is_stopping = Arc::clone(&self.is_stopping);
        let arm = move || {
            std::thread::sleep(SECOND_SIGNAL_AFTER);
            is_stopping.store(true, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("second signal".into()).spawn(arm).is_err() {
            self.is_stopping.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn register(registry: &Registry, stop_token: Token, reload_token: Token) -> io::Result<Self> {
        let mut stop = signal_pipe(&[SIGTERM, SIGINT])?;
        let mut reload = signal_pipe(&[SIGHUP])?;
        registry.register(&mut stop, stop_token, Interest::READABLE)?;
        registry.register(&mut reload, reload_token, Interest::READABLE)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_stopping))?;
        }
        Ok(Self { stop, reload, is_stopping })
    }
}

fn signal_pipe(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = StdUnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(UnixStream::from_std(read))
}

/// Takes what a signal has written, so that the next one wakes again.
pub(super) fn drain(pipe: &mut UnixStream) {
    let mut buffer = [0; 64];
    while matches!(pipe.read(&mut buffer), Ok(count) if count > 0) {}
}
