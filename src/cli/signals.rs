//! Signals to the process.
//!
//! A command registers them before it prints or logs that it is ready, because a signal may follow that line at once.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM and SIGINT from the moment it is created, and SIGHUP if that is requested.
pub(super) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    /// `None` for commands without a configuration to reload: SIGHUP ends them, as when a terminal closes.
    hangup: Option<Signal>,
}

/// The action that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalEvent {
    /// SIGTERM or SIGINT: end the process.
    Terminate,
    /// SIGHUP: reload the configuration.
    Reload,
    /// No signal arrived within the timeout.
    TimedOut,
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _context = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt, hangup: None })
    }

    /// Registers SIGHUP, too.
    pub(super) fn with_hangup(mut self) -> io::Result<Self> {
        self.hangup = Some({
            let _context = self.runtime.enter();
            signal(SignalKind::hangup())?
        });
        Ok(self)
    }

    /// Blocks until SIGTERM or SIGINT arrives.
    pub(super) fn wait_for_termination(mut self) {
        while self.next_within(Duration::MAX) != SignalEvent::Terminate {}
    }

    /// Blocks until a future ends; `None` if SIGTERM or SIGINT arrives first.
    pub(super) fn run_until_termination<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let Self { runtime, terminate, interrupt, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                output = future => Some(output),
            }
        })
    }

    /// Blocks until a signal arrives or the timeout is over.
    pub(super) fn next_within(&mut self, timeout: Duration) -> SignalEvent {
        let Self { runtime, terminate, interrupt, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = terminate.recv() => SignalEvent::Terminate,
                _ = interrupt.recv() => SignalEvent::Terminate,
                _ = hung_up => SignalEvent::Reload,
                () = tokio::time::sleep(timeout) => SignalEvent::TimedOut,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_wait_for_a_future_that_never_ends() {
        let mut signals = Signals::register().expect("they can be registered");
        assert_eq!(signals.run_until_termination(async { 7 }), Some(7));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .expect("a signal to itself");
        assert_eq!(signals.run_until_termination(std::future::pending::<()>()), None);
    }
}
