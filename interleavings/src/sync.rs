//! Replaces `../src/sync.rs`: the scheduler's locks and atomics, and tokio's channels with a scheduling point before each change.

pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError, TryLockError, atomic, mpsc};
use tokio::sync::futures::Notified;

/// Lets the scheduler choose another thread.
fn scheduling_point() {
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

/// tokio's `Notify`.
#[derive(Debug, Default)]
pub(crate) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(crate) fn notify_waiters(&self) {
        scheduling_point();
        self.0.notify_waiters();
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        scheduling_point();
        self.0.notified()
    }
}

/// tokio's `watch`.
pub(crate) mod watch {
    use super::scheduling_point;

    pub(crate) use tokio::sync::watch::Receiver;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(tokio::sync::watch::Sender<T>);

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(tokio::sync::watch::Sender::new(value))
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            scheduling_point();
            self.0.subscribe()
        }

        pub(crate) fn send_replace(&self, value: T) -> T {
            scheduling_point();
            self.0.send_replace(value)
        }

        pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            scheduling_point();
            self.0.send_if_modified(modify)
        }
    }
}

/// Threads that are woken only by [`thread::Thread::unpark`], or by a timeout: a lost wake-up is a deadlock, which fails the model.
pub(crate) mod thread {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use shuttle::sync::{Condvar, Mutex};

    /// The handle of a thread.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Thread(Arc<Token>);

    #[derive(Debug, Default)]
    struct Token {
        is_there: Mutex<bool>,
        changed: Condvar,
    }

    shuttle::thread_local! {
        static CURRENT: RefCell<Thread> = RefCell::default();
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            *self.0.is_there.lock().expect("no panic") = true;
            self.0.changed.notify_one();
        }
    }

    fn current() -> Thread {
        CURRENT.with(|thread| thread.borrow().clone())
    }

    pub(crate) fn park() {
        let Thread(token) = current();
        let mut is_there = token.is_there.lock().expect("no panic");
        while !*is_there {
            is_there = token.changed.wait(is_there).expect("no panic");
        }
        *is_there = false;
    }

    /// Time passes at any moment.
    pub(crate) fn park_timeout(_timeout: Duration) {
        shuttle::thread::yield_now();
        *current().0.is_there.lock().expect("no panic") = false;
    }

    /// Starts threads.
    #[derive(Debug)]
    pub(crate) struct Builder;

    /// A thread that was started.
    #[derive(Debug)]
    pub(crate) struct JoinHandle(Thread);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn name(self, _name: String) -> Self {
            self
        }

        pub(crate) fn spawn(self, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
            let thread = Thread::default();
            let own = thread.clone();
            shuttle::thread::spawn(move || {
                CURRENT.with(|current| *current.borrow_mut() = own);
                run();
            });
            Ok(JoinHandle(thread))
        }
    }

    impl JoinHandle {
        pub(crate) fn thread(&self) -> &Thread {
            &self.0
        }
    }
}
