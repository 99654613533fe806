//! The store, with what is noted beside it: together they say which tokens are current, and
//! whether there still is a login.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::LogoutReason;
use crate::refresh::{Failure, Failures, Known, Mark, Trace, ended, imported, journal};
use crate::store::{Brief, Notes, Pin, Record, Shared, StoreError, TokenStore};
use crate::token::{LoginId, program};

/// A session's store, and the notes of the programs that share it.
///
/// Its methods block, and run where the store's own do.
pub(crate) struct Kept {
    store: Arc<dyn TokenStore>,
    notes: Notes,
    /// Whether answers go into the journal first: not where the store is a file as good as that.
    journaled: bool,
    /// It has taken a write: not known of a file that answers are to go to directly.
    is_proven: AtomicBool,
}

/// What the store and the journal say together.
#[derive(Debug)]
pub(crate) enum Loaded {
    Nobody,
    Login {
        record: Record,
        /// It is the journal's: the store holds an older one.
        ahead: bool,
    },
    /// The user has logged out, and it is only not cleared yet.
    Out(Record),
    /// The server has refused its refresh token for good.
    Refused(LogoutReason),
}

/// What became of a refresh token that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    ToBeSent,
    /// It has been before, and no answer is known.
    SentBefore,
    /// It must not be: the user has logged out.
    Out,
}

/// What became of new tokens that were to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Saved,
    /// The user has logged out meanwhile: they are to be revoked.
    Out,
    /// Somebody else's are there: of another login, or newer ones.
    Overtaken,
}

impl Kept {
    pub(crate) fn new(store: Arc<dyn TokenStore>, notes: Notes, journaled: bool) -> Self {
        let is_file = matches!(store.shared(), Shared::Beside(_));
        Self { store, notes, journaled, is_proven: AtomicBool::new(!is_file) }
    }

    pub(crate) fn describe(&self) -> String {
        self.store.describe()
    }

    pub(crate) fn asks_a_person(&self) -> bool {
        self.store.asks_a_person()
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.journaled
    }

    pub(crate) fn load(&self) -> Result<Loaded, StoreError> {
        let Some(record) = self.load_unless_lost()? else {
            return Ok(Loaded::Nobody);
        };
        let Some(brief) = record.brief() else {
            // Who reads it finds out why.
            return Ok(Loaded::Login { record, ahead: false });
        };
        if ended::is_out(&self.notes, &brief.login)? {
            return Ok(Loaded::Out(self.newest(record, &brief)?.0));
        }
        let (record, ahead) = self.newest(record, &brief)?;
        let brief = record.brief().unwrap_or(brief);
        Ok(match ended::refused(&self.notes, &brief)? {
            Some(reason) => Loaded::Refused(reason),
            None => Loaded::Login { record, ahead },
        })
    }

    /// The store's record. `None` only when nobody is logged in.
    fn load_unless_lost(&self) -> Result<Option<Record>, StoreError> {
        let record = self.store.load()?;
        if record.is_some() || !self.store.may_lose() || !Trace::says_logged_in(&self.notes)? {
            return Ok(record);
        }
        // Look again: another program may have logged in between the two.
        match self.store.load()? {
            None => Err(StoreError::lost()),
            record => Ok(record),
        }
    }

    /// The record or the journal's, whichever is newer.
    fn newest(&self, record: Record, brief: &Brief) -> Result<(Record, bool), StoreError> {
        let Some(key) = brief.key.as_ref().filter(|_| self.journaled) else {
            return Ok((record, false));
        };
        Ok(match journal::newer(&self.notes, key, brief)? {
            Some(newer) => (newer, true),
            None => (record, false),
        })
    }

    /// What a login is going to replace.
    ///
    /// # Errors
    /// Only where nothing may be written over it now: the store can't be asked, or what is noted
    /// beside it could not be.
    pub(crate) fn load_to_replace(&self) -> Result<Before, StoreError> {
        let trace = if self.store.may_lose() {
            Trace::check(&self.notes)?;
            Trace::of_a_login(&self.notes)?
        } else {
            None
        };
        match self.store.load() {
            Ok(Some(record)) => Ok(Before::Record(record)),
            Ok(None) => Ok(trace.map_or(Before::Nobody, Before::Lost)),
            Err(error) if error.is_corrupt() => Ok(Before::Damaged),
            Err(error) => Err(error),
        }
    }

    /// What a logout is going to clear, whatever is noted beside it.
    pub(crate) fn load_to_clear(&self) -> Result<Option<Record>, StoreError> {
        let Some(record) = self.store.load()? else {
            return Ok(None);
        };
        let newer = match record.brief() {
            // One that can't be read doesn't keep a user from logging out.
            Some(brief) => self.newest(record.clone(), &brief).ok(),
            None => None,
        };
        Ok(Some(newer.map_or(record, |(newest, _)| newest)))
    }

