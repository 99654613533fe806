//! The session's own thread: what runs there outlives the callers and their runtimes.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{Notify, oneshot};

use crate::endpoint::RefreshError;
use crate::error::Error;

/// A thread with a current-thread runtime, started when first needed.
///
/// What must not be interrupted is [entered](Self::enter) as work: [`close`](Self::close), at
/// the end of the last handle, waits for it within bounds and lets nothing else begin.
pub(crate) struct SessionThread {
    running: Mutex<Option<Running>>,
    work: Arc<Work>,
}

struct Running {
    runtime: runtime::Handle,
    _stop: oneshot::Sender<()>,
}

impl SessionThread {
    /// For a session whose store may take as long as `store_wait` for each call.
    pub(crate) fn new(store_wait: Duration) -> Self {
        let state = WorkState { bounds: Bounds::of(store_wait), ..WorkState::default() };
        let work = Work { state: Mutex::new(state), ..Work::default() };
        Self { running: Mutex::new(None), work: Arc::new(work) }
    }

    /// Runs `future` on the thread, to its end even if the caller is dropped. Its panic is an
    /// error to the caller.
    ///
    /// # Errors
    /// The caller is on the thread itself: it would wait for itself for ever.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.guard()?;
        let task = self.runtime()?.spawn(future);
        task.await.unwrap_or_else(|error| {
            Err(if error.is_panic() {
                Error::internal("the token endpoint's code panicked: see its message", None)
            } else {
                Error::internal("the session is closed", None)
            })
        })
    }

    /// Starts the thread, if it does not run yet.
    pub(crate) fn start(&self) -> Result<(), Error> {
        self.runtime().map(|_| ())
    }

    /// Starts `future` on the thread and lets it run.
    pub(crate) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        self.runtime()?.spawn(future);
        Ok(())
    }

    /// Fails on the session's own thread, where only a token endpoint's code runs: what it waited
    /// for would be waiting for it.
    pub(crate) fn guard(&self) -> Result<(), Error> {
        if ROLE.get() == Role::Session(self.id()) {
            return Err(Error::internal(
                "a token endpoint called its own session: it must use the client it is given",
                None,
            ));
        }
        Ok(())
    }

    /// Enters work that the end of the program has to wait for. `None` once the session closes.
    pub(crate) fn enter(&self) -> Option<Entered> {
        let mut state = self.work.lock();
        if state.closing {
            return None;
        }
        state.count += 1;
        let number = state.count;
        state.entered.push((number, None));
        Some(Entered { work: Arc::clone(&self.work), number })
    }

    /// Runs `hook` on a thread of its own: it may block, panic, and use the session.
    pub(crate) fn hook(&self, hook: impl FnOnce() + Send + 'static) {
        self.work.lock().hooks += 1;
        let (work, role) = (Arc::clone(&self.work), Role::Hook(self.id()));
        let started = thread::Builder::new().name("reauth-hook".to_owned()).spawn(move || {
            ROLE.set(role);
            // Its message is printed; there is nobody here to pass the panic on to.
            let _ = panic::catch_unwind(panic::AssertUnwindSafe(hook));
            work.leave(|state| state.hooks -= 1);
        });
        if started.is_err() {
            self.work.leave(|state| state.hooks -= 1);
        }
    }

    /// Runs the future that `make` makes on a thread and a runtime of its own, where it may block
    /// and use the session, until it ends or `cancelled` does. Its panic is an error. The end of the
    /// program does not wait for it.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn apart<M, F>(
        &self,
        make: M,
        cancelled: oneshot::Receiver<()>,
    ) -> Result<impl Future<Output = Result<F::Output, Error>> + use<M, F>, Error>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output: Send + 'static>,
    {
        let failed = |e: std::io::Error| {
            let error = RefreshError::not_sent("could not start a thread for the login");
            Error::server(error.with_source(e))
        };
        let role = Role::Login(self.id());
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (tell, told) = oneshot::channel();
        let run = move || {
            ROLE.set(role);
            let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let (mut cancelled, mut future) = (pin!(cancelled), pin!(make()));
                    poll_fn(|context| match cancelled.as_mut().poll(context) {
                        Poll::Ready(_) => Poll::Ready(None),
                        Poll::Pending => future.as_mut().poll(context).map(Some),
                    })
                    .await
                })
            }));
            let result = match result {
                Ok(Some(output)) => Ok(output),
                Ok(None) => Err(Error::internal("the session is closed", None)),
                Err(_) => Err(Error::internal("the login hook panicked: see its message", None)),
            };
            // An error: nobody waits any more.
            let _ = tell.send(result);
            runtime.shutdown_background();
        };
        thread::Builder::new().name("reauth-login".to_owned()).spawn(run).map_err(failed)?;
        Ok(async move {
            told.await.unwrap_or_else(|_| Err(Error::internal("the session is closed", None)))
        })
    }

    /// Whether this is the code that gets a login, called [apart](Self::apart).
    pub(crate) fn is_in_login(&self) -> bool {
        ROLE.get() == Role::Login(self.id())
    }

    /// Waits until nothing is going on that must not be interrupted, within [`Bounds`]. From a
    /// hook it waits for everything but hooks; on the session's own thread, for nothing.
    pub(crate) async fn drain(&self) {
        let in_hook = ROLE.get() == Role::Hook(self.id());
        let (wait, bounds) = {
            let state = self.work.lock();
            (state.wait_at(Instant::now(), in_hook), state.bounds)
        };
        if wait.is_none() || ROLE.get() == Role::Session(self.id()) {
            return;
        }
        let work = Arc::clone(&self.work);
        let quiet = async move {
            loop {
                let changed = work.changed.notified();
                let Some(wait) = work.lock().wait_at(Instant::now(), in_hook) else {
                    return;
                };
                let _ = tokio::time::timeout(wait, changed).await;
            }
        };
        // On the session's thread: the caller's runtime may have no clock, or a paused one.
        let _ = self.run(async move { Ok(tokio::time::timeout(bounds.drain, quiet).await) }).await;
    }

    /// Lets nothing begin any more, waits for what was begun, and stops the thread. Blocks within
    /// [`Bounds`]; not for hooks where a hook drops the last handle, and for nothing where the
    /// thread itself does.
    pub(crate) fn close(&self) {
        let mut state = self.work.lock();
        state.closing = true;
        if ROLE.get() != Role::Session(self.id()) {
            let in_hook = ROLE.get() == Role::Hook(self.id());
            let end = Instant::now() + state.bounds.drain;
            loop {
                let now = Instant::now();
                let (left, wait) =
                    (end.saturating_duration_since(now), state.wait_at(now, in_hook));
                let Some(wait) = wait.filter(|_| !left.is_zero()) else {
                    break;
                };
                state = (self.work.left.wait_timeout(state, wait.min(left)))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
        drop(state);
        // Dropping `_stop` ends the thread's runtime, with whatever was only waiting.
        *self.running() = None;
    }

    fn runtime(&self) -> Result<runtime::Handle, Error> {
        let mut running = self.running();
        if let Some(running) = &*running {
            return Ok(running.runtime.clone());
        }
        if self.work.lock().closing {
            return Err(Error::internal("the session is closed", None));
        }
        let failed = |e: std::io::Error| {
            let error = RefreshError::not_sent("could not start the session's thread");
            Error::refresh(error.with_source(e))
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, start) = mpsc::sync_channel(1);
        let role = Role::Session(self.id());
        // The runtime is made there: dropped here, in a caller's runtime, it would panic.
        let run = move || {
            ROLE.set(role);
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = started.send(Ok(runtime.handle().clone()));
                    // An error: the sender is gone, which is how it ends.
                    let _ = runtime.block_on(stopped);
                    // A name lookup may hang; nobody waits for it any more.
                    runtime.shutdown_background();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        };
        thread::Builder::new().name("reauth-session".to_owned()).spawn(run).map_err(failed)?;
        let handle =
            (start.recv().unwrap_or_else(|e| Err(std::io::Error::other(e)))).map_err(failed)?;
        *running = Some(Running { runtime: handle.clone(), _stop: stop });
        Ok(handle)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells sessions apart: the address of what only this one holds.
    fn id(&self) -> usize {
        Arc::as_ptr(&self.work).addr()
    }
}

/// Work that the end of the program waits for, until it is dropped.
pub(crate) struct Entered {
    work: Arc<Work>,
    number: u64,
}

impl Entered {
    /// From now on the end of the program waits only for one more call to the store: the exchange
    /// is over, and what is left may take for ever.
    pub(crate) fn give_up_soon(&self) {
        self.work.leave(|state| {
            let end = Instant::now() + state.bounds.unsaved;
            let mine = state.entered.iter_mut().filter(|(number, _)| *number == self.number);
            mine.for_each(|(_, until)| *until = Some(end));
        });
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.work.leave(|state| state.entered.retain(|(number, _)| *number != self.number));
    }
}

#[derive(Default)]
struct Work {
    state: Mutex<WorkState>,
    left: Condvar,
    changed: Notify,
}

#[derive(Default)]
struct WorkState {
    bounds: Bounds,
    closing: bool,
    count: u64,
    /// What is going on, by number, and until when it is waited for at most.
    entered: Vec<(u64, Option<Instant>)>,
    hooks: usize,
}

impl WorkState {
    /// How long to wait before looking again; `None` once there is nothing to wait for.
    fn wait_at(&self, now: Instant, in_hook: bool) -> Option<Duration> {
        let ends = self.entered.iter().map(|(_, until)| until.unwrap_or(now + self.bounds.drain));
        let hooks = (self.hooks > 0 && !in_hook).then_some(now + self.bounds.drain);
        ends.chain(hooks).filter(|end| *end > now).min().map(|end| end - now)
    }
}

/// How long the end of a program waits.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// What a refresh can take once it was sent, or a hook.
    drain: Duration,
    /// A store that has refused the new tokens gets one more try before the program may end.
    unsaved: Duration,
}

impl Bounds {
    fn of(store_wait: Duration) -> Self {
        let drain = BESIDE_THE_STORE.saturating_add(store_wait.saturating_mul(STORE_CALLS));
        Self { drain: drain.min(END_OF_PATIENCE), unsaved: store_wait.min(END_OF_PATIENCE) }
    }
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, WorkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, change: impl FnOnce(&mut WorkState)) {
        change(&mut self.lock());
        self.left.notify_all();
        self.changed.notify_waiters();
    }
}

