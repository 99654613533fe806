//! The session's own thread: what runs there outlives the callers and their runtimes.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, oneshot};

use crate::endpoint::RefreshError;
use crate::error::Error;
use crate::refresh::{TICK, within};

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
        state.entered.push(Going { number, tries: 0, given_up: false });
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
        let (is_busy, bounds) = {
            let state = self.work.lock();
            (state.is_busy(in_hook), state.bounds)
        };
        if !is_busy || ROLE.get() == Role::Session(self.id()) {
            return;
        }
        let work = Arc::clone(&self.work);
        let quiet = async move {
            loop {
                let changed = work.changed.notified();
                if !work.lock().is_busy(in_hook) {
                    return;
                }
                changed.await;
            }
        };
        // On the session's thread: the caller's runtime may have no clock, or a paused one.
        let _ = self.run(async move { Ok(within(bounds.drain, quiet).await) }).await;
    }

    /// Lets nothing begin any more, waits for what was begun, and stops the thread. Blocks within
    /// [`Bounds`]; not for hooks where a hook drops the last handle, and for nothing where the
    /// thread itself does.
    pub(crate) fn close(&self) {
        let mut state = self.work.lock();
        state.closing = true;
        if ROLE.get() != Role::Session(self.id()) {
            let in_hook = ROLE.get() == Role::Hook(self.id());
            let mut left = state.bounds.drain;
            while state.is_busy(in_hook) && !left.is_zero() {
                // As `within`: time in which this process was stopped does not count.
                let tick = left.min(TICK);
                let (now, waited) = (self.work.left.wait_timeout(state, tick))
                    .unwrap_or_else(PoisonError::into_inner);
                state = now;
                if waited.timed_out() {
                    left -= tick;
                }
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
    /// is over, and what is left may take for ever. On the session's thread.
    pub(crate) fn give_up_soon(&self) {
        let (work, number) = (Arc::clone(&self.work), self.number);
        let (bounds, again) = {
            let mut state = self.work.lock();
            let bounds = state.bounds;
            let Some(mine) = state.going(number) else {
                return;
            };
            (mine.given_up, mine.tries) = (false, mine.tries + 1);
            (bounds, mine.tries)
        };
        tokio::spawn(async move {
            within(bounds.unsaved, pending::<()>()).await;
            work.leave(|state| {
                if let Some(going) = state.going(number).filter(|going| going.tries == again) {
                    going.given_up = true;
                }
            });
        });
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.work.leave(|state| state.entered.retain(|going| going.number != self.number));
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
    entered: Vec<Going>,
    hooks: usize,
}

/// What was entered and goes on.
struct Going {
    number: u64,
    /// How often it was to be given up soon: the last time counts.
    tries: u32,
    given_up: bool,
}

impl WorkState {
    fn going(&mut self, number: u64) -> Option<&mut Going> {
        self.entered.iter_mut().find(|going| going.number == number)
    }

    /// Whether there is something to wait for.
    fn is_busy(&self, in_hook: bool) -> bool {
        self.entered.iter().any(|going| !going.given_up) || self.hooks > 0 && !in_hook
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
    use std::time::Instant;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_each_work_and_only_a_little_for_what_was_given_up() {
        let thread = SessionThread::new(STORE_WAIT);
        let is_busy = || thread.work.lock().is_busy(false);
        assert!(!is_busy());
        let (first, second) = (thread.enter().unwrap(), thread.enter().unwrap());
        drop(first);
        sleep(A_MINUTE).await;
        assert!(is_busy());
        second.give_up_soon();
        sleep(STORE_WAIT / 2).await;
        second.give_up_soon();
        sleep(STORE_WAIT - MOMENT).await;
        assert!(is_busy(), "the last time counts");
        sleep(2 * MOMENT).await;
        assert!(!is_busy());
        second.give_up_soon();
        assert!(is_busy(), "one more call");
        drop(second);
        assert!(!is_busy());
    }

    #[test]
    fn the_end_waits_longer_for_a_slow_store_but_not_for_ever() {
        let Bounds { drain, unsaved } = Bounds::of(Duration::from_secs(30));
        assert_eq!((drain, unsaved), (Duration::from_secs(168), Duration::from_secs(30)));
        let Bounds { drain, unsaved } = Bounds::of(Duration::MAX);
        assert_eq!((drain, unsaved), (END_OF_PATIENCE, END_OF_PATIENCE));
        assert_eq!(Bounds::of(STORE_WAIT).drain, A_MINUTE);
    }

    /// The process is this test once more, so that it can be stopped.
    #[cfg(unix)]
    #[test]
    fn a_program_that_was_stopped_while_it_ended_goes_on_waiting() {
        use std::io::{BufRead, BufReader, Write, stdin};
        use std::process::{Command, Stdio};

        const CHILD: &str = "REAUTH_TEST_STOPPED";
        let bound = Duration::from_secs(1);
        if std::env::var_os(CHILD).is_some() {
            let thread = SessionThread::new(STORE_WAIT);
            thread.work.lock().bounds.drain = bound;
            let work = thread.enter().unwrap();
            thread::spawn(move || {
                let mut line = String::new();
                stdin().read_line(&mut line).unwrap();
                drop(work);
            });
            println!("\nclosing");
            thread.close();
            println!("\nbusy: {}", thread.work.lock().is_busy(false));
            return;
        }
        let name =
            "session::thread::tests::a_program_that_was_stopped_while_it_ended_goes_on_waiting";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let signal = |name: &str| {
            let id = child.id().to_string();
            assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
        };
        assert!(lines.any(|line| line == "closing"));
        signal("-STOP");
        thread::sleep(bound + MOMENT);
        signal("-CONT");
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "answered").unwrap();
        assert_eq!(lines.find(|line| line.starts_with("busy")).unwrap(), "busy: false");
        assert!(child.wait().unwrap().success());
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
        assert!(thread.work.lock().is_busy(false));
        assert!(!thread.work.lock().is_busy(true));
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

    #[test]
    fn closing_gives_up_what_never_ends_when_its_time_is_over() {
        let thread = SessionThread::new(STORE_WAIT);
        thread.work.lock().bounds.drain = MOMENT;
        let work = thread.enter().unwrap();
        let (closed, is_closed) = mpsc::channel();
        thread::spawn(move || {
            let begun = Instant::now();
            thread.close();
            closed.send(begun.elapsed()).unwrap();
        });
        let took = is_closed.recv_timeout(Duration::from_secs(20)).expect("it ends");
        assert!(took >= MOMENT, "{took:?}");
        drop(work);
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
    const MOMENT: Duration = Duration::from_millis(100);
}
