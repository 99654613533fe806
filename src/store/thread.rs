//! The store's own thread: a store may block, panic or never return, and nobody else has to.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::refresh::within;
use crate::store::asking::Asking;
use crate::store::unlocking::{PERSON, Unlock, Unlocking};
use crate::store::{Kept, StoreError};

/// Runs a store's methods on a thread of its own, each within a limit.
///
/// Not `spawn_blocking`: a call that hangs there would hang the runtime's shutdown too.
pub(crate) struct StoreThread {
    store: Arc<Kept>,
    /// How long a call may take.
    limit: Duration,
    worker: Mutex<Worker>,
    /// Threads that were left alone with a read that hangs.
    left_alone: Arc<AtomicUsize>,
    asking: Asking,
    /// Whenever a wait for a person is over.
    calm: Notify,
}

#[derive(Default)]
struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    /// How many wait for a person meanwhile: then it doesn't hang.
    patient: usize,
    unlocking: Unlocking,
}

type Job = Box<dyn FnOnce(&Kept) + Send>;
type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

/// A write that was given up and goes on.
pub(crate) struct LateWrite(Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>);

impl LateWrite {
    fn new<T: Send + 'static>(answer: Answer<T>) -> Self {
        Self(Box::pin(async move { answer.await.unwrap_or_else(|_| Err(gone())).map(drop) }))
    }

    /// Whether it has landed or failed. Not to be asked again after that.
    pub(crate) async fn is_over(&mut self) -> bool {
        poll_fn(|context| Poll::Ready(self.0.as_mut().poll(context).is_ready())).await
    }

    /// Waits until it has landed or failed, which may be never.
    pub(crate) async fn over(self) {
        let _ = self.0.await;
    }
}

impl fmt::Debug for LateWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateWrite")
    }
}

impl StoreThread {
    pub(crate) fn new(store: Kept, limit: Duration) -> Self {
        Self {
            store: Arc::new(store),
            limit,
            worker: Mutex::default(),
            left_alone: Arc::default(),
            asking: Asking::default(),
            calm: Notify::new(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        self.store.describe()
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.store.is_journaled()
    }

    /// Runs a read on the store. After the time limit the answer is an error.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        self.read_with(call, Patience::None).await
    }

    /// As [`read`](Self::read), with the time that a person needs to unlock the store. Not for
    /// who holds the locks: others would wait for that person too.
    pub(crate) async fn read_patiently<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        self.read_with(call, Patience::ForAPerson).await
    }