/// What a thread is to which session, by its id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Elsewhere,
    Session(usize),
    Hook(usize),
    Login(usize),
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Elsewhere) };
}

/// What a refresh can take once it was sent: the exchange (30 s), its replay (10 s), a revocation
/// (5 s), and a little; and so many calls to the store.
const BESIDE_THE_STORE: Duration = Duration::from_secs(48);
const STORE_CALLS: u32 = 4;

/// Nobody waits longer for a program to end, whatever it was told of its store.
const END_OF_PATIENCE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_end_waits_for_each_work_and_only_a_little_for_what_was_given_up() {
        let thread = SessionThread::new(STORE_WAIT);
        let now = Instant::now();
        let wait = || thread.work.lock().wait_at(now, false);
        assert_eq!(wait(), None);
        let (first, second) = (thread.enter().unwrap(), thread.enter().unwrap());
        drop(first);
        assert_eq!(wait(), Some(A_MINUTE));
        second.give_up_soon();
        let left = wait().unwrap();
        assert!(left < A_MINUTE && left >= STORE_WAIT, "{left:?}");
        drop(second);
        assert_eq!(wait(), None);
        let given_up = WorkState { entered: vec![(1, Some(now))], ..WorkState::default() };
        assert_eq!(given_up.wait_at(now, false), None, "until now, and no longer");
    }

    #[test]
    fn the_end_waits_longer_for_a_slow_store_but_not_for_ever() {
        let waits = |store_wait| {
            let thread = SessionThread::new(store_wait);
            let now = Instant::now();
            let work = thread.enter().unwrap();
            let wait = || thread.work.lock().wait_at(now, false).unwrap();
            let drain = wait();
            work.give_up_soon();
            assert!(wait() >= store_wait.min(END_OF_PATIENCE));
            drain
        };
        assert_eq!(waits(Duration::from_secs(30)), Duration::from_secs(168));
        assert_eq!(waits(Duration::MAX), END_OF_PATIENCE);
    }

    #[test]
    fn the_end_waits_for_a_hook_and_in_a_hook_not_for_itself() {
        let thread = SessionThread::new(STORE_WAIT);
        let (go_on, held) = mpsc::channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        thread.hook(move || {
            let _ = held.recv();
            thread::sleep(Duration::from_millis(50));
            end.store(true, Ordering::SeqCst);
        });
        let now = Instant::now();
        assert_eq!(thread.work.lock().wait_at(now, false), Some(A_MINUTE));
        assert_eq!(thread.work.lock().wait_at(now, true), None);
        drop(go_on);
        thread.close();
        assert!(ended.load(Ordering::SeqCst));
    }

    #[test]
    fn closing_waits_for_work_and_lets_none_begin() {
        let thread = SessionThread::new(STORE_WAIT);
        let work = thread.enter().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let worker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            end.store(true, Ordering::SeqCst);
            drop(work);
        });
        thread.close();
        assert!(ended.load(Ordering::SeqCst));
        assert!(thread.enter().is_none());
        worker.join().unwrap();
    }

    #[tokio::test]
    async fn where_nothing_is_going_on_nothing_is_started_to_wait_for_it() {
        let thread = SessionThread::new(STORE_WAIT);
        thread.drain().await;
        assert!(thread.running().is_none());
    }

    #[test]
    fn sessions_are_told_apart() {
        assert_ne!(SessionThread::new(STORE_WAIT).id(), SessionThread::new(STORE_WAIT).id());
    }

    const STORE_WAIT: Duration = Duration::from_secs(3);
    const A_MINUTE: Duration = Duration::from_secs(60);
}
