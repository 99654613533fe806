//! What a person wants to know of a session.

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::Failure;
use crate::store::{Odd, from_millis};

/// How a session stands, from [`Session::status`](crate::Session::status). Holds no secret;
/// `Display` is a few readable lines.
#[derive(Clone, Debug)]
pub struct Status {
    pub(crate) store: String,
    pub(crate) endpoint: String,
    pub(crate) account: String,
    pub(crate) logged_in: bool,
    pub(crate) has_tokens: bool,
    pub(crate) logout_reason: Option<LogoutReason>,
    pub(crate) received_at: Option<SystemTime>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) refreshes: u64,
    pub(crate) has_refresh_token: bool,
    pub(crate) cooldown: Option<Duration>,
    pub(crate) lock: Option<PathBuf>,
    pub(crate) received_by: Option<Arc<str>>,
    pub(crate) odd: Odd,
    pub(crate) trouble: Option<Error>,
}

impl Status {
    /// Whether somebody is logged in: as [`is_logged_in`](crate::Session::is_logged_in).
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// Why nobody is, if a session ended while this program ran.
    pub fn logout_reason(&self) -> Option<LogoutReason> {
        self.logout_reason
    }

    /// Where the tokens are kept.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The account that the session was built for.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// When the access token was received, by the wall clock of the machine that did. `None` too
    /// for tokens that another program had put into the store.
    pub fn received_at(&self) -> Option<SystemTime> {
        self.received_at
    }

    /// When the access token ends, if the server said so.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// How many refreshes this login has had, in all programs that share it.
    pub fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// Whether there is a refresh token. Without one, the login ends with the access token.
    pub fn has_refresh_token(&self) -> bool {
        self.has_refresh_token
    }

    /// How long no refresh is tried because the last one failed, in this program or another.
    pub fn cooldown(&self) -> Option<Duration> {
        self.cooldown
    }

    /// The file by which the programs that share the session take turns. `None` where no other
    /// program can reach the tokens.
    pub fn lock_file(&self) -> Option<&Path> {
        self.lock.as_deref()
    }

    /// Which program received the access token, as in `my-cli (process 123)`.
    pub fn received_by(&self) -> Option<&str> {
        self.received_by.as_deref()
    }

    /// Since when a refresh token was sent whose answer is not known: a program was killed, or
    /// the network failed, in the middle of a refresh. The next refresh finds out.
    pub fn unanswered_since(&self) -> Option<SystemTime> {
        self.odd.unanswered.as_ref().map(|mark| from_millis(mark.at))
    }

    /// The newest tokens are in the journal beside the lock, as the store took no writes at the
    /// time. The next refresh stores them.
    pub fn is_journal_waiting(&self) -> bool {
        self.odd.waiting
    }

    /// When the last refresh failed, if none has succeeded since.
    pub fn failed_at(&self) -> Option<SystemTime> {
        self.odd.failure.as_ref().map(Failure::at)
    }

    /// What is wrong with the store right now.
    pub fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }
}

impl Status {
    fn write_oddities(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mark) = &self.odd.unanswered {
            let ago = ago(from_millis(mark.at));
            write!(
                f,
                "\na refresh by {}, {ago}, has no answer yet: the next one finds out",
                mark.by
            )?;
        }
        if self.odd.waiting {
            f.write_str("\nthe newest tokens wait in the journal until the store takes them")?;
        }
        if let Some(failure) = &self.odd.failure {
            let (count, ago) = (failure.row.count, ago(failure.at()));
            write!(
                f,
                "\nrefreshes that failed in a row: {count}, the last {ago} by {}",
                failure.by
            )?;
        }
        if let Some(cooldown) = self.cooldown {
            write!(f, "\nthe next try is in {} ms at the earliest", cooldown.as_millis())?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, "\n{trouble}")?;
            let mut cause = trouble.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

fn ago(time: SystemTime) -> String {
    match SystemTime::now().duration_since(time) {
        Ok(age) => format!("{} s ago", age.as_secs()),
        Err(_) => "in the future by this clock".to_owned(),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.logged_in, self.logout_reason) {
            (true, _) => writeln!(f, "logged in as {:?}", self.account)?,
            (false, None) => writeln!(f, "not logged in as {:?}", self.account)?,
            (false, Some(why)) => writeln!(f, "logged out as {:?}: {why}", self.account)?,
        }
        writeln!(f, "token endpoint and client: {}", self.endpoint)?;
        write!(f, "tokens are kept in {}", self.store)?;
        if let Some(lock) = &self.lock {
            write!(f, "\nprograms take turns by {}", lock.display())?;
        }
        // Also of a login that has ended with its access token.
        if self.has_tokens {
            write!(f, "\nrefreshes since the login: {}", self.refreshes)?;
            if let (Some(at), Some(by)) = (self.received_at, self.received_by()) {
                let what = if self.refreshes == 0 { "logged in" } else { "last refreshed" };
                write!(f, "\n{what} {} by {by}", ago(at))?;
            }
            match self.expires_at.map(|end| end.duration_since(SystemTime::now())) {
                Some(Ok(left)) => write!(f, "\naccess token: {} s left", left.as_secs())?,
                Some(Err(_)) => f.write_str("\naccess token: expired")?,
                None => f.write_str("\naccess token: the server did not say how long it lives")?,
            }
            if !self.has_refresh_token {
                f.write_str("\nno refresh token: the login ends with the access token")?;
            }
        }
        self.write_oddities(f)
    }
}
