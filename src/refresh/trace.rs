//! What is known of a session without its secrets, also where the store is of no help: whether
//! somebody is logged in, and that a refresh has just failed.
//!
//! A keychain whose file was lost or is not mounted says "no such entry", just as after a logout.
//! The trace tells the two apart. And where the token endpoint fails, the programs that share the
//! session wait together, not one after the other.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::endpoint::{Outcome, RefreshError};
use crate::error::Error;
use crate::store::{Brief, Notes, StoreError, from_millis, millis};

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Trace {
    version: u32,
    logged_in: bool,
    #[serde(flatten)]
    of: Known,
    #[serde(default)]
    failure: Option<Failure>,
}

/// A login, as far as it is known without its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Known {
    /// Its id, as a hash.
    pub(crate) login: String,
    /// Its server and client, as a hash. Empty for tokens that another program put into the store.
    pub(crate) client: String,
    /// When it began, in milliseconds since 1970.
    pub(crate) since: u64,
}

/// A refresh that failed for now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    generation: u64,
    #[serde(flatten)]
    pub(crate) row: Failures,
    /// Milliseconds since 1970.
    at: u64,
    until: u64,
    /// By which program.
    pub(crate) by: String,
}

/// How many refreshes failed in a row, whichever programs made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    /// Of these, the last ones that the server refused for no known reason.
    pub(crate) unreadable: u32,
}

impl Failures {
    /// With one more, that came to `outcome`.
    pub(crate) fn and(self, outcome: Outcome) -> Self {
        let unreadable = match outcome {
            Outcome::Unreadable => self.unreadable.saturating_add(1),
            // The server has said nothing: not that a login is needed, nor that it isn't.
            Outcome::NotSent => self.unreadable.min(UNREADABLE_MAX - 1),
            _ => 0,
        };
        Self { count: self.count.saturating_add(1), unreadable }
    }

    /// What the last of them means to who waits for it.
    pub(crate) fn told_as(self, error: RefreshError) -> Error {
        match self.unreadable >= UNREADABLE_MAX {
            true => Error::refused_for_no_known_reason(error),
            false => Error::refresh(error),
        }
    }
}

impl Trace {
    /// Whether somebody is logged in, as far as the trace knows. One that can't be read knows of
    /// nobody: that there was a login can't be told, and that there was none neither.
    pub(crate) fn says_logged_in(notes: &Notes) -> Result<bool, StoreError> {
        Ok(Self::read(notes)?.logged_in)
    }

    /// The login that the trace knows of.
    pub(crate) fn known(notes: &Notes) -> Result<Option<Known>, StoreError> {
        let Self { logged_in, of, .. } = Self::read(notes)?;
        let is_hash = of.login.len() == 64 && of.login.bytes().all(|b| b.is_ascii_hexdigit());
        Ok((logged_in && is_hash).then_some(of))
    }

    /// Notes that somebody is logged in. Durable on return.
    pub(crate) fn note_login(notes: &Notes, of: Known) -> Result<(), StoreError> {
        let noted = Self::read(notes).is_ok_and(|trace| trace.logged_in && trace.of == of);
        if noted {
            return Ok(());
        }
        Self { version: 1, logged_in: true, of, failure: None }.write(notes)
    }

    /// Notes that nobody is. Needs no room on the disk, and no trust in the directory. Durable on
    /// return.
    pub(crate) fn note_logout(notes: &Notes) -> Result<(), StoreError> {
        notes.remove(KIND)
    }

    /// Notes that a refresh of the tokens of `brief` has failed now, the last of a `row`, and that
    /// none is tried before `until`.
    pub(crate) fn note_failure(
        notes: &Notes,
        brief: &Brief,
        until: SystemTime,
        row: Failures,
        by: &str,
    ) -> Result<(), StoreError> {
        let (before, login) = (Self::read(notes)?, brief.login.hash());
        let of = if before.of.login == login { before.of } else { login.into() };
        let failure = Failure {
            generation: brief.generation,
            row,
            at: millis(SystemTime::now()),
            until: millis(until),
            by: by.to_owned(),
        };
        Self { version: 1, logged_in: true, of, failure: Some(failure) }.write(notes)
    }

