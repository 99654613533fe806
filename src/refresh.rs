//! The refresh transaction: the one place where a refresh token is sent.
//!
//! It runs on the session's own thread, once for everybody who waits (see `flight`), and to its
//! end whoever goes away meanwhile. The order is what the promises rest on:
//!
//! ```text
//! make ready (a person may be asked: nothing is locked yet)
//!      → gate → process lock → read the record → look again: is a refresh still needed?
//!      → mark → exchange (→ once more, at once, if its answer was lost)
//!      → journal → look again: is it still this login? → save → look again → publish → unlock
//! ```
//!
//! **Lock order: gate, process lock, store.** After each of them, look again before acting.

mod bound;
pub(crate) use bound::{TICK, within};
mod flight;
pub(crate) use flight::{Joined, Landing, SingleFlight};
pub(crate) mod ended;
mod exchange;
use exchange::exchange;
pub(crate) mod imported;
pub(crate) mod journal;
pub(crate) use journal::JournalKey;
mod locked;
pub(crate) use locked::{Gate, Locked, Undo};
mod mark;
pub(crate) use mark::Mark;
mod storm;
pub(crate) use storm::{Place, Storm};
mod trace;
pub(crate) use trace::{Failure, Failures, Known, Trace};
mod unsaved;
use unsaved::Unsaved;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::endpoint::{Outcome, RefreshError, TokenEndpoint};
use crate::error::Error;
use crate::event::{Event, LogoutReason};
use crate::session::{Core, step};
use crate::store::{Brief, Commit, Kept, Marked, Record, StoreError};
use crate::token::{Birth, Freshness, Identity, Moment, TokenResponse, Tokens};

/// What a transaction came to, if it did not fail.
#[must_use]
pub(crate) enum Refreshed {
    /// The store had newer tokens: nothing was sent.
    Adopted(Arc<Tokens>),
    New(Arc<Tokens>),
}

/// What a transaction came to, and what it has left to do where new tokens are nowhere but in
/// memory: [`Unsaved::keep_saving`] goes on.
pub(crate) type Transacted = (Result<Refreshed, Error>, Option<Unsaved>);

/// Replaces `refused` by newer tokens of the same login.
pub(crate) async fn transaction(core: &Arc<Core>, refused: &Tokens) -> Transacted {
    let asked = SystemTime::now();
    // Before the locks: a person may be asked.
    if let Err(error) = prepare(core.endpoint.as_ref()).await {
        return (Err(Error::refresh(error)), None);
    }
    match attempt(core, refused, asked).await {
        (Err(error), None) if core.is_unlocked_after(&error).await => {
            attempt(core, refused, asked).await
        }
        result => result,
    }
}

/// Makes the endpoint ready, at a login as well: its code may never return.
pub(crate) async fn prepare(endpoint: &dyn TokenEndpoint) -> Result<(), RefreshError> {
    within(PREPARE, endpoint.prepare()).await.unwrap_or_else(|| {
        Err(RefreshError::not_sent("the token endpoint's code was not ready in time"))
    })
}

async fn attempt(core: &Arc<Core>, refused: &Tokens, asked: SystemTime) -> Transacted {
    step("waiting");
    let mut locked = match Locked::wait_in_line(core).await {
        Ok(locked) => locked,
        Err(error) => return (Err(error), None),
    };
    step("locked");
    let result = match refresh(core, &mut locked, refused, asked).await {
        Ok(Committed::Unsaved(tokens, presented, useless)) => {
            let result = useless.map_or_else(|| Ok(Refreshed::New(Arc::clone(&tokens))), Err);
            return (result, Some(Unsaved { locked, tokens, presented }));
        }
        Ok(Committed::Saved(tokens)) => Ok(Refreshed::New(tokens)),
        Ok(Committed::Adopted(tokens)) => Ok(Refreshed::Adopted(tokens)),
        Err(error) => Err(error),
    };
    locked.leave(core).await;
    (result, None)
}

enum Committed {
    Adopted(Arc<Tokens>),
    Saved(Arc<Tokens>),
    /// And whose refresh token was presented for them; also, where the access token is of no use,
    /// why.
    Unsaved(Arc<Tokens>, Brief, Option<Error>),
}

