//! Being told something. Made before the first line says that something is ready: whoever reads that line may act on it.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, caught from the moment this is made.
pub(super) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    /// Where there is nothing to read anew it ends the process, as a terminal that goes away does.
    hang_up: Option<Signal>,
}

/// What the process was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To end.
    End,
    /// To read its configuration anew.
    Reload,
    /// Nothing, for a while.
    Nothing,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt, hang_up: None })
    }

    /// Catches SIGHUP too.
    pub(super) fn with_hang_up(mut self) -> io::Result<Self> {
        self.hang_up = Some({
            let _inside = self.runtime.enter();
            signal(SignalKind::hangup())?
        });
        Ok(self)
    }

    /// Returns at the first of SIGTERM and SIGINT.
    pub(super) fn wait(mut self) {
        while self.next(Duration::MAX) != Told::End {}
    }

    /// The next thing that the process is told, or nothing after a while.
    pub(super) fn next(&mut self, patience: Duration) -> Told {
        let Self { runtime, terminate, interrupt, hang_up } = self;
        let hung_up = async {
            match hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = terminate.recv() => Told::End,
                _ = interrupt.recv() => Told::End,
                _ = hung_up => Told::Reload,
                () = tokio::time::sleep(patience) => Told::Nothing,
            }
        })
    }
}
