//! A session's refreshes: one at a time for everybody, and what it came to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::Instrument;

use crate::error::Error;
use crate::event::Event;
use crate::refresh::{Landing, Place, Refreshed, Transacted, transaction};
use crate::session::Core;
use crate::session::telling::{TARGET, Told};
use crate::store::Patience;
use crate::token::{Freshness, Moment, Tokens};

impl Core {
    /// Tokens of the same login that are newer than `refused`: known already, or from a refresh
    /// that everybody shares.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        why: Why,
    ) -> Result<Arc<Tokens>, Error> {
        if self.newer_than(refused).is_none() && self.cooling(refused).is_some() {
            // We may not ask the server, but the store: another process may have been luckier.
            let _ = self.look_again().await;
        }
        let look_again = || self.newer_than(refused).or_else(|| self.cooling(refused).map(Err));
        let start = |landing| self.start_refresh(refused, why, landing);
        // A refresh of older tokens may have just landed with the ones refused here.
        let is_new = |tokens: &Arc<Tokens>| tokens.supersede(refused);
        self.refreshing.fly(refused.version(), look_again, start, is_new).await
    }

    /// Refreshes in the background, unless that is under way or has just failed.
    pub(crate) fn refresh_ahead(self: &Arc<Self>, tokens: &Arc<Tokens>) {
        if tokens.refresh.is_some() {
            // Nobody waits for it.
            drop(self.refreshing.join(
                tokens.version(),
                || self.newer_than(tokens).or_else(|| self.cooling(tokens).map(Err)),
                |landing| self.start_refresh(tokens, Why::Ahead, landing),
            ));
        }
    }

    /// What makes a refresh of `refused` needless: newer tokens, or the end of the session.
    pub(super) fn newer_than(&self, refused: &Tokens) -> Option<Result<Arc<Tokens>, Error>> {
        let current = match self.tokens_of(refused.epoch) {
            Ok(current) => current,
            Err(over) => return Some(Err(over)),
        };
        let good = current.freshness_at(Moment::now()) != Freshness::Expired;
        (good && current.supersede(refused)).then_some(Ok(current))
    }

    /// What makes a refresh senseless for now: one that has just failed.
    pub(super) fn cooling(&self, refused: &Tokens) -> Option<Error> {
        let current = self.tokens_of(refused.epoch).ok()?;
        self.storm.cooling_at(Moment::now(), &current)
    }

    fn start_refresh(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        why: Why,
        landing: Landing<Arc<Tokens>>,
    ) {
        if let Err(error) = self.thread.start() {
            return landing.land(Err(error));
        }
        if let Why::Refused(place) = why {
            refused.refused.store(true, Ordering::Relaxed);
            self.storm.refreshes_at(Moment::now(), refused, place);
        }
        let (core, of) = (Arc::clone(self), Arc::clone(refused));
        let span = tracing::debug_span!(
            target: TARGET, "refresh", service = self.service, account = self.account,
            reason = why.name()
        );
        let work = async move {
            let (inner, refused) = (Arc::clone(&core), Arc::clone(&of));
            let started = Instant::now();
            // A task of its own, so that a panic in the endpoint's code is a result too.
            let task = async move { transaction(&inner, &refused).await }.in_current_span();
            let result = tokio::spawn(task).await.unwrap_or_else(|e| (Err(panicked(e)), None));
            core.conclude(&of, Refresh { why, started }, result, landing).await;
        };
        let started = self.thread.spawn(work.instrument(span));
        if started.is_err() {
            // The landing, dropped, has told everybody.
            refused.refused.store(false, Ordering::Relaxed);
        }
    }

    /// Tells everybody what a refresh came to.
    async fn conclude(
        self: &Arc<Self>,
        refused: &Tokens,
        Refresh { why, started }: Refresh,
        (result, unsaved): Transacted,
        landing: Landing<Arc<Tokens>>,
    ) {
        let told = Told { took: started.elapsed(), waiters: landing.waiters() };
        let result = match result {
            Ok(Refreshed::Adopted(tokens)) => {
                self.storm.calm();
                self.counters.adoptions.count();
                told.adopted();
                self.emit(Event::Adopted);
                Ok(tokens)
            }
            Ok(Refreshed::New(tokens)) => {
                told.refreshed();
                Ok(self.made(refused, why, tokens))
            }
            Err(error) if error.is_logged_out() => Err(error),
            Err(error) => {
                let current = self.tokens_of(refused.epoch).ok();
                let failed = current.as_deref().unwrap_or(refused);
                let error = self.storm.failed_at(Moment::now(), failed, error, 0);
                self.emit(Event::RefreshFailed(error.clone()));
                Err(error)
            }
        };
        if let Err(error) = &result {
            self.counters.refresh_failures.count();
            told.failed(error);
        }
        refused.refused.store(false, Ordering::Relaxed);
        landing.land(result);
        match unsaved {
            Some(unsaved) => unsaved.keep_saving(self).await,
            // A panic may have left the locks with a logout unsettled.
            None if self.is_settling_due() => {
                let _ = self.finish_logout(0, self.thread.enter(), Patience::None).await;
            }
            None => {}
        }
    }

    fn made(&self, refused: &Tokens, why: Why, tokens: Arc<Tokens>) -> Arc<Tokens> {
        self.storm.calm();
        if let Why::Refused(place) = why {
            self.storm.refreshed_at(Moment::now(), refused, place);
        }
        self.counters.refreshes.count();
        self.emit(Event::Refreshed);
        tokens
    }
}

/// A refresh that was begun.
struct Refresh {
    why: Why,
    started: Instant,
}

/// Why a refresh is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    Ahead,
    Expired,
    Refused(Option<Place>),
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
        }
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        Error::internal("the token endpoint's code panicked: see its message", None)
    } else {
        Error::internal("the session was closed", None)
    }
}