async fn refresh(
    core: &Arc<Core>,
    locked: &mut Locked,
    refused: &Tokens,
    asked: SystemTime,
) -> Result<Committed, Error> {
    if let Some(error) = core.store.put_off().await {
        // When to try again is this refresh's affair.
        return Err(error.with_retry_after(None));
    }
    core.take_back_failed(locked).await.map_err(|error| error.with_retry_after(None))?;
    // Look again: the store may hold newer tokens, another login or none.
    let stored = core.read_store_locked(locked).await?;
    step("read");
    if let Some(reason) = stored.refused {
        return over(core, locked, reason).await;
    }
    let current = core.tokens_of(refused.epoch)?;
    if stored.ahead {
        // Of a store that failed at the time. If it still does, the journal goes on standing.
        let _ = save(core, locked, &current, Kept::catch_up).await;
        locked.is_free(core)?;
    }
    if current.supersede(refused) && current.freshness_at(Moment::now()) != Freshness::Expired {
        return Ok(Committed::Adopted(current));
    }
    let Some(refresh_token) = &current.refresh else {
        return Err(Error::login_required());
    };
    let mut brief = Brief::of(&current);
    // The server has said no to this one, and the store could not be read: don't ask again.
    if let Some(reason) = current.rejected.get() {
        return rejected(core, locked, &current, brief, *reason).await;
    }
    let failed = failure_of(core, &brief).await?;
    if let Some(failure) = &failed
        && let Some(left) = failure.holds(asked, SystemTime::now())
    {
        let message = format!("a refresh by {} failed a moment ago", failure.by);
        let error = RefreshError::busy(message, Some(left));
        // Who comes later has not heard the server say so.
        return Err(match failure.was_awaited(asked) {
            true => failure.row.told_as(error),
            false => Error::refresh(error),
        });
    }
    let row = failed.map_or_else(Failures::default, |failure| failure.row);
    let http = locked.http(core).map_err(Error::refresh)?;
    // From here on the program's end waits: what is sent may be spent.
    locked.enter(core)?;
    if let Some(key) = missing_key(core, &mut brief, stored.key)? {
        let record = Record::with_key(&current, Some(&key), &core.pin);
        locked.write(core, Undo::Nothing, move |kept| kept.save(&record)).await?;
    }
    let marks = brief.clone();
    let marked = locked.write(core, Undo::Nothing, move |kept| kept.mark(&marks)).await?;
    if marked == Marked::Out {
        core.logged_out_elsewhere(&current);
        return Err(core.state.logged_out());
    }
    step("marked");
    let (result, replayed) = exchange(core, &http, refresh_token).await;
    let maybe_spent = replayed || marked == Marked::SentBefore;
    let error = match result {
        Ok(response) => {
            step("answered");
            let answered = answered(core, locked, refused, &current, brief, &response, maybe_spent);
            return match answered.await? {
                (Committed::Saved(tokens), Some(error)) => {
                    let brief = Brief::of(&tokens);
                    let row = row.and(Outcome::Unexpected);
                    Err(tell_the_others(core, locked, &tokens, brief, error, row).await)
                }
                (Committed::Unsaved(tokens, presented, _), useless) => {
                    Ok(Committed::Unsaved(tokens, presented, useless))
                }
                (committed, _) => Ok(committed),
            };
        }
        Err(error) => error,
    };
    let row = row.and(error.outcome());
    match error.outcome() {
        // Known not to be spent by this transaction: an older question stays open.
        Outcome::NotSent | Outcome::Busy if !maybe_spent => {
            // A mark that stays makes a revocation look like a lost answer, and no more.
            let _ = locked.write(core, Undo::Nothing, Kept::unmark).await;
        }
        Outcome::Rejected => {
            let expired = current.refresh_expires_at.is_some_and(|end| end <= SystemTime::now());
            // Tokens of an exchange that was asked for twice: the other question may have reached the
            // server later, and have cost the session.
            let maybe_spent = maybe_spent || current.birth == Birth::ReplayedRefresh;
            let reason = match (maybe_spent, expired) {
                (true, _) => LogoutReason::RotationLost,
                (false, true) => LogoutReason::RefreshTokenExpired,
                (false, false) => LogoutReason::Revoked,
            };
            return rejected(core, locked, &current, brief, reason).await;
        }
        _ => {}
    }
    let error = row.told_as(error);
    if error.is_configuration() {
        // The others may be better off.
        return Err(error);
    }
    Err(tell_the_others(core, locked, &current, brief, error, row).await)
}

