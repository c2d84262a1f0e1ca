//! The listener for whoever runs the gateway: is it alive, is it ready, what is it doing, drop what it has cached. It knows
//! nothing of the steps' insides: the gateway and its tenants say how they stand, and here it is put into HTTP.
//!
//! It has a thread of its own, so it answers while the workers are busy or drain, and they are not disturbed by it.
//!
//! Who may ask: `access`. What there is: `routes`. The page for people: `page`, plain files within the binary.

mod access;
mod answer;
mod connections;
mod explore;
mod page;
mod purge;
mod routes;
mod status;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use self::connections::Socket;
use crate::config::ListenAddress;
use crate::generation::ActiveGeneration;
use crate::lifecycle::Lifecycle;
use crate::log_events;

/// What is answered from.
#[derive(Debug)]
pub struct Sources {
    /// Where it listens.
    pub address: ListenAddress,
    /// What serves at present.
    pub live: Arc<ActiveGeneration>,
    /// Where the process around it stands.
    pub lifecycle: Arc<Lifecycle>,
}

/// A listener that is serving. It ends when this is dropped.
#[derive(Debug)]
pub struct Admin {
    /// Never sent on: that it is gone is what is told.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Starts its thread.
    ///
    /// # Errors
    /// If the thread or its runtime can't be had.
    pub fn start(socket: Socket, sources: Sources) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = connections::serve(socket, Arc::new(sources)) => {
                        if let Err(error) = served {
                            tracing::error!(%error, message = log_events::ADMIN_FAILED);
                        }
                    }
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has nothing left to end.
            let _ = thread.join();
        }
    }
}