    /// Notes that the refresh token of `brief` is about to be sent, and makes sure that its answer
    /// has a place to go. Both are durable on return.
    pub(crate) fn mark(&self, brief: &Brief) -> Result<Marked, StoreError> {
        self.notes.reserve(ROOM)?;
        self.prove()?;
        let sent_before = Mark::of(&self.notes, brief)?.is_some();
        if !sent_before {
            Mark::set(&self.notes, brief, &program())?;
        }
        // Look again: another program's user may have logged out.
        Ok(match (ended::is_out(&self.notes, &brief.login)?, sent_before) {
            (true, _) => Marked::Out,
            (false, true) => Marked::SentBefore,
            (false, false) => Marked::ToBeSent,
        })
    }

    /// Replaces the record by itself, once for this process: the file may be one that can't be
    /// replaced, though there can be others beside it (a mount point of its own, one made
    /// immutable). Then the answer would have no place to go.
    fn prove(&self) -> Result<(), StoreError> {
        if !self.is_proven.load(Ordering::Relaxed) {
            if let Some(record) = self.store.load()? {
                self.store.save(&record)?;
            }
            self.is_proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// It was not spent.
    pub(crate) fn unmark(&self) -> Result<(), StoreError> {
        Mark::clear(&self.notes)
    }

    /// Makes the answer to the refresh token of `presented` durable before it is stored, and
    /// tells whether it is.
    pub(crate) fn keep(&self, answer: &Record, presented: &Brief) -> Result<bool, StoreError> {
        let Some(key) = presented.key.as_ref().filter(|_| self.journaled) else {
            return Ok(false);
        };
        journal::keep(&self.notes, key, answer, presented)?;
        Ok(true)
    }

    /// Stores new tokens, where they still are the newest of a login that goes on.
    pub(crate) fn commit(&self, record: &Record, brief: &Brief) -> Result<Commit, StoreError> {
        Ok(self.answered(self.catch_up(record, brief)?))
    }

    /// As [`commit`](Self::commit), whatever is there.
    pub(crate) fn write_over(&self, record: &Record, brief: &Brief) -> Result<Commit, StoreError> {
        Ok(self.answered(self.put(record, brief)?))
    }

    /// Newer tokens are durable: the question is no more.
    fn answered(&self, committed: Commit) -> Commit {
        if committed == Commit::Saved {
            Mark::discard(&self.notes);
        }
        committed
    }

    /// As [`commit`](Self::commit), for tokens that the journal has had for a while: they may have
    /// been sent since, so that a mark of theirs goes on standing.
    pub(crate) fn catch_up(&self, record: &Record, brief: &Brief) -> Result<Commit, StoreError> {
        if ended::is_out(&self.notes, &brief.login)? {
            return Ok(Commit::Out);
        }
        let there = match self.store.load() {
            Err(error) if error.is_corrupt() => None,
            there => there?,
        };
        // What can't be read was readable under this lock: it is damaged.
        if let Some(there) = there.and_then(|there| there.brief())
            && (there.login != brief.login || there.generation > brief.generation)
        {
            return Ok(Commit::Overtaken);
        }
        self.put(record, brief)
    }

    fn put(&self, record: &Record, brief: &Brief) -> Result<Commit, StoreError> {
        // A file's save may need the room; elsewhere it is the journal's, until the save is done.
        if !self.journaled {
            self.notes.leave_room();
        }
        self.save(record)?;
        if self.journaled {
            self.notes.leave_room();
        }
        // Look again: whoever logs out notes it first, and then waits for the lock.
        Ok(if ended::is_out(&self.notes, &brief.login)? { Commit::Out } else { Commit::Saved })
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.store.save(record)?;
        self.is_proven.store(true, Ordering::Relaxed);
        if self.store.may_lose()
            && let Some(known) = record.known()
        {
            // The tokens are safe, which is what was asked; the next save tries it again.
            let _ = Trace::note_login(&self.notes, known);
        }
        Ok(())
    }

    /// Removes the record, and what was noted of its tokens.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        // First: a record that is gone while the trace remains looks lost.
        let noted = Trace::note_logout(&self.notes);
        self.store.clear()?;
        self.notes.leave_room();
        let removed = [noted, journal::remove(&self.notes), Mark::clear(&self.notes)];
        removed.into_iter().collect()
    }

    /// As [`clear`](Self::clear), where there is no record. If the trace knows of a login, its record
    /// may turn up again: where that login `is_over` as well, this is noted, and else nothing is done.
    pub(crate) fn clear_lost(
        &self,
        pin: &Pin,
        is_over: impl Fn(&Known) -> bool,
    ) -> Result<(), StoreError> {
        // What can't be read doesn't keep a user from logging out.
        let known = Trace::known(&self.notes).ok().flatten();
        match known.filter(|_| self.store.may_lose()) {
            Some(known) if !is_over(&known) => return Ok(()),
            // Another client's record would have been left alone, with what is noted of it.
            Some(known) if !known.client.is_empty() && known.client != pin.hash() => return Ok(()),
            Some(known) => ended::note_out(&self.notes, &known.login, &program())?,
            None => {}
        }
        self.clear()
    }

    /// Puts back what `login` wrote over, if it did, or if its save has left damage: it was told as
    /// failed. Not where another program has gone on with it since.
    pub(crate) fn take_back(&self, login: &LoginId, before: &Before) -> Result<(), StoreError> {
        let is_its_own = match self.load_to_clear() {
            Ok(Some(there)) => there.is_damaged() || self.is_unused(&there, login)?,
            Ok(None) => false,
            Err(error) if error.is_corrupt() => true,
            Err(error) => return Err(error),
        };
        match is_its_own {
            true => self.restore(before),
            false => Ok(()),
        }
    }

    /// Whether it is a record of `login` whose tokens nobody has gone on with.
    fn is_unused(&self, record: &Record, login: &LoginId) -> Result<bool, StoreError> {
        match record.brief() {
            Some(there) if there.login == *login && there.generation == 0 => {
                Ok(Mark::of(&self.notes, &there)?.is_none())
            }
            _ => Ok(false),
        }
    }

    /// Puts back what a login wrote over.
    fn restore(&self, before: &Before) -> Result<(), StoreError> {
        match before {
            Before::Nobody => self.clear(),
            Before::Record(record) => self.save(record),
            // As unreadable as it was. Cleared, it would look like a logout, and the copy that
            // was kept aside would go.
            Before::Damaged => self.store.save(&Record::from_bytes(b"damaged")),
            Before::Lost(trace) => {
                self.store.clear()?;
                trace.write(&self.notes)
            }
        }
    }

    pub(crate) fn set_aside(&self) -> Result<(), StoreError> {
        self.store.set_aside()
    }

    /// Notes that the user has logged out: from here on a record of that login counts for nothing.
    pub(crate) fn note_out(&self, login: &LoginId) -> Result<(), StoreError> {
        ended::note_out(&self.notes, &login.hash(), &program())
    }

    pub(crate) fn is_out(&self, login: &LoginId) -> Result<bool, StoreError> {
        ended::is_out(&self.notes, login)
    }

    /// Notes that the server has refused the refresh token of `brief` for good.
    pub(crate) fn note_refused(
        &self,
        brief: &Brief,
        reason: LogoutReason,
    ) -> Result<(), StoreError> {
        ended::note_refused(&self.notes, brief, reason, &program())
    }

    /// Whether these tokens of another program were taken over before.
    pub(crate) fn is_imported(&self, token: &str) -> Result<bool, StoreError> {
        imported::is_noted(&self.notes, token)
    }

    pub(crate) fn note_imported(&self, token: &str) -> Result<(), StoreError> {
        imported::note(&self.notes, token)
    }

    pub(crate) fn forget_imported(&self, token: &str) -> Result<(), StoreError> {
        imported::forget(&self.notes, token)
    }

    pub(crate) fn sweep(&self) {
        ended::sweep(&self.notes);
    }

    pub(crate) fn note_failure(
        &self,
        brief: &Brief,
        until: std::time::SystemTime,
        row: Failures,
    ) -> Result<(), StoreError> {
        Trace::note_failure(&self.notes, brief, until, row, &program())
    }

    pub(crate) fn failure_of(&self, brief: &Brief) -> Result<Option<Failure>, StoreError> {
        Trace::failure_of(&self.notes, brief)
    }

    /// What a person wants to know of the tokens of `brief` when something is odd.
    pub(crate) fn odd(&self, brief: &Brief) -> Result<Odd, StoreError> {
        let stored = self.store.load()?.and_then(|record| record.brief());
        Ok(Odd {
            unanswered: Mark::of(&self.notes, brief)?,
            waiting: stored.is_some_and(|stored| stored.generation < brief.generation),
            failure: self.failure_of(brief)?,
        })
    }
}

/// What is not as it should be, if anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odd {
    pub(crate) unanswered: Option<Mark>,
    /// The newest tokens are in the journal alone.
    pub(crate) waiting: bool,
    pub(crate) failure: Option<Failure>,
}

/// What a store held before a login.
#[derive(Debug)]
pub(crate) enum Before {
    Nobody,
    Record(Record),
    Damaged,
    /// Nothing, though nobody had logged out: the trace says so.
    Lost(Trace),
}

/// Real answers are 5 KB at most; sealed, and with some to spare.
const ROOM: usize = 32 * 1024;