    /// The last refresh of the tokens of `brief`, where it failed.
    pub(crate) fn failure_of(notes: &Notes, brief: &Brief) -> Result<Option<Failure>, StoreError> {
        Ok(Self::read(notes)?.failure_in(brief))
    }

    fn failure_in(self, brief: &Brief) -> Option<Failure> {
        let of = |failure: &Failure| failure.generation == brief.generation;
        self.failure.filter(of).filter(|_| self.of.login == brief.login.hash())
    }

    /// The trace, where it says that somebody is logged in.
    pub(crate) fn of_a_login(notes: &Notes) -> Result<Option<Self>, StoreError> {
        Ok(Some(Self::read(notes)?).filter(|trace| trace.logged_in))
    }

    fn read(notes: &Notes) -> Result<Self, StoreError> {
        let bytes = notes.read(KIND)?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Writes it over the one that is there. Durable on return.
    pub(crate) fn write(&self, notes: &Notes) -> Result<(), StoreError> {
        notes.write(KIND, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Whether it could be written now.
    pub(crate) fn check(notes: &Notes) -> Result<(), StoreError> {
        notes.probe(KIND)
    }
}

impl From<String> for Known {
    fn from(login: String) -> Self {
        Self { login, ..Self::default() }
    }
}

impl Failure {
    /// How much longer nobody tries again; `None` if somebody may by now. Who has `asked` before
    /// it failed gets its failure, however soon the next try may be: otherwise all who had to wait
    /// for it would fail one after the other.
    pub(crate) fn holds(&self, asked: SystemTime, now: SystemTime) -> Option<Duration> {
        let (at, until) = (from_millis(self.at), from_millis(self.until));
        if at > now || until > now + LONGEST {
            // The clock was set back since.
            return None;
        }
        let left = until.duration_since(now).unwrap_or_default();
        (!left.is_zero() || self.was_awaited(asked)).then_some(left)
    }

    /// Whether who has `asked` then was in line when it failed.
    pub(crate) fn was_awaited(&self, asked: SystemTime) -> bool {
        // It is noted without what is less than a millisecond.
        self.at >= millis(asked)
    }

    pub(crate) fn at(&self) -> SystemTime {
        from_millis(self.at)
    }
}

const KIND: &str = "trace";

/// A server that says no three times for no known reason will not say yes: the user has to log in,
/// though nothing is known to be over.
const UNREADABLE_MAX: u32 = 3;

/// What a server can ask for at most.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::LoginId;

    #[test]
    fn a_login_keeps_its_own_failure_and_forgets_that_of_another() {
        let brief = |login: &str| {
            let login = LoginId(login.to_owned());
            Brief { login, generation: 3, refresh: None, key: None }
        };
        let (ours, theirs, notes) = (brief("ours"), brief("theirs"), Notes::new(None));
        let failed = |of: &Brief| Trace::failure_of(&notes, of).unwrap().map(|f| f.row.count);
        let row = |count| Failures { count, unreadable: 0 };
        let until = SystemTime::now() + Duration::from_secs(1);
        Trace::note_failure(&notes, &ours, until, row(1), "").unwrap();
        Trace::note_login(&notes, ours.login.hash().into()).unwrap();
        assert_eq!((failed(&ours), failed(&theirs)), (Some(1), None));
        Trace::note_failure(&notes, &ours, until, row(2), "").unwrap();
        assert_eq!(failed(&ours), Some(2));
        // Of newer tokens, in the same row.
        let newer = Brief { generation: 4, ..brief("ours") };
        Trace::note_failure(&notes, &newer, until, row(3), "").unwrap();
        assert_eq!((failed(&newer), failed(&ours)), (Some(3), None));
        Trace::note_login(&notes, theirs.login.hash().into()).unwrap();
        assert_eq!((failed(&ours), failed(&theirs)), (None, None));
        assert!(Trace::says_logged_in(&notes).unwrap());
    }

    #[test]
    fn a_login_is_known_by_its_hash_and_by_nothing_that_could_be_a_path() {
        let notes = Notes::new(None);
        let hash = LoginId("ours".to_owned()).hash();
        let known = || Trace::known(&notes).unwrap();
        assert_eq!(known(), None);
        let ours = Known { login: hash.clone(), client: "client".to_owned(), since: 7 };
        Trace::note_login(&notes, ours.clone()).unwrap();
        assert_eq!(known(), Some(ours.clone()));
        // A refresh that fails changes nothing of that.
        let login = LoginId("ours".to_owned());
        let brief = Brief { login, generation: 3, refresh: None, key: None };
        Trace::note_failure(&notes, &brief, SystemTime::now(), Failures::default(), "").unwrap();
        assert_eq!(known(), Some(ours));
        let short = &hash[1..];
        for odd in [String::new(), short.to_owned(), format!("/{short}"), format!("{hash}0")] {
            Trace::note_login(&notes, odd.clone().into()).unwrap();
            assert_eq!(known(), None, "{odd}");
        }
        // A trace that says no more than this.
        notes
            .write(KIND, format!(r#"{{"version":1,"logged_in":true,"login":"{hash}"}}"#).as_bytes())
            .unwrap();
        assert_eq!(known(), Some(hash.into()));
        Trace::note_logout(&notes).unwrap();
        assert_eq!(known(), None);
    }

    #[test]
    fn a_trace_of_an_earlier_version_is_read() {
        let brief =
            Brief { login: LoginId("ours".into()), generation: 3, refresh: None, key: None };
        let (login, notes) = (brief.login.hash(), Notes::new(None));
        let failure = r#"{"generation":3,"count":2,"at":1,"until":2,"by":"another"}"#;
        let trace =
            format!(r#"{{"version":1,"logged_in":true,"login":"{login}","failure":{failure}}}"#);
        notes.write(KIND, trace.as_bytes()).unwrap();
        let row = Trace::failure_of(&notes, &brief).unwrap().unwrap().row;
        assert_eq!(row, Failures { count: 2, unreadable: 0 });
    }

    #[test]
    fn what_was_never_sent_is_no_answer_and_any_other_breaks_the_row_of_refusals() {
        use Outcome::{NoAnswer, NotSent, Unreadable};

        let outcomes = [
            Unreadable, NotSent, Unreadable, NoAnswer, Unreadable, Unreadable, Unreadable, NotSent,
            Unreadable,
        ];
        let row = outcomes.into_iter().scan(Failures::default(), |row, outcome| {
            *row = row.and(outcome);
            Some(*row)
        });
        let (counts, unreadable): (Vec<_>, Vec<_>) =
            row.map(|row| (row.count, row.unreadable)).unzip();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(unreadable, [1, 1, 2, 0, 1, 2, 3, 2, 3]);
    }

    #[test]
    fn a_failure_holds_until_its_end_and_for_those_who_asked_before() {
        let start = from_millis(1_000_000);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let failure = |until| Failure {
            generation: 0,
            row: Failures::default(),
            at: millis(at(10)),
            until: millis(until),
            by: String::new(),
        };
        let seconds = |n| Some(Duration::from_secs(n));
        // Asked after it, and while it was under way.
        assert_eq!(failure(at(14)).holds(at(11), at(12)), seconds(2));
        assert_eq!(failure(at(14)).holds(at(14), at(14)), None);
        assert_eq!(failure(at(14)).holds(at(9), at(20)), seconds(0));
        // Just now, and for as long as a server can ask for.
        assert_eq!(failure(at(14)).holds(at(9), at(10)), seconds(4));
        assert_eq!(failure(at(3612)).holds(at(9), at(12)), seconds(3600));
        // A clock that was set back, and a wait that no server can ask for.
        assert_eq!(failure(at(14)).holds(at(5), at(9)), None);
        assert_eq!(failure(at(4000)).holds(at(9), at(12)), None);
    }
}