/// The last refresh of these tokens, by whatever program, where it failed.
async fn failure_of(core: &Core, brief: &Brief) -> Result<Option<Failure>, Error> {
    let brief = brief.clone();
    core.store.read(move |kept| kept.failure_of(&brief)).await
}

/// The other programs that wait for the locks fail with this one, and wait as long.
async fn tell_the_others(
    core: &Core,
    locked: &mut Locked,
    current: &Tokens,
    brief: Brief,
    error: Error,
    row: Failures,
) -> Error {
    // Read first: who waits as long as the error says must not find the note still in force.
    let now = Moment::now();
    let error = core.storm.failed_at(now, current, error, row.count.saturating_sub(1));
    let until = now.wall + error.retry_after().unwrap_or_default();
    // One that can't be told asks for itself.
    let note = move |kept: &Kept| kept.note_failure(&brief, until, row);
    let _ = locked.write(core, Undo::Nothing, note).await;
    error
}

/// Makes the key that the journal needs, where the login has none: another program put it into
/// the store.
fn missing_key(
    core: &Core,
    brief: &mut Brief,
    stored: Option<JournalKey>,
) -> Result<Option<JournalKey>, Error> {
    brief.key = brief.key.take().or(stored);
    if brief.key.is_some() || !core.store.is_journaled() {
        return Ok(None);
    }
    let key = JournalKey::random()
        .map_err(|e| Error::internal("no random numbers to be had", Some(Box::new(e))))?;
    brief.key = Some(key.clone());
    Ok(Some(key))
}

/// The server has answered with tokens: they are kept first, and judged. Where the access token is
/// of no use, the second half says why.
async fn answered(
    core: &Arc<Core>,
    locked: &mut Locked,
    refused: &Tokens,
    current: &Tokens,
    presented: Brief,
    response: &TokenResponse,
    sent_before: bool,
) -> Result<(Committed, Option<Error>), Error> {
    let identity = Identity {
        login: current.login.clone(),
        epoch: current.epoch,
        generation: current.generation + 1,
        birth: if sent_before { Birth::ReplayedRefresh } else { Birth::Refresh },
        key: presented.key.clone(),
    };
    let usable = current.check_next(response);
    let tokens = match &usable {
        Ok(()) => Tokens::received(response, Some(current), identity, Moment::now()),
        Err(_) => {
            let has_ended = refused.refused.load(Ordering::Relaxed);
            Tokens::with_old_access(response, current, identity, has_ended)
        }
    };
    let useless = usable.err().map(RefreshError::unexpected).map(|why| {
        // The second time it is no slip.
        match current.of_another && tokens.of_another {
            true => Error::of_another_user(why),
            false => Error::refresh(why),
        }
    });
    Ok((commit(core, locked, Arc::new(tokens), presented).await?, useless))
}

/// The server refuses the refresh token for good: the session's end, unless the store has news.
async fn rejected(
    core: &Arc<Core>,
    locked: &mut Locked,
    current: &Tokens,
    brief: Brief,
    reason: LogoutReason,
) -> Result<Committed, Error> {
    // First: nobody shall send that token again, whatever comes next.
    let _ = current.rejected.set(reason);
    let note = move |kept: &Kept| kept.note_refused(&brief, reason);
    // Where it can't be noted, it is known here.
    let _ = locked.write(core, Undo::Nothing, note).await;
    // Look again: the login may be over already, or have newer tokens.
    let stored = core.read_store_locked(locked).await?;
    match core.tokens_of(current.epoch) {
        Ok(newest) if newest.supersede(current) => {
            if newest.freshness_at(Moment::now()) != Freshness::Expired {
                return Ok(Committed::Adopted(newest));
            }
            let message = "another program has refreshed meanwhile, and its token has expired too";
            return Err(Error::refresh(RefreshError::unexpected(message)));
        }
        // It could not be noted.
        Ok(_) => core.end(current.epoch, reason),
        Err(over) if stored.refused.is_none() => return Err(over),
        Err(_) => {}
    }
    over(core, locked, reason).await
}

