//! The store's own thread: a store may block, panic or never return, and nobody else has to.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Error;
use crate::refresh::within;
use crate::store::{StoreError, TokenStore};

/// Runs a store's methods one at a time on a thread of its own, each within [`STORE_CALL`].
///
/// Not `spawn_blocking`: a call that hangs there would hang the runtime's shutdown too.
pub(crate) struct StoreThread {
    store: Arc<dyn TokenStore>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

type Job = Box<dyn FnOnce(&dyn TokenStore) + Send>;
type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

/// A write that was given up and goes on.
#[derive(Debug)]
pub(crate) struct LateWrite(Answer<()>);

impl LateWrite {
    /// Whether it has landed, once it is over. That may be never.
    pub(crate) async fn landed(self) -> bool {
        matches!(self.0.await, Ok(Ok(())))
    }
}

impl StoreThread {
    pub(crate) fn new(store: impl TokenStore) -> Self {
        Self { store: Arc::new(store), jobs: Mutex::new(None) }
    }

    pub(crate) fn describe(&self) -> String {
        self.store.describe()
    }

    /// Runs a read on the store. After the time limit the answer is an error.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        self.call(call).await.map_err(|(error, _)| error)
    }

    /// Runs a write on the store. After the time limit the answer is an error; if the call had
    /// begun by then it runs on, and the error comes with what it will have come to.
    pub(crate) async fn write(
        &self,
        call: impl FnOnce(&dyn TokenStore) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), (Error, Option<LateWrite>)> {
        let late = |answer: Option<_>| answer.map(LateWrite);
        self.call(call).await.map_err(|(error, answer)| (error, late(answer)))
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, (Error, Option<Answer<T>>)> {
        let (reply, mut answer) = oneshot::channel();
        // Whoever claims it first: the thread that begins, or the caller who gives up.
        let claimed = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&claimed);
        let job: Job = Box::new(move |store| {
            if begins.swap(true, Ordering::SeqCst) {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| call(store)));
            // Nobody may be waiting any more.
            let _ = reply.send(result.unwrap_or_else(|_| {
                Err(StoreError::unavailable("the token store's code panicked: see its message"))
            }));
        });
        let failed = |error| Error::store(&self.describe(), error);
        self.send(job).map_err(|error| (failed(error), None))?;
        match within(STORE_CALL, &mut answer).await {
            Some(Ok(result)) => result.map_err(|error| (failed(error), None)),
            Some(Err(_)) => {
                Err((failed(StoreError::unavailable("the token store's thread is gone")), None))
            }
            None => {
                let begun = claimed.swap(true, Ordering::SeqCst);
                let error = failed(StoreError::unavailable(format!(
                    "no answer within {} seconds: is it waiting for somebody, or hung?",
                    STORE_CALL.as_secs()
                )));
                Err((error, begun.then_some(answer)))
            }
        }
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_none() {
            let (sender, receiver) = mpsc::channel::<Job>();
            let store = Arc::clone(&self.store);
            // Ends when the sender goes with the session.
            thread::Builder::new()
                .name("reauth-store".to_owned())
                .spawn(move || receiver.iter().for_each(|job| job(&*store)))
                .map_err(|e| StoreError::unavailable("could not start a thread").with_source(e))?;
            *jobs = Some(sender);
        }
        jobs.as_ref()
            .and_then(|sender| sender.send(job).ok())
            .ok_or_else(|| StoreError::unavailable("the token store's thread is gone"))
    }
}

impl fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreThread").field(&self.describe()).finish()
    }
}

/// A keychain answers in milliseconds; one that is waited for longer than this is hung, and a
/// person at a terminal would rather know.
const STORE_CALL: Duration = Duration::from_secs(3);