    async fn read_with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
        patience: Patience,
    ) -> Result<T, Error> {
        let (ended, end) = oneshot::channel();
        let call = move |store: &Kept| {
            // Dropped without a word where it panics.
            let result = call(store);
            let end = match result.as_ref().is_err_and(StoreError::is_declined) {
                true => {
                    let why = "it is locked, and nobody unlocked it: unlock it, then try again";
                    let error = Error::store(&store.describe(), StoreError::locked(why));
                    Unlock::Declined(Instant::now(), error)
                }
                false => Unlock::Over,
            };
            // Nobody has given it up.
            let _ = ended.send(end);
            result
        };
        let result = self.call(call, patience).await;
        let mut worker = self.worker();
        match result {
            Ok(read) => {
                worker.unlocking.read();
                Ok(read)
            }
            Err(given_up) => {
                if given_up.running.is_some() {
                    worker.unlocking.hangs(Instant::now(), end);
                }
                Err(given_up.error)
            }
        }
    }

    /// Runs a write on the store. After the time limit the answer is an error; if the call had
    /// begun by then it runs on, and the error comes with what it will have come to.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, (Error, Option<LateWrite>)> {
        self.call(call, Patience::None)
            .await
            .map_err(|given_up| (given_up.error, given_up.running.map(LateWrite::new)))
    }

    /// What a write that was given up came to, because a person unlocked the store for it: waits
    /// for that person, if one is asked. `None`: it goes on.
    pub(crate) async fn unlocked_for(&self, late: &mut LateWrite) -> Option<Result<(), Error>> {
        let others = self.worker().patient > 0;
        let _patient = Patient::new(self);
        let asked = others || self.asks_a_person().await;
        let more = if asked { PERSON } else { Duration::ZERO };
        // It may have landed while we asked.
        let result = within(more, &mut late.0).await?;
        Some(result.map_err(|error| Error::store(&self.describe(), error)))
    }

    /// Runs what concerns the notes beside the store alone, and does not wait for the store.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_beside(call).await.map_err(|(error, _)| error)
    }

    /// As [`beside`](Self::beside); the error of what was given up and runs on comes with what it
    /// will have come to.
    pub(crate) async fn write_beside<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, (Error, Option<LateWrite>)> {
        let (reply, mut answer) = oneshot::channel();
        let store = Arc::clone(&self.store);
        // A thread of its own: the store's may hang.
        let started = thread::Builder::new().name("reauth-store".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = reply.send(call(&store));
        });
        let mut late = None;
        let result = match started {
            Ok(_) => match within(self.limit, &mut answer).await {
                Some(Ok(result)) => result,
                Some(Err(_)) => Err(StoreError::unavailable("the thread for its notes is gone")),
                None => {
                    late = Some(LateWrite::new(answer));
                    self.worker().unlocking.given_up();
                    Err(StoreError::no_answer(self.limit))
                }
            },
            Err(e) => Err(StoreError::unavailable("could not start a thread").with_source(e)),
        };
        result.map_err(|error| (Error::store(&self.describe(), error), late))
    }

    /// Whether a read that was given up has ended after all, so that another one may be made. Waits
    /// for the person, if one is asked to unlock the store, with the prompt that is there: another
    /// read would bring up another one. `false`: it goes on, there is none, or the person said no.
    pub(crate) async fn is_unlocked(&self) -> bool {
        let calm = self.calm.notified();
        let (hanging, others, is_over) = {
            let mut worker = self.worker();
            (worker.unlocking.take(), worker.patient > 0, worker.unlocking.is_over())
        };
        let Some(mut hanging) = hanging else {
            // Somebody else waits for that person; when that is over, it is time to try again.
            return if others { within(PERSON, calm).await.is_some() } else { is_over };
        };
        let _patient = Patient::new(self);
        let mut end = hanging.ended();
        if end.is_none() {
            let asked = others || self.asks_a_person().await;
            let more = if asked { PERSON } else { Duration::ZERO };
            // It may have ended while we asked.
            let result = within(more, &mut hanging.end).await;
            end = result.map(|end| end.unwrap_or(Unlock::Over));
        }
        let is_over = matches!(end, Some(Unlock::Over));
        let mut worker = self.worker();
        match end {
            Some(end) => worker.unlocking.ended(end),
            None => worker.unlocking.put_back(hanging),
        }
        is_over
    }

    /// Why another read should wait that would bring up a prompt: somebody waits for the person
    /// already, or the last prompt stands, or came to nothing a moment ago.
    pub(crate) async fn put_off(&self) -> Option<Error> {
        let now = Instant::now();
        let (others, stands, declined) = {
            let mut worker = self.worker();
            let unlocking = &mut worker.unlocking;
            let (stands, declined) = (unlocking.stands(now), unlocking.declined(now));
            (worker.patient > 0, stands, declined)
        };
        let error = match others || stands {
            true => Error::store(&self.describe(), StoreError::no_answer(self.limit)),
            false => declined?,
        };
        (others || self.asks_a_person().await).then_some(error)
    }

    /// The person wants to be asked.
    pub(crate) fn may_ask_again(&self) {
        self.worker().unlocking.may_ask_again();
    }

    async fn asks_a_person(&self) -> bool {
        self.asking.asks_a_person(&self.store).await
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
        patience: Patience,
    ) -> Result<T, GivenUp<T>> {
        let (reply, mut answer) = oneshot::channel();
        // Whoever takes it first: the thread that begins, or the caller who gives up.
        let offered = Arc::new(Mutex::new(Some(call)));
        let begins = Arc::clone(&offered);
        let job: Job = Box::new(move |store| {
            let Some(call) = take(&begins) else {
                return;
            };
            let result = catch_unwind(AssertUnwindSafe(|| call(store)));
            // Nobody may be waiting any more.
            let _ = reply.send(result.unwrap_or_else(|_| {
                Err(StoreError::unavailable("the token store's code panicked: see its message"))
            }));
        });
        let ended = |error| {
            let error = Error::store(&self.describe(), error);
            let error = self.worker().unlocking.failed(Instant::now(), error);
            GivenUp { error, running: None }
        };
        self.send(job).map_err(ended)?;
        let mut limit = self.limit;
        let mut result = within(limit, &mut answer).await;
        if result.is_none() && patience == Patience::ForAPerson {
            let others = self.worker().patient > 0;
            let _patient = Patient::new(self);
            let asked = others || self.asks_a_person().await;
            let more = if asked { PERSON } else { Duration::ZERO };
            limit += more;
            // It may have been answered while we asked.
            result = within(more, &mut answer).await;
        }
        match result {
            Some(Ok(result)) => result.map_err(ended),
            Some(Err(_)) => Err(ended(gone())),
            None => {
                let begun = take(&offered).is_none();
                self.worker().unlocking.given_up();
                let error = Error::store(&self.describe(), StoreError::no_answer(limit));
                Err(GivenUp { error, running: begun.then_some(answer) })
            }
        }
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let mut worker = self.worker();
        self.leave_alone(&mut worker);
        if worker.jobs.is_none() {
            let (sender, receiver) = mpsc::channel::<Job>();
            let store = Arc::clone(&self.store);
            // Ends when the sender goes with the session.
            thread::Builder::new()
                .name("reauth-store".to_owned())
                .spawn(move || receiver.iter().for_each(|job| job(&store)))
                .map_err(|e| StoreError::unavailable("could not start a thread").with_source(e))?;
            worker.jobs = Some(sender);
        }
        (worker.jobs.as_ref()).and_then(|sender| sender.send(job).ok()).ok_or_else(gone)
    }

    /// Leaves the thread alone that hangs on a read, so that the next call gets a new one. That
    /// read harms nobody; but where several hang, a new one would too.
    fn leave_alone(&self, worker: &mut Worker) {
        if !worker.unlocking.is_hanging()
            || worker.patient > 0
            || self.left_alone.load(Ordering::SeqCst) >= LEFT_ALONE
        {
            return;
        }
        worker.unlocking.take();
        self.left_alone.fetch_add(1, Ordering::SeqCst);
        let left_alone = Arc::clone(&self.left_alone);
        let back: Job = Box::new(move |_| {
            left_alone.fetch_sub(1, Ordering::SeqCst);
        });
        if let Some(jobs) = worker.jobs.take() {
            // The last thing it does, if ever.
            let _ = jobs.send(back);
        }
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for a person: the thread is not left alone meanwhile.
struct Patient<'a>(&'a StoreThread);

