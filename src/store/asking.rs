//! Whether a person is asked to unlock the store, as the store itself says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::refresh::within;
use crate::store::Kept;

/// Found out once for all who want to know at the same time: the store may hang there, too.
#[derive(Default)]
pub(super) struct Asking(Mutex<Option<watch::Receiver<Option<bool>>>>);

impl Asking {
    /// Whether a call waits for a person, or would if it were made now. One that does not say so in
    /// time is hung.
    pub(super) async fn asks_a_person(&self, store: &Arc<Kept>) -> bool {
        let mut answer = self.answer(store);
        let answer = within(ASK, answer.wait_for(Option::is_some)).await;
        matches!(answer, Some(Ok(asks)) if *asks == Some(true))
    }

    fn answer(&self, store: &Arc<Kept>) -> watch::Receiver<Option<bool>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.borrow().is_none()
            && last.has_changed().is_ok()
        {
            return last.clone();
        }
        let (reply, answer) = watch::channel(None);
        let store = Arc::clone(store);
        // A thread of its own: the store's waits. Where none can be had, there is no answer.
        let _ = thread::Builder::new().name("reauth-store".to_owned()).spawn(move || {
            let asks = catch_unwind(AssertUnwindSafe(|| store.asks_a_person()));
            reply.send_replace(Some(asks.unwrap_or(false)));
        });
        last.insert(answer).clone()
    }
}

/// Whether it is locked is said at once, or the store is hung.
pub(super) const ASK: Duration = Duration::from_secs(1);