/// The session has ended by the server's word: its record goes.
async fn over(
    core: &Arc<Core>,
    locked: &mut Locked,
    reason: LogoutReason,
) -> Result<Committed, Error> {
    // If this fails, the record counts for nothing all the same.
    let _ = locked.write(core, Undo::Nothing, Kept::clear).await;
    Err(Error::logged_out(Some(reason)))
}

/// Makes the answer durable, then known.
async fn commit(
    core: &Arc<Core>,
    locked: &mut Locked,
    tokens: Arc<Tokens>,
    presented: Brief,
) -> Result<Committed, Error> {
    locked.brings(&tokens);
    let kept = keep(core, locked, &tokens, &presented).await;
    // Look again: a logout that came meanwhile wins. It is settled when the locks are left.
    if let Err(over) = core.tokens_of(tokens.epoch) {
        core.came_too_late(&tokens);
        return Err(over);
    }
    let mut saved = save(core, locked, &tokens, Kept::commit).await;
    if let Ok(Commit::Overtaken) = saved {
        let read = core.read_store_locked(locked).await;
        let newest = core.tokens_of(tokens.epoch)?;
        if newest.generation >= tokens.generation {
            return Ok(Committed::Adopted(newest));
        }
        saved = match read {
            // A login that failed, and could not be taken back: it counts for nothing.
            Ok(_) => save(core, locked, &tokens, Kept::write_over).await,
            Err(error) => Err(error),
        };
    }
    match &saved {
        Ok(Commit::Saved) => step("saved"),
        Ok(Commit::Out) => {
            core.logged_out_elsewhere(&tokens);
            return Err(core.state.logged_out());
        }
        Ok(Commit::Overtaken) | Err(_) => {}
    }
    // Look again: from a logout that has returned on, no program hands its tokens out.
    if core.is_out(&tokens.login).await {
        core.logged_out_elsewhere(&tokens);
        return Err(core.state.logged_out());
    }
    let Ok(published) = core.state.advance(tokens.epoch, &tokens) else {
        core.came_too_late(&tokens);
        return Err(core.state.logged_out());
    };
    step("published");
    match saved {
        Err(error) if kept => core.tell_kept(&error),
        Err(error) => {
            core.set_trouble(Some(error.clone()));
            core.emit(Event::PersistFailed(error));
            locked.give_up_soon();
            return Ok(Committed::Unsaved(published, presented, None));
        }
        Ok(_) => {}
    }
    Ok(Committed::Saved(published))
}

/// Whether the journal has the answer to the refresh token of `presented`.
async fn keep(core: &Core, locked: &mut Locked, tokens: &Tokens, presented: &Brief) -> bool {
    if !core.store.is_journaled() {
        return false;
    }
    let (record, presented) = (Record::of(tokens, &core.pin), presented.clone());
    let kept = locked.note(core, move |kept| kept.keep(&record, &presented)).await;
    if kept {
        step("journaled");
    }
    kept
}

async fn save(
    core: &Arc<Core>,
    locked: &mut Locked,
    tokens: &Tokens,
    how: fn(&Kept, &Record, &Brief) -> Result<Commit, StoreError>,
) -> Result<Commit, Error> {
    let (record, brief) = (Record::of(tokens, &core.pin), Brief::of(tokens));
    // One that lands late is as good as one that lands in time.
    locked.write(core, Undo::Nothing, move |kept| how(kept, &record, &brief)).await
}

/// The bare client that token requests are sent with. What must not be otherwise is set last.
pub(crate) fn client(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder
        .redirect(reqwest::redirect::Policy::none())
        // reqwest re-sends refused HTTP/2 streams by itself; we count what is sent.
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT)
        // A kept connection may be dead: then nobody could tell whether the token was sent.
        .pool_max_idle_per_host(0)
}

/// Local networks answer in milliseconds, a satellite in one second. Shorter than [`EXCHANGE`],
/// so that "could not connect" always means "not sent".
const CONNECT: Duration = Duration::from_secs(5);

/// A person has to find the window, and the password.
const PREPARE: Duration = Duration::from_secs(120);

/// One whole transaction of somebody else (exchange, replay, store), and half of another.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(65);