impl<'a> Patient<'a> {
    fn new(thread: &'a StoreThread) -> Self {
        thread.worker().patient += 1;
        Self(thread)
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.0.worker().patient -= 1;
        self.0.calm.notify_waiters();
    }
}

impl fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreThread").field(&self.describe()).finish()
    }
}

fn take<T>(offered: &Mutex<Option<T>>) -> Option<T> {
    offered.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn gone() -> StoreError {
    StoreError::unavailable("the token store's thread is gone")
}

/// What a call that takes longer than its limit is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    ForAPerson,
}

/// A call without an answer, and the one that it will have, if it had begun.
struct GivenUp<T> {
    error: Error,
    running: Option<Answer<T>>,
}

/// A prompt that never ends and two of somebody's impatience.
const LEFT_ALONE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    use crate::store::asking::ASK;
    use crate::store::{Notes, Record, TokenStore};

    /// Whose reads hang, for good or until they are let go, and so does what it says of a person.
    struct Hangs {
        begins: Mutex<mpsc::Sender<()>>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Hangs {
        fn hang(&self) {
            self.begins.lock().unwrap().send(()).unwrap();
            // Disconnected, in the end.
            let _ = self.go_on.lock().unwrap().recv();
        }
    }

    /// The thread of a store that hangs, what tells of each call that it has begun, and what lets
    /// them all go when it is dropped.
    fn hanging(limit: Duration) -> (StoreThread, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begins, begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
        let store = Hangs { begins: Mutex::new(begins), go_on: Mutex::new(go_on) };
        let kept = Kept::new(Arc::new(store), Notes::new(None), false);
        (StoreThread::new(kept, limit), begun, go)
    }

    impl TokenStore for Hangs {
        fn describe(&self) -> String {
            "a store that hangs".to_owned()
        }

        fn load(&self) -> Result<Option<Record>, StoreError> {
            self.hang();
            Ok(None)
        }

        fn save(&self, _: &Record) -> Result<(), StoreError> {
            unreachable!()
        }

        fn clear(&self) -> Result<(), StoreError> {
            unreachable!()
        }

        fn asks_a_person(&self) -> bool {
            self.hang();
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whether_a_person_is_asked_is_found_out_once_for_all_who_want_to_know() {
        let (thread, begun, go) = hanging(Duration::from_secs(3));
        let all = async { tokio::join!(thread.asks_a_person(), thread.asks_a_person()) };
        // While this is busy the clock stands.
        let answer = async {
            while begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            drop(go);
            loop {
                tokio::task::yield_now().await;
            }
        };
        let all = tokio::select! {
            all = all => all,
            () = answer => unreachable!(),
        };
        assert_eq!(all, (true, true));
        assert_eq!(begun.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_read_that_hung_is_no_news_for_a_write_that_hangs_after_it() {
        let (thread, _, _go) = hanging(Duration::from_secs(3));
        let hangs = || {
            let ((begins, begun), (go, go_on)) = (mpsc::channel(), mpsc::channel::<()>());
            let call = move |_: &Kept| {
                begins.send(()).unwrap();
                let _ = go_on.recv();
                Ok(())
            };
            (call, begun, go)
        };
        let (call, begun, go) = hangs();
        let mut read = pin!(thread.read(call));
        // Asked once, it has sent the job; then the clock stands until the job begins.
        assert!(tokio::time::timeout(Duration::ZERO, &mut read).await.is_err());
        begun.recv().unwrap();
        assert!(read.await.unwrap_err().is_store());
        assert!(!thread.is_unlocked().await);
        drop(go);
        while !thread.is_unlocked().await {}
        assert!(thread.is_unlocked().await, "whoever asks");

        let (call, begun, go) = hangs();
        let mut write = pin!(thread.write(call));
        assert!(tokio::time::timeout(Duration::ZERO, &mut write).await.is_err());
        begun.recv().unwrap();
        assert!(write.await.is_err());
        assert!(!thread.is_unlocked().await);
        drop(go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_say_whether_a_person_is_asked_is_hung_and_is_read_again() {
        let (thread, begun, go) = hanging(Duration::from_secs(3));
        let mut read = pin!(thread.read(Kept::load));
        // Asked once, it has sent the job; then the clock stands until the job begins.
        assert!(tokio::time::timeout(Duration::ZERO, &mut read).await.is_err());
        begun.recv().unwrap();
        assert!(read.await.unwrap_err().is_store());
        for _ in 0..2 {
            let since = tokio::time::Instant::now();
            assert!(thread.put_off().await.is_none());
            assert_eq!(since.elapsed(), ASK);
        }
        drop(go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_behind_one_that_hangs_is_given_up_and_never_made() {
        let (thread, begun, go) = hanging(Duration::from_secs(3));
        let held = Arc::new(());
        let write = |hangs: bool| {
            let held = Arc::clone(&held);
            thread.write(move |kept| {
                let _held = held;
                if hangs { kept.load().map(drop) } else { unreachable!("it was given up") }
            })
        };
        let mut first = pin!(write(true));
        // Asked once, it has sent the job; then the clock stands until the job begins.
        assert!(tokio::time::timeout(Duration::ZERO, &mut first).await.is_err());
        begun.recv().unwrap();
        let (_, first) = first.await.unwrap_err();
        assert_eq!(Arc::strong_count(&held), 2);
        let (error, second) = write(false).await.unwrap_err();
        assert!(error.is_store() && second.is_none());
        assert_eq!(Arc::strong_count(&held), 2);
        let mut first = first.unwrap();
        assert!(!first.is_over().await);
        drop(go);
        while !first.is_over().await {
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_beside_one_that_waits_for_a_person_waits_as_long_and_does_not_ask_whether_to() {
        let (thread, begun, go) = hanging(Duration::from_secs(3));
        let _other = Patient::new(&thread);
        let mut read = pin!(thread.read_patiently(Kept::load));
        // Asked once, it has sent the job; then the clock stands until the job begins.
        assert!(tokio::time::timeout(Duration::ZERO, &mut read).await.is_err());
        begun.recv().unwrap();
        let since = tokio::time::Instant::now();
        assert!(read.await.unwrap_err().is_store());
        assert_eq!(since.elapsed().as_secs(), (Duration::from_secs(3) + PERSON).as_secs());
        assert_eq!(begun.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_given_up_for_good_where_nobody_unlocks_it_and_its_thread_is_not_left_alone()
    {
        let (thread, begun, go) = hanging(Duration::from_secs(3));
        let mut write = pin!(thread.write(|kept| kept.load().map(drop)));
        // Asked once, it has sent the job; then the clock stands until the job begins.
        assert!(tokio::time::timeout(Duration::ZERO, &mut write).await.is_err());
        begun.recv().unwrap();
        let mut late = write.await.unwrap_err().1.unwrap();
        let since = tokio::time::Instant::now();
        // Somebody waits for a person already: the store, which the clock doesn't wait for, is not
        // asked.
        let others = Patient::new(&thread);
        assert!(thread.unlocked_for(&mut late).await.is_none());
        assert_eq!(since.elapsed(), PERSON);
        drop(others);
        assert_eq!(thread.worker().patient, 0);
        assert!(thread.read(|_| Ok(())).await.unwrap_err().is_store(), "behind the write");
        assert_eq!(thread.left_alone.load(Ordering::SeqCst), 0);
        drop(go);
        late.over().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_leaves_its_thread_alone_and_few_threads_are() {
        let limit = Duration::from_secs(600);
        let (thread, begun, go) = hanging(limit);
        let hung = async |begins: bool| {
            let mut read = pin!(thread.read(Kept::load));
            // Asked once, it has sent the job; then the clock stands until the job begins.
            assert!(tokio::time::timeout(Duration::ZERO, &mut read).await.is_err());
            if begins {
                begun.recv().unwrap();
            }
            let since = tokio::time::Instant::now();
            assert!(read.await.unwrap_err().is_store());
            assert_eq!(since.elapsed().as_secs(), limit.as_secs());
        };
        hung(true).await;
        // It may be a prompt's, and somebody waits for it.
        let patient = Patient::new(&thread);
        hung(false).await;
        assert_eq!(thread.left_alone.load(Ordering::SeqCst), 0);
        drop(patient);
        for _ in 0..LEFT_ALONE {
            hung(true).await;
        }
        // The last one is waited for.
        hung(false).await;
        assert_eq!(begun.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(go);
    }
}
