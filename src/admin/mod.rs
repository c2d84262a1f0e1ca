//! The admin listener: health, metrics, status page, purge and explorer, for the operator of the gateway.
//!
//! The gateway and its tenants report their own state; this module translates it to HTTP. It runs on a thread of its own, so
//! it answers while the workers are busy or drain, and does not slow them down.
//!
//! `routes` lists the resources, `access` decides which requests are the operator's, and `page` has the files of the status
//! page, which are part of the binary.

mod access;
mod connection_table;
mod connections;
mod context;
mod explorer;
mod page;
mod purge;
mod response;
mod routes;
mod status;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use self::connection_table::MAX_CONNECTIONS;
pub use self::connections::AdminSocket;
pub use self::context::AdminContext;
use crate::log_events;

/// A running admin listener. Dropping it ends the listener.
#[derive(Debug)]
pub struct AdminListener {
    /// Ends the listener when it is dropped; nothing is ever sent.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminListener {
    /// Starts the listener on its own thread.
    ///
    /// # Errors
    /// If the thread or its runtime can't be started.
    pub fn start(socket: AdminSocket, context: AdminContext) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = connections::serve(socket, Arc::new(context)) => {
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

impl Drop for AdminListener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is logged by the panic hook; it leaves nothing to clean up.
            let _ = thread.join();
        }
    }
}
