//! The beginning of a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::{LOCK_WAIT, Locked};
use crate::session::Core;
use crate::store::{Record, Unreadable};
use crate::token::{Birth, Identity, LoginId, Moment, TokenResponse, Tokens};

impl Core {
    /// On the session's thread.
    pub(crate) async fn log_in(self: &Arc<Self>, response: TokenResponse) -> Result<(), Error> {
        let logouts = self.logouts.load(Ordering::SeqCst);
        response.check().map_err(Error::configuration)?;
        let received = Moment::now();
        let login = LoginId::random()
            .map_err(|e| Error::internal("no random numbers to be had", Some(Box::new(e))))?;
        let mut locked = Locked::wait(self, LOCK_WAIT).await?;
        let Some(_entered) = self.thread.enter() else {
            return Err(Error::internal("the session is closing", None));
        };
        self.refuse_newer_record().await?;
        loop {
            let identity = Identity {
                login: login.clone(),
                epoch: self.state.epoch() + 1,
                generation: 0,
                birth: Birth::Login,
            };
            let tokens = Arc::new(Tokens::received(&response, None, identity, received));
            if self.logouts.load(Ordering::SeqCst) == logouts {
                let record = Record::of(&tokens, &self.pin);
                self.store.call(move |store| store.save(&record)).await?;
            }
            // Look again: a logout that came meanwhile wins.
            if self.logouts.load(Ordering::SeqCst) != logouts {
                self.settle_logout(&mut locked, tokens.refresh.clone()).await;
                return Err(Error::logged_out(Some(LogoutReason::Requested)));
            }
            // Fails where the store was read meanwhile and brought news: they are old now.
            if self.state.log_in(tokens).is_ok() {
                self.begin(None);
                return Ok(());
            }
        }
    }

    /// What a newer version of the program wrote is left alone: this one can't tell what it would
    /// destroy. Any other record is replaced by a login.
    async fn refuse_newer_record(&self) -> Result<(), Error> {
        let record = match self.store.call(|store| store.load()).await {
            Ok(Some(record)) => record,
            Err(error) if error.is_transient() => return Err(error),
            Ok(None) | Err(_) => return Ok(()),
        };
        match record.read(&self.pin, self.state.epoch(), Moment::now()) {
            Err(newer @ Unreadable::Newer(_)) => Err(self.unreadable(newer)),
            _ => Ok(()),
        }
    }
}
