//! What is known of a session without its secrets, also where the store is of no help: whether
//! somebody is logged in, and that a refresh has just failed.
//!
//! A keychain whose file was lost or is not mounted says "no such entry", just as after a logout.
//! The trace tells the two apart. And where the token endpoint fails, the programs that share the
//! session wait together, not one after the other.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::store::{Brief, Notes, StoreError, from_millis, millis};

#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Trace {
    version: u32,
    logged_in: bool,
    /// Whose it is, as a hash.
    #[serde(default)]
    login: String,
    #[serde(default)]
    failure: Option<Failure>,
}

/// A refresh that failed for now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    generation: u64,
    /// How many failed in a row.
    pub(crate) count: u32,
    /// Milliseconds since 1970.
    at: u64,
    until: u64,
    /// By which program.
    pub(crate) by: String,
}

impl Trace {
    /// Whether somebody is logged in, as far as the trace knows. One that can't be read knows of
    /// nobody: that there was a login can't be told, and that there was none neither.
    pub(crate) fn says_logged_in(notes: &Notes) -> Result<bool, StoreError> {
        Ok(Self::read(notes)?.logged_in)
    }

    /// The hash of the login that the trace knows of.
    pub(crate) fn login(notes: &Notes) -> Result<Option<String>, StoreError> {
        let trace = Self::read(notes)?;
        let is_hash = trace.login.len() == 64 && trace.login.bytes().all(|b| b.is_ascii_hexdigit());
        Ok((trace.logged_in && is_hash).then_some(trace.login))
    }

    /// Notes that somebody is logged in. Durable on return.
    pub(crate) fn note_login(notes: &Notes, login: &str) -> Result<(), StoreError> {
        let noted = Self::read(notes).is_ok_and(|trace| trace.logged_in && trace.login == login);
        if noted {
            return Ok(());
        }
        Self { version: 1, logged_in: true, login: login.to_owned(), failure: None }.write(notes)
    }

    /// Notes that nobody is. Needs no room on the disk, and no trust in the directory. Durable on
    /// return.
    pub(crate) fn note_logout(notes: &Notes) -> Result<(), StoreError> {
        notes.remove(KIND)
    }

    /// Notes that a refresh of the tokens of `brief` has failed now, and that none is tried before
    /// `until`.
    pub(crate) fn note_failure(
        notes: &Notes,
        brief: &Brief,
        until: SystemTime,
        by: &str,
    ) -> Result<(), StoreError> {
        let before = Self::failure_of(notes, brief)?;
        let failure = Failure {
            generation: brief.generation,
            count: before.map_or(1, |before| before.count.saturating_add(1)),
            at: millis(SystemTime::now()),
            until: millis(until),
            by: by.to_owned(),
        };
        let login = brief.login.hash();
        Self { version: 1, logged_in: true, login, failure: Some(failure) }.write(notes)
    }

    /// The last refresh of the tokens of `brief`, where it failed.
    pub(crate) fn failure_of(notes: &Notes, brief: &Brief) -> Result<Option<Failure>, StoreError> {
        let trace = Self::read(notes)?;
        let of = |failure: &Failure| failure.generation == brief.generation;
        Ok(trace.failure.filter(of).filter(|_| trace.login == brief.login.hash()))
    }

    fn read(notes: &Notes) -> Result<Self, StoreError> {
        let bytes = notes.read(KIND)?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    fn write(&self, notes: &Notes) -> Result<(), StoreError> {
        notes.write(KIND, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Whether it could be written now.
    pub(crate) fn check(notes: &Notes) -> Result<(), StoreError> {
        notes.probe(KIND)
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
        (!left.is_zero() || at >= asked).then_some(left)
    }

    pub(crate) fn at(&self) -> SystemTime {
        from_millis(self.at)
    }
}

const KIND: &str = "trace";

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
        let failed = |of: &Brief| Trace::failure_of(&notes, of).unwrap().map(|f| f.count);
        let until = SystemTime::now() + Duration::from_secs(1);
        Trace::note_failure(&notes, &ours, until, "").unwrap();
        Trace::note_login(&notes, &ours.login.hash()).unwrap();
        assert_eq!((failed(&ours), failed(&theirs)), (Some(1), None));
        Trace::note_login(&notes, &theirs.login.hash()).unwrap();
        assert_eq!((failed(&ours), failed(&theirs)), (None, None));
        assert!(Trace::says_logged_in(&notes).unwrap());
    }

    #[test]
    fn a_login_is_known_by_its_hash_and_by_nothing_that_could_be_a_path() {
        let notes = Notes::new(None);
        let hash = LoginId("ours".to_owned()).hash();
        let login = || Trace::login(&notes).unwrap();
        assert_eq!(login(), None);
        Trace::note_login(&notes, &hash).unwrap();
        assert_eq!(login(), Some(hash.clone()));
        let short = &hash[1..];
        for odd in [String::new(), short.to_owned(), format!("/{short}"), format!("{hash}0")] {
            Trace::note_login(&notes, &odd).unwrap();
            assert_eq!(login(), None, "{odd}");
        }
        Trace::note_logout(&notes).unwrap();
        assert_eq!(login(), None);
    }

    #[test]
    fn a_failure_holds_until_its_end_and_for_those_who_asked_before() {
        let start = from_millis(1_000_000);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let failure = |until| Failure {
            generation: 0,
            count: 1,
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
